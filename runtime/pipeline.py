"""Source -> translator -> sink: the newest frame of a camera, every frame of a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TypeAlias

from runtime.capture import Feed
from runtime.delivery import Outlet, Target, join_all, outlets_for
from runtime.frame import Translated
from runtime.grid import Grid
from runtime.modes import mode_for
from runtime.present import Presenter, Views
from runtime.sinks import Sink
from runtime.sources import Source
from runtime.stages import Stages
from runtime.stats import Statistics
from runtime.translator import Translator
from runtime.worker import one_by_one

_LOOK_UP_EVERY_S = 0.05
"""How soon a run sees that it is to stop."""

Sources: TypeAlias = "Source | Feed | Sequence[Feed]"
Sinks: TypeAlias = "Sink | Target | Sequence[Target]"
HandOn: TypeAlias = Callable[[Translated], None]


class Pipeline:
    """One run of frames from one or several sources through a translator to one or several sinks.

    `latency`: a live source's thread leaves its newest frame in an inbox, where it replaces an
    older one that nobody took; one worker translates the freshest frame there is; each sink gets
    the newest result when it has time. Of a file, one frame does its whole way before the next
    one is read. `throughput`: capturing, translating (as many at once as the engine has streams)
    and the sinks overlap, with queues of two between them; every frame arrives, in order, later.

    A window runs in the thread that calls `run`, every other sink in one of its own. A live source
    that stalls or breaks is opened again if its feed says how. Any other error in any thread ends
    the run and is raised by `run`. No thread outlives the run, but one that is stuck in a driver,
    which is left behind, as a daemon, after seconds. The run closes sources and sinks; the
    translator stays the caller's.

    Args:
        sources: where frames come from; several have names that differ.
        translator: what is done to them.
        sinks: where they go.
        mode: `latency` or `throughput`; None: `latency` for live sources, else `throughput`.
        view: what is shown of each frame, for all or for each source; None: the translation. (A
            window has a view of its own.)
        grid: several sources come as one picture.
        smooth: strength of the temporal smoothing, 0 to 1; None: none.
        max_frames: stop after so many.
        keep_samples: keep the cost of each single frame in the statistics.

    Raises:
        ValueError: an unknown mode, or two sources of one name.
    """

    def __init__(
        self,
        sources: Sources,
        translator: Translator,
        sinks: Sinks,
        *,
        mode: str | None = None,
        view: Views | None = None,
        grid: Grid | None = None,
        smooth: float | None = None,
        max_frames: int | None = None,
        keep_samples: bool = False,
    ) -> None:
        self._feeds = _feeds(sources)
        self._translator = translator
        self._targets = _targets(sinks)
        self._live = any(feed.source.live for feed in self._feeds)
        self._mode = mode_for(self._live, mode)
        self._presenter = Presenter(view, grid, smooth)
        self._max_frames = max_frames
        names = [feed.name for feed in self._feeds]
        self.stats = Statistics(keep_samples, names if len(names) > 1 else ())
        """What is counted, also while it runs."""
        self.notices: list[str] = []
        """What the user should know although no error came of it; complete after the run."""
        self.finishing: list[str] = []
        """Sinks that bring their files to an end after the run, where that takes long."""
        self.left_behind: list[Sink] = []
        """Sinks that were stuck when the run ended; their threads live on."""
        self._started = False
        self._stages: Stages | None = None

    @property
    def lost(self) -> dict[str, str]:
        """The sources that are lost at this moment, by name, each with the reason."""
        captures = self._stages.captures if self._stages else []
        return {capture.name: capture.reason for capture in captures if capture.note}

    def run(
        self,
        stop: threading.Event | None = None,
        on_progress: Callable[[Statistics], None] | None = None,
    ) -> Statistics:
        """Run until the sources end, a sink wants no more, or `stop` is set.

        What a sink wrote before `stop` or Ctrl-C is kept; after an error only what a live source
        gave is, since that cannot be had again.

        Args:
            stop: set by anyone, at any time.
            on_progress: called in this thread after frames, and while none comes.

        Raises:
            UserError: from a source, the translator or a sink.
            RuntimeError: it ran before.
        """
        if self._started:
            raise RuntimeError("a pipeline runs once: its sources and sinks are closed")
        self._started = True
        stop = stop or threading.Event()
        on_progress = on_progress or (lambda _: None)
        outlets = outlets_for(
            self._targets,
            [feed.name for feed in self._feeds],
            newest=self._live and self._mode == "latency",
            live=self._live,
            one_picture=self._presenter.one_picture,
            stats=self.stats,
            max_frames=self._max_frames if self._live else None,  # files are read no further
        )

        def finishing(descriptions: list[str]) -> None:
            self.finishing = descriptions
            on_progress(self.stats)

        def hand_on(frame: Translated) -> None:
            for outlet in outlets:
                if outlet.target.source in (None, frame.source):
                    outlet.put(frame)

        try:
            if self._live or self._mode == "throughput":
                self._overlapping(outlets, hand_on, stop, on_progress)
            else:
                self._one_by_one(outlets, hand_on, stop, on_progress)
        finally:
            self.left_behind = [outlet.target.sink for outlet in join_all(outlets, finishing)]
            self.notices += [f"{sink.description} did not finish" for sink in self.left_behind]
            self.stats.ended()
        for outlet in outlets:
            if outlet.error is not None:
                raise outlet.error
        return self.stats

    def _overlapping(
        self,
        outlets: list[Outlet],
        hand_on: HandOn,
        stop: threading.Event,
        on_progress: Callable[[Statistics], None],
    ) -> None:
        latency = self._mode == "latency"
        stages = self._stages = Stages(
            self._feeds,
            self._translator,
            self._presenter,
            hand_on,
            newest=latency,
            one_picture=self._presenter.one_picture,
            stats=self.stats,
            max_frames=None if self._live else self._max_frames,
        )
        windows = [outlet for outlet in outlets if outlet.in_main_thread]
        draining = False
        with stages, self._closed_at_the_end(outlets):
            for outlet in outlets:
                outlet.start()
            stages.start_workers(1 if latency else self._translator.streams)
            while not stop.is_set():
                if windows:
                    for window in windows:
                        window.pump(_LOOK_UP_EVERY_S)
                elif draining:
                    unfinished = [one for one in outlets if not one.finished.is_set()]
                    unfinished[0].finished.wait(_LOOK_UP_EVERY_S)
                else:
                    stages.ended.wait(_LOOK_UP_EVERY_S)
                stages.look_after()
                on_progress(self.stats)
                if stages.ended.is_set() and not draining:
                    draining = True
                    for outlet in outlets:
                        outlet.keep = self._live or stages.error is None
                        outlet.close(drain=True)
                if _is_over(outlets, draining):
                    break
        self.notices += _told_of(stages)
        if stages.error is not None:
            raise stages.error

    def _one_by_one(
        self,
        outlets: list[Outlet],
        hand_on: HandOn,
        stop: threading.Event,
        on_progress: Callable[[Statistics], None],
    ) -> None:
        steps = one_by_one(
            self._feeds,
            self._translator,
            self._presenter,
            hand_on,
            stats=self.stats,
            max_frames=self._max_frames,
        )
        with (
            closing(steps),
            self._closed_at_the_end(outlets),
            _interrupted_by(stop, self._feeds),
        ):
            for _ in steps:
                for outlet in outlets:
                    outlet.pump(0.0)
                on_progress(self.stats)
                if stop.is_set() or _is_over(outlets, draining=False):
                    break

    @contextmanager
    def _closed_at_the_end(self, outlets: list[Outlet]) -> Iterator[None]:
        """Let no thread wait for an outlet any more; after an error keep only what was live."""
        keep = True
        try:
            yield
            failed = any(isinstance(outlet.error, Exception) for outlet in outlets)
            keep = self._live or not failed  # Ctrl-C in one of them is no failure
        except Exception:
            keep = self._live
            raise
        finally:
            for outlet in outlets:
                outlet.keep = outlet.keep and keep
                outlet.close(drain=False)

    def close(self) -> None:
        """Close sources and sinks of a pipeline that never ran; `run` leaves nothing to do."""
        if not self._started:
            for feed in self._feeds:
                feed.source.close()
            for target in self._targets:
                target.sink.close(keep=False)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_over(outlets: Sequence[Outlet], draining: bool) -> bool:
    """Whether a sink failed or wants no more, or all have what they are to have."""
    finished = [outlet for outlet in outlets if outlet.finished.is_set()]
    if draining or all(outlet.full for outlet in finished):
        return len(finished) == len(outlets)
    return True


@contextmanager
def _interrupted_by(stop: threading.Event, feeds: Sequence[Feed]) -> Iterator[None]:
    """Get a source back that waits in this thread, where nothing else can look at `stop`."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_UP_EVERY_S):
            if stop.is_set():
                for feed in feeds:
                    feed.source.interrupt()
                return

    watcher = threading.Thread(target=watch, name="p2p-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _told_of(stages: Stages) -> list[str]:
    """What the user should know of the sources after the run."""
    return [capture.warning for capture in stages.captures if capture.warning]


def _feeds(sources: Sources) -> list[Feed]:
    if isinstance(sources, Sequence):
        names = [feed.name for feed in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources have one name: {names}")
        return list(sources)
    return [sources if isinstance(sources, Feed) else Feed(sources)]


def _targets(sinks: Sinks) -> list[Target]:
    if isinstance(sinks, Sequence):
        return list(sinks)
    return [sinks if isinstance(sinks, Target) else Target(sinks)]
