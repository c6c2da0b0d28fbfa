"""Sliced Wasserstein distance of patches: is the texture of two sets of pictures the same?

Karras et al. 2018, "Progressive Growing of GANs", section 5: a Laplacian pyramid parts each
picture into bands of detail; of each band, patches of 7x7 pixels are taken as points in 147
dimensions, and the two clouds of points are compared along random directions. Where L1 prefers a
blur to sharp detail a pixel beside its place, this measure does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

PATCH_PX = 7
PATCHES = 128
"""Of each picture and level."""
DIRECTIONS = 128
ROUNDS = 4
"""Each with directions of its own: 512 in all."""
COARSEST_PX = 16


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distance of each band, times 1,000; lower is better, 0: the same patches."""

    levels: dict[int, float]
    """By the shorter side of the band in pixels, the finest first; the last holds the colours."""

    @property
    def mean(self) -> float:
        """The mean over the levels."""
        return float(np.mean(list(self.levels.values())))


def sliced_wasserstein(
    drawn: NDArray[np.uint8],
    targets: NDArray[np.uint8],
    seed: int = 0,
    *,
    own_scale: bool = False,
) -> SlicedWasserstein:
    """Compare the patches of two sets of pictures, level by level.

    Patches lie anywhere inside a picture, at places that follow from (seed, level) alone and are
    the same in `drawn[i]` and `targets[i]`: equal pictures give exactly 0. Two samples of one
    distribution do not: their distance is a floor that falls as pictures are added.

    Memory: about 0.3 MB a picture beside the arrays.

    Args:
        drawn: uint8 [N, H, W, 3], both sides 16 or more.
        targets: the same shape, the same colour order.
        seed: of the places and of the directions.
        own_scale: False: both sets are measured in the targets' standard deviations from the
            targets' mean, channel by channel, so that a colour cast and a loss of contrast count.
            True: each set in its own, as the paper's authors did, which hides both.

    Raises:
        ValueError: arrays that are not two such sets.
    """
    if drawn.shape != targets.shape or drawn.ndim != 4 or drawn.shape[3] != 3 or not len(drawn):
        raise ValueError(f"two arrays [N, H, W, 3], not {drawn.shape} and {targets.shape}")
    if min(drawn.shape[1:3]) < COARSEST_PX:
        raise ValueError(f"sides of {COARSEST_PX} px or more, not {drawn.shape[1:3]}")
    levels = {}
    for level, side_px in enumerate(level_sides(min(drawn.shape[1:3]))):
        finest_to_here = (level, side_px < 2 * COARSEST_PX)
        a = _patches(drawn, *finest_to_here, seed)
        b = _patches(targets, *finest_to_here, seed)
        centre, spread = _scale(b)
        _to_scale(a, *(_scale(a) if own_scale else (centre, spread)))
        _to_scale(b, centre, spread)
        random = np.random.default_rng([seed, level, 1])
        levels[side_px] = 1000 * _distance(_as_points(a), _as_points(b), random)
    return SlicedWasserstein(levels)


def level_sides(side_px: int) -> list[int]:
    """Sides of the pyramid's levels in pixels: `side_px`, halved (rounded up) down to 16."""
    sides = [side_px]
    while sides[-1] >= 2 * COARSEST_PX:
        sides.append((sides[-1] + 1) // 2)
    return sides


def _patches(
    pictures: NDArray[np.uint8], level: int, is_coarsest: bool, seed: int
) -> NDArray[np.float32]:
    """float32 [N * PATCHES, 3, 7, 7], of one level of every picture."""
    found = np.empty((len(pictures), PATCHES, 3, PATCH_PX, PATCH_PX), np.float32)
    random = np.random.default_rng([seed, level, 0])
    for picture, patches in zip(pictures, found, strict=True):
        band = _band(picture, level, is_coarsest)
        windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH_PX, PATCH_PX), axis=(0, 1))
        tops = random.integers(0, windows.shape[0], PATCHES)
        lefts = random.integers(0, windows.shape[1], PATCHES)
        patches[...] = windows[tops, lefts]
    return found.reshape(-1, 3, PATCH_PX, PATCH_PX)


def _band(picture: NDArray[np.uint8], level: int, is_coarsest: bool) -> NDArray[np.float32]:
    """One level of the Laplacian pyramid (Burt and Adelson 1983): what halving it would lose; the
    coarsest is what is left."""
    image = picture.astype(np.float32)
    for _ in range(level):
        image = cv2.pyrDown(image).astype(np.float32, copy=False)
    if is_coarsest:
        return image
    height, width = image.shape[:2]
    smooth = cv2.pyrUp(cv2.pyrDown(image), dstsize=(width, height))
    return np.asarray(image - smooth, dtype=np.float32)


def _scale(patches: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel, [1, 3, 1, 1]; of a flat channel 1."""
    centre = patches.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    spread = patches.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    spread = np.where(spread > 1e-3, spread, 1.0)
    return centre.astype(np.float32), spread.astype(np.float32)


def _to_scale(
    patches: NDArray[np.float32], centre: NDArray[np.float32], spread: NDArray[np.float32]
) -> None:
    patches -= centre
    patches /= spread


def _as_points(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    return patches.reshape(len(patches), -1)


def _distance(
    a: NDArray[np.float32], b: NDArray[np.float32], random: np.random.Generator
) -> float:
    """Mean over random directions of the Wasserstein-1 distance of two clouds, [M, D] each.

    Along one direction the best transport pairs the points in their order.
    """
    distances = []
    for _ in range(ROUNDS):
        directions = random.standard_normal((DIRECTIONS, a.shape[1])).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shadow_a, shadow_b = _sorted_shadows(directions, a), _sorted_shadows(directions, b)
        distances.append(np.abs(shadow_a - shadow_b).mean(dtype=np.float64))
    return float(np.mean(distances))


def _sorted_shadows(
    directions: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """[K, M]: the points of [M, D] along each of the directions [K, D], in order.

    torch multiplies, with as many threads as the program gave it: numpy's threads wait for each
    other on a busy machine. numpy sorts, several times faster than torch.
    """
    along = (torch.from_numpy(directions) @ torch.from_numpy(points).T).numpy()
    along.sort(axis=1)
    return along
