"""Timings as numbers: percentiles, intervals, rounds. Pure: it neither measures nor prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

_FRAMES_PER_ROUND = 10
_MOST_ROUNDS = 10


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest sample that at least `percent` of them do not exceed.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("no samples")
    rank = math.ceil(percent * len(samples) / 100)
    return sorted(samples)[max(1, rank) - 1]


@dataclass(frozen=True)
class Distribution:
    """What is told of a latency: never a lone mean."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Distribution:
        """Of at least one sample.

        Raises:
            ValueError: no samples.
        """
        p50, p90, p95, p99 = (percentile(samples, percent) for percent in (50, 90, 95, 99))
        return cls(len(samples), p50, p90, p95, p99, min(samples), max(samples))


def intervals_ms(stamps_ns: Sequence[int]) -> list[float]:
    """The times between stamps: N stamps are N - 1 intervals."""
    return [(later - earlier) / 1e6 for earlier, later in pairwise(stamps_ns)]


def rate_per_s(intervals: Sequence[float]) -> float | None:
    """How many fit into a second, of intervals in milliseconds; None without one."""
    whole_ms = sum(intervals)
    return 1000 * len(intervals) / whole_ms if whole_ms > 0 else None


def round_sizes(count: int) -> list[int]:
    """Split `count` frames, at least one, into at most ten rounds of nearly equal size.

    Several things are measured in turn, a round each: a disturbance hits all of them alike. A
    round has ten frames or more, unless there are none more.
    """
    rounds = max(1, min(_MOST_ROUNDS, count // _FRAMES_PER_ROUND))
    size, left = divmod(count, rounds)
    return [size + (number < left) for number in range(rounds)]


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The items from number `by` on, and then those before: nobody is always the first."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def balanced(items: Sequence[T], round_number: int) -> list[T]:
    """The order of one round: over the rounds nobody is favoured by place or by predecessor.

    In as many rounds as there are items (twice as many for an odd number of them) each is once
    (twice) in every place, and comes once (twice) right after every other: a Williams design
    (E. J. Williams, Australian Journal of Scientific Research A 2, 1949). What an item leaves
    behind, such as a cold cache or threads that still spin, then meets all others alike.
    """
    count = len(items)
    if count < 2:
        return list(items)
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(count)]
    row = round_number % (2 * count)
    places = [(step + row) % count for step in zigzag]
    if count % 2 and row >= count:
        places.reverse()
    return [items[place] for place in places]
