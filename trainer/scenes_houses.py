"""The rows of houses along a street: which stands where, and the light that falls on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.scenes_facades import STOCK_DETAIL, Front, front
from trainer.scenes_light import MOONLIGHT, WALL_X_M, Ground, Lamps, Sky, Source
from trainer.scenes_view import (
    SUPERSAMPLING,
    Camera,
    Canvas,
    Colour,
    Floats,
    Image,
    encoded,
    lit,
    mixed,
)


@dataclass(frozen=True)
class Site:
    """The stretch of street to build on, and from where it will be seen.

    kind: along (down the street), across (askew over it) or front (one row, face on).
    dolly_m: how far the camera moves to either side of its place, along z.
    range_m: first and last z of the rows; far_m: last z before a house across the end, which
    stands at end_m (further than 300 m: there is none).
    """

    kind: str
    camera: Camera
    height_px: int
    width_px: int
    dolly_m: float
    range_m: tuple[float, float]
    far_m: float
    end_m: float


@dataclass(frozen=True)
class _Wall:
    """A lit house front on its place; start and end as seen from the street, left to right."""

    start_m: NDArray[np.float64]
    end_m: NDArray[np.float64]
    day: Image
    night: Image
    front: Front
    sides: list[tuple[NDArray[np.float64], Colour, Colour]]


class Houses:
    """All houses that the camera can see; `signs` are the shop fronts that the road mirrors."""

    def __init__(
        self, rng: np.random.Generator, site: Site, sky: Sky, lamps: Lamps, ground: Ground,
        night_haze: Floats,
    ) -> None:  # fmt: skip
        """Also casts the shadows of the houses and the light of the shops onto the ground."""
        self._rng, self._site, self._sky = rng, site, sky
        self._lamps, self._ground, self._night_haze = lamps, ground, night_haze
        self._fine = 24.0 if site.height_px * site.width_px < 130_000 else 44.0
        self.signs: list[Source] = []
        self._walls = self._build(site.kind)

    def draw(self, canvas: Canvas) -> None:
        """Draw the houses, from far to near."""
        for wall in self._walls:
            for corners, by_day, by_night in wall.sides:
                canvas.polygon(corners, by_day, by_night)
            canvas.texture(
                wall.start_m, wall.end_m, wall.front.height_m, wall.day, wall.night,
                wall.front.outline,
            )  # fmt: skip

    def _build(self, kind: str) -> list[_Wall]:
        """All house fronts, from far to near."""
        places = self._towers()
        stock, count = ("low", 30) if kind == "front" else ("high", 72)
        for x in (-WALL_X_M, WALL_X_M):
            if kind == "front" and x * self._site.camera.x_m > 0:
                continue
            z = self._site.range_m[0] + float(self._rng.uniform(0, 6))
            while z < self._site.far_m - 3:
                house = stock, int(self._rng.integers(count))
                wide = front(*house, self._fine, (3, 3)).width_m
                near, far = np.array([x, 0.0, z]), np.array([x, 0.0, z + wide])
                places.append((*((near, far) if x < 0 else (far, near)), *house))
                z += wide + (3.0 if self._rng.random() < 0.06 else 0.0)
        x = -24.0
        while self._site.end_m < 300 and x < 24.0:
            house = "high", int(self._rng.integers(72))
            wide = front(*house, self._fine, (3, 3)).width_m
            places.append(
                (
                    np.array([x, 0, self._site.end_m]),
                    np.array([x + wide, 0, self._site.end_m]),
                    *house,
                )
            )
            x += wide
        origin = np.array([self._site.camera.x_m, 0.0, self._site.camera.z_m])
        places.sort(key=lambda place: -float(np.linalg.norm((place[0] + place[1]) / 2 - origin)))
        coarse = self._halvings(places)
        shown = [(place, how) for place, how in zip(places, coarse, strict=True) if how]
        fronts = [front(*place[2:], self._fine, halvings) for place, halvings in shown]
        lights = self._lamp_light([place[:2] for place, _ in shown], fronts)
        for start, end, stock, index in places:
            if stock != "tower":
                self._cast_house_shadow(
                    start, end, front(stock, index, self._fine, (3, 3)).eaves_m
                )
        return [
            self._wall(place[0], place[1], house, light)
            for (place, _), house, light in zip(shown, fronts, lights, strict=True)
        ]

    def _towers(self) -> list[tuple[Any, Any, str, int]]:
        """The far town above the roofs."""
        rng, camera = self._rng, self._site.camera
        ahead = np.array([np.sin(camera.yaw_rad), 0.0, np.cos(camera.yaw_rad)])
        right = np.array([ahead[2], 0.0, -ahead[0]])
        places = []
        for far in rng.uniform(130, 260, int(rng.integers(4, 9))):
            house = "tower", int(rng.integers(14))
            half = 0.5 * front(*house, self._fine, (3, 3)).width_m
            middle = ahead * far + right * float(rng.uniform(-0.55, 0.55)) * far
            places.append((middle - right * half, middle + right * half, *house))
        return places

    def _halvings(self, places: list[tuple[Any, Any, str, int]]) -> list[tuple[int, int] | None]:
        """How coarse (across, up) each texture may be; None where a front is never seen."""
        starts, ends = (np.array([place[i] for place in places]) for i in (0, 1))
        shares = np.linspace(0.0, 1.0, 13)[:, None, None]
        points = starts[:, None, None] + shares * (ends - starts)[:, None, None]
        points = np.repeat(points, 3, axis=2)
        points[..., 2] -= np.array([-1.0, 0.0, 1.0]) * self._site.dolly_m
        large = self._site.camera.scaled(SUPERSAMPLING)
        pixels, depth = large.project(points)
        across, width_px = pixels[..., 0], self._site.width_px * SUPERSAMPLING
        margin = 0.1 * width_px
        seen = (depth > 1.0) & (across > -margin) & (across < width_px + margin)
        steps_m = np.linalg.norm(ends - starts, axis=1) / 12
        spread = np.zeros_like(across)
        spread[:, 1:] = np.abs(np.diff(across, axis=1)) / steps_m[:, None, None]
        spread[:, 0] = spread[:, 1]
        fine = np.array([self._fine * STOCK_DETAIL[place[2]] for place in places])
        widest = np.maximum((spread * seen).max((1, 2)), 1e-3)
        tallest = (seen * large.focal_px / np.maximum(depth, 1.0)).max((1, 2)) + 1e-3
        wanted = np.log2(fine / np.array([widest, tallest])) + 0.35
        coarse = np.clip(np.floor(wanted), 0, 3).astype(int).T.tolist()
        visible = [bool(row.any()) for row in seen]
        return [(a, b) if ok else None for (a, b), ok in zip(coarse, visible, strict=True)]

    def _cast_house_shadow(self, start: Any, end: Any, eaves_m: float) -> None:
        x = float(start[0])
        if start[2] != end[2] and x * self._sky.sun[0] > 0:
            reach = x - np.sign(x) * 0.62 * eaves_m
            z0, z1 = sorted((float(start[2]), float(end[2])))
            self._ground.shade_rows(min(x, reach), max(x, reach), z0, z1)

    def _lamp_light(self, ends: list[tuple[Any, Any]], fronts: list[Front]) -> list[Any]:
        """Light of the street lamps on each front, linear BGR, [8, 7, 3], top row first."""
        if not ends:
            return []
        starts, stops = (np.array([pair[i] for pair in ends]) for i in (0, 1))
        heights = np.array([house.height_m for house in fronts])
        normals = _normal(starts, stops)
        u, v = np.linspace(0, 1, 7), np.linspace(1, 0, 8)
        points = starts[:, None, None] + u[:, None] * (stops - starts)[:, None, None]
        points = np.repeat(points, 8, axis=1)
        points[..., 1] = heights[:, None, None] * v[:, None]
        grid = np.broadcast_to(normals[:, None, None], points.shape)
        light = self._lamps.light(points.reshape(-1, 3), grid.reshape(-1, 3))
        return list(light.reshape(len(ends), 8, 7, 3))

    def _wall(self, start: Any, end: Any, house: Front, lamps: Any) -> _Wall:
        """A front under the light of this street, by day and by night."""
        normal = _normal(start, end)
        middle = (start + end) / 2
        depth = float(np.linalg.norm(middle - [self._site.camera.x_m, 0, self._site.camera.z_m]))
        fog = 1.0 - float(np.exp(-max(depth - 8.0, 0.0) / 190.0))
        sunny = float(np.clip(normal @ self._sky.sun * 1.6, 0.0, 1.0))
        tint = 0.92 + 0.08 * self._rng.uniform(-1, 1, 3)
        height_m = np.linspace(house.height_m, 0, 8)[:, None, None]
        low = np.exp(-0.5 * ((height_m - 2.0) / 2.2) ** 2)
        light = (lamps + 0.16 * low * np.array(house.glow) + MOONLIGHT) * tint**2
        shade = (np.array([0.80, 0.73, 0.69]) + sunny * np.array([0.16, 0.29, 0.36])) * tint
        by_height = np.clip(0.80 + 0.05 * height_m, 0.0, 1.0) * np.ones((8, 7, 1))
        fog = fog if fog > 0.04 else 0.0
        size, clear, clear_night = house.albedo.shape[1::-1], 1.0 - fog, 1.0 - 0.6 * fog
        haze = (*(self._sky.horizon * fog).tolist(), 0.0)
        night_haze = (*(encoded(self._night_haze) * 0.6 * fog).tolist(), 0.0)
        by_day = _grown(shade * by_height * 230.0 * clear, size)
        by_night = _grown(encoded(light) * clear_night, size)
        day = cv2.multiply(house.albedo, by_day, scale=1 / 230.0)
        night = cv2.max(cv2.multiply(house.albedo, by_night, scale=0.85 / 255.0), house.emission)
        if fog > 0.0:
            day, night = cv2.add(day, haze), cv2.add(night, night_haze)
        if house.shop:
            spot = middle + normal * 0.6
            reach = (0.4 * house.width_m, 1.6)
            reach = reach if abs(normal[2]) > 0.5 else reach[::-1]
            x_m, z_m = float(spot[0]), float(spot[2])
            self._ground.add_light(self._ground.light, x_m, z_m, reach, house.glow)
            blue, green, red = house.glow
            colour = (0.5 * blue, 0.5 * green, 0.5 * red)
            self.signs.append(Source(x_m, 2.6, z_m, colour, 1.5))
        return _Wall(start, end, day, night, house, self._sides(start, end, normal, house, fog))

    def _sides(
        self, start: Any, end: Any, normal: Any, house: Front, fog: float
    ) -> list[tuple[NDArray[np.float64], Colour, Colour]]:
        """The plain walls at both ends of a house, seen above a lower neighbour."""
        eye = np.array([self._site.camera.x_m, 0.0, self._site.camera.z_m])
        along = (end - start) / house.width_m
        haze: Colour = tuple(self._sky.horizon.tolist())
        dark_haze: Colour = tuple(encoded(self._night_haze).tolist())
        sides = []
        for corner, outward in ((start, -along), (end, along)):
            if (eye - corner) @ outward <= 0:
                continue
            back, up = corner - 9.0 * normal, np.array([0.0, house.eaves_m, 0.0])
            sunny = max(float(outward @ self._sky.sun), 0.0)
            by_day = mixed((0, 0, 0), house.wall, 0.72 + 0.25 * sunny)
            by_night = lit(house.wall, (MOONLIGHT + 0.10 * self._sky.glow).tolist())
            corners = np.array([corner, back, back + up, corner + up])
            by_day, by_night = mixed(by_day, haze, fog), mixed(by_night, dark_haze, 0.6 * fog)
            sides.append((corners, by_day, by_night))
        return sides


def _grown(grid: Any, size: Any) -> Image:
    small = np.clip(grid, 0, 255).astype(np.uint8)
    large: Image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    return large


def _normal(start: Any, end: Any) -> Any:
    """Unit vector [..., 3] that points from a front into the street."""
    along = end - start
    normal = np.stack([along[..., 2], 0.0 * along[..., 0], -along[..., 0]], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)
