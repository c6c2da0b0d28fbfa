"""Run models through the real runtime, in turn, and keep what each frame cost.

Three things are measured in each round and of each model, so that a disturbance of the machine
hits all of them alike:

- the inference alone: `Translator.infer` on one batch that was prepared before;
- one frame at a time: `Pipeline(mode="latency")`, the stages of a frame one after the other;
- overlapping stages: `Pipeline(mode="throughput")`, every frame of a file as fast as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeAlias

from benchmarks.timing import intervals_ms, rotated, round_sizes
from runtime.artifact import ArtifactMeta
from runtime.errors import EngineError, ModelError, SinkError, SourceError, UserError
from runtime.frame import Frame
from runtime.pipeline import Pipeline
from runtime.sinks import Sink
from runtime.sinks.base import BaseSink
from runtime.sources import Source, open_source
from runtime.stats import Sample
from runtime.translator import Translator

STAGES = ("capture", "in", "infer", "out", "sink")
END_TO_END = "end_to_end"

_LEAD_IN_ALONE = 1
_LEAD_IN_ONE_BY_ONE = 2
_LEAD_IN_OVERLAPPED = 5
"""Until the two queues of two frames have the fill that they keep, and one stamp to start from."""


@dataclass
class Measured:
    """One model's samples, each in milliseconds, round after round."""

    path: Path
    engine: str
    """What ran it, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""
    meta: ArtifactMeta
    load_ms: float
    alone_ms: list[float] = field(default_factory=list)
    """The inference alone."""
    stages_ms: dict[str, list[float]] = field(
        default_factory=lambda: {stage: [] for stage in (*STAGES, END_TO_END)}
    )
    """One frame at a time."""
    one_by_one_ms: list[float] = field(default_factory=list)
    """From frame to frame, one at a time."""
    overlapped_ms: list[float] = field(default_factory=list)
    """From frame to frame where stages overlap; empty for a live source, which sets its own."""
    cost_ratios: list[float] = field(default_factory=list)
    """Of each round: wall time of a frame where stages overlap over that of the inference."""

    @property
    def live(self) -> bool:
        """Whether the source set the pace: then nothing overlaps, and capturing is waiting."""
        return not self.overlapped_ms

    @property
    def cost_ratio(self) -> float | None:
        """Frame time end to end over pure inference time: the median of the rounds."""
        return median(self.cost_ratios) if self.cost_ratios else None


@dataclass(frozen=True)
class NotRun:
    """A model that could not be measured."""

    path: Path
    error: UserError

    @property
    def why(self) -> str:
        """What came, what was expected, what mends it."""
        return str(self.error)


Result: TypeAlias = "Measured | NotRun"
OnProgress: TypeAlias = Callable[[int, int], None]
"""Is told rounds done, and rounds in all."""


class EndlessSource:
    """A source that many runs share: starts again at its end, stays open when a run closes it.

    Raises:
        SourceError: nothing there, or it gives no frame.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._source = open_source(uri)
        self._next_index = 0
        self.live = self._source.live
        self.fps = self._source.fps
        self.size_px = self._source.size_px
        self.frame_count: int | None = None
        self.description = self._source.description
        self.warning = ""

    def read(self) -> Frame:
        """The next frame; after the last one the first."""
        frame = self._source.read()
        if frame is None:
            self._source.close()
            self._source = open_source(self._uri)
            frame = self._source.read()
        if frame is None:
            raise SourceError(f"{self._uri} gives no frame", "at least one", "name another source")
        frame.index = self._next_index
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """Another round will follow."""

    def close(self) -> None:
        """A run is over; the source stays open."""

    def let_go(self) -> None:
        """Close the source itself."""
        self._source.close()


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
    paths: Sequence[Path],
    source: EndlessSource,
    sink: Sink,
    *,
    frames: int,
    warm_up: int,
    engine: str = "auto",
    threads: int | None = None,
    on_progress: OnProgress = lambda _done, _of: None,
) -> list[Result]:
    """Measure each model on `frames` frames, in rounds.

    Args:
        paths: `.onnx` and `.engine` files.
        source: where frames come from; stays open.
        sink: where they go; stays open.
        frames: how many of each model are measured, in each of the three ways.
        warm_up: how many of each model are translated before.
        engine: as `Translator.load` takes it.
        threads: CPU threads of one inference.
        on_progress: called after each round.

    Returns:
        One result for each path, in their order: a model that cannot run does not stop the rest.

    Raises:
        SourceError, SinkError: of the source or the sink, which all models share.
    """
    picture = source.read().image
    sizes = round_sizes(frames)
    results: dict[int, Result] = {}
    with ExitStack() as opened:
        subjects: list[tuple[int, Translator]] = []
        for number, path in enumerate(paths):
            started_ns = time.perf_counter_ns()
            try:
                translator = opened.enter_context(
                    Translator.load(path, engine=engine, threads=threads)
                )
            except (ModelError, EngineError) as error:
                results[number] = NotRun(path, error)
                continue
            load_ms = (time.perf_counter_ns() - started_ns) / 1e6
            results[number] = Measured(path, translator.description, translator.meta, load_ms)
            subjects.append((number, translator))
            for _ in range(warm_up):
                translator(picture)
        for done, size in enumerate(sizes):
            for number, translator in rotated(subjects, done):
                result = results[number]
                if isinstance(result, Measured):
                    try:
                        _one_round(result, translator, source, sink, size)
                    except (ModelError, EngineError) as error:
                        results[number] = NotRun(result.path, error)
            on_progress(done + 1, len(sizes))
    return [results[number] for number in range(len(paths))]


def _one_round(
    result: Measured, translator: Translator, source: EndlessSource, sink: Sink, frames: int
) -> None:
    # The inference alone before and after the rest: a slow drift of the machine cancels out.
    alone_ms = _inference_alone(translator, source, frames - frames // 2)
    if not source.live:
        samples = _through_pipeline(
            source, translator, sink, "throughput", _LEAD_IN_OVERLAPPED, frames
        )
        overlapped_ms = intervals_ms([sample["done_at_ns"] for sample in samples])
    samples = _through_pipeline(source, translator, sink, "latency", _LEAD_IN_ONE_BY_ONE, frames)
    alone_ms += _inference_alone(translator, source, frames // 2)

    result.alone_ms += alone_ms
    if not source.live:
        result.overlapped_ms += overlapped_ms
        result.cost_ratios.append(sum(overlapped_ms) / sum(alone_ms))
    result.one_by_one_ms += intervals_ms([sample["done_at_ns"] for sample in samples])
    for sample in samples[1:]:
        stages_ms = sample["stages_ms"]
        for stage in STAGES:
            result.stages_ms[stage].append(stages_ms[stage])
        # Waiting for a camera is no latency: there the frame's age is all of it.
        waited_ms = 0 if source.live else stages_ms["capture"]
        result.stages_ms[END_TO_END].append(waited_ms + stages_ms["age"])


def _inference_alone(translator: Translator, source: EndlessSource, count: int) -> list[float]:
    batch = translator.prepare(source.read().image).copy()
    for _ in range(_LEAD_IN_ALONE):
        translator.infer(batch)
    stamps_ns = [time.perf_counter_ns()]
    for _ in range(count):
        translator.infer(batch)
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
