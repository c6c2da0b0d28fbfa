"""What range the activations of a network have on real pictures, for INT8.

Three ways to choose it: all that was seen (`minmax`), all but the rarest values (`percentile`),
or what keeps most of the distribution's information (`entropy`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graph import Array, values_of
from export.verify import Image

PERCENTILE = 99.99
BINS = 4096
_LEVELS = 128
_COUNTED = 250_000
"""Values of one picture that are counted, evenly over the tensor; its ends are always exact."""


@dataclass(frozen=True)
class Range:
    """The values of a tensor that INT8 has to tell apart; 0 is always among them."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(-self.low, self.high)


class Histogram:
    """Values of one tensor, counted in equal bins over a range that doubles when they leave it.

    So one pass over the pictures is enough, and no activations are kept.
    """

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 0.0
        self._reach = 0.0
        self._counts = np.zeros(2 * BINS, np.int64)

    def add(self, values: Array) -> None:
        """Count the values of one more picture, of any shape."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if self._reach == 0 and largest > 0:
            self._reach = largest
        while largest > self._reach:
            self._double()
        if self._reach > 0:
            some = values.reshape(-1)[:: max(1, values.size // _COUNTED)]
            counts, _ = np.histogram(some, 2 * BINS, (-self._reach, self._reach))
            self._counts += counts

    def range(self, method: str) -> Range:
        """The range to quantise, by one of `settings.METHODS`."""
        if method == "minmax" or self._reach == 0:
            return Range(self.low, self.high)
        if method == "percentile":
            return self._within(*self._percentile(PERCENTILE))
        threshold = self._entropy_threshold()
        return self._within(-threshold, threshold)

    def _within(self, low: float, high: float) -> Range:
        return Range(min(max(self.low, low), 0.0), max(min(self.high, high), 0.0))

    def _double(self) -> None:
        """Twice the range, pairs of bins as one."""
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros_like(self._counts)
        quarter = len(pairs) // 2
        self._counts[quarter : quarter + len(pairs)] = pairs
        self._reach *= 2

    def _percentile(self, percent: float) -> tuple[float, float]:
        """Symmetric tails: as many values are cut off below as above."""
        share = np.cumsum(self._counts) / self._counts.sum()
        tail = (1 - percent / 100) / 2
        edges = np.linspace(-self._reach, self._reach, 2 * BINS + 1)
        first = int(np.searchsorted(share, tail))
        last = int(np.searchsorted(share, 1 - tail))
        return float(edges[first]), float(edges[min(last, 2 * BINS - 1) + 1])

    def _entropy_threshold(self) -> float:
        """The |x| at which to cut, so that 128 levels keep the distribution best.

        Source: Migacz, "8-bit inference with TensorRT", GTC 2017: the least Kullback-Leibler
        divergence of the quantised distribution from the clipped one.
        """
        folded: Array = self._counts[BINS:] + self._counts[:BINS][::-1]
        counts = folded.astype(np.float64)
        counts[0] = counts[1]  # exact zeros, which ReLU makes, would drown everything else
        best, threshold = np.inf, self._reach
        for kept in range(_LEVELS, BINS + 1, _LEVELS // 8):
            clipped = counts[:kept].copy()
            clipped[-1] += counts[kept:].sum()
            loss = _divergence(clipped, _in_levels(counts[:kept]))
            if loss < best:
                best, threshold = loss, self._reach * kept / BINS
        return threshold


def histograms_of(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    frames: Iterable[Image],
) -> dict[str, Histogram]:
    """What the named tensors of `model` hold on `frames`, uint8 [H, W, 3] BGR."""
    found = {name: Histogram() for name in tensors}
    for values in values_of(model, list(found), frames):
        for name, value in values.items():
            found[name].add(value)
    return found


def _in_levels(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution after quantisation to 128 levels, spread over the bins that had values."""
    level = np.arange(len(counts)) * _LEVELS // len(counts)
    filled = counts > 0
    total = np.bincount(level, counts, _LEVELS)
    bins = np.bincount(level, filled, _LEVELS)
    mean = np.divide(total, bins, out=np.zeros(_LEVELS), where=bins > 0)
    return np.where(filled, mean[level], 0.0)


def _divergence(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of `candidate` from `reference`, both normalised."""
    p, q = reference / reference.sum(), candidate / max(candidate.sum(), 1e-12)
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))))
