"""A picture of one size as one of another, in [N, H, W, C], by two small matrix products.

A smaller picture has the averages of the pixels that it covers, as training pictures have that
were resized by area; a larger one is interpolated, bilinear, centres on centres. ONNX's Resize
can do neither fast: it has no average, and in [N, H, W, C] ONNX Runtime computes it value by
value. Two sizes have a common period (1080 pixels of 256: 8 times 135 of 32), so that one small
matrix serves all periods of an axis, and its product lies in memory as the picture does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from export.verify import Size

_LONGEST_PERIOD = (32, 256)
"""Pixels of the smaller and of the larger picture; past them the larger one is padded."""
_TOGETHER = 16
"""Pixels of the larger picture. Shorter periods are taken a few at once, with zeros between them:
a matrix of 3x2 leaves a processor idle, and its taps are copied thrice (by experiment on x86)."""


class Resampling(nn.Module):
    """From one size to another, each axis for itself; exact, and the same in every engine."""

    def __init__(self, size_px: Size, to_px: Size, colours: Tensor) -> None:
        """Work out the matrices.

        Args:
            size_px: (height, width) of what comes in.
            to_px: (height, width) of what goes out.
            colours: float [C', C], what each channel that goes out takes of those that come in.
        """
        super().__init__()
        rows, columns = (axis_between(*sides) for sides in zip(size_px, to_px, strict=True))
        self.size_px, self.to_px = size_px, to_px
        self._rows, self._columns, self._colours = rows, columns, len(colours)
        self._mixes = not torch.equal(colours, torch.eye(*colours.shape))
        # [T * C, B * C']
        apart = columns.weights.T[:, None, :, None] * colours.T[:, None]
        mixed = apart.reshape(-1, columns.weights.shape[0] * len(colours))
        for name, tensor in (
            ("row_taps", rows.taps),
            ("row_weights", rows.weights),
            ("column_taps", columns.taps),
            ("column_weights", mixed),
        ):
            self.register_buffer(name, tensor, persistent=False)

    row_taps: Tensor
    row_weights: Tensor
    column_taps: Tensor
    column_weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """float [N, H, W, C] of `size_px` to [N, H, W, C'] of `to_px`."""
        if not self._columns.in_order:
            x = x.index_select(2, self.column_taps)
        if not self._rows.in_order:
            x = x.index_select(1, self.row_taps)
        # First the axis that leaves less to do for the other.
        if self.to_px[1] < self.size_px[1]:
            return self._along_rows(self._along_columns(x))
        return self._along_columns(self._along_rows(x))

    def _along_rows(self, x: Tensor) -> Tensor:
        axis = self._rows
        if axis.does_nothing:
            return x
        batch, _, width, channels = x.shape
        periods = x.reshape(-1, axis.weights.shape[1], width * channels)
        made = torch.matmul(self.row_weights, periods)
        return made.reshape(batch, -1, width, channels)[:, : axis.length]

    def _along_columns(self, x: Tensor) -> Tensor:
        axis = self._columns
        if axis.does_nothing and not self._mixes:
            return x
        batch, height, _, _ = x.shape
        made = torch.matmul(x.reshape(-1, self.column_weights.shape[0]), self.column_weights)
        return made.reshape(batch, height, -1, self._colours)[:, :, : axis.length]


@dataclass(frozen=True)
class Axis:
    """How one axis goes from one length to another, period by period."""

    length: int
    """Pixels that are wanted; the last period may give more."""
    taps: Tensor
    """int64 [periods * T]: the pixels that each period looks at, one period behind the other."""
    weights: Tensor
    """float [B, T]: what each of a period's B pixels takes of them."""
    in_order: bool
    """Whether the taps are all pixels as they lie."""

    does_nothing: bool
    """Whether what comes out is what came in."""


def axis_between(length: int, to: int) -> Axis:
    """The axis from `length` pixels to `to`: averages where it shrinks, bilinear where it grows.

    Where the lengths have no short period, the longer one is taken as a few pixels longer, its
    last pixel repeated: the picture moves by less than a pixel of the shorter one.
    """
    small, large = min(length, to), max(length, to)
    whole = next(padded for padded in count(large) if _has_short_period(small, padded))
    shrinks = to < length
    source, target = (whole, small) if shrinks else (small, whole)
    periods = math.gcd(small, whole)
    inside, made = source // periods, target // periods
    beside = 1 if to > length else 0
    at_once = math.gcd(periods, max(1, _TOGETHER // max(inside, made)))
    periods, inside, made = periods // at_once, inside * at_once, made * at_once
    weights = torch.zeros((made, inside + 2 * beside), dtype=torch.float64)
    for pixel in range(made):
        if shrinks:
            first, last = pixel * inside / made, (pixel + 1) * inside / made
            for tap in range(inside):
                covered = min(last, tap + 1) - max(first, tap)
                weights[pixel, tap] = max(covered, 0.0) / (last - first)
        else:
            place = (pixel + 0.5) * inside / made - 0.5 + beside
            weights[pixel, math.floor(place)] += 1 - place % 1
            if place % 1:
                weights[pixel, math.floor(place) + 1] += place % 1
    starts = torch.arange(periods)[:, None] * inside
    taps = (starts + torch.arange(-beside, inside + beside)).reshape(-1).clamp(0, length - 1)
    in_order = torch.equal(taps, torch.arange(length))
    does_nothing = in_order and length == to
    return Axis(to, taps, weights.to(torch.float32), in_order, does_nothing)


def _has_short_period(small: int, large: int) -> bool:
    periods = math.gcd(small, large)
    return small // periods <= _LONGEST_PERIOD[0] and large // periods <= _LONGEST_PERIOD[1]
