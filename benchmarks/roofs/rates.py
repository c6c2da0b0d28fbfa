"""How fast a machine does a known amount of work: repeated, and told by percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.timing import percentile


@dataclass(frozen=True)
class Rate:
    """Of repetitions: thousand millions of multiply-accumulates, or of bytes, a second."""

    count: int
    best: float
    p90: float
    p50: float
    p10: float
    by: str
    """Which library did it, with which operator, on what shape."""
    note: str = ""

    @classmethod
    def of(cls, amount: int, seconds: Sequence[float], by: str, note: str = "") -> Rate:
        """Of at least one repetition, each of which did `amount`.

        Raises:
            ValueError: none.
        """
        rates = [amount / each / 1e9 for each in seconds]
        p90, p50, p10 = (percentile(rates, percent) for percent in (90, 50, 10))
        return cls(len(rates), max(rates), p90, p50, p10, by, note)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


_ENOUGH_S = 1.5
_FEWEST = 3


def seconds_of(run: Callable[[], object], repetitions: int, calls: int = 1) -> list[float]:
    """What each repetition took; one that is not measured comes before.

    What is so slow that three repetitions take more than a second or so is repeated less often.

    Args:
        run: one call; done at return.
        repetitions: at least one.
        calls: of each repetition, in a row. The time of one of them is told.
    """
    run()
    spent: list[float] = []
    while len(spent) < repetitions and (sum(spent) * calls < _ENOUGH_S or len(spent) < _FEWEST):
        started_ns = time.perf_counter_ns()
        for _ in range(calls):
            run()
        spent.append(max(1, time.perf_counter_ns() - started_ns) / 1e9 / calls)
    return spent
