"""What each frame cost: counts and percentiles of one run, in bounded memory."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

STAGES = ("capture", "wait", "in", "infer", "out", "sink", "age")
"""In the order of a frame's way. `wait`: all the time that it stood still between two of the
others. `age`: from the frame in hand (`captured_at_ns`) to shown or written, which is the sum of
all but `capture`."""

_WORK = ("in", "infer", "out", "sink")

_PERCENTS = (50, 90, 99)
_BUCKET_RATIO = 1.01
_LOG_RATIO = math.log(_BUCKET_RATIO)
_SMALLEST_MS = 1e-4


class Sample(TypedDict):
    """One frame that reached the sink."""

    index: int
    captured_at_ns: int
    done_at_ns: int
    """Both `time.perf_counter_ns`."""
    stages_ms: dict[str, float]
    """One entry for each of `STAGES`."""


class Histogram:
    """Counts of latencies in buckets that are 1 % wide.

    A percentile is the nearest rank: at least that share of the samples is not above it. It is
    right to 1 %, or 0.1 microseconds.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.sum_ms = 0.0
        self._least_ms = math.inf
        self._most_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        bucket = math.ceil(math.log(max(latency_ms, _SMALLEST_MS)) / _LOG_RATIO)
        self._counts[bucket] += 1
        self.sum_ms += latency_ms
        self._least_ms = min(self._least_ms, latency_ms)
        self._most_ms = max(self._most_ms, latency_ms)

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` of the samples do not exceed; 0 without samples."""
        rank = max(1, math.ceil(percent * self._counts.total() / 100))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                upper_ms = _BUCKET_RATIO**bucket
                return min(max(upper_ms, self._least_ms), self._most_ms)
        return 0.0

    @property
    def total(self) -> int:
        """How many latencies were counted."""
        return self._counts.total()

    def counts_below(self, bounds_ms: Sequence[float]) -> list[int]:
        """For each bound, how many latencies do not exceed it, right to the width of a bucket.

        Args:
            bounds_ms: in growing order.
        """
        buckets = sorted(self._counts.items())
        counts, at, below = [], 0, 0
        for bound_ms in bounds_ms:
            while at < len(buckets) and _BUCKET_RATIO ** buckets[at][0] <= bound_ms:
                below += buckets[at][1]
                at += 1
            counts.append(below)
        return counts


@dataclass
class SinkStatistics:
    """What one sink of several took."""

    frames: int = 0
    replaced: int = 0
    """Frames that a newer one replaced before the sink had time for them."""
    age: Histogram = field(default_factory=Histogram)


class Statistics:
    """Counts, rate and latencies of one run; any thread may write and read.

    Args:
        keep_samples: also keep each frame in `samples`, in order: for runs of bounded length.
        sources: names of several sources, each of which gets statistics of its own in
            `by_source`; these are then those of all together.
    """

    def __init__(self, keep_samples: bool = False, sources: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: Histogram() for stage in STAGES}
        self._keep_samples = keep_samples
        self._started_ns = time.perf_counter_ns()
        self._first_done_ns = 0
        self._last_done_ns = 0
        self._whole: Statistics | None = None
        self.by_source: dict[str, Statistics] = {}
        self.by_sink: dict[str, SinkStatistics] = {}
        self.samples: list[Sample] = []
        self.lost = 0
        """How often a live source stalled, broke or vanished."""
        self.reopened = 0
        """How often it came back."""
        self.frames_in = 0
        """Frames that the source gave."""
        self.frames_out = 0
        """Frames that the sink took."""
        self.dropped = 0
        """Frames that a newer one replaced, or that were on their way when the run was stopped."""
        for name in sources:
            self.by_source[name] = Statistics()
            self.by_source[name]._whole = self

    def of(self, source: str) -> Statistics:
        """Those of one of several sources, which count in these too; else these."""
        return self.by_source.get(source, self)

    def came_in(self) -> None:
        """The source gave a frame."""
        self._count("frames_in")

    def was_dropped(self) -> None:
        """A frame was replaced by a newer one."""
        self._count("dropped")

    def was_lost(self) -> None:
        """A live source stalled, broke or vanished."""
        self._count("lost")

    def was_reopened(self) -> None:
        """A live source came back."""
        self._count("reopened")

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
        if self._whole is not None:
            self._whole._count(what)

    def sink_took(self, sink: str, age_ms: float) -> None:
        """One of several sinks was done with a frame."""
        with self._lock:
            took = self.by_sink.setdefault(sink, SinkStatistics())
            took.frames += 1
            took.age.add(age_ms)

    def sink_missed(self, sink: str) -> None:
        """A frame was replaced by a newer one before one of several sinks had time for it."""
        with self._lock:
            self.by_sink.setdefault(sink, SinkStatistics()).replaced += 1

    def went_out(
        self, index: int, captured_at_ns: int, done_at_ns: int, stages_ms: dict[str, float]
    ) -> None:
        """The sink took a frame.

        Args:
            index: the frame's place in the stream.
            captured_at_ns: when the source had it in hand.
            done_at_ns: when the sink was done.
            stages_ms: one entry for each of `STAGES` but `wait` and `age`.
        """
        age_ms = (done_at_ns - captured_at_ns) / 1e6
        wait_ms = max(0.0, age_ms - sum(stages_ms[stage] for stage in _WORK))
        stages_ms = {**stages_ms, "wait": wait_ms, "age": age_ms}
        if self._whole is not None:
            self._whole._add(index, captured_at_ns, done_at_ns, stages_ms)
        self._add(index, captured_at_ns, done_at_ns, stages_ms)

    def _add(
        self, index: int, captured_at_ns: int, done_at_ns: int, stages_ms: dict[str, float]
    ) -> None:
        with self._lock:
            self.frames_out += 1
            self._first_done_ns = self._first_done_ns or done_at_ns
            self._last_done_ns = done_at_ns
            for stage, histogram in self._stages.items():
                histogram.add(stages_ms[stage])
            if self._keep_samples:
                self.samples.append(
                    Sample(
                        index=index,
                        captured_at_ns=captured_at_ns,
                        done_at_ns=done_at_ns,
                        stages_ms=stages_ms,
                    )
                )

    def ended(self) -> None:
        """The run is over: what came in and did not go out was dropped."""
        with self._lock:
            self.dropped = self.frames_in - self.frames_out
        for statistics in self.by_source.values():
            statistics.ended()

    @property
    def fps(self) -> float:
        """Frames out per second; N frames are N - 1 intervals, so 0 below two frames."""
        between_s = (self._last_done_ns - self._first_done_ns) / 1e9
        return (self.frames_out - 1) / between_s if self.frames_out > 1 and between_s > 0 else 0.0

    def percentile_ms(self, stage: str, percent: float) -> float:
        """A latency of one of `STAGES`; 0 before the first frame."""
        with self._lock:
            return self._stages[stage].percentile_ms(percent)

    def summary(self) -> dict[str, float]:
        """`frames_in`, `frames_out`, `dropped`, `lost`, `reopened`, `fps`, `duration_s` (from the
        start of the run to the last frame out), and `STAGE_p50_ms`, `STAGE_p90_ms`,
        `STAGE_p99_ms` for each stage.
        """
        with self._lock:
            values: dict[str, float] = {
                "frames_in": self.frames_in,
                "frames_out": self.frames_out,
                "dropped": self.dropped,
                "lost": self.lost,
                "reopened": self.reopened,
                "fps": round(self.fps, 3),
                "duration_s": round(max(0, self._last_done_ns - self._started_ns) / 1e9, 3),
            }
            for stage, histogram in self._stages.items():
                for percent in _PERCENTS:
                    values[f"{stage}_p{percent}_ms"] = round(histogram.percentile_ms(percent), 4)
        return values

    def by_sink_summary(self) -> dict[str, dict[str, float]]:
        """Of each sink, where there are several: `frames`, `replaced`, `age_p50_ms`, and so on."""
        with self._lock:
            return {
                name: {
                    "frames": took.frames,
                    "replaced": took.replaced,
                    **{
                        f"age_p{percent}_ms": round(took.age.percentile_ms(percent), 4)
                        for percent in _PERCENTS
                    },
                }
                for name, took in self.by_sink.items()
            }

    def stage(self, stage: str) -> Histogram:
        """A copy of the latencies of one of `STAGES`, at this moment."""
        with self._lock:
            return copy.deepcopy(self._stages[stage])
