"""Which way of setting a peer up is the fastest, where its documentation leaves that open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from benchmarks.timing import balanced

_WARM_UP = 2
_LEAST_ROUNDS = 9
_MOST_ROUNDS, _MOST_S = 150, 15.0
_SURE = 3.0
"""Standard deviations of chance by which a way has to be ahead."""

T = TypeVar("T")


def fastest(ways: Sequence[tuple[T, Callable[[], object]]]) -> T:
    """Which of several ways that the documentation leaves open is the fastest here.

    Each has its turns beside the others until it is clear (or after 150 rounds or 15 seconds it
    is not): were it chosen by chance, two runs of a benchmark would measure two different things.

    Args:
        ways: at least one: what it is, and one call of it.
    """
    spent: list[list[float]] = [[] for _ in ways]
    for _ in range(_WARM_UP):
        for _, once in ways:
            once()
    until_s = time.monotonic() + _MOST_S
    while True:
        for number in balanced(range(len(ways)), len(spent[0])):
            started_s = time.perf_counter()
            ways[number][1]()
            spent[number].append(time.perf_counter() - started_s)
        leader = min(range(len(ways)), key=lambda number: median(spent[number]))
        others = [times for number, times in enumerate(spent) if number != leader]
        is_clear = all(_is_ahead(spent[leader], times) for times in others)
        rounds = len(spent[0])
        is_over = rounds >= _MOST_ROUNDS or time.monotonic() > until_s
        if is_over or (is_clear and rounds >= _LEAST_ROUNDS):
            return ways[leader][0]


def _is_ahead(times: Sequence[float], others: Sequence[float]) -> bool:
    """By the rounds that it won: how far it won them, a hiccup of the machine could decide."""
    lead = sum(1 if one < other else -1 for one, other in zip(times, others, strict=True))
    return lead >= _SURE * math.sqrt(len(times))
