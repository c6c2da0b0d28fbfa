"""What a frame costs in energy: the machine's rails, sampled beside the run, joules by turn.

Rows take turns, so energy is asked for by turn: `PowerMeter.joules(from_ns, to_ns)`, with the
stamps of `time.perf_counter_ns()` that the pipeline takes as well. A rail that tells watts is
integrated by the trapezoid rule; one that counts joules is interpolated between its samples.

How short a turn may be: its two ends are each known to no better than the sensor's own period or
the meter's, whichever is longer. Over `PERIODS_OF_A_TURN` such periods a rail that swings from
nothing to full is still told within a tenth; `PowerMeter.shortest_turn_ms` is that time, and a
row tells how many of its turns were shorter.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks.conditions.rails import JOULES, WATTS, Rail, Rails, needed_rails, rails
from benchmarks.timing import percentile

__all__ = [
    "PERIODS_OF_A_TURN",
    "PowerMeter",
    "Rail",
    "Rails",
    "Turn",
    "energy_json",
    "needed_rails",
    "open_meter",
    "power_json",
    "rails",
]

SAMPLE_EVERY_MS = 20.0
PERIODS_OF_A_TURN = 20
_DECIMALS = 4


class Turn(NamedTuple):
    """A while in which one row alone ran; stamps of `time.perf_counter_ns()`."""

    from_ns: int
    to_ns: int
    frames: int


class PowerMeter:
    """Samples rails from a thread of its own, from `__enter__` to `__exit__`.

    Args:
        found: what `rails` found, at least one.
        every_ms: the time between two samples of all rails.
        clock_ns: monotonic.
    """

    def __init__(
        self,
        found: Rails,
        every_ms: float = SAMPLE_EVERY_MS,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if not found.rails:
            raise ValueError("no rail to sample")
        if every_ms <= 0:
            raise ValueError(f"every_ms {every_ms} is not above 0")
        self.found = found
        self.every_ms = every_ms
        self.idle_watts: dict[str, float] = {}
        """Of each rail, measured by `measure_idle`."""
        self.idle_s = 0.0
        self._clock_ns = clock_ns
        self._series = {rail.name: _Series(rail) for rail in found.rails}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power meter", daemon=True)
        self._error: BaseException | None = None
        self._began_ns = self._ended_ns = 0
        self._busy_ns = 0

    @property
    def shortest_turn_ms(self) -> float:
        """The shortest turn whose energy means something, by the slowest rail of the total."""
        slowest = [
            rail.update_ms or 0
            for rail in self.found.rails
            if rail.name in self.found.total_of or not self.found.total_of
        ]
        return PERIODS_OF_A_TURN * max(self.every_ms, *slowest)

    @property
    def busy_share(self) -> float:
        """How much of one processor core the sampling itself took."""
        until_ns = self._ended_ns or self._clock_ns()
        whole_ns = until_ns - self._began_ns
        return self._busy_ns / whole_ns if self._began_ns and whole_ns > 0 else 0.0

    @property
    def samples(self) -> int:
        """Of the rail that answered most often."""
        return max(len(series.stamps_ns) for series in self._series.values())

    def sample(self) -> None:
        """Take one sample of all rails now; the thread does so by itself."""
        with self._lock:
            for series in self._series.values():
                # The stamp of the middle: a rail behind a slow bus takes milliseconds.
                before_ns = self._clock_ns()
                value = series.rail.read()
                if value is not None:
                    series.add((before_ns + self._clock_ns()) // 2, value)

    def measure_idle(self, seconds: float) -> dict[str, float]:
        """Watts by rail while this process does nothing; other programs may run on."""
        from_ns = self._clock_ns()
        self._stop.wait(seconds)
        to_ns = self._clock_ns()
        self.idle_s = (to_ns - from_ns) / 1e9
        told = self.joules(from_ns, to_ns)
        self.idle_watts = {name: joules / self.idle_s for name, joules in told.items()}
        return self.idle_watts

    def joules(self, from_ns: int, to_ns: int) -> dict[str, float]:
        """Energy by rail between two stamps; a rail without samples around them is absent.

        Raises:
            ValueError: the second stamp does not come after the first.
            Exception: whatever broke the sampling thread.
        """
        if to_ns <= from_ns:
            raise ValueError(f"from {from_ns} to {to_ns} ns is no time")
        self._up_to(to_ns)
        with self._lock:
            told = {name: series.joules(from_ns, to_ns) for name, series in self._series.items()}
        return {name: joules for name, joules in told.items() if joules is not None}

    def watts_within(self, from_ns: int, to_ns: int) -> dict[str, list[float]]:
        """The sampled watts by rail between two stamps; of a counter, from sample to sample."""
        self._up_to(to_ns)
        with self._lock:
            return {
                name: series.watts_within(from_ns, to_ns) for name, series in self._series.items()
            }

    def total(self, by_rail: Mapping[str, float]) -> float | None:
        """The sum of the rails that make the total; None where one is missing, or none does."""
        parts = [by_rail.get(name) for name in self.found.total_of]
        told = [part for part in parts if part is not None]
        return sum(told) if parts and len(told) == len(parts) else None

    def __enter__(self) -> PowerMeter:
        self._began_ns = self._clock_ns()
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is None:
            self.sample()
        self._ended_ns = self._clock_ns()
        self.found.close()

    def _up_to(self, to_ns: int) -> None:
        if self._error is not None:
            raise self._error
        with self._lock:
            behind = any(
                not series.stamps_ns or series.stamps_ns[-1] < to_ns
                for series in self._series.values()
            )
        if behind and not self._stop.is_set():
            self.sample()

    def _run(self) -> None:
        period_s = self.every_ms / 1e3
        try:
            while not self._stop.wait(period_s):
                before_ns = time.thread_time_ns()
                self.sample()
                self._busy_ns += time.thread_time_ns() - before_ns
        except Exception as error:  # noqa: BLE001 - told by whoever asks for joules
            self._error = error


class _Series:
    """What one rail told, and when."""

    def __init__(self, rail: Rail) -> None:
        self.rail = rail
        self.stamps_ns: list[int] = []
        self._values: list[float] = []
        """Watts; of a counter, joules since the first sample."""
        self._last_raw = 0.0

    def add(self, at_ns: int, raw: float) -> None:
        if self.rail.unit == WATTS:
            value = raw
        elif not self._values:
            value = 0.0
        else:
            grown = raw - self._last_raw
            if grown < 0 and self.rail.wraps_at_j is not None:
                grown += self.rail.wraps_at_j
            value = self._values[-1] + max(0.0, grown)
        self._last_raw = raw
        self.stamps_ns.append(at_ns)
        self._values.append(value)

    def joules(self, from_ns: int, to_ns: int) -> float | None:
        """Between two stamps; None where the samples do not reach around both."""
        if not self.stamps_ns or from_ns < self.stamps_ns[0] or to_ns > self.stamps_ns[-1]:
            return None
        if self.rail.unit == JOULES:
            return self._at(to_ns) - self._at(from_ns)
        inner = slice(bisect_right(self.stamps_ns, from_ns), bisect_left(self.stamps_ns, to_ns))
        stamps = [from_ns, *self.stamps_ns[inner], to_ns]
        watts = [self._at(from_ns), *self._values[inner], self._at(to_ns)]
        return sum(
            (later - earlier) / 1e9 * (before + after) / 2
            for (earlier, later), (before, after) in zip(
                pairwise(stamps), pairwise(watts), strict=True
            )
        )

    def watts_within(self, from_ns: int, to_ns: int) -> list[float]:
        first = bisect_left(self.stamps_ns, from_ns)
        last = bisect_right(self.stamps_ns, to_ns)
        values = self._values[first:last]
        if self.rail.unit == WATTS:
            return values
        steps_s = [
            (later - earlier) / 1e9 for earlier, later in pairwise(self.stamps_ns[first:last])
        ]
        grown = [after - before for before, after in pairwise(values)]
        return [joules / step_s for joules, step_s in zip(grown, steps_s, strict=True) if step_s]

    def _at(self, at_ns: int) -> float:
        """Between two samples in a straight line."""
        after = bisect_left(self.stamps_ns, at_ns)
        if self.stamps_ns[after] == at_ns:
            return self._values[after]
        earlier, later = self.stamps_ns[after - 1], self.stamps_ns[after]
        share = (at_ns - earlier) / (later - earlier)
        return self._values[after - 1] + share * (self._values[after] - self._values[after - 1])


def open_meter(root: Path = Path("/"), every_ms: float = SAMPLE_EVERY_MS) -> PowerMeter:
    """A meter of this machine's rails, to be entered.

    Raises:
        UserError: it has none.
    """
    return PowerMeter(needed_rails(root), every_ms)


def energy_json(meter: PowerMeter, turns: Sequence[Turn]) -> dict[str, Any] | None:
    """The `energy` of a row; None where no rail told its turns, or no frame came.

    Args:
        meter: still running, or stopped after the last turn.
        turns: of this row.
    """
    by_rail: dict[str, float] = {}
    seconds: dict[str, float] = {}
    frames: dict[str, int] = {}
    watts: dict[str, list[float]] = {}
    for turn in turns:
        for name, joules in meter.joules(turn.from_ns, turn.to_ns).items():
            by_rail[name] = by_rail.get(name, 0.0) + joules
            seconds[name] = seconds.get(name, 0.0) + (turn.to_ns - turn.from_ns) / 1e9
            frames[name] = frames.get(name, 0) + turn.frames
        for name, sampled in meter.watts_within(turn.from_ns, turn.to_ns).items():
            watts.setdefault(name, []).extend(sampled)
    told = {name: joules for name, joules in by_rail.items() if frames[name] > 0}
    if not told:
        return None
    mj_per_frame = {name: 1e3 * joules / frames[name] for name, joules in told.items()}
    mean_watts = {name: joules / seconds[name] for name, joules in told.items()}
    above_idle = {
        name: 1e3 * (joules - meter.idle_watts[name] * seconds[name]) / frames[name]
        for name, joules in told.items()
        if name in meter.idle_watts
    }
    shortest_ns = meter.shortest_turn_ms * 1e6
    return {
        "mj_per_frame": _rounded(mj_per_frame),
        "mj_per_frame_total": _round(meter.total(mj_per_frame)),
        "mj_per_frame_above_idle_total": _round(meter.total(above_idle)),
        "watts": {
            name: {
                "mean": _round(mean),
                "p95": _round(percentile(watts[name], 95)) if watts.get(name) else None,
            }
            for name, mean in mean_watts.items()
        },
        "watts_total": _round(meter.total(mean_watts)),
        "frames": sum(turn.frames for turn in turns),
        "turns": len(turns),
        "turns_too_short": sum(turn.to_ns - turn.from_ns < shortest_ns for turn in turns),
    }


def power_json(meter: PowerMeter) -> dict[str, Any]:
    """The `power` of a result: which rails there are, and how they were sampled."""
    return {
        "rails": [
            {
                "name": rail.name,
                "kind": rail.kind,
                "tells": rail.unit,
                "update_ms": rail.update_ms,
                "idle_watts": _round(meter.idle_watts.get(rail.name)),
            }
            for rail in meter.found.rails
        ],
        "total_of": list(meter.found.total_of),
        "idle_watts_total": _round(meter.total(meter.idle_watts)),
        "idle_s": round(meter.idle_s, 2),
        "sampled_every_ms": meter.every_ms,
        "samples": meter.samples,
        "sampling_share_of_a_core": round(meter.busy_share, 5),
        "shortest_turn_ms": meter.shortest_turn_ms,
        "unreadable": list(meter.found.unreadable),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DECIMALS) for name, value in values.items()}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
