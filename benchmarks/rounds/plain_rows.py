"""A peer's frames, by the loop that a person writes: one step after the other, in one thread."""

from __future__ import annotations

import time

from benchmarks.rounds.rows import Row
from benchmarks.rounds.source import EndlessSource
from runtime.errors import SinkError
from runtime.frame import Frame, as_bgr
from runtime.sinks import Sink
from runtime.stats import Sample


def frames_of_peer(row: Row, source: EndlessSource, sink: Sink, count: int) -> list[Sample]:
    """Read, prepare, infer, finish, write: so many frames, with what each step of each cost.

    The stages mean what `runtime.stats.STAGES` has of ours.

    Raises:
        SourceError: the source broke.
        SinkError: the sink wanted no more.
        UserError: from the row.
    """
    samples: list[Sample] = []
    for _ in range(count):
        frame = source.read()
        read_ns = time.perf_counter_ns()
        image = as_bgr(frame.image)
        batch = row.prepare(image)
        prepared_ns = time.perf_counter_ns()
        drawn = row.infer(batch)
        inferred_ns = time.perf_counter_ns()
        result = row.finish(drawn, image)
        finished_ns = time.perf_counter_ns()
        sink.write(Frame(result, frame.index, frame.captured_at_ns, frame.capture_ms, frame.name))
        done_ns = time.perf_counter_ns()
        stages_ms = {
            "capture": frame.capture_ms,
            "in": (prepared_ns - read_ns) / 1e6,
            "infer": (inferred_ns - prepared_ns) / 1e6,
            "out": (finished_ns - inferred_ns) / 1e6,
            "sink": (done_ns - finished_ns) / 1e6,
            "wait": (read_ns - frame.captured_at_ns) / 1e6,
            "age": (done_ns - frame.captured_at_ns) / 1e6,
        }
        samples.append(
            Sample(
                index=frame.index,
                captured_at_ns=frame.captured_at_ns,
                done_at_ns=done_ns,
                stages_ms=stages_ms,
            )
        )
        if not sink.wants_more():
            break
    if len(samples) < count:
        raise SinkError(
            f"{sink.description} was closed before the end",
            "a sink that takes every frame",
            "start again and leave it open, or measure with --sink none",
        )
    return samples
