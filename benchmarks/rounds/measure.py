"""Time rows in turn, and keep what each frame cost.

Rounds are as short and as many as can be, so that a disturbance of the machine hits all rows
alike: every row has its turn at one frame, and after a number of such rounds at the rest:

- one frame at a time: ours through `Pipeline(mode="latency")`, a peer by the loop that a person
  writes, the stages of a frame one after the other;
- the inference alone: on one batch that was prepared before;
- overlapping stages, ours only: `Pipeline(mode="throughput")`, every frame of a file;
- where the engine tells them, the device's own times.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

from benchmarks.peers.trtexec import DeviceRow
from benchmarks.rounds.device_times import by_name, device_times
from benchmarks.rounds.plain_rows import frames_of_peer
from benchmarks.rounds.rows import NotRun, OurRow, Row
from benchmarks.rounds.source import EndlessSource
from benchmarks.timing import balanced, intervals_ms
from runtime.errors import SinkError, SourceError, UserError
from runtime.frame import Frame
from runtime.pipeline import Pipeline
from runtime.sinks import Sink
from runtime.sinks.base import BaseSink
from runtime.sources import Source
from runtime.stats import Sample
from runtime.translator import Translator

STAGES = ("capture", "in", "infer", "out", "sink")
AGE = "age"
END_TO_END = "end_to_end"
ROUNDS_TO_THE_REST = 20
"""A round is one frame of each row. What disturbs a machine changes within tenths of a second: one
frame each, close to each other, says more of a ratio than five each (docs/benchmarks.md)."""

_REST_S = 0.02
"""Before each turn: threads of the library that ran before stop to spin."""
_LEAD_IN_ALONE = 1
_LEAD_IN_ONE_BY_ONE = 1
_LEAD_IN_OVERLAPPED = 5
"""Until the two queues of two frames have the fill that they keep, and one stamp to start from."""

Rounds: TypeAlias = list[list[float]]
"""Milliseconds: round after round, in each its samples."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. Of `frames` and `duration_s` one is None."""

    frames: int | None
    """Of each row, in each way."""
    duration_s: float | None
    """Of all rows together; two rounds are measured however short it is."""
    warm_up: int
    """Frames of each row before."""


@dataclass
class Measured:
    """One row's samples."""

    row: Row
    live: bool
    """Whether the source set the pace: then nothing overlaps, and capturing is waiting."""
    stages_ms: dict[str, Rounds] = field(
        default_factory=lambda: {stage: [] for stage in (*STAGES, AGE, END_TO_END)}
    )
    """One frame at a time."""
    one_by_one_ms: Rounds = field(default_factory=list)
    """From frame to frame, one at a time."""
    overlapped_ms: Rounds = field(default_factory=list)
    """From frame to frame where stages overlap; empty for peers, and for a live source."""
    alone_ms: Rounds = field(default_factory=list)
    """The inference alone."""
    cost_ratios: list[float] = field(default_factory=list)
    """Of each round: wall time of a frame where stages overlap over that of the inference."""
    device_ms: dict[str, Rounds] = field(default_factory=dict)
    """By trtexec's words; empty where the engine tells nothing of its device."""

    @property
    def cost_ratio(self) -> float | None:
        """Frame time end to end over pure inference time: the median of the rounds."""
        return median(self.cost_ratios) if self.cost_ratios else None

    @property
    def explained(self) -> float:
        """What the stages sum up to, as a share of the whole of all frames' end-to-end times."""
        stages = [stage for stage in STAGES if not (self.live and stage == "capture")]
        summed_ms = sum(sum(map(sum, self.stages_ms[stage])) for stage in stages)
        return summed_ms / sum(map(sum, self.stages_ms[END_TO_END]))


@dataclass(frozen=True)
class MeasuredOnDevice:
    """What trtexec told of a row: the device alone, after the rounds of the others."""

    row: DeviceRow
    device_ms: dict[str, Rounds]
    fps: float | None


