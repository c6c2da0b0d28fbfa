"""How a drawn street becomes a picture: camera, the pair of canvases, exposure by night.

The night canvas holds the square root of the radiance ("encoded"), so that 8 bits reach from
moonlight to a lamp; `expose` turns it into a picture after the glow of bright things was added.
World axes in metres: x to the right across the street, y up, z forward along the street.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, sin, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

SUPERSAMPLING = 2
RADIANCE_RANGE = 4.0
EXPOSURE = 1.05
NEAREST_M = 0.4
SUBPIXEL_BITS = 4


def encoded(radiance: Any) -> Any:
    """Linear radiance (1.0 is white paper under a lamp) to its 8-bit code, as float 0 to 255."""
    return np.minimum(255.0 / sqrt(RADIANCE_RANGE) * np.sqrt(radiance), 255.0)


def lit(albedo_bgr: Colour, light_bgr: Sequence[float]) -> Colour:
    """Encoded night colour of a surface: albedo_bgr is a display colour, 0 to 255."""
    blue, green, red = light_bgr
    return (
        albedo_bgr[0] * min(sqrt(blue / RADIANCE_RANGE), 1.0),
        albedo_bgr[1] * min(sqrt(green / RADIANCE_RANGE), 1.0),
        albedo_bgr[2] * min(sqrt(red / RADIANCE_RANGE), 1.0),
    )


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` (0 to 1) of the way from first to second."""
    keep = 1.0 - share
    return (
        first[0] * keep + second[0] * share,
        first[1] * keep + second[1] * share,
        first[2] * keep + second[2] * share,
    )


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that never tilts (verticals stay vertical); lengths in metres or px."""

    x_m: float
    height_m: float
    z_m: float
    yaw_rad: float
    focal_px: float
    centre_x_px: float
    horizon_px: float

    def scaled(self, factor: int) -> Camera:
        """The same view on a picture `factor` times as large."""
        return replace(
            self,
            focal_px=self.focal_px * factor,
            centre_x_px=self.centre_x_px * factor,
            horizon_px=self.horizon_px * factor,
        )

    def project(self, points_m: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels [..., 2] and depth in metres [...] of world points [..., 3]."""
        points = np.asarray(points_m, dtype=np.float64)
        x, z = points[..., 0] - self.x_m, points[..., 2] - self.z_m
        cosine, sine = cos(self.yaw_rad), sin(self.yaw_rad)
        depth = x * sine + z * cosine
        scale = self.focal_px / np.maximum(depth, NEAREST_M)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre_x_px + (x * cosine - z * sine) * scale
        pixels[..., 1] = self.horizon_px - (points[..., 1] - self.height_m) * scale
        return pixels, depth

    def place(self, x_m: float, z_m: float) -> tuple[float, float]:
        """Column in px and depth in metres of something upright at x, z."""
        x, z = x_m - self.x_m, z_m - self.z_m
        cosine, sine = cos(self.yaw_rad), sin(self.yaw_rad)
        depth = x * sine + z * cosine
        across = (x * cosine - z * sine) * self.focal_px / max(depth, NEAREST_M)
        return self.centre_x_px + across, depth


