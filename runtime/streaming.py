"""A translated stream as a Python loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

from runtime.capture import Feed
from runtime.frame import Translated
from runtime.mailbox import Ended, Inbox
from runtime.modes import mode_for, streams_for
from runtime.present import Presenter
from runtime.sources import Source, open_source
from runtime.stages import Stages
from runtime.stats import Statistics
from runtime.translator import Translator
from runtime.worker import one_by_one

_QUEUE_CAPACITY = 2
_LOOK_UP_EVERY_S = 0.1


def stream(
    source: str | Path | Source,
    model: str | Path | Translator,
    *,
    mode: str | None = None,
    max_frames: int | None = None,
    smooth: float | None = None,
) -> Iterator[Translated]:
    """Translate a stream in a loop of your own: `for frame in stream("0", "model.onnx")`.

    What is given by name is opened at the first frame and closed when the loop is left; a source
    object is closed too, a translator object stays open. A camera given by name that stalls or
    vanishes is opened again; the loop then waits for its next frame.

    Args:
        source: a URI as `open_source` takes it, or an open source.
        model: an `.onnx` or `.engine` file, or a translator.
        mode: `latency` or `throughput`; None: `latency` for a live source, else `throughput`.
        max_frames: end after so many.
        smooth: strength of the temporal smoothing, 0 to 1; None: none.

    Yields:
        Frames whose `image` is translated, uint8 [H, W, 3] BGR, and `original` is the source's, of
        the same size; both are the caller's own for as long as it holds them, and cost no
        allocation when it does not.

    Raises:
        UserError: from the source or the translator.
    """
    with ExitStack() as opened:
        with ExitStack() as unread:
            feed = _feed(source)
            unread.callback(feed.source.close)
            chosen_mode = mode_for(feed.source.live, mode)
            if max_frames == 0:
                return
            if not isinstance(model, Translator):
                streams = streams_for(chosen_mode)
                model = opened.enter_context(Translator.load(model, streams=streams))
            unread.pop_all()  # from here on the stages close it
        frames = _streamed(feed, model, chosen_mode, Presenter(smooth=smooth))
        yield from islice(opened.enter_context(closing(frames)), max_frames)


def _streamed(
    feed: Feed, translator: Translator, mode: str, present: Presenter
) -> Generator[Translated, None, None]:
    stats = Statistics()
    if mode == "latency" and not feed.source.live:
        results: deque[Translated] = deque()
        for _ in one_by_one([feed], translator, present, results.append, stats=stats):
            yield results.popleft()
        return
    latency = mode == "latency"
    passage: Inbox[Translated] = Inbox(newest=latency, capacity=_QUEUE_CAPACITY)

    def hand_on(frame: Translated) -> None:
        if not frame.repeated:
            passage.put(frame)

    stages = Stages([feed], translator, present, hand_on, newest=latency, stats=stats)
    with stages:
        if not latency:
            stages.start_workers(translator.streams)
        try:
            while True:
                if latency:
                    stages.step(_LOOK_UP_EVERY_S)
                elif stages.ended.is_set():
                    passage.close(stages.error)
                for _, frame in passage.take(0.0 if latency else _LOOK_UP_EVERY_S):
                    yield frame
                stages.look_after()
        except Ended:
            return
        finally:
            passage.close()  # a worker that waits for room would never end


def _feed(source: str | Path | Source) -> Feed:
    if isinstance(source, (str, Path)):
        uri = str(source)
        return Feed(open_source(uri), reopen=lambda: open_source(uri))
    return Feed(source)
