"""Paired pictures of one street by day and by night: the data set that needs no download.

Every street follows from its seed. Both pictures share all geometry, and the night follows from
the day by plausible light: night = albedo * (moon + lamps) + what shines by itself, and what
shines can be told by day (see scenes_facades). So a pix2pix generator can learn day -> night.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from trainer.scenes_houses import Houses, Site
from trainer.scenes_light import LAMP_HEIGHT_M, WALL_X_M, Ground, Lamps, Sky, Source
from trainer.scenes_objects import CAR_PAINTS, Car, Tree, Walker, draw_bulbs, draw_lamp
from trainer.scenes_view import (
    SUPERSAMPLING,
    Camera,
    Canvas,
    Colour,
    Image,
    expose,
    mixed,
    radiance_of,
)

_LAMP_X_M = 5.9
_LANE_X_M = 1.8
_PARKED_X_M = 4.15
_LEAVES: list[Colour] = [
    (58, 138, 84), (50, 116, 100), (70, 150, 120), (40, 120, 214), (44, 160, 226), (190, 170, 238)
]  # fmt: skip
_LAMP_COLOURS: list[Colour] = [(0.34, 0.66, 1.0), (0.44, 0.74, 1.0), (0.24, 0.56, 1.0)]


class Street:
    """One street, its weather and its traffic, at any moment."""

    def __init__(self, seed: int, height_px: int = 256, width_px: int = 256) -> None:
        """seed: any non-negative int. height_px, width_px: size of the pictures, 64 and more."""
        self._size = (height_px, width_px)
        rng = np.random.default_rng([seed, 2017])
        self._rng = rng
        kind = rng.choice(["along", "across", "front"], p=[0.74, 0.13, 0.13])
        self._camera = self._place_camera(str(kind), height_px, width_px)
        self._dolly_m = 2.5 if kind == "front" else 5.0
        self._phase = float(rng.uniform(0, 2 * np.pi))
        behind = np.pi if kind == "front" else 0.0
        self._sky = Sky(rng, self._camera.yaw_rad + behind)
        self._range_m = (-34.0, 38.0) if kind == "front" else (-12.0, 112.0)
        self._end_m = (
            float(rng.uniform(58, 95)) if kind == "along" and rng.random() < 0.6 else 400.0
        )
        self._far_m = min(self._range_m[1], self._end_m - 1.0)
        self._night_haze = 0.42 * self._sky.glow + 0.012

        colour = np.array(_LAMP_COLOURS[int(rng.integers(3))], dtype=np.float32)
        step, shift = float(rng.uniform(15, 20)), float(rng.uniform(2, 9))
        posts = np.arange(self._range_m[0] + shift, self._far_m, step)
        self._posts = [
            (x, float(z))
            for x in (-_LAMP_X_M, _LAMP_X_M)
            for z in posts + (x > 0) * step / 2
            if np.hypot(x - self._camera.x_m, z) > 9.5
        ]
        heads = [[x - np.sign(x) * 1.2, LAMP_HEIGHT_M, z] for x, z in self._posts]
        self._lamps = Lamps(np.array(heads), colour)
        crossing = float(rng.uniform(9, 24)) if kind != "front" else float(rng.uniform(-8, 8))
        crossings = [crossing] if rng.random() < 0.6 else []
        self._ground = Ground(rng, self._lamps, crossings, self._end_m)
        site = Site(str(kind), self._camera, height_px, width_px, self._dolly_m, self._range_m,
                    self._far_m, self._end_m)  # fmt: skip
        self._houses = Houses(rng, site, self._sky, self._lamps, self._ground, self._night_haze)
        self._plant(crossing if crossings else 1e6)
        self._ground.finish_shadows()

    def draw(self, time_s: float = 0.0) -> tuple[Image, Image]:
        """The street at time_s seconds, as (day, night): uint8 [height_px, width_px, 3], BGR.

        Cars drive, people walk, clouds drift and the camera moves, all continuously in time_s.
        """
        height_px, width_px = self._size
        camera = self._camera_at(time_s)
        day, night = self._sky.draw(camera, height_px, width_px, time_s)
        light = self._ground.light.copy()
        cars = [(car, self._along(car.start_z_m, car.heading * car.speed_m_s, time_s))
                for car in self._cars]  # fmt: skip
        sources = self._sources(cars, light)
        self._ground.draw(camera, day, night, light, sources, self._sky.horizon, self._night_haze)
        large = (width_px * SUPERSAMPLING, height_px * SUPERSAMPLING)
        canvas = Canvas(
            camera.scaled(SUPERSAMPLING),
            cv2.resize(day, large, interpolation=cv2.INTER_LINEAR),
            cv2.resize(night, large, interpolation=cv2.INTER_LINEAR),
        )
        self._houses.draw(canvas)
        for _, paint in sorted(self._things(camera, cars, time_s), key=lambda thing: -thing[0]):
            paint(canvas)
        size = (width_px, height_px)
        day = cv2.resize(canvas.day, size, interpolation=cv2.INTER_AREA)
        night = cv2.resize(canvas.night, size, interpolation=cv2.INTER_AREA)
        return day, expose(radiance_of(night), self._lamp_cones(camera))

    def _place_camera(self, kind: str, height_px: int, width_px: int) -> Camera:
        rng = self._rng
        focal_px = 0.92 * float(np.sqrt(height_px * width_px))
        horizon_px = height_px * float(rng.uniform(0.56, 0.64))
        centre_px = width_px * float(rng.uniform(0.42, 0.58))
        height_m = float(rng.uniform(1.9, 3.1))
        if kind == "front":
            side = float(rng.choice([-1.0, 1.0]))
            yaw = -side * (np.pi / 2 + float(rng.uniform(-0.12, 0.12)))
            return Camera(side * float(rng.uniform(13.0, 16.5)), height_m, 0.0, yaw, focal_px,
                          0.5 * width_px, horizon_px + 0.06 * height_px)  # fmt: skip
        if kind == "across":
            side = float(rng.choice([-1.0, 1.0]))
            yaw = -side * float(rng.uniform(0.4, 0.62))
            return Camera(side * 6.6, height_m, 0.0, yaw, focal_px, centre_px, horizon_px)
        x_m = float(rng.choice([0.0, 0.0, -3.0, 3.0, -6.6, 6.6])) + float(rng.uniform(-0.3, 0.3))
        yaw = -0.02 * x_m + float(rng.uniform(-0.08, 0.08))
        return Camera(x_m, height_m, 0.0, yaw, focal_px, centre_px, horizon_px)

    def _camera_at(self, time_s: float) -> Camera:
        slow = 2 * np.pi * time_s / 48.0
        return replace(
            self._camera,
            x_m=self._camera.x_m + 0.2 * float(np.sin(2.3 * slow + self._phase)),
            height_m=self._camera.height_m + 0.1 * float(np.sin(3.1 * slow)),
            z_m=self._camera.z_m + self._dolly_m * float(np.sin(slow)),
            yaw_rad=self._camera.yaw_rad + 0.035 * float(np.sin(1.7 * slow + self._phase)),
        )

    def _along(self, start_m: float, speed_m_s: float, time_s: float) -> float:
        low, high = self._range_m[0], self._far_m - 2.0
        return low + (start_m - low + speed_m_s * time_s) % (high - low)

    def _plant(self, crossing_m: float) -> None:
        """Trees, cars, people and strings of bulbs."""
        rng = self._rng
        leaf = _LEAVES[int(rng.integers(len(_LEAVES)))]
        self._trees: list[Tree] = []
        density = float(rng.choice([0.0, 0.45, 0.8]))
        for x, z in self._posts:
            spot = z + float(rng.uniform(5.0, 9.0))
            far = np.hypot(x - self._camera.x_m, spot - self._camera.z_m)
            if rng.random() < density and far > 10 and spot < self._far_m:
                self._trees.append(Tree(rng, x * 1.03, spot, leaf, self._lamps))
                self._ground.shade(
                    x * 1.03 - 2.0 * np.sign(self._sky.sun[0]), spot - 1, 2.4, 1.9, 0
                )
        self._cars: list[Car] = []
        for heading in (-1, 1):
            speed = float(rng.uniform(5, 10))
            for z in np.arange(self._range_m[0], self._far_m - 8, float(rng.uniform(13, 22))):
                if rng.random() < 0.62:
                    self._cars.append(self._car(_LANE_X_M * heading, float(z + rng.uniform(0, 6)),
                                                speed, heading))  # fmt: skip
            parked = float(rng.uniform(0.1, 0.75))
            for z in np.arange(self._range_m[0], self._far_m - 8, 5.9):
                spot = float(z + rng.uniform(0, 0.6))
                clear = (
                    np.hypot(_PARKED_X_M * heading - self._camera.x_m, spot) > 9.0 + self._dolly_m
                )
                clear &= abs(spot - crossing_m) > 4.5
                if rng.random() < parked and clear:
                    self._cars.append(self._car(_PARKED_X_M * heading, spot, 0.0, heading))
                    self._ground.shade(_PARKED_X_M * heading - 0.5 * np.sign(self._sky.sun[0]),
                                       spot, 1.3, 2.3, 0)  # fmt: skip
        self._walkers = []
        for _ in range(int(rng.integers(4, 14))):
            side = float(rng.choice([-1, 1]))
            if abs(side * 7.0 - self._camera.x_m) < 1.5:
                side = -side
            colours = [
                mixed(tuple(rng.uniform(25, 215, 3).tolist()), (96, 90, 92), 0.5) for _ in (0, 1)
            ]
            hair = [(30, 34, 44), (60, 110, 150), (40, 60, 96), (190, 196, 200)][
                int(rng.integers(4))
            ]
            self._walkers.append(
                Walker(
                    side * float(rng.uniform(6.4, 7.8)),
                    float(rng.uniform(self._range_m[0], min(self._far_m, 60.0))),
                    float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.5)),
                    colours[0],
                    colours[1],
                    hair,
                    float(rng.uniform(1.55, 1.9)),
                )
            )
        self._strings_m: list[float] = []
        if rng.random() < 0.3 and self._range_m[0] > -20:
            self._strings_m = [float(z) for z in np.arange(8.0, min(self._far_m, 70.0), 9.0)]
        warm: list[Colour] = [(90, 190, 255)]
        party: list[Colour] = [(80, 190, 255), (90, 90, 255), (120, 230, 110), (255, 170, 70)]
        self._bulbs = party if rng.random() < 0.5 else warm

    def _car(self, x_m: float, z_m: float, speed_m_s: float, heading: int) -> Car:
        paint = CAR_PAINTS[int(self._rng.integers(len(CAR_PAINTS)))]
        return Car(x_m, z_m, speed_m_s, heading, paint, int(self._rng.integers(3)))

    def _sources(self, cars: list[tuple[Car, float]], light: Any) -> list[Source]:
        """All that the road mirrors; the beams of the cars are added to the light map."""
        sources = list(self._houses.signs)
        lamp = 1.6 * self._lamps.colour
        colour = (float(lamp[0]), float(lamp[1]), float(lamp[2]))
        sources += [Source(float(x), float(y), float(z), colour, 0.35)
                    for x, y, z in self._lamps.heads_m]  # fmt: skip
        for car, z in cars:
            if car.speed_m_s > 0:
                beam = z + car.heading * 7.0
                self._ground.add_light(light, car.x_m, beam, (1.1, 2.6), (0.75, 0.95, 1.05))
                rear = z - car.heading * 3.2
                self._ground.add_light(light, car.x_m, rear, (0.8, 0.8), (0.02, 0.02, 0.40))
                for side in (-0.65, 0.65):
                    if (z - self._camera.z_m) * car.heading < 0:
                        place, shine = z + 2.2 * car.heading, (1.9, 2.2, 2.3)
                    else:
                        place, shine = z - 2.2 * car.heading, (0.12, 0.1, 1.7)
                    sources.append(Source(car.x_m + side, 0.7, place, shine, 0.16))
        return sources

    def _things(
        self, camera: Camera, cars: list[tuple[Car, float]], time_s: float
    ) -> Iterator[tuple[float, Callable[[Canvas], None]]]:
        """Distance and painter of all that stands before the houses."""

        def far(x_m: float, z_m: float) -> float:
            return camera.place(x_m, z_m)[1]

        light_at = self._ground.light_at
        for car, z in cars:
            yield far(car.x_m, z), partial(car.draw, z_m=z, light=light_at(car.x_m, z))
        for tree in self._trees:
            yield far(tree.x_m, tree.z_m), tree.draw
        for walker in self._walkers:
            z = self._along(walker.start_z_m, walker.speed_m_s, time_s)
            light = light_at(walker.x_m, z)
            yield far(walker.x_m, z), partial(walker.draw, z_m=z, time_s=time_s, light=light)
        for x, z in self._posts:
            post = partial(draw_lamp, x_m=x, z_m=z, light=light_at(x, z))
            yield far(x, z), partial(post, colour=self._lamps.colour)
        for z in self._strings_m:
            string = partial(draw_bulbs, half_m=WALL_X_M, y_m=7.0, z_m=z, colours=self._bulbs)
            yield far(0.0, z), string

    def _lamp_cones(self, camera: Camera) -> Any:
        """The lit air under the lamps, float32 [h / 2, w / 2, 3]."""
        air = np.zeros((self._size[0] // 2, self._size[1] // 2, 3), dtype=np.float32)
        shine = [float(v) for v in 0.2 * self._lamps.colour]
        for x, y, z in self._lamps.heads_m:
            spread = np.array([[-0.2, 0.0], [0.2, 0.0], [1.7, -4.2], [-1.7, -4.2]])
            pixels, depth = camera.project(np.array([x, y, z]))
            if depth > 2.0:
                corners = (pixels + spread * [1, -1] * camera.focal_px / float(depth)) * 8.0
                cv2.fillConvexPoly(air, corners.astype(np.int32), shine, cv2.LINE_8, 4)
        air *= self._fade(camera, air.shape[0])
        for head in self._lamps.heads_m:
            pixels, depth = camera.project(head)
            if depth > 2.0:
                centre = ((pixels - 1.0) * 8.0).astype(int).tolist()
                radius = int(max(0.36 * camera.focal_px / float(depth), 0.8) * 8.0)
                bright = [float(v) for v in 1.5 * self._lamps.colour]
                cv2.circle(air, centre, radius, bright, -1, cv2.LINE_8, 4)
        return air

    def _fade(self, camera: Camera, rows: int) -> Any:
        """Lit air thins out downward: weight by picture row, [rows, 1, 1]."""
        high = 0.35 * camera.horizon_px / 2.0
        weights = np.interp(np.arange(rows), [high, camera.horizon_px / 2.0 + 2.0], [1.0, 0.25])
        return weights.astype(np.float32)[:, None, None]


def draw_pair(seed: int, height_px: int = 256, width_px: int = 256) -> tuple[Image, Image]:
    """The street of this seed at a moment that depends on the seed: (day, night), see Street."""
    time_s = float(np.random.default_rng([seed, 48]).uniform(0.0, 48.0))
    return Street(seed, height_px, width_px).draw(time_s)


def draw_clip(
    seed: int, frames: int, fps: float, height_px: int, width_px: int
) -> Iterator[tuple[Image, Image]]:
    """A video of one street: `frames` pairs (day, night), 1 / fps seconds apart."""
    street = Street(seed, height_px, width_px)
    for index in range(frames):
        yield street.draw(index / fps)