class Canvas:
    """The day picture and the encoded night picture, drawn together by one camera."""

    def __init__(self, camera: Camera, day: Image, night: Image) -> None:
        self.camera = camera
        self.day = day
        self.night = night
        self.height_px, self.width_px = day.shape[:2]

    def fill(self, pixels: NDArray[np.float64], day: Colour, night: Colour) -> None:
        """Fill a convex polygon given in canvas pixels [n, 2]."""
        corners = ((pixels - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillConvexPoly(self.day, corners, day, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.fillConvexPoly(self.night, corners, night, cv2.LINE_AA, SUBPIXEL_BITS)

    def sees(self, x_m: float, z_m: float, radius_m: float) -> bool:
        """Whether an upright thing of this radius at x, z can show in the picture."""
        column, depth = self.camera.place(x_m, z_m)
        if depth < radius_m + NEAREST_M:
            return False
        margin = radius_m * self.camera.focal_px / depth
        return bool(-margin < column < self.width_px + margin)

    def polygon(self, points_m: Any, day: Colour, night: Colour) -> None:
        """Fill a convex polygon of world points [n, 3]; nothing if part is behind the camera."""
        pixels, depth = self.camera.project(points_m)
        across = pixels[:, 0]
        if depth.min() > NEAREST_M and across.max() > 0 and across.min() < self.width_px:
            self.fill(pixels, day, night)

    def bars(self, ends_m: Any, widths_m: Any, colours: Sequence[tuple[Colour, Colour]]) -> None:
        """Straight bars between world points [n, 2, 3], of widths [n], in (day, night) colours."""
        pixels, depth = self.camera.project(ends_m)
        if depth.min() <= NEAREST_M:
            return
        along = pixels[:, 1] - pixels[:, 0]
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        normal /= np.sqrt((normal**2).sum(1, keepdims=True)) + 1e-6
        widths = np.asarray(widths_m)[:, None] * self.camera.focal_px / depth
        half = np.maximum(0.5 * widths, 0.4)[..., None] * normal[:, None]
        outlines = np.concatenate([pixels - half, (pixels + half)[:, ::-1]], axis=1)
        for outline, (day, night) in zip(outlines, colours, strict=True):
            self.fill(outline, day, night)

    def balls(
        self, centres_m: Any, radius_m: float, colours: Sequence[tuple[Colour, Colour]]
    ) -> None:
        """Balls at world points [n, 3], seen as discs, in (day, night) colours."""
        pixels, depth = self.camera.project(centres_m)
        if depth.min() <= NEAREST_M:
            return
        radii = np.maximum(radius_m * self.camera.focal_px / depth, 0.7) * (1 << SUBPIXEL_BITS)
        centres = ((pixels - 0.5) * (1 << SUBPIXEL_BITS)).astype(int).tolist()
        for centre, radius, (day, night) in zip(
            centres, radii.astype(int).tolist(), colours, strict=True
        ):
            cv2.circle(self.day, centre, radius, day, -1, cv2.LINE_AA, SUBPIXEL_BITS)
            cv2.circle(self.night, centre, radius, night, -1, cv2.LINE_AA, SUBPIXEL_BITS)

    def texture(
        self, start_m: Any, end_m: Any, height_m: float, day: Image, night: Image, outline: Any
    ) -> None:
        """Hang a texture on the upright wall over the ground line start to end (left to right).

        outline: convex or not, [n, 2] in texture shares (u to the right, v up from the ground);
        what lies outside of it is not drawn.
        """
        ends = np.array([start_m, end_m], dtype=np.float64)
        _, depth = self.camera.project(ends)
        if depth.max() <= NEAREST_M:
            return
        u_near = np.array([0.0, 1.0])
        if depth.min() <= NEAREST_M:
            cut = (NEAREST_M * 1.01 - depth[0]) / (depth[1] - depth[0])
            u_near[int(depth[1] < depth[0])] = cut
        corner_uv = np.array([[u, v] for v in (0.0, 1.0) for u in u_near])
        pixels, _ = self._wall_pixels(ends, height_m, corner_uv)
        tall, wide = day.shape[:2]
        in_texture = (corner_uv * [1, -1] + [0, 1]) * [wide, tall] - 0.5
        shape = np.asarray(outline, dtype=np.float64).copy()
        if depth.min() <= NEAREST_M:
            shape[:, 0] = np.clip(shape[:, 0], u_near[0], u_near[1])
        edge, _ = self._wall_pixels(ends, height_m, shape)
        size = np.array([self.width_px, self.height_px])
        low = np.minimum(np.maximum(edge.min(axis=0) - 1.0, 0.0), size).astype(int)
        high = np.minimum(np.maximum(edge.max(axis=0) + 2.0, 0.0), size).astype(int)
        if (high <= low).any():
            return
        warp = cv2.getPerspectiveTransform(
            in_texture.astype(np.float32), (pixels - low - 0.5).astype(np.float32)
        )
        roi_size = [int(v) for v in high - low]
        mask = np.zeros((roi_size[1], roi_size[0]), dtype=np.uint8)
        corners = np.round((edge - low - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_8, SUBPIXEL_BITS)
        for image, source in ((self.day, day), (self.night, night)):
            warped = cv2.warpPerspective(
                source, warp, roi_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            roi = image[low[1] : high[1], low[0] : high[0]]
            cv2.copyTo(warped, mask, roi)

    def _wall_pixels(
        self, ends: NDArray[np.float64], height_m: float, uv: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        points = ends[0] + uv[:, :1] * (ends[1] - ends[0])
        points[:, 1] = uv[:, 1] * height_m
        return self.camera.project(points)

    def sprite(self, foot_m: Any, size_m: float, day: Image, night: Image, alpha: Image) -> None:
        """Stand a square upright sprite [s, s, 3], opaque where alpha [s, s] is 255, on foot_m."""
        pixels, depth = self.camera.project(np.asarray(foot_m))
        if depth < 1.5:
            return
        scale = size_m * self.camera.focal_px / float(depth) / alpha.shape[0]
        left, top = pixels[0] - 0.5 * scale * alpha.shape[0], pixels[1] - scale * alpha.shape[0]
        side = scale * alpha.shape[0]
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1 = min(int(left + side) + 1, self.width_px)
        y1 = min(int(top + side) + 1, self.height_px)
        if x1 <= x0 or y1 <= y0:
            return
        shift = 0.5 * scale - 0.5
        warp = np.array([[scale, 0, left - x0 + shift], [0, scale, top - y0 + shift]])
        size = (x1 - x0, y1 - y0)
        cover = cv2.warpAffine(alpha, warp, size, flags=cv2.INTER_LINEAR)
        weight = cv2.merge([cover, cover, cover])
        for image, source in ((self.day, day), (self.night, night)):
            moved = cv2.warpAffine(source, warp, size, borderMode=cv2.BORDER_REPLICATE)
            roi = image[y0:y1, x0:x1]
            behind = cv2.multiply(roi, cv2.bitwise_not(weight), scale=1 / 255)
            roi[:] = cv2.add(behind, cv2.multiply(moved, weight, scale=1 / 255))


def radiance_of(night: Image) -> Floats:
    """Linear radiance [h, w, 3] of an encoded night picture."""
    floats = night.astype(np.float32)
    radiance: Floats = floats * floats * np.float32(RADIANCE_RANGE / 255.0**2)
    return radiance


def expose(radiance: Floats, haze: Floats) -> Image:
    """The night photograph, uint8 [h, w, 3], BGR, with the glow of all that is bright.

    haze is light in the air, float32 [h / 2, w / 2, 3], added softly (lamp cones).
    """
    height_px, width_px = radiance.shape[:2]
    small = cv2.resize(
        radiance, (max(width_px // 4, 4), max(height_px // 4, 4)), interpolation=cv2.INTER_AREA
    )
    peak = small.max(axis=2, keepdims=True)
    bright = small * (np.maximum(peak - 0.7, 0.0) / (peak + 0.01))
    unit = small.shape[0] / 64.0
    glow = 0.55 * cv2.GaussianBlur(bright, (0, 0), 0.9 * unit)
    glow += 0.42 * cv2.GaussianBlur(bright, (0, 0), 3.0 * unit)
    glow += 0.22 * cv2.GaussianBlur(bright, (0, 0), 9.0 * unit)
    glow += cv2.GaussianBlur(
        cv2.resize(haze, small.shape[1::-1], interpolation=cv2.INTER_AREA), (0, 0), unit
    )
    total = radiance + cv2.resize(glow, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    steps = np.arange(4096, dtype=np.float32) / 512.0
    curve = (255.0 * (1.0 - np.exp(-EXPOSURE * steps)) ** 0.56 + 0.5).astype(np.uint8)
    picture: Image = curve[np.minimum(total * 512.0, 4095.0).astype(np.uint16)]
    return picture
