"""What measuring itself adds to a frame.

It is counted, not compared: two runs with and without it differ by less than what this machine's
noise moves either. What the stamps and the book-keeping of a frame cost is timed by itself, some
thousand times over, and set against the frame's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from runtime.stats import STAGES, Statistics

STAMPS_OURS = 11
"""Readings of the clock for one frame: capture 3, translator 4, presenter 2, sink 2."""
STAMPS_PEER = 5 + 3
"""Of the plain loop, and those of the source."""
_CALLS = 200
_REPEATS = 15


def ours_ms() -> float:
    """What a frame of ours pays: its stamps, and its place in the statistics, samples kept."""
    statistics = Statistics(keep_samples=True)
    stages_ms = {stage: 1.0 for stage in STAGES if stage not in ("wait", "age")}

    def kept() -> None:
        statistics.sink_took("sink", 5.0)
        statistics.went_out(0, 0, 5_000_000, dict(stages_ms))

    return STAMPS_OURS * stamp_ms() + _once_ms(kept)


def peer_ms() -> float:
    """What a frame of a peer pays: its stamps, and a dictionary of them that is kept."""
    kept: list[dict[str, float]] = []
    stamps_ns = [0, 1, 2, 3, 4, 5, 6]

    def keep() -> None:
        kept.append(
            {stage: (stamps_ns[place] - stamps_ns[0]) / 1e6 for place, stage in enumerate(STAGES)}
        )

    return STAMPS_PEER * stamp_ms() + _once_ms(keep)


def stamp_ms() -> float:
    """One reading of the clock."""
    return _once_ms(time.perf_counter_ns)


def _once_ms(work: Callable[[], object]) -> float:
    """Milliseconds of one call: the median of some blocks of calls."""
    blocks = []
    for _ in range(_REPEATS):
        started_ns = time.perf_counter_ns()
        for _ in range(_CALLS):
            work()
        blocks.append((time.perf_counter_ns() - started_ns) / _CALLS / 1e6)
    return median(blocks)