Result: TypeAlias = "Measured | MeasuredOnDevice | NotRun"
OnProgress: TypeAlias = Callable[[int, int], None]
"""Is told rounds done, and rounds in all (of a duration, as it looks now)."""


class _Enough(BaseSink):
    """Passes a number of frames on to a sink, then wants no more; leaves the sink open."""

    def __init__(self, sink: Sink, frames: int) -> None:
        self._sink = sink
        self._left = frames
        self.description = sink.description
        self.main_thread = sink.main_thread

    def write(self, frame: Frame) -> None:
        self._sink.write(frame)
        self._left -= 1

    def wants_more(self) -> bool:
        return self._left > 0 and self._sink.wants_more()

    def close(self, keep: bool = True) -> None:
        """Another round will follow."""


def measure(
    rows: Sequence[Row | DeviceRow | NotRun],
    source: EndlessSource,
    sink: Sink,
    plan: Plan,
    on_progress: OnProgress = lambda _done, _of: None,
) -> list[Result]:
    """Measure each row.

    Args:
        rows: open; they stay open.
        source: where frames come from; stays open.
        sink: where they go; stays open.
        plan: how much.
        on_progress: called after each round.

    Returns:
        One result for each row, in their order: a row that cannot run does not stop the rest.

    Raises:
        SourceError, SinkError: of the source or the sink, which all rows share.
    """
    picture = source.read().image
    results: dict[int, Result] = {
        number: row if isinstance(row, NotRun) else Measured(row, source.live)
        for number, row in enumerate(rows)
        if not isinstance(row, DeviceRow)
    }

    def each(numbers: Sequence[int], work: Callable[[Measured], None]) -> None:
        for number in numbers:
            result = results[number]
            if isinstance(result, Measured):
                try:
                    work(result)
                except (SourceError, SinkError):
                    raise
                except UserError as error:
                    results[number] = not_run(result.row, error)

    def warm_up(result: Measured) -> None:
        for _ in range(plan.warm_up):
            batch = result.row.prepare(picture)
            result.row.finish(result.row.infer(batch), picture)

    numbers = [number for number, result in results.items() if isinstance(result, Measured)]
    each(numbers, warm_up)
    started_s = time.monotonic()
    for done, rest in enumerate(_rests(plan)):
        if not any(isinstance(result, Measured) for result in results.values()):
            break
        order = balanced(numbers, done)
        each(order, lambda result: _single_frame(result, source, sink))
        if rest:
            each(order, lambda result, rest=rest: _the_rest(result, source, sink, rest))  # type: ignore[misc]
        on_progress(done + 1, _rounds_in_all(plan, done + 1, time.monotonic() - started_s))
    for number, row in enumerate(rows):
        if isinstance(row, DeviceRow):
            results[number] = _on_device(row, plan.frames or ROUNDS_TO_THE_REST)
    return [results[number] for number in range(len(rows))]


def _on_device(row: DeviceRow, frames: int) -> MeasuredOnDevice | NotRun:
    try:
        figures = row.measure(frames)
    except UserError as error:
        return not_run(row, error)
    told = {name: [samples] for name, samples in by_name(figures.samples).items()}
    return MeasuredOnDevice(row, told, figures.fps)


def not_run(row: Row | DeviceRow, error: UserError) -> NotRun:
    """What is left of a row that failed."""
    return NotRun(row.name, error, row.role, row.peer, row.generator, row.file)


def _rests(plan: Plan) -> Iterator[int]:
    """For each round how many frames of the rest follow it.

    The rest is rare and of more frames: an overlap of few would be all beginning and end. Of a
    duration it has half as many frames as were taken one at a time.
    """
    if plan.frames is not None:
        for done in range(1, plan.frames + 1):
            since = (done - 1) % ROUNDS_TO_THE_REST + 1
            yield since if since == ROUNDS_TO_THE_REST or done == plan.frames else 0
        return
    assert plan.duration_s is not None
    until_s = time.monotonic() + plan.duration_s
    for number in itertools.count():
        yield ROUNDS_TO_THE_REST // 2 if number % ROUNDS_TO_THE_REST == 1 else 0
        if number and time.monotonic() >= until_s:
            return


