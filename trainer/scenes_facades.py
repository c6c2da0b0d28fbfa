"""House fronts as textures: what they are made of, what shines in them by night.

A window tells by day what it does by night: behind cream curtains the room is lit warm, behind
white blinds cool, behind a coloured shade in that colour; bare dark glass and closed shutters
stay dark. The colour of a sign by day is the colour of its neon tube.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.scenes_light import fractal_noise
from trainer.scenes_view import Colour, Image, encoded, mixed

GROUND_FLOOR_M = 4.2
FLOOR_M = 3.3

_WALLS: dict[str, list[Colour]] = {
    "brick": [(70, 88, 158), (62, 74, 132), (92, 112, 168), (74, 72, 108), (104, 132, 182)],
    "plaster": [
        (176, 212, 236), (150, 186, 240), (206, 214, 190), (186, 170, 226), (222, 206, 176),
        (158, 224, 244), (214, 228, 236), (172, 196, 168), (140, 156, 222),
    ],
    "concrete": [(168, 172, 174), (150, 158, 164), (184, 192, 200)],
    "glass": [(168, 142, 112), (150, 140, 120), (138, 120, 96)],
}  # fmt: skip
_NEONS: list[Colour] = [
    (200, 60, 255), (255, 190, 40), (70, 90, 255), (90, 240, 120), (40, 170, 255), (255, 90, 130)
]  # fmt: skip
_WORDS = [
    "CAFE", "HOTEL", "BOOKS", "RAMEN", "BAR", "CINEMA", "BAKERY", "FLORA", "JAZZ", "PIZZA",
    "SUSHI", "DELI", "RADIO", "TOYS", "MUSIC", "TEA", "OPTIK", "VINYL",
]  # fmt: skip
STOCK_DETAIL = {"low": 1.0, "high": 1.0, "tower": 0.25}
_WARM = (70, 170, 255)
_COOL = (235, 225, 200)


@dataclass(frozen=True)
class Front:
    """One house front: textures uint8 [h, w, 3], BGR, first row at the top.

    albedo: display colour in flat light. emission: encoded radiance of its own light.
    outline: [n, 2] shares of width and height; the front ends there. glow: light that its
    ground floor throws on the pavement, linear BGR. wall: mean colour of its plain side wall.
    """

    albedo: Image
    emission: Image
    width_m: float
    height_m: float
    eaves_m: float
    outline: NDArray[np.float64]
    glow: Colour
    wall: Colour
    shop: bool


class _Pen:
    """Fills rectangles given in metres (x from the left, y up from the ground)."""

    def __init__(self, width_m: float, height_m: float, px_per_m: tuple[float, float]) -> None:
        self.px_per_m = px_per_m
        self.size = (
            max(round(height_m * px_per_m[1]), 4),
            max(round(width_m * px_per_m[0]), 4),
        )
        self.albedo = np.zeros((*self.size, 3), dtype=np.uint8)
        self.emission = np.zeros((*self.size, 3), dtype=np.uint8)

    def area(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        across, up = self.px_per_m
        rows = slice(max(self.size[0] - round(y1 * up), 0), max(self.size[0] - round(y0 * up), 0))
        return rows, slice(max(round(x0 * across), 0), max(round(x1 * across), 0))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, day: Colour, shine: Colour | None = None
    ) -> None:
        area = self.area(x0, y0, x1, y1)
        self.albedo[area] = day
        self.emission[area] = (0, 0, 0) if shine is None else shine

    def stamp(self, x0: float, y0: float, cell: _Pen) -> None:
        top = self.size[0] - round(y0 * self.px_per_m[1]) - cell.size[0]
        left = round(x0 * self.px_per_m[0])
        rows, columns = slice(max(top, 0), top + cell.size[0]), slice(left, left + cell.size[1])
        height, width = self.albedo[rows, columns].shape[:2]
        skip = max(-top, 0)
        self.albedo[rows, columns] = cell.albedo[skip : skip + height, :width]
        self.emission[rows, columns] = cell.emission[skip : skip + height, :width]


def _shine(colour: Colour, strength: float) -> Colour:
    blue, green, red = encoded((np.asarray(colour) / 255.0) ** 2 * strength)
    return float(blue), float(green), float(red)


def _window(
    look: str, kind: str, width_m: float, height_m: float, frame: Colour, accent: Colour,
    px_per_m: tuple[float, float],
) -> _Pen:  # fmt: skip
    """A framed window. look: dark, curtain, blind, shade or shutter; kind: sash or grid."""
    pen = _Pen(width_m, height_m, px_per_m)
    glass = (112, 92, 70)
    pen.box(0, 0, width_m, height_m, frame)
    x0, x1, y0, y1 = 0.1, width_m - 0.1, 0.1, height_m - 0.1
    pen.box(x0, y0, x1, y1, glass)
    pen.box(x0, 0.55 * height_m, x1, y1, (150, 128, 98))
    if look == "curtain":
        pen.box(x0, y0, x1, y1, (96, 112, 128), _shine(_WARM, 2.1))
        pen.box(x0, y0, x1, 0.35 * height_m, (80, 92, 108), _shine((60, 150, 245), 1.3))
        side = 0.26 * (x1 - x0)
        for left in (x0, x1 - side):
            pen.box(left, y0, left + side, y1, (186, 226, 246), _shine((80, 170, 255), 1.0))
    elif look == "blind":
        step = (y1 - y0) / 7.0
        pen.box(x0, y0, x1, y1, (168, 168, 160), _shine(_COOL, 0.6))
        for i in range(7):
            bottom = y0 + i * step
            pen.box(x0, bottom, x1, bottom + 0.62 * step, (238, 236, 228), _shine(_COOL, 1.3))
    elif look == "shade":
        pen.box(x0, y0, x1, y1, (90, 104, 120), _shine(_WARM, 1.7))
        shine = _shine(mixed(accent, (90, 200, 255), 0.25), 1.3)
        pen.box(x0, 0.45 * height_m, x1, y1, mixed(accent, (255, 255, 255), 0.2), shine)
    elif look == "shutter":
        pen.box(0, 0, width_m, height_m, mixed(accent, (60, 70, 70), 0.5))
        for i in range(6):
            bottom = 0.1 + i * (height_m - 0.2) / 6
            pen.box(0.1, bottom, width_m - 0.1, bottom + 0.1, mixed(accent, (30, 35, 35), 0.7))
    if look != "shutter":
        middle = 0.5 * width_m
        pen.box(middle - 0.04, y0, middle + 0.04, y1, frame)
        if kind == "grid":
            pen.box(x0, 0.66 * height_m, x1, 0.66 * height_m + 0.08, frame)
    return pen


def _sign(pen: _Pen, rng: np.random.Generator, x0: float, y0: float, width_m: float) -> Colour:
    """A sign board with a word in neon; returns its colour."""
    neon = _NEONS[rng.integers(len(_NEONS))]
    word = _WORDS[rng.integers(len(_WORDS))]
    area = pen.area(x0, y0, x0 + width_m, y0 + 0.85)
    rows, columns, _ = pen.albedo[area].shape
    if rows < 2 or columns < 2:
        return neon
    (text_w, text_h), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, 1.0, 4)
    plate = np.zeros((text_h + 28, text_w + 40), dtype=np.uint8)
    spot = (20, text_h + 13)
    cv2.putText(plate, word, spot, cv2.FONT_HERSHEY_DUPLEX, 1.0, 255, 4, cv2.LINE_AA)
    cv2.rectangle(plate, (3, 3), (plate.shape[1] - 4, plate.shape[0] - 4), 150, 3)
    ink = cv2.resize(plate, (columns, rows), interpolation=cv2.INTER_AREA)[..., None] / 255.0
    board = np.array(mixed(neon, (24, 22, 24), 0.86))
    pen.albedo[area] = board + ink * (np.array(mixed(neon, (255, 255, 255), 0.1)) - board)
    halo = cv2.GaussianBlur(ink, (0, 0), max(rows * 0.12, 0.6))[..., None]
    radiance = (np.array(neon) / 255.0) ** 2 * (3.2 * ink + 0.45 * halo) + 0.5 * ink**3
    pen.emission[area] = encoded(radiance)
    return neon


def _shop(pen: _Pen, rng: np.random.Generator, width_m: float) -> Colour:
    """The ground floor as a shop; returns the light that it throws on the pavement."""
    paint = [(64, 84, 40), (60, 44, 110), (96, 70, 36), (44, 44, 48), (40, 80, 120)]
    front: Colour = paint[rng.integers(len(paint))]
    inside = _COOL if rng.random() < 0.25 else (110, 195, 255)
    pen.box(0, 0, width_m, 4.0, front)
    door_left = float(rng.uniform(0.1, 0.7)) * (width_m - 1.3)
    panes = [(0.35, door_left - 0.15), (door_left + 1.3, width_m - 0.35)]
    for left, right in panes:
        if right - left < 0.7:
            continue
        wall = mixed(inside, (90, 100, 110), 0.62)
        pen.box(left, 0.5, right, 2.85, wall, _shine(inside, 1.7))
        pen.box(left, 0.5, right, 1.0, mixed(wall, (40, 50, 60), 0.5), _shine(inside, 0.8))
        spot = left + 0.2
        while spot < right - 0.45:
            blue, green, red = rng.uniform(40, 235, 3).tolist()
            goods: Colour = (blue, green, red)
            tall, wide = float(rng.uniform(0.3, 1.3)), float(rng.uniform(0.25, 0.55))
            shine = _shine(mixed(goods, inside, 0.25), 1.0)
            pen.box(spot, 0.7, spot + wide, 0.7 + tall, mixed(goods, (90, 90, 90), 0.2), shine)
            spot += wide + float(rng.uniform(0.12, 0.5))
        for bar in np.arange(left, right, 1.7):
            pen.box(float(bar), 0.45, float(bar) + 0.08, 2.9, front)
    pen.box(door_left, 0.1, door_left + 1.1, 2.7, mixed(front, (20, 20, 20), 0.4))
    pen.box(door_left + 0.15, 0.5, door_left + 0.95, 2.5, (120, 130, 130), _shine(inside, 1.1))
    sign_wide = min(width_m - 0.8, 5.0)
    neon = _sign(pen, rng, float(rng.uniform(0.4, width_m - 0.4 - sign_wide)), 3.1, sign_wide)
    if rng.random() < 0.6:
        cloth: Colour = [(60, 60, 200), (80, 140, 60), (170, 100, 50), (60, 160, 230)][
            rng.integers(4)
        ]
        for i, left in enumerate(np.arange(0.25, width_m - 0.3, 0.42)):
            colour = cloth if i % 2 else (232, 238, 240)
            right = min(float(left) + 0.42, width_m - 0.2)
            pen.box(float(left), 2.35, right, 3.02, colour, _shine(colour, 0.22))
            pen.box(float(left), 2.3, right, 2.42, mixed(colour, (0, 0, 0), 0.3))
    blue, green, red = np.asarray(inside) / 255.0 * 0.55 + (np.asarray(neon) / 255.0) ** 2 * 0.7
    return float(blue), float(green), float(red)


def _home_ground_floor(
    pen: _Pen, rng: np.random.Generator, width_m: float, wall: Colour, cells: list[_Pen],
    odds: NDArray[np.float64],
) -> Colour:  # fmt: skip
    """Plinth, a door with a small lamp and windows; returns the light on the pavement."""
    pen.box(0, 0, width_m, 0.7, mixed(wall, (90, 90, 95), 0.55))
    door: Colour = [(50, 60, 120), (90, 110, 40), (110, 70, 30), (40, 50, 60)][rng.integers(4)]
    bays = max(int(width_m // 2.7), 2)
    at = int(rng.integers(bays))
    for bay in range(bays):
        middle = (bay + 0.5) * width_m / bays
        if bay != at:
            cell = cells[int(rng.choice(len(cells), p=odds))]
            pen.stamp(middle - 0.5 * cell.size[1] / pen.px_per_m[0], 1.25, cell)
            continue
        pen.box(middle - 0.8, 0, middle + 0.8, 3.1, mixed(wall, (250, 250, 250), 0.55))
        pen.box(middle - 0.55, 0.1, middle + 0.55, 2.3, door)
        pen.box(middle - 0.55, 2.4, middle + 0.55, 2.85, (150, 190, 210), _shine(_WARM, 2.4))
    return 0.12, 0.22, 0.3


def _roof(
    pen: _Pen, rng: np.random.Generator, kind: str, wide: float, eaves: float, top: float,
    wall: Colour, cell: _Pen,
) -> list[list[float]]:  # fmt: skip
    """Draw what is above the eaves; returns the outline in metres, from the left to the right."""
    trim = mixed(wall, (245, 248, 250), 0.6)
    tiles: Colour = [(62, 72, 128), (84, 78, 72), (70, 80, 104), (96, 92, 84)][rng.integers(4)]
    if kind == "mansard":
        pen.box(0, eaves, wide, top, tiles)
        for row in np.arange(eaves, top, 0.35):
            pen.box(0, float(row), wide, float(row) + 0.1, mixed(tiles, (0, 0, 0), 0.22))
        dormers = max(int(wide // 3.4), 1)
        for i in range(dormers):
            middle = (i + 0.5) * wide / dormers
            half = 0.5 * cell.size[1] / pen.px_per_m[0]
            tall = cell.size[0] / pen.px_per_m[1]
            pen.box(
                middle - half - 0.15, eaves + 0.2, middle + half + 0.15, eaves + tall + 0.6, trim
            )
            pen.stamp(middle - half, eaves + 0.35, cell)
        outline = [[0, eaves], [0.5, top], [wide - 0.5, top], [wide, eaves]]
    elif kind == "gable":
        pen.box(wide / 2 - 0.5, eaves + 0.5, wide / 2 + 0.5, eaves + 1.7, trim)
        pen.box(wide / 2 - 0.4, eaves + 0.6, wide / 2 + 0.4, eaves + 1.6, (110, 92, 70))
        outline = [[0, eaves], [wide / 2 - 0.4, top], [wide / 2 + 0.4, top], [wide, eaves]]
        edge = max(round(0.28 * pen.px_per_m[1]), 1)
        scale = np.array(pen.px_per_m)
        line = np.round(np.array(outline) * scale * [1, -1] + [0, pen.size[0]]).astype(np.int32)
        cv2.polylines(pen.albedo, [line], False, trim, 2 * edge, cv2.LINE_AA)
    elif kind == "steps":
        outline = [[0.0, eaves]]
        for i in range(4):
            left, level = wide * i / 9.0, eaves + (top - eaves) * (i + 1) / 4.0
            outline += [[left, level], [wide * (i + 1) / 9.0, level]]
            pen.box(left, level - 0.25, wide - left, level, trim)
            pen.box(left + 0.05, level - 0.9, wide - left - 0.05, level - 0.25, wall)
        outline += [[wide - x, y] for x, y in reversed(outline)]
    else:
        pen.box(0, eaves - 0.3, wide, eaves + 0.35, trim)
        pen.box(0, eaves - 0.42, wide, eaves - 0.3, mixed(wall, (20, 20, 30), 0.5))
        outline = [[0, top], [wide, top]]
    return outline


def _draw_front(
    rng: np.random.Generator, width_m: float, floors: int, px_per_m: tuple[float, float],
    shop: bool, material: str, grain: Image,
) -> Front:  # fmt: skip
    """Draw a house front.

    px_per_m: across and up. material: brick, plaster, concrete or glass. grain: noise that
    roughens the wall, uint8 [h, w], mean near 128, tiled as needed.
    """
    roofs = ["mansard", "gable", "steps", "flat"] if material in ("brick", "plaster") else ["flat"]
    roof = roofs[int(rng.integers(len(roofs)))]
    if width_m > 11 and roof in ("gable", "steps"):
        roof = "mansard"
    eaves = GROUND_FLOOR_M + floors * FLOOR_M
    top = eaves + {"mansard": 2.7, "gable": 0.38 * width_m, "steps": 3.4, "flat": 0.35}[roof]
    pen = _Pen(width_m, top, px_per_m)
    colours = _WALLS[material]
    wall = mixed(colours[int(rng.integers(len(colours)))], (128, 128, 128), rng.uniform(0, 0.2))
    pen.albedo[:] = wall
    repeats = (pen.size[0] // grain.shape[0] + 1, pen.size[1] // grain.shape[1] + 1)
    rough = np.tile(grain, repeats)[: pen.size[0], : pen.size[1]]
    pen.albedo = cv2.multiply(pen.albedo, cv2.merge([rough] * 3), scale=1 / 128)
    if material == "brick":
        for row in np.arange(0.0, top, 0.3):
            area = pen.area(0, float(row), width_m, float(row) + 0.09)
            pen.albedo[area] = (pen.albedo[area] * 0.86).astype(np.uint8)

    frame: Colour = [(240, 244, 246), (236, 240, 240), (70, 64, 60), (90, 110, 140)][
        int(rng.integers(4))
    ]
    accents: list[Colour] = [(60, 60, 210), (170, 150, 40), (70, 150, 70), (60, 170, 240)]
    accent = accents[int(rng.integers(len(accents)))]
    tall_windows = material in ("brick", "plaster")
    bays = max(int(width_m / (rng.uniform(2.2, 3.0) if tall_windows else 2.4)), 2)
    bay_m = width_m / bays
    wide = (
        min(1.3, 0.55 * bay_m) if tall_windows else bay_m * (0.93 if material == "glass" else 0.8)
    )
    tall = {"brick": 1.9, "plaster": 2.1, "concrete": 1.7, "glass": 2.9}[material]
    kind = "grid" if rng.random() < 0.6 and tall_windows else "sash"
    if material == "glass":
        frame = (110, 100, 92)
    looks = ["dark", "curtain", "blind", "shade", "shutter" if tall_windows else "dark"]
    cells = [_window(look, kind, wide, tall, frame, accent, px_per_m) for look in looks]
    home = rng.uniform(0.35, 0.7)
    office = material in ("glass", "concrete")
    odds = np.array([1 - home, 0.15 if office else 0.6, 0.75 if office else 0.15, 0.15, 0.1])
    odds[1:] *= home / odds[1:].sum()
    picks = rng.choice(len(cells), size=(floors, bays), p=odds)
    for floor in range(floors):
        base = GROUND_FLOOR_M + floor * FLOOR_M + (0.2 if material == "glass" else 0.75)
        for bay in range(bays):
            left = (bay + 0.5) * bay_m - wide / 2
            if tall_windows:
                pen.box(left - 0.12, base - 0.2, left + wide + 0.12, base, mixed(frame, wall, 0.3))
                pen.box(
                    left, base + tall, left + wide, base + tall + 0.22, mixed(wall, frame, 0.4)
                )
            pen.stamp(left, base, cells[picks[floor, bay]])
            if kind == "grid" and floor == 0 and tall_windows:
                pen.box(left - 0.1, base - 0.1, left + wide + 0.1, base + 0.5, (52, 50, 48))
                pen.box(left, base + 0.0, left + wide, base + 0.42, (60, 110 - 8 * bay, 70))
    pen.box(0, GROUND_FLOOR_M - 0.2, width_m, GROUND_FLOOR_M + 0.12, mixed(wall, frame, 0.45))
    if shop:
        glow = _shop(pen, rng, width_m)
    else:
        glow = _home_ground_floor(pen, rng, width_m, wall, cells, odds)
    line = _roof(pen, rng, roof, width_m, eaves, top, wall, cells[int(rng.choice(4))])
    outline = np.array([[0.0, 0.0], *line, [width_m, 0.0]]) / [width_m, top]
    side = mixed(wall, (96, 100, 108), 0.35)
    return Front(pen.albedo, pen.emission, width_m, top, eaves, outline, glow, side, shop)


@lru_cache(maxsize=1024)
def front(stock: str, index: int, fine_px_per_m: float, halvings: tuple[int, int]) -> Front:
    """House front number `index` of a stock (low, high or tower), drawn once and then kept.

    fine_px_per_m: resolution at which it is drawn. halvings: how often it was then halved,
    across and up, so that a front seen from afar does not flicker. Treat it as read only.
    """
    if halvings != (0, 0):
        axis = int(halvings[0] < halvings[1])
        finer = (halvings[0] - 1, halvings[1]) if axis == 0 else (halvings[0], halvings[1] - 1)
        source = front(stock, index, fine_px_per_m, finer)
        tall, wide = source.albedo.shape[:2]
        size = (max(wide // 2, 2), tall) if axis == 0 else (wide, max(tall // 2, 2))
        albedo, emission = (
            cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            for image in (source.albedo, source.emission)
        )
        return replace(source, albedo=albedo, emission=emission)
    rng = np.random.default_rng([index, len(stock), 77])
    grain = np.clip(fractal_noise(98, 128, 3, 32) * 24 + 116, 0, 255).astype(np.uint8)
    if stock == "tower":
        material = str(rng.choice(["glass", "concrete", "concrete"]))
        width_m, floors, shop = float(rng.uniform(14, 26)), int(rng.integers(8, 22)), False
    else:
        material = str(
            rng.choice(["brick", "plaster", "concrete", "glass"], p=[0.36, 0.44, 0.11, 0.09])
        )
        floors = int(rng.integers(1, 4) if stock == "low" else rng.integers(2, 5))
        floors += 2 * int(material in ("concrete", "glass"))
        width_m, shop = float(rng.uniform(6.5, 14.0)), bool(rng.random() < 0.62)
    return _draw_front(
        rng, width_m, floors, (fine_px_per_m * STOCK_DETAIL[stock],) * 2, shop, material, grain
    )
