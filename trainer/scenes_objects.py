"""What stands and moves in a street: cars, lamps, trees, people, strings of bulbs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.scenes_light import LAMP_HEIGHT_M, MOONLIGHT, Lamps
from trainer.scenes_view import Canvas, Colour, Floats, Image, encoded, lit, mixed

CAR_PAINTS: list[Colour] = [
    (40, 40, 196), (190, 110, 40), (236, 238, 240), (52, 48, 46), (60, 190, 240), (120, 150, 60),
    (180, 184, 188), (170, 210, 150), (70, 120, 230), (96, 60, 110), (200, 196, 120),
]  # fmt: skip
_GLASS: Colour = (120, 104, 84)
_HEADLIGHT: Colour = (225, 248, 255)
_TAILLIGHT: Colour = (40, 36, 238)


@dataclass(frozen=True)
class _Face:
    corners: NDArray[np.float64]  # [n, 3], counter-clockwise as seen from outside
    material: str
    shade: float


def _block(
    low: tuple[float, float, float, float], high: tuple[float, float, float, float], material: str
) -> list[_Face]:
    """A block from a lower to an upper rectangle, each (half width, back z, front z, y)."""
    corner = {}
    for level, (half, back, front, y) in (("l", low), ("h", high)):
        for side, x in (("a", -half), ("b", half)):
            corner[level + side + "k"] = (x, y, back)
            corner[level + side + "f"] = (x, y, front)
    faces = [
        ("lak lbk hbk hak", 0.72), ("lbf laf haf hbf", 0.86), ("laf lak hak haf", 0.8),
        ("lbk lbf hbf hbk", 0.92), ("hak hbk hbf haf", 1.08),
    ]  # fmt: skip
    return [
        _Face(np.array([corner[name] for name in names.split()]), material, shade)
        for names, shade in faces
    ]


def _panel(face: _Face, low: tuple[float, float], high: tuple[float, float], what: str) -> _Face:
    """A rectangle on a face with four corners, in shares (across, up)."""
    base, right, top_right, up = face.corners
    shares = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    corners = [
        (1 - v) * ((1 - u) * base + u * right) + v * ((1 - u) * up + u * top_right)
        for u, v in shares
    ]
    return _Face(np.array(corners), what, face.shade)


def _car_shape(length: float, waist: float, top: float, cabin: tuple[float, float]) -> list[_Face]:
    half = length / 2
    sill = _block((0.86, -half + 0.1, half - 0.1, 0.22), (0.9, -half, half, 0.5), "body")
    hull = _block((0.9, -half, half, 0.5), (0.84, -half + 0.08, half - 0.14, waist), "body")
    sills = (0.82, cabin[0] - 0.05, cabin[1] + 0.45, waist)
    house = _block(sills, (0.66, cabin[0] + 0.3, cabin[1] - 0.25, top), "body")
    back, front, left, right, _ = house
    glass = [_panel(back, (0.08, 0.12), (0.92, 0.88), "glass")]
    glass += [_panel(front, (0.05, 0.06), (0.95, 0.94), "glass")]
    for side in (left, right):
        glass += [_panel(side, (0.1, 0.12), (0.49, 0.88), "glass")]
        glass += [_panel(side, (0.53, 0.12), (0.9, 0.88), "glass")]
    wheels = []
    turn = np.linspace(0, 2 * np.pi, 11)[:-1]
    for x in (-0.9, 0.9):
        for z in (-half + 0.78, half - 0.82):
            height, along = 0.33 + 0.33 * np.sin(turn), z + 0.33 * np.cos(turn)
            ring = np.stack([np.full(10, x), height, along], axis=1)
            ring = ring[::-1] if x < 0 else ring
            wheels += [_Face(ring, "tyre", 1.0)]
            hub = ring.mean(0) + 0.5 * (ring - ring.mean(0))
            wheels += [_Face(hub, "hub", 1.0)]
    lights = []
    for low, high in ((0.04, 0.26), (0.74, 0.96)):
        lights += [_panel(hull[0], (low, 0.35), (high, 0.8), "tail")]
        lights += [_panel(hull[1], (low, 0.25), (high, 0.72), "head")]
    plates = [_panel(hull[0], (0.36, 0.1), (0.64, 0.5), "plate")]
    plates += [_panel(hull[1], (0.28, 0.05), (0.72, 0.5), "grill")]
    return [*sill, *hull, *wheels, *lights, *plates, *house, *glass]


_MATERIALS: dict[str, Colour] = {
    "body": (0, 0, 0),
    "glass": _GLASS,
    "tyre": (34, 32, 32),
    "hub": (168, 168, 168),
    "plate": (228, 232, 232),
    "grill": (58, 54, 52),
    "head": _HEADLIGHT,
    "tail": _TAILLIGHT,
}


class _Shape:
    """All faces of a car in arrays, in the order in which to paint them."""

    def __init__(self, faces: list[_Face]) -> None:
        self.vertices = np.concatenate([face.corners for face in faces])
        self.first = np.cumsum([0] + [len(face.corners) for face in faces])
        self.materials = [face.material for face in faces]
        self.shades = np.array([[face.shade] for face in faces])
        self.painted = np.array([what == "body" for what in self.materials])
        self.albedo = np.array([_MATERIALS[what] for what in self.materials], dtype=float)
        sky = [face.material == "glass" and face.shade > 0.82 for face in faces]
        self.albedo[sky] = (176, 156, 128)  # the windscreen mirrors the sky
        own = np.array([[what in ("head", "tail", "plate")] for what in self.materials])
        self.by_day = np.where(own, 1.0, np.minimum(self.shades, 1.0))


_SHAPES = [
    _Shape(_car_shape(4.0, 0.95, 1.5, (-1.75, 0.55))),
    _Shape(_car_shape(4.5, 0.92, 1.42, (-1.35, 0.55))),
    _Shape(_car_shape(4.9, 1.1, 2.05, (-2.3, 1.25))),
]


class Car:
    """A car; heading +1 drives toward +z, -1 toward -z, speed 0 stands parked and dark."""

    def __init__(
        self, x_m: float, start_z_m: float, speed_m_s: float, heading: int, paint: Colour,
        shape: int,
    ) -> None:  # fmt: skip
        self.x_m, self.start_z_m = x_m, start_z_m
        self.speed_m_s, self.heading = speed_m_s, heading
        self._shape = _SHAPES[shape]
        self._albedo = self._shape.albedo.copy()
        self._albedo[self._shape.painted] = paint
        self._by_day = (self._albedo * self._shape.by_day).tolist()

    def draw(self, canvas: Canvas, z_m: float, light: Floats) -> None:
        """Draw the car with its middle at z_m; light: linear BGR on it by night."""
        if not canvas.sees(self.x_m, z_m, 2.4):
            return
        shape = self._shape
        turn = np.array([self.heading, 1.0, self.heading])
        place = np.array([self.x_m, 0.0, z_m])
        canvas.polygon(_UNDER_CAR + place, (52, 50, 50), lit((40, 40, 40), MOONLIGHT.tolist()))
        by_night = self._albedo * shape.shades * (encoded(light * 0.8 + 0.03) / 255.0)
        colours = by_night.tolist()
        pixels, _ = canvas.camera.project(shape.vertices * turn + place)
        first = shape.first[:-1]
        one, two = pixels[first + 1] - pixels[first], pixels[first + 2] - pixels[first]
        visible = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] < 0
        for index in np.flatnonzero(visible):
            night = colours[index]
            if self.speed_m_s > 0 and shape.materials[index] in ("head", "tail"):
                night = (255, 255, 255) if shape.materials[index] == "head" else (80, 70, 255)
            corners = pixels[shape.first[index] : shape.first[index + 1]]
            canvas.fill(corners, self._by_day[index], night)


_UNDER_CAR = np.array([[-1, 0.02, -2.2], [1, 0.02, -2.2], [1, 0.02, 2.2], [-1, 0.02, 2.2]])


def draw_lamp(canvas: Canvas, x_m: float, z_m: float, light: Floats, colour: Floats) -> None:
    """A street lamp at the kerb, its arm toward the middle of the road."""
    inward = -1.2 * float(np.sign(x_m))
    if not canvas.sees(x_m + inward / 2, z_m, 1.2):
        return
    post: Colour = (78, 82, 76)
    dark = lit(post, light.tolist())
    top, head = LAMP_HEIGHT_M, x_m + inward
    blue, green, red = encoded(colour * 5.0).tolist()
    ends = [
        [(x_m, 0, z_m), (x_m, 0.9, z_m)],
        [(x_m, 0.9, z_m), (x_m, top + 0.15, z_m)],
        [(x_m, top + 0.1, z_m), (head, top + 0.32, z_m)],
        [(head - 0.38, top + 0.18, z_m), (head + 0.38, top + 0.18, z_m)],
        [(head - 0.42, top + 0.32, z_m), (head + 0.42, top + 0.32, z_m)],
    ]
    shine: tuple[Colour, Colour] = ((226, 240, 244), (blue, green, red))
    colours = [(post, dark)] * 3 + [shine, (post, dark)]
    canvas.bars(ends, [0.2, 0.11, 0.08, 0.2, 0.09], colours)


@lru_cache(maxsize=64)
def _crown(leaf: Colour, variant: int) -> tuple[Image, Image]:
    """Leaves, uint8 [128, 128, 3], and how they cover what is behind, uint8 [128, 128]."""
    rng = np.random.default_rng(variant)
    side = 128
    day = np.zeros((side, side, 3), dtype=np.uint8)
    day[:] = mixed(leaf, (20, 40, 20), 0.4)
    alpha = np.zeros((side, side), dtype=np.uint8)
    spots = rng.normal(size=(330, 2)) * [22.0, 21.0] + [side / 2, side / 2]
    inside = np.hypot(*((spots - side / 2) / [52.0, 50.0]).T) < 1.0
    spots = spots[inside][np.argsort(-spots[inside][:, 1])]
    for x, y in spots:
        tone = float(np.clip((y / side - 0.2) * 0.85 + rng.normal() * 0.18, 0.0, 0.75))
        shadow = mixed(leaf, (30, 40, 20), 0.85)
        colour = mixed(mixed(leaf, (190, 235, 245), 0.18), shadow, tone)
        centre, radius = (int(x), int(y)), int(rng.integers(3, 10))
        cv2.circle(day, centre, radius, colour, -1, cv2.LINE_AA)
        cv2.circle(alpha, centre, radius, 255, -1, cv2.LINE_AA)
    return day, alpha


class Tree:
    """A street tree: a trunk and a crown of leaves lit by the lamps around it."""

    def __init__(
        self, rng: np.random.Generator, x_m: float, z_m: float, leaf: Colour, lamps: Lamps
    ) -> None:
        self.x_m, self.z_m = x_m, z_m
        self.crown_m = float(rng.uniform(3.2, 4.6))
        self.foot_m = float(rng.uniform(1.7, 2.3))
        self._day, self._alpha = _crown(leaf, int(rng.integers(8)))
        side = self._alpha.shape[0]
        heights = self.foot_m + self.crown_m * (1.0 - np.arange(side) / side)
        column = np.stack([np.full(side, x_m), heights, np.full(side, z_m)], axis=1)
        light = lamps.light(column, np.zeros(3)) + MOONLIGHT
        rows = encoded(light * 0.8).astype(np.uint8)[:, None]
        by_night = np.ascontiguousarray(np.broadcast_to(rows, self._day.shape))
        self._night: Image = cv2.multiply(self._day, by_night, scale=1 / 255)
        self._trunk_night = lit((58, 72, 88), light[-1].tolist())

    def draw(self, canvas: Canvas) -> None:
        """Draw trunk and crown."""
        if not canvas.sees(self.x_m, self.z_m, 2.3):
            return
        top = self.foot_m + 0.5 * self.crown_m
        ends = [[(self.x_m, 0, self.z_m), (self.x_m, top, self.z_m)]]
        canvas.bars(ends, [0.2], [((58, 72, 88), self._trunk_night)])
        foot = (self.x_m, self.foot_m, self.z_m)
        canvas.sprite(foot, self.crown_m, self._day, self._night, self._alpha)


@dataclass(frozen=True)
class Walker:
    """Someone who walks along a pavement; a negative speed walks toward -z."""

    x_m: float
    start_z_m: float
    speed_m_s: float
    coat: Colour
    trousers: Colour
    hair: Colour
    height_m: float

    def draw(self, canvas: Canvas, z_m: float, time_s: float, light: Floats) -> None:
        """Draw the walker at z_m; light: linear BGR on them by night."""
        if not canvas.sees(self.x_m, z_m, 0.6):
            return
        glow = (light * 0.75).tolist()
        scale = self.height_m / 1.75
        stride = 0.32 * float(np.sin(4.6 * time_s + 7.0 * self.start_z_m))
        hip_m, neck_m, head_m = 0.85 * scale, 1.43 * scale, 1.6 * scale

        def at(x_m: float, y_m: float, ahead_m: float) -> tuple[float, float, float]:
            return self.x_m + x_m, y_m, z_m + ahead_m

        ends = [
            [at(-0.09, 0.03, stride), at(-0.09, hip_m, 0.0)],
            [at(0.09, 0.03, -stride), at(0.09, hip_m, 0.0)],
            [at(-0.19, neck_m - 0.06, 0.0), at(-0.24, hip_m, -0.7 * stride)],
            [at(0.19, neck_m - 0.06, 0.0), at(0.24, hip_m, 0.7 * stride)],
            [at(0.0, hip_m - 0.12, 0.0), at(0.0, neck_m, 0.0)],
        ]
        widths = np.array([0.15, 0.15, 0.11, 0.11, 0.38]) * scale
        legs = (self.trousers, lit(self.trousers, glow))
        coat = (self.coat, lit(self.coat, glow))
        canvas.bars(np.array(ends), widths, [legs, legs, coat, coat, coat])
        head = at(0.0, head_m, 0.0)
        back = at(0.0, head_m + 0.05, -0.03 * float(np.sign(self.speed_m_s)))
        skin: Colour = (150, 180, 222)
        order = [(head, skin), (back, self.hair)]
        if (canvas.camera.z_m - z_m) * self.speed_m_s > 0:
            order.reverse()
        for centre, colour in order:
            canvas.balls([centre], 0.125 * scale, [(colour, lit(colour, glow))])


def draw_bulbs(
    canvas: Canvas, half_m: float, y_m: float, z_m: float, colours: list[Colour]
) -> None:
    """A string of bulbs across the street from wall to wall."""
    shares = np.linspace(-1, 1, 15)
    points = np.stack([shares * half_m, y_m - 1.1 * (1 - shares**2), np.full(15, z_m)], axis=1)
    ends = np.stack([points[:-1], points[1:]], axis=1)
    canvas.bars(ends, np.full(14, 0.025), [((60, 60, 60), (14, 12, 12))] * 14)
    shades: list[tuple[Colour, Colour]] = []
    for colour in colours:
        blue, green, red = encoded((np.asarray(colour) / 255.0) ** 2 * 3.5).tolist()
        shades.append((mixed(colour, (250, 250, 250), 0.3), (blue, green, red)))
    kinds = [shades[i % len(shades)] for i in range(13)]
    canvas.balls(points[1:-1] - [0, 0.12, 0], 0.12, kinds)