def _rounds_in_all(plan: Plan, done: int, took_s: float) -> int:
    if plan.frames is not None:
        return plan.frames
    assert plan.duration_s is not None
    return max(done, round(done * plan.duration_s / took_s))


def one_by_one(row: Row, source: EndlessSource, sink: Sink, frames: int) -> list[Sample]:
    """The samples of `frames` frames, one at a time, and of one before them.

    Raises:
        UserError: from the source, the sink or the row.
    """
    time.sleep(_REST_S)
    if isinstance(row, OurRow):
        return _through_pipeline(
            source, row.translator, sink, "latency", _LEAD_IN_ONE_BY_ONE, frames
        )
    samples = frames_of_peer(row, source, sink, _LEAD_IN_ONE_BY_ONE + frames)
    return samples[_LEAD_IN_ONE_BY_ONE - 1 :]


def _single_frame(result: Measured, source: EndlessSource, sink: Sink) -> None:
    samples = one_by_one(result.row, source, sink, 1)
    result.one_by_one_ms.append(intervals_ms([sample["done_at_ns"] for sample in samples]))
    kept = [sample["stages_ms"] for sample in samples[1:]]
    for stage in (*STAGES, AGE):
        result.stages_ms[stage].append([stages_ms[stage] for stages_ms in kept])
    # Waiting for a camera is no latency: there the frame's age is all of it.
    result.stages_ms[END_TO_END].append(
        [(0.0 if result.live else stages["capture"]) + stages[AGE] for stages in kept]
    )


def _the_rest(result: Measured, source: EndlessSource, sink: Sink, frames: int) -> None:
    time.sleep(_REST_S)
    row = result.row
    # The inference alone before and after the rest: a slow drift of the machine cancels out.
    alone_ms = _inference_alone(row, source, frames - frames // 2)
    if isinstance(row, OurRow) and not source.live:
        samples = _through_pipeline(
            source, row.translator, sink, "throughput", _LEAD_IN_OVERLAPPED, frames
        )
        overlapped_ms = intervals_ms([sample["done_at_ns"] for sample in samples])
    else:
        overlapped_ms = []
    alone_ms += _inference_alone(row, source, frames // 2)
    result.alone_ms.append(alone_ms)
    if overlapped_ms:
        result.overlapped_ms.append(overlapped_ms)
        result.cost_ratios.append(sum(overlapped_ms) / sum(alone_ms))
    if isinstance(row, OurRow) and row.device is not None:
        batch = row.prepare(source.read().image).copy()
        for name, times_ms in device_times(row.device, lambda: row.infer(batch), frames).items():
            result.device_ms.setdefault(name, []).append(times_ms)


def _inference_alone(row: Row, source: EndlessSource, count: int) -> list[float]:
    batch = row.prepare(source.read().image)
    if isinstance(row, OurRow):
        batch = batch.copy()  # its memory is used again when the next frame is prepared
    for _ in range(_LEAD_IN_ALONE):
        row.infer(batch)
    stamps_ns = [time.perf_counter_ns()]
    for _ in range(count):
        row.infer(batch)
        stamps_ns.append(time.perf_counter_ns())
    return intervals_ms(stamps_ns)


def _through_pipeline(
    source: Source, translator: Translator, sink: Sink, mode: str, lead_in: int, frames: int
) -> list[Sample]:
    """The samples of `frames` frames, and one before them: so many intervals as frames.

    The source goes on until the last of them is through: a pipeline that runs dry would be
    faster at its end, since nothing is captured beside the inference.
    """
    with Pipeline(
        source, translator, _Enough(sink, lead_in + frames), mode=mode, keep_samples=True
    ) as pipeline:
        samples = pipeline.run().samples[lead_in - 1 :]
    if len(samples) <= frames:
        raise SinkError(
            f"{sink.description} was closed before the end",
            "a sink that takes every frame",
            "start again and leave it open, or measure with --sink none",
        )
    return samples
