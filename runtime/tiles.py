"""Where tiles lie along one side of a picture, and how neighbours are blended."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_MOST_OVERLAP = 3
"""Ramps of a third of a tile and less never meet: a pixel belongs to two tiles at most."""


@dataclass(frozen=True)
class Span:
    """One tile along one side; all in pixels of the picture."""

    start: int
    """Where the tile begins; negative where it is longer than the picture."""
    ramp_from: int
    ramp_to: int
    """Where it is blended with the tile before; nothing (both 0) for the first."""
    end: int
    """Where what is seen of it ends, the ramp to the next tile included."""


@dataclass(frozen=True)
class Axis:
    """All tiles along one side, in order."""

    spans: tuple[Span, ...]
    ramp_px: int


def axis_of(length_px: int, tile_px: int, overlap_px: int) -> Axis:
    """Spread tiles evenly over a side.

    Args:
        length_px: of the picture's side.
        tile_px: of the tile's. A single tile longer than the picture is centred on it.
        overlap_px: that neighbours have at least, and the length of the ramp; 1 to a third of
            `tile_px`, what is outside is taken as the nearest of these.
    """
    ramp_px = max(1, min(overlap_px, tile_px // _MOST_OVERLAP))
    if length_px <= tile_px:
        return Axis((Span(-((tile_px - length_px) // 2), 0, 0, length_px),), ramp_px)
    count = -(-(length_px - ramp_px) // max(1, tile_px - ramp_px))
    starts = [round(number * (length_px - tile_px) / (count - 1)) for number in range(count)]
    ramps = [(0, 0)]
    for before, start in pairwise(starts):
        middle = (before + tile_px + start) // 2
        ramps.append((middle - ramp_px // 2, middle - ramp_px // 2 + ramp_px))
    ends = [ramp_to for _, ramp_to in ramps[1:]] + [length_px]
    spans = zip(starts, ramps, ends, strict=True)
    return Axis(tuple(Span(start, *ramp, end) for start, ramp, end in spans), ramp_px)


def blend_weights(ramp_px: int) -> NDArray[np.float32]:
    """float32 [ramp_px]: the later tile's share, from near 0 to near 1; the rest is the earlier's.

    It leaves 0 and reaches 1 without a kink (smoothstep): the eye finds kinks too.
    """
    at = (np.arange(ramp_px) + 0.5) / ramp_px
    weights: NDArray[np.float32] = (at * at * (3 - 2 * at)).astype(np.float32)
    return weights
