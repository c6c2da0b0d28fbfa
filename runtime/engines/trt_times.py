"""GPU time by events, in trtexec's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter_ns
from typing import Any


@dataclass(frozen=True)
class DeviceTimes:
    """What one batch took, in milliseconds. The words are trtexec's.

    A CUDA graph is one launch: of its parts nothing is known, `h2d_ms`, `compute_ms` and `d2h_ms`
    are None.
    """

    latency_ms: float
    """From the begin of the first copy to the end of the last, on the GPU's clock."""
    enqueue_ms: float
    """Host time of the calls that queue it up (copies too, unlike trtexec)."""
    by_graph: bool
    """Whether a captured CUDA graph was launched."""
    h2d_ms: float | None = None
    """Copy to the GPU; next to nothing where the memory is mapped."""
    compute_ms: float | None = None
    """GPU Compute: TensorRT's work."""
    d2h_ms: float | None = None
    """Copy back; next to nothing where the memory is mapped."""


class Stopwatch:
    """Four events between which the parts of one batch lie. Use it in a current context.

    Args:
        cuda: `pycuda.driver`.
    """

    def __init__(self, cuda: Any) -> None:
        self._events = [cuda.Event() for _ in range(4)]

    def time_whole(self, stream: Any, launch: Callable[[], None]) -> DeviceTimes:
        """Queue one launch up on the stream, wait for it, and tell its time."""
        first, *_, last = self._events
        first.record(stream)
        before_ns = perf_counter_ns()
        launch()
        enqueue_ms = (perf_counter_ns() - before_ns) / 1e6
        last.record(stream)
        last.synchronize()
        return DeviceTimes(first.time_till(last), enqueue_ms, by_graph=True)

    def time_parts(
        self,
        stream: Any,
        copy_in: Callable[[Any], None],
        compute: Callable[[Any], None],
        copy_out: Callable[[Any], None],
    ) -> DeviceTimes:
        """Queue the three parts up on the stream, which each is given, wait for them, and tell
        each one's time."""
        marks = self._events
        enqueue_ns = 0
        marks[0].record(stream)
        for part, mark in zip((copy_in, compute, copy_out), marks[1:], strict=True):
            before_ns = perf_counter_ns()
            part(stream)
            enqueue_ns += perf_counter_ns() - before_ns
            mark.record(stream)
        marks[-1].synchronize()
        h2d_ms, compute_ms, d2h_ms = (before.time_till(after) for before, after in pairwise(marks))
        return DeviceTimes(
            latency_ms=marks[0].time_till(marks[-1]),
            enqueue_ms=enqueue_ns / 1e6,
            by_graph=False,
            h2d_ms=h2d_ms,
            compute_ms=compute_ms,
            d2h_ms=d2h_ms,
        )
