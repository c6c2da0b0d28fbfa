"""Flicker: how much a drawn video changes where its input stands still.

A generator draws each frame by itself, so that the noise of a camera, too weak to be seen, may
come out as lamps that twinkle and textures that boil. Where the input does not change the output
should not either; what changes there all the same is flicker. Pixels that move are left out, since
nothing tells how they should have changed: no optical flow has to be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

STILL_LEVELS = 2.0
"""A pixel stands still when no channel of the smoothed input changes by more grey levels."""
SMOOTHING_PX = 2.0
"""Standard deviation of the Gaussian that takes the camera's noise away before that is asked; it
also keeps the mask a few pixels away from what moves."""


@dataclass(frozen=True)
class Change:
    """From one frame to the next, over the pixels that stand still."""

    still: int
    """Pixels whose input does not change."""
    pixels: int
    """All of them."""
    flicker: float | None
    """Mean absolute change of the output there, in grey levels; None: nothing stands still."""
    input_change: float | None
    """The same of the input itself: the noise of the camera and of the video's compression."""


@dataclass(frozen=True)
class Flicker:
    """Over a whole video; each pixel that stands still counts alike."""

    flicker: float | None
    """Grey levels a frame; lower is better, and that of the input is what cannot be helped."""
    input_change: float | None
    still_share: float
    """Part of all pixels that was compared, 0 to 1: where it is small the rest says little."""
    changes: int
    """Pairs of consecutive frames."""


def still_pixels(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool [H, W]: where two consecutive inputs, uint8 [H, W, 3], show the same.

    Both are smoothed by `SMOOTHING_PX`; then no channel may differ by more than `STILL_LEVELS`.
    """
    difference = cv2.subtract(now.astype(np.float32), before.astype(np.float32))
    smooth = cv2.GaussianBlur(difference, (0, 0), SMOOTHING_PX)
    return np.asarray(np.abs(smooth).max(axis=2) <= STILL_LEVELS)


def change_between(
    inputs: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    outputs: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> Change:
    """Compare two consecutive frames.

    Args:
        inputs: (before, now), uint8 [H, W, 3] each.
        outputs: what was drawn of them, of the same shape.
    """
    still = still_pixels(*inputs)
    count = int(still.sum())
    if not count:
        return Change(0, still.size, None, None)
    return Change(count, still.size, _mean_change(outputs, still), _mean_change(inputs, still))


def flicker_of(changes: Sequence[Change]) -> Flicker:
    """Put the changes of one video together; at least one."""
    still = sum(change.still for change in changes)
    return Flicker(
        flicker=_weighted([(change.flicker, change.still) for change in changes]),
        input_change=_weighted([(change.input_change, change.still) for change in changes]),
        still_share=still / sum(change.pixels for change in changes),
        changes=len(changes),
    )


def _mean_change(
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]], still: NDArray[np.bool_]
) -> float:
    before, now = frames
    return float(cv2.absdiff(now, before)[still].mean(dtype=np.float64))


def _weighted(values: list[tuple[float | None, int]]) -> float | None:
    """The mean of (value, weight); None where nothing has a weight."""
    known = [(value, weight) for value, weight in values if value is not None]
    if not known:
        return None
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)
