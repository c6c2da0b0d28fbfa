"""What each frame cost: counts and percentiles of one run, in bounded memory."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from typing import TypedDict

STAGES = ("capture", "in", "infer", "out", "sink", "age")
"""In the order of a frame's way. `age`: from the frame in hand (`captured_at_ns`) to shown or
written."""

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
        self._least_ms = math.inf
        self._most_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        bucket = math.ceil(math.log(max(latency_ms, _SMALLEST_MS)) / _LOG_RATIO)
        self._counts[bucket] += 1
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


class Statistics:
    """Counts, rate and latencies of one run; any thread may write and read.

    Args:
        keep_samples: also keep each frame in `samples`, in order: for runs of bounded length.
    """

    def __init__(self, keep_samples: bool = False) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: Histogram() for stage in STAGES}
        self._keep_samples = keep_samples
        self._started_ns = time.perf_counter_ns()
        self._first_done_ns = 0
        self._last_done_ns = 0
        self.samples: list[Sample] = []
        self.frames_in = 0
        """Frames that the source gave."""
        self.frames_out = 0
        """Frames that the sink took."""
        self.dropped = 0
        """Frames that a newer one replaced, or that were on their way when the run was stopped."""

    def came_in(self) -> None:
        """The source gave a frame."""
        with self._lock:
            self.frames_in += 1

    def was_dropped(self) -> None:
        """A frame was replaced by a newer one."""
        with self._lock:
            self.dropped += 1

    def went_out(
        self, index: int, captured_at_ns: int, done_at_ns: int, stages_ms: dict[str, float]
    ) -> None:
        """The sink took a frame.

        Args:
            index: the frame's place in the stream.
            captured_at_ns: when the source had it in hand.
            done_at_ns: when the sink was done.
            stages_ms: one entry for each of `STAGES` but `age`.
        """
        stages_ms = {**stages_ms, "age": (done_at_ns - captured_at_ns) / 1e6}
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
        """`frames_in`, `frames_out`, `dropped`, `fps`, `duration_s` (from the start of the run to
        the last frame out), and `STAGE_p50_ms`, `STAGE_p90_ms`, `STAGE_p99_ms` for each stage.
        """
        with self._lock:
            values: dict[str, float] = {
                "frames_in": self.frames_in,
                "frames_out": self.frames_out,
                "dropped": self.dropped,
                "fps": round(self.fps, 3),
                "duration_s": round(max(0, self._last_done_ns - self._started_ns) / 1e9, 3),
            }
            for stage, histogram in self._stages.items():
                for percent in _PERCENTS:
                    values[f"{stage}_p{percent}_ms"] = round(histogram.percentile_ms(percent), 4)
        return values
