"""Source -> translator -> sink: the newest frame of a camera, every frame of a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from runtime.frame import Frame, Translated
from runtime.mailbox import BoundedQueue, Ended, Mailbox
from runtime.sinks import Sink
from runtime.sources import Source, open_source
from runtime.stats import Statistics
from runtime.translator import Translator

MODES = ("latency", "throughput")
VIEWS = ("translated", "side-by-side")

_QUEUE_CAPACITY = 2
_LOOK_UP_EVERY_S = 0.1
"""How soon a run that waits for a frame sees that it is to stop."""
_JOIN_SOURCE_S = 2.0


class Pipeline:
    """One run of frames from a source through a translator to a sink.

    `latency`: one thread does a frame's whole way, one frame after the other; in front of it a
    live source's thread leaves its newest frame in a mailbox, where it replaces an older one that
    nobody took. `throughput`: capturing, translating and the sink overlap in threads with queues
    of two between them; every frame arrives, in order, later.

    The sink always runs in the thread that calls `run`, as a window must. An error in any thread
    ends the run and is raised there. No thread outlives the run, but one: a source that is stuck
    in `read` cannot be stopped from outside; it is left behind after two seconds, as a daemon,
    and not closed. The run closes source and sink; the translator stays the caller's.

    Args:
        source: where frames come from.
        translator: what is done to them.
        sink: where they go.
        mode: `latency` or `throughput`; None: `latency` for a live source, else `throughput`.
        view: `translated`, or `side-by-side` with the original on the left.
        max_frames: stop after so many frames.
        keep_samples: keep the cost of each single frame in the statistics.
    """

    def __init__(
        self,
        source: Source,
        translator: Translator,
        sink: Sink,
        *,
        mode: str | None = None,
        view: str = "translated",
        max_frames: int | None = None,
        keep_samples: bool = False,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"view {view!r} is none of {VIEWS}")
        self._source = source
        self._translator = translator
        self._sink = sink
        self._mode = mode_for(source, mode)
        self._view = view
        self._max_frames = max_frames
        self._keep_samples = keep_samples
        self._started = False

    def run(
        self,
        stop: threading.Event | None = None,
        on_progress: Callable[[Statistics], None] | None = None,
    ) -> Statistics:
        """Run until the source ends, the sink wants no more, or `stop` is set.

        What a sink wrote before `stop` or Ctrl-C is kept; after an error only what a live source
        gave is, since that cannot be had again.

        Args:
            stop: set by anyone, at any time.
            on_progress: called in this thread after each frame, and while none comes.

        Raises:
            UserError: from the source, the translator or the sink.
        """
        stats = Statistics(self._keep_samples)
        self._started = keep = True
        frames = translated_frames(
            self._source,
            self._translator,
            mode=self._mode,
            view=self._view,
            max_frames=self._max_frames,
            stop=stop,
            stats=stats,
        )
        try:
            with closing(frames):
                for frame in frames:
                    if frame is not None:
                        self._deliver(frame, stats)
                    if on_progress is not None:
                        on_progress(stats)
                    if not self._sink.wants_more() or stats.frames_out == self._max_frames:
                        break
        except Exception:
            keep = self._source.live
            raise
        finally:
            stats.ended()
            self._sink.close(keep)
        return stats

    def close(self) -> None:
        """Close source and sink of a pipeline that never ran; `run` leaves nothing to do."""
        if not self._started:
            self._source.close()
            self._sink.close(keep=False)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _deliver(self, frame: Translated, stats: Statistics) -> None:
        started_ns = time.perf_counter_ns()
        self._sink.write(frame)
        done_ns = time.perf_counter_ns()
        stats.went_out(
            frame.index,
            frame.captured_at_ns,
            done_ns,
            {
                "capture": frame.capture_ms,
                "in": frame.in_ms,
                "infer": frame.infer_ms,
                "out": frame.out_ms,
                "sink": (done_ns - started_ns) / 1e6,
            },
        )


def mode_for(source: Source, mode: str | None = None) -> str:
    """The mode asked for, or the one that fits the source."""
    if mode is None:
        return "latency" if source.live else "throughput"
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {MODES}")
    return mode


def stream(
    source: str | Path | Source,
    model: str | Path | Translator,
    *,
    mode: str | None = None,
    max_frames: int | None = None,
) -> Iterator[Translated]:
    """Translate a stream in a loop of your own: `for frame in stream("0", "model.onnx")`.

    What is given by name is opened at the first frame and closed when the loop is left; a source
    object is closed too, a translator object stays open.

    Args:
        source: a URI as `open_source` takes it, or an open source.
        model: an `.onnx` or `.engine` file, or a translator.
        mode: `latency` or `throughput`; None: `latency` for a live source, else `throughput`.
        max_frames: end after so many.

    Yields:
        Frames whose `image` is translated, uint8 [H, W, 3] BGR, and `original` is the source's;
        both are the caller's own.

    Raises:
        UserError: from the source or the translator.
    """
    with ExitStack() as opened:
        if not isinstance(model, Translator):
            model = opened.enter_context(Translator.load(model))
        if isinstance(source, (str, Path)):
            source = open_source(str(source))
        frames = translated_frames(source, model, mode=mode_for(source, mode))
        arrived = (frame for frame in opened.enter_context(closing(frames)) if frame is not None)
        yield from islice(arrived, max_frames)


def translated_frames(
    source: Source,
    translator: Translator,
    *,
    mode: str,
    view: str = "translated",
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    stats: Statistics | None = None,
) -> Generator[Translated | None, None, None]:
    """The stream behind `Pipeline` and `stream`; closes the source at its end.

    Yields:
        A frame; or None where none came for a tenth of a second, so that the caller can look up.
    """
    stop = stop or threading.Event()
    stats = stats or Statistics()

    def translate(frame: Frame) -> Translated:
        return _translate(translator, frame, view)

    if mode == "throughput":
        return _overlapped(source, translate, max_frames, stop, stats)
    if source.live:
        return _newest(source, translate, stop, stats)
    return _one_by_one(source, translate, max_frames, stop, stats)


Translate: TypeAlias = Callable[[Frame], Translated]


def _newest(
    source: Source, translate: Translate, stop: threading.Event, stats: Statistics
) -> Generator[Translated | None, None, None]:
    mailbox: Mailbox[Frame] = Mailbox()

    def capture() -> None:
        for frame in _captured(source, None, stop, stats):
            if mailbox.closed:
                return
            if mailbox.put(frame) is not None:
                stats.was_dropped()

    with _threads(source, capture=(capture, mailbox)):
        while not stop.is_set():
            try:
                frame = mailbox.take(_LOOK_UP_EVERY_S)
            except Ended:
                return
            yield None if frame is None else translate(frame)


def _overlapped(
    source: Source,
    translate: Translate,
    max_frames: int | None,
    stop: threading.Event,
    stats: Statistics,
) -> Generator[Translated | None, None, None]:
    captured: BoundedQueue[Frame] = BoundedQueue(_QUEUE_CAPACITY)
    translated: BoundedQueue[Translated] = BoundedQueue(_QUEUE_CAPACITY)

    def capture() -> None:
        for frame in _captured(source, max_frames, stop, stats):
            if not captured.put(frame):
                return

    def work() -> None:
        while (frame := captured.take()) is not None:
            if not translated.put(translate(frame)):
                return

    with _threads(source, capture=(capture, captured), translate=(work, translated)):
        while not stop.is_set():
            try:
                yield translated.take(_LOOK_UP_EVERY_S)
            except Ended:
                return


def _one_by_one(
    source: Source,
    translate: Translate,
    max_frames: int | None,
    stop: threading.Event,
    stats: Statistics,
) -> Generator[Translated | None, None, None]:
    with closing(source):
        for frame in _captured(source, max_frames, stop, stats):
            yield translate(frame)


def _captured(
    source: Source, max_frames: int | None, stop: threading.Event, stats: Statistics
) -> Iterator[Frame]:
    for _ in count() if max_frames is None else range(max_frames):
        if stop.is_set() or (frame := source.read()) is None:
            return
        stats.came_in()
        yield frame


@contextmanager
def _threads(
    source: Source,
    **stages: tuple[Callable[[], None], Mailbox[Any] | BoundedQueue[Any]],
) -> Iterator[None]:
    """Run each stage in a thread of its own, the first of them the one that reads the source.

    A stage that ends closes the passage that it puts into, with its error if it had one.
    """

    def run(body: Callable[[], None], passage: Mailbox[Any] | BoundedQueue[Any]) -> None:
        error: BaseException | None = None
        try:
            body()
        except Ended:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that takes
            error = caught
        finally:
            passage.close(error)

    threads = [
        threading.Thread(target=run, args=stage, name=f"p2p-{name}", daemon=True)
        for name, stage in stages.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for _, passage in stages.values():
            passage.close()
        reader, *others = threads
        for thread in others:
            thread.join()
        reader.join(_JOIN_SOURCE_S)
        if not reader.is_alive():
            source.close()


def _translate(translator: Translator, frame: Frame, view: str) -> Translated:
    started_ns = time.perf_counter_ns()
    batch = translator.prepare(frame.image)
    prepared_ns = time.perf_counter_ns()
    batch = translator.infer(batch)
    inferred_ns = time.perf_counter_ns()
    height, width = frame.image.shape[:2]
    image = translator.finish(batch, (height, width))
    if view == "side-by-side":
        image = np.concatenate((frame.image, image), axis=1)
    finished_ns = time.perf_counter_ns()
    return Translated(
        image=image,
        index=frame.index,
        captured_at_ns=frame.captured_at_ns,
        capture_ms=frame.capture_ms,
        name=frame.name,
        original=frame.image,
        in_ms=(prepared_ns - started_ns) / 1e6,
        infer_ms=(inferred_ns - prepared_ns) / 1e6,
        out_ms=(finished_ns - inferred_ns) / 1e6,
    )
