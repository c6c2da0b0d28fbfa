"""Tasks that need plain photos only: the photo is the target, and the input is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.images import Image

Floats = NDArray[np.floating[Any]]

EDGE_SIGMA = 1.3 / 256
"""Of the Gaussian that calms texture before edges are looked for, as a part of the side."""
EDGE_PART = 0.12
"""Part of the pixels whose gradient is strong enough to start a line."""
EDGE_LEAST = 20.0
"""Gradient (Sobel 3x3, levels of 0 to 255) below which nothing starts a line: noise, clear sky."""
EDGE_WEAK = 0.4
"""A line goes on where the gradient is at least this part of what starts one."""
EDGE_SHORTEST = 16 / 256
"""Lines of fewer pixels than this part of the side are left out."""
SUPERRES_FACTOR = 4
DISC_RADIUS = (0.006, 0.016)
"""Of a lens out of focus, as a part of the side: 1.5 to 4 pixels of 256."""
MOTION_LENGTH = (0.02, 0.05)
"""Of a camera that moved, as a part of the side: 5 to 13 pixels of 256."""
NOISE_LEVELS = (0.5, 2.5)
"""Standard deviation of the noise on a blurred photo, in levels of 0 to 255."""
_DISPLAY_GAMMA = 2.2


def made_input(task: str, photo: Image, name: str) -> Image:
    """The input that `task` makes of a photo.

    Args:
        task: one of `trainer.config.TASKS` other than `pairs`.
        photo: uint8 [S, S, 3], BGR, at the size that the network trains at.
        name: of the photo; what a task draws at random depends on it alone.

    Returns:
        uint8 [S, S, 3], BGR.
    """
    return _MAKERS[task](photo, name)


def grey_form(photo: Image) -> Image:
    """Its luma (ITU-R BT.601) in three equal channels."""
    return _three_channels(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY))


def drawn_edges(photo: Image) -> Image:
    """Its edges as lines one pixel wide, black on white, after Canny 1986.

    The gradient is that of the colour channel that changes most, after a Gaussian. Lines start
    where it is among the strongest `EDGE_PART` of the picture, so that a dim photo gets about as
    many lines as a contrasty one, and follow it down to `EDGE_WEAK` of that. Isola et al. 2017
    trained on the edges of HED (Xie and Tu 2015), a network that knows which edges people draw;
    these come from the pixels alone and show more of the texture.
    """
    side = max(photo.shape[:2])
    calm = cv2.GaussianBlur(photo, (0, 0), max(EDGE_SIGMA * side, 0.5)).astype(np.float32)
    dx = cv2.Sobel(calm, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(calm, cv2.CV_32F, 0, 1)
    strongest = (dx**2 + dy**2).argmax(axis=2)[..., None]
    dx = np.take_along_axis(dx, strongest, 2)[..., 0]
    dy = np.take_along_axis(dy, strongest, 2)[..., 0]
    start = max(float(np.quantile(np.hypot(dx, dy), 1 - EDGE_PART)), EDGE_LEAST)
    lines = cv2.Canny(
        dx.astype(np.int16), dy.astype(np.int16), EDGE_WEAK * start, start, L2gradient=True
    )
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    long_enough = stats[:, cv2.CC_STAT_AREA] >= EDGE_SHORTEST * side
    long_enough[0] = False  # what is no line
    drawn = long_enough[labels]
    return _three_channels(np.where(drawn, 0, 255).astype(np.uint8))


def quarter_size(photo: Image) -> Image:
    """The photo at a quarter of its side (area average), brought back by bicubic interpolation."""
    height, width = photo.shape[:2]
    small = (max(1, round(width / SUPERRES_FACTOR)), max(1, round(height / SUPERRES_FACTOR)))
    shrunk = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
    grown = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown, dtype=np.uint8)


def blurred(photo: Image, name: str) -> Image:
    """The photo out of focus (a disc) or moved (a line), each for half of the names, and noisy.

    Light adds up in the lens, so the blur works on linear light: lamps grow, as they do in a
    camera.
    """
    random = np.random.default_rng(crc32(name.encode()))
    side = max(photo.shape[:2])
    if random.random() < 0.5:
        kernel = _disc(random.uniform(*DISC_RADIUS) * side)
    else:
        kernel = _line(random.uniform(*MOTION_LENGTH) * side, random.uniform(0, np.pi))
    light = (np.arange(256, dtype=np.float32) / 255) ** _DISPLAY_GAMMA
    spread = cv2.filter2D(light[photo], -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    levels = 255 * np.clip(spread, 0, 1) ** (1 / _DISPLAY_GAMMA)
    noise = random.normal(0, random.uniform(*NOISE_LEVELS), photo.shape)
    return np.asarray(np.clip(np.rint(levels + noise), 0, 255), dtype=np.uint8)


def _disc(radius_px: float) -> Floats:
    """A disc with a soft rim one pixel wide, float32, of sum 1."""
    half = int(np.ceil(radius_px))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disc = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1)
    return np.asarray(disc / disc.sum(), dtype=np.float32)


def _line(length_px: float, angle_rad: float) -> Floats:
    """A straight line through the middle with soft ends, float32, of sum 1."""
    half = int(np.ceil(length_px / 2))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = x * np.cos(angle_rad) + y * np.sin(angle_rad)
    across = -x * np.sin(angle_rad) + y * np.cos(angle_rad)
    line = np.clip(1 - np.abs(across), 0, 1) * np.clip(length_px / 2 + 0.5 - np.abs(along), 0, 1)
    return np.asarray(line / line.sum(), dtype=np.float32)


def _three_channels(grey: NDArray[Any]) -> Image:
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


_MAKERS: dict[str, Callable[[Image, str], Image]] = {
    "colourise": lambda photo, _: grey_form(photo),
    "edges": lambda photo, _: drawn_edges(photo),
    "superres": lambda photo, _: quarter_size(photo),
    "deblur": blurred,
}
