"""What a street stands in: the sky, the ground and the light on it, by day and by night."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.scenes_view import Camera, Colour, Floats, Image, encoded

ROAD_HALF_M = 5.2
WALL_X_M = 8.4
LAMP_HEIGHT_M = 5.6
LAMP_POWER = 44.0
MOONLIGHT = np.array([0.085, 0.048, 0.034], dtype=np.float32)
_GRID_X_M, _GRID_Z_M = 20.0, (-40.0, 120.0)
_CELLS_PER_M = 2
_SHADOW_CELLS_PER_M = 4


@lru_cache(maxsize=64)
def fractal_noise(variant: int, side_px: int, octaves: int, first: int = 4) -> Floats:
    """Smooth noise [side_px, side_px], 0 to 1, that tiles when mirrored; read only."""
    rng = np.random.default_rng(variant)
    total = np.zeros((side_px, side_px), dtype=np.float32)
    for octave in range(octaves):
        cells = min(first << octave, side_px)
        grain = rng.random((cells, cells), dtype=np.float32)
        grown = cv2.resize(grain, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        total += grown * 0.55**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


@dataclass(frozen=True)
class Lamps:
    """Street lamps: heads [n, 3] in metres and their light, linear BGR."""

    heads_m: NDArray[np.float64]
    colour: Floats

    def light(self, points_m: NDArray[np.float64], normals: NDArray[np.float64]) -> Floats:
        """Irradiance [n, 3] at points [n, 3], linear BGR.

        normals: one [3] or one each [n, 3]; a zero normal receives from all sides.
        """
        points, heads = points_m.astype(np.float32), self.heads_m.astype(np.float32)
        normals = np.broadcast_to(normals.astype(np.float32), points.shape)
        x, y, z = (heads[None, :, axis] - points[:, None, axis] for axis in range(3))
        squared = x * x + y * y + z * z + np.float32(0.6)
        towards = normals @ heads.T - (normals * points).sum(1, keepdims=True)
        facing = np.maximum(towards, 0.0) / np.sqrt(squared)
        facing += np.float32(0.45) * (np.abs(normals).sum(1, keepdims=True) == 0)
        shaded = np.clip(y * np.float32(0.67) + np.float32(0.67), 0.1, 1.0)
        sums = (facing * shaded / squared).sum(1, keepdims=True)
        result: Floats = sums * (LAMP_POWER * self.colour)
        return result


@dataclass(frozen=True)
class Source:
    """A lamp or light that the road mirrors: position in metres, linear BGR, radius in metres."""

    x_m: float
    y_m: float
    z_m: float
    colour: Colour
    radius_m: float


_WEATHERS: list[tuple[Colour, Colour, float, Colour]] = [
    ((214, 138, 62), (244, 224, 196), 0.54, (220, 244, 255)),
    ((226, 158, 84), (238, 232, 226), 0.44, (226, 246, 255)),
    ((196, 142, 96), (198, 220, 248), 0.48, (190, 228, 255)),
    ((206, 178, 152), (230, 230, 228), 0.32, (236, 244, 248)),
    ((204, 122, 92), (196, 206, 250), 0.50, (196, 226, 255)),
]  # zenith, horizon, how much of the noise stays blue, sunlit cloud


class Sky:
    """Clouds, a sun that is the moon by night, stars, and the glow of the town."""

    def __init__(self, rng: np.random.Generator, looking_rad: float) -> None:
        zenith, horizon, clear, cloud = _WEATHERS[int(rng.integers(len(_WEATHERS)))]
        self.zenith, self.horizon, self.cloud = (
            np.array(c, dtype=np.float32) for c in (zenith, horizon, cloud)
        )
        self.clear = clear + float(rng.uniform(-0.05, 0.05))
        self.noise = fractal_noise(int(rng.integers(12)), 256, 6)
        self.offset = [float(v) for v in rng.uniform(0, 512, 2)]
        self.wind = float(rng.uniform(1.5, 4.0))
        azimuth = looking_rad + float(rng.uniform(-0.5, 0.5))
        self.sun = np.array([np.sin(azimuth), rng.uniform(0.3, 0.6), np.cos(azimuth)])
        self.glow = np.array([(0.10, 0.20, 0.42), (0.26, 0.13, 0.36), (0.20, 0.24, 0.34)][
            int(rng.integers(3))
        ], dtype=np.float32)  # fmt: skip
        stars = np.random.default_rng(7)  # the same sky over every street
        self.stars = stars.normal(size=(700, 3)) * [1.0, 0.6, 1.0]
        self.star_light = stars.random(700) ** 3

    def draw(
        self, camera: Camera, height_px: int, width_px: int, time_s: float
    ) -> tuple[Image, Image]:
        """Day and encoded night, uint8 [height_px, width_px, 3]; black below the horizon."""
        rows = int(min(camera.horizon_px + 3, height_px))
        day, night, cover = self._coarse(camera, rows, width_px, time_s)
        size = (width_px, rows)
        day, night = (cv2.resize(part, size) for part in (day, night))
        self._add_stars(night, camera, cover)
        self._add_disc(day, night, camera)
        pictures = []
        for top in (day, encoded(night)):
            picture = np.zeros((height_px, width_px, 3), dtype=np.uint8)
            picture[:rows] = np.clip(top, 0, 255)
            pictures.append(picture)
        return pictures[0], pictures[1]

    def _sun_px(self, camera: Camera) -> tuple[float, float]:
        here = np.array([camera.x_m, camera.height_m, camera.z_m])
        pixels, depth = camera.project(here + 50.0 * self.sun)
        return (float(pixels[0]), float(pixels[1])) if depth > 5.0 else (-1e5, -1e5)

    def _coarse(
        self, camera: Camera, rows: int, width_px: int, time_s: float
    ) -> tuple[Floats, Floats, Floats]:
        """Day, linear night and cover of clouds without sharp things, on every second pixel."""
        focal_px = camera.focal_px / 2.0
        down = (np.arange((rows + 1) // 2, dtype=np.float32) + 0.5)[:, None]
        right = (np.arange((width_px + 1) // 2, dtype=np.float32) + 0.5)[None]
        up = np.maximum((camera.horizon_px / 2.0 - down) / focal_px, 0.0)
        across = (right - camera.centre_x_px / 2.0) / focal_px
        cosine, sine = float(np.cos(camera.yaw_rad)), float(np.sin(camera.yaw_rad))
        reach = 42.0 / (up + 0.16)
        map_x = (across * cosine + sine) * reach + (self.wind * time_s + self.offset[0])
        map_z = (cosine - across * sine) * reach + self.offset[1]
        noise = cv2.remap(
            self.noise, map_x, map_z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        cover = np.clip((noise - self.clear) * 5.0, 0.0, 1.0) * np.minimum(up * 7.0, 1.0)
        thick = np.clip((noise - self.clear - 0.1) * 3.0, 0.0, 1.0)[..., None]
        cover = (cover * cover * (3.0 - 2.0 * cover) * 0.92)[..., None]
        sun_x, sun_y = self._sun_px(camera)
        far = np.hypot(right - sun_x / 2.0, down - sun_y / 2.0)[..., None] / focal_px

        height = np.sqrt(np.minimum(up / 0.75, 1.0))[..., None]
        day = self.horizon + (self.zenith - self.horizon) * height
        day = day + cover * (self.cloud * (1.0 - 0.16 * thick) - day)
        day += 0.75 * np.exp(-far * 5.0) * (np.array([216, 244, 255], np.float32) - day)

        deep = np.array([0.105, 0.030, 0.014], dtype=np.float32)
        night = deep + self.glow * (np.exp(-up * 4.2) * 0.62)[..., None]
        cloud = np.array([0.100, 0.044, 0.034], np.float32) + 0.13 * self.glow
        night = night + 0.75 * cover * (cloud * (1.1 - 0.4 * thick) - night)
        halo = (0.22 * np.exp(-far * 9.0) + 0.10 * np.exp(-far * 3.0)) * (1.0 - 0.6 * cover)
        night = night + halo * np.array([0.95, 0.88, 0.80], np.float32)
        return day, night, cover

    def _add_disc(self, day: Floats, night: Floats, camera: Camera) -> None:
        """The sun, and the moon in its place."""
        sun_x, sun_y = self._sun_px(camera)
        radius = 0.034 * camera.focal_px
        x0, y0 = max(int(sun_x - radius - 2), 0), max(int(sun_y - radius - 2), 0)
        x1 = min(int(sun_x + radius + 3), day.shape[1])
        y1 = min(int(sun_y + radius + 3), day.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        x = np.arange(x0, x1, dtype=np.float32) + 0.5 - sun_x
        y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - sun_y)[:, None]
        disc = np.clip(radius + 0.5 - np.hypot(x, y), 0.0, 1.0)[..., None]
        scale = np.float32(26.0 / radius)
        seas = cv2.remap(
            self.noise, x * scale + 60.0 + 0.0 * y, y * scale + 60.0 + 0.0 * x, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        face = 1.0 - 0.3 * np.clip((seas - 0.42) * 6.0, 0.0, 1.0)[..., None]
        moon = face * np.array([2.0, 1.95, 1.85], np.float32)
        bright, dark = day[y0:y1, x0:x1], night[y0:y1, x0:x1]
        bright += 0.75 * disc * (np.array([236, 252, 255], np.float32) - bright)
        dark += disc * (moon - dark)

    def _add_stars(self, night: Floats, camera: Camera, cover: Floats) -> None:
        origin = np.array([camera.x_m, camera.height_m, camera.z_m])
        pixels, depth = camera.project(self.stars + origin)
        spots = np.floor(pixels).astype(int)
        inside = (depth > 0.5) & (spots >= 0).all(1)
        inside &= (spots[:, 0] < night.shape[1] - 1) & (spots[:, 1] < night.shape[0] * 0.92)
        for (x, y), (fx, fy), light in zip(
            spots[inside], (pixels - spots)[inside], self.star_light[inside], strict=True
        ):
            weights = np.outer([1 - fy, fy], [1 - fx, fx])[..., None] * (0.25 + 1.6 * light)
            seen = weights * (1 - cover[y // 2, x // 2])
            patch = night[y : y + 2, x : x + 2]
            patch += seen[: patch.shape[0], : patch.shape[1]]


class Ground:
    """Road, kerbs, pavements and crossings, with the light that falls on them."""

    def __init__(
        self, rng: np.random.Generator, lamps: Lamps, crossings_m: list[float], end_m: float
    ) -> None:
        self.crossings_m = crossings_m
        self.end_m = end_m
        self.asphalt = float(rng.uniform(84, 118))
        self.tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.05, 0.05, 3) * [1, 0.4, 1]
        self.paving = [(168, 178, 186), (158, 160, 164), (150, 172, 196), (176, 186, 190)][
            int(rng.integers(4))
        ]
        self.grain = fractal_noise(99, 256, 6, 8)
        across = np.arange(-_GRID_X_M, _GRID_X_M, 1.0) + 0.5
        along = np.arange(*_GRID_Z_M, 1.0) + 0.5
        grid = np.stack(np.meshgrid(across, along), axis=-1)
        points = np.stack([grid[..., 0], np.zeros_like(grid[..., 0]), grid[..., 1]], axis=-1)
        light = lamps.light(points.reshape(-1, 3), np.array([0.0, 1.0, 0.0]))
        size = (len(across) * _CELLS_PER_M, len(along) * _CELLS_PER_M)
        coarse = light.reshape(len(along), len(across), 3)
        self.light = np.maximum(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), 0.0)
        self.light += MOONLIGHT
        self.sun = np.full(
            (len(along) * _SHADOW_CELLS_PER_M, len(across) * _SHADOW_CELLS_PER_M), 1.0, np.float32
        )

    def shade(self, x_m: float, z_m: float, half_x_m: float, half_z_m: float, turn: float) -> None:
        """Cast a shadow by day: an ellipse on the ground, turned by `turn` degrees."""
        scale = _SHADOW_CELLS_PER_M
        centre = ((x_m + _GRID_X_M) * scale, (z_m - _GRID_Z_M[0]) * scale)
        box = (centre, (2 * half_x_m * scale, 2 * half_z_m * scale), turn)
        cv2.ellipse(self.sun, box, 0.0, -1)

    def shade_rows(self, x0_m: float, x1_m: float, z0_m: float, z1_m: float) -> None:
        """Cast the shadow of a house: an axis-parallel rectangle on the ground."""
        scale = _SHADOW_CELLS_PER_M
        rows = slice(*(round((z - _GRID_Z_M[0]) * scale) for z in (z0_m, z1_m)))
        columns = slice(*(max(round((x + _GRID_X_M) * scale), 0) for x in (x0_m, x1_m)))
        self.sun[rows, columns] = 0.0

    def finish_shadows(self) -> None:
        """Soften all shadows once they are cast."""
        self.sun = cv2.blur(cv2.blur(self.sun, (3, 3)), (3, 3))

    def add_light(
        self, light: Floats, x_m: float, z_m: float, reach_m: tuple[float, float], colour: Colour
    ) -> None:
        """Add a soft spot (Gaussian with the given deviations in x and z) to a light map."""
        patches, spots = [], []
        for middle, reach, cells in (
            (z_m - _GRID_Z_M[0], reach_m[1], light.shape[0]),
            (x_m + _GRID_X_M, reach_m[0], light.shape[1]),
        ):
            low = max(int((middle - 3 * reach) * _CELLS_PER_M), 0)
            high = min(int((middle + 3 * reach) * _CELLS_PER_M) + 1, cells)
            if high <= low:
                return
            offsets = (np.arange(low, high, dtype=np.float32) + 0.5) / _CELLS_PER_M - middle
            patches.append(slice(low, high))
            spots.append(np.exp(-0.5 * (offsets / reach) ** 2))
        spot = spots[0][:, None, None] * spots[1][:, None]
        light[patches[0], patches[1]] += spot * np.array(colour, dtype=np.float32)

    def light_at(self, x_m: float, z_m: float) -> Floats:
        """Light on something small that stands at x, z: linear BGR [3]."""
        row = int(np.clip((z_m - _GRID_Z_M[0]) * _CELLS_PER_M, 0, self.light.shape[0] - 1))
        column = int(np.clip((x_m + _GRID_X_M) * _CELLS_PER_M, 0, self.light.shape[1] - 1))
        found: Floats = self.light[row, column]
        return found

    def draw(
        self, camera: Camera, day: Image, night: Image, light: Floats, sources: list[Source],
        day_haze: Floats, night_haze: Floats,
    ) -> None:  # fmt: skip
        """Paint everything below the horizon into both pictures [h, w, 3], in place."""
        height_px, width_px = day.shape[:2]
        first = int(np.ceil(camera.horizon_px))
        down = np.arange(first, height_px, dtype=np.float32) + 0.5 - camera.horizon_px
        depth = (camera.height_m * camera.focal_px / np.maximum(down, 0.5))[:, None]
        across = (np.arange(width_px, dtype=np.float32) + 0.5 - camera.centre_x_px)[None]
        side = across * (depth / camera.focal_px)
        cosine, sine = np.float32(np.cos(camera.yaw_rad)), np.float32(np.sin(camera.yaw_rad))
        x = np.float32(camera.x_m) + side * cosine + depth * sine
        z = np.float32(camera.z_m) - side * sine + depth * cosine
        fine = depth / np.float32(camera.focal_px)
        deep = fine * depth / np.float32(camera.height_m)
        x_step = np.abs(fine * cosine) + np.abs(deep * sine) + 1e-4
        z_step = np.abs(fine * sine) + np.abs(deep * cosine) + 1e-4

        def band(distance: Floats, half_m: float, step: Floats) -> Floats:
            cover: Floats = np.clip((half_m - np.abs(distance)) / step + 0.5, 0.0, 1.0)
            cover *= np.minimum(2.0 * half_m / step, 1.0)
            return cover

        on_road = band(x, ROAD_HALF_M, x_step)
        tooth = np.clip(0.5 - (np.abs(x - np.floor(x) - 0.5) - 0.25) / x_step, 0.0, 1.0)
        tooth = tooth + (0.5 - tooth) * np.clip(x_step * 2.0 - 0.5, 0.0, 1.0)
        paint = band(x, 0.08, x_step) * self._dashes(z, z_step)
        paint = np.maximum(paint, band(np.abs(x) - 3.15, 0.06, x_step))
        for middle in self.crossings_m:
            zebra = band(z - middle, 1.5, z_step)
            paint = np.maximum(paint * (1.0 - zebra), zebra * tooth)
        paint *= on_road * 0.9
        kerb = band(np.abs(x) - ROAD_HALF_M - 0.12, 0.13, x_step)
        joints = np.maximum(band(_ripple(x, 0.8), 0.02, x_step),
                            band(_ripple(z, 0.8), 0.02, z_step))  # fmt: skip
        scale = np.float32(22.0)
        rough = cv2.remap(self.grain, x * scale, z * scale, cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REFLECT)  # fmt: skip
        patchy = cv2.remap(self.grain, x * 2, z * 2, cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REFLECT)  # fmt: skip
        rough = 1.0 + (rough - 0.5) * 0.45 / (1.0 + 20.0 * z_step) + (patchy - 0.5) * 0.22
        track = 1.0 - 0.10 * np.exp(-(((np.abs(np.abs(x) - 1.75) - 0.8) / 0.3) ** 2))

        road = (self.asphalt * rough * track * (1.0 - paint) + 232.0 * paint)[..., None]
        stone = (rough * (1.0 - 0.22 * joints))[..., None] * np.array(self.paving, np.float32)
        stone += kerb[..., None] * (196.0 - stone)
        albedo = stone + on_road[..., None] * (road * self.tint.astype(np.float32) - stone)

        sun = cv2.remap(self.sun, (x + _GRID_X_M) * _SHADOW_CELLS_PER_M - 0.5,
                        (z - _GRID_Z_M[0]) * _SHADOW_CELLS_PER_M - 0.5, cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        shadow = np.array([0.66, 0.58, 0.54], np.float32)
        sunlit = np.array([0.98, 1.05, 1.10], np.float32)
        far = (1.0 - np.exp(-depth / 170.0))[..., None]
        bright = albedo * (shadow + sun[..., None] * (sunlit - shadow))
        day[first:] = np.clip(bright + far * (day_haze - bright), 0, 255).astype(np.uint8)

        size = (width_px, height_px - first)
        half_x = np.ascontiguousarray((x[::2, ::2] + _GRID_X_M) * _CELLS_PER_M - 0.5)
        half_z = np.ascontiguousarray((z[::2, ::2] - _GRID_Z_M[0]) * _CELLS_PER_M - 0.5)
        border = cv2.BORDER_REPLICATE
        lamp = cv2.remap(light, half_x, half_z, cv2.INTER_LINEAR, borderMode=border)
        lamp = cv2.resize(lamp, size, interpolation=cv2.INTER_LINEAR)
        dark = np.square(albedo * np.float32(0.85 / 255.0)) * lamp
        mirror = self._mirrored(camera, first, height_px, width_px, sources)
        mirror = cv2.resize(mirror, size, interpolation=cv2.INTER_LINEAR)
        dark += mirror * ((0.08 + 0.32 * on_road * rough) * (1.0 - 0.75 * paint))[..., None]
        dark += far * (night_haze - dark)
        night[first:] = encoded(dark).astype(np.uint8)

    @staticmethod
    def _dashes(z: Floats, step: Floats) -> Floats:
        dash = np.clip((1.4 - np.abs(_ripple(z, 6.0))) / step + 0.5, 0.0, 1.0)
        blurred: Floats = dash + (0.47 - dash) * np.clip(step / 3.0 - 0.3, 0.0, 1.0)
        return blurred

    @staticmethod
    def _mirrored(
        camera: Camera, first: int, height_px: int, width_px: int, sources: list[Source]
    ) -> Floats:
        """Long streaks that the asphalt makes of the lights beyond it, at half resolution."""
        rows = np.arange(first, height_px, 2, dtype=np.float32) + 1.0
        columns = np.arange(0, width_px, 2, dtype=np.float32) + 1.0
        layer = np.zeros((len(rows), len(columns), 3), dtype=np.float32)
        for source in sources:
            across, depth = camera.place(source.x_m, source.z_m)
            if not 2.0 < depth < 60.0:
                continue
            down = camera.horizon_px + (source.y_m + camera.height_m) * camera.focal_px / depth
            foot = camera.horizon_px + camera.height_m * camera.focal_px / depth
            size = source.radius_m * camera.focal_px / depth
            wide = max(1.3 * size, 0.008 * width_px)
            long = 0.35 * (down - foot) + 0.06 * height_px
            left = max(int(across - 3 * wide) // 2, 0)
            right = min(int(across + 3 * wide) // 2 + 1, len(columns))
            top = max((int(foot) - first) // 2, 0)
            if right <= left or top >= len(rows):
                continue
            fall = np.exp(-0.5 * ((rows[top:] - down) / long) ** 2)
            fade = np.exp(-0.5 * ((columns[left:right] - across) / wide) ** 2)
            shine = np.array(source.colour, dtype=np.float32) * np.float32(min(size / wide, 1.0))
            layer[top:, left:right] += fall[:, None, None] * (fade[:, None] * shine)
        return layer


def _ripple(x: Floats, period: float) -> Floats:
    """Signed distance to the middle of the period that x is in."""
    turns = x * np.float32(1.0 / period)
    distance: Floats = (turns - np.floor(turns) - np.float32(0.5)) * np.float32(period)
    return distance
