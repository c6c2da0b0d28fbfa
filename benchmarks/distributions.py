"""What is told of many timings of one thing: never a lone mean. Pure: it measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Distribution, percentile

RESAMPLES = 1000
CONFIDENCE_PERCENT = 95
FENCE = 1.5
"""Times the range between the quartiles (J. W. Tukey, Exploratory Data Analysis, 1977)."""
_MOST_BINS = 40
_CHUNK = 4_000_000
_DIGITS = 5
"""Of milliseconds: ten nanoseconds, below what a clock here resolves."""


def to_json(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The distribution of the samples of all rounds, in milliseconds, as a JSON object.

    Raises:
        ValueError: no samples.
    """
    samples = list(chain.from_iterable(rounds))
    low, high = median_interval(rounds)
    told: dict[str, float] = {**asdict(Distribution.of(samples)), "p50_low": low, "p50_high": high}
    return {
        **{name: round(value, _DIGITS) for name, value in told.items()},
        "outliers": outliers(samples),
        "histogram": histogram(samples),
    }


def median_interval(rounds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Between which bounds the median lies, by the bootstrap (B. Efron, 1979).

    Whole rounds are drawn again with replacement, since frames of one round share what disturbed
    it (A. C. Davison, D. V. Hinkley, Bootstrap Methods, 1997, 3.8); of a single round, frames.

    Args:
        rounds: samples; at least one in all.

    Raises:
        ValueError: no samples.
    """
    filled = [part for part in rounds if part]
    if not filled:
        raise ValueError("no samples")
    if len(filled) == 1:
        filled = [[sample] for sample in filled[0]]
    samples = np.array(list(chain.from_iterable(filled)), np.float64)
    parts = np.repeat(np.arange(len(filled)), [len(part) for part in filled])
    order = np.argsort(samples, kind="stable")
    samples, parts = samples[order], parts[order]
    chance = np.random.default_rng(0)
    shares = np.full(len(filled), 1 / len(filled))
    medians: list[float] = []
    at_once = max(1, _CHUNK // len(samples))
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        drawn = chance.multinomial(len(filled), shares, size=size)
        below: NDArray[np.int64] = np.cumsum(drawn[:, parts], axis=1)
        ranks = (2 * below >= below[:, -1:]).argmax(axis=1)
        medians += samples[ranks].tolist()
    outside = (100 - CONFIDENCE_PERCENT) / 2
    return percentile(medians, outside), percentile(medians, 100 - outside)


def fences(samples: Sequence[float]) -> tuple[float, float]:
    """Beyond which a sample is an outlier: 1.5 times the range between the quartiles away.

    Raises:
        ValueError: no samples.
    """
    first, third = percentile(samples, 25), percentile(samples, 75)
    return first - FENCE * (third - first), third + FENCE * (third - first)


def outliers(samples: Sequence[float]) -> int:
    """How many samples lie beyond the fences."""
    low, high = fences(samples)
    return sum(not low <= sample <= high for sample in samples)


def histogram(samples: Sequence[float]) -> dict[str, list[Any]]:
    """Counts in bins of equal width up to the upper fence; one more bin for all beyond it.

    A bin is as wide as D. Freedman and P. Diaconis (1981) have it; there are at most 40.

    Returns:
        `edges_ms`, one more than there are `counts`. A bin holds its lower edge and not its
        upper one, but the last holds both.
    """
    _, fence = fences(samples)
    inside = [sample for sample in samples if sample <= fence]
    least, most = min(inside), max(inside)
    quartiles_ms = percentile(samples, 75) - percentile(samples, 25)
    width_ms = 2 * quartiles_ms / len(inside) ** (1 / 3)
    fitting = (most - least) / width_ms if width_ms > 0 else 1.0
    edges = np.linspace(least, most, 1 + max(1, min(_MOST_BINS, math.ceil(fitting))))
    if max(samples) > fence:
        edges[-1] = np.nextafter(most, math.inf)  # the last sample inside is not in the last bin
        edges = np.append(edges, max(samples))
    counts, edges = np.histogram(np.array(samples, np.float64), edges)
    return {
        "edges_ms": [round(edge, _DIGITS) for edge in edges.tolist()],
        "counts": counts.tolist(),
    }


@dataclass(frozen=True)
class Ratio:
    """Of two times that were taken in the same rounds: the median of the rounds' ratios."""

    value: float
    low: float
    high: float
    """The interval of the median, by the bootstrap."""
    rounds: list[float]

    @classmethod
    def of(cls, slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> Ratio:
        """Of the samples of two rows, round by round: the ratio of their medians.

        Raises:
            ValueError: not the same number of rounds, or none.
        """
        ratios = [median(one) / median(other) for one, other in zip(slow, fast, strict=True)]
        low, high = median_interval([[ratio] for ratio in ratios])
        return cls(median(ratios), low, high, ratios)
