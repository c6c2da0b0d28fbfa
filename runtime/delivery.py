"""From the worker to the sinks: each at its own speed, none in the way of another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from runtime.frame import Translated
from runtime.mailbox import Ended, Inbox
from runtime.sinks import Sink
from runtime.stats import Statistics

_QUEUE_CAPACITY = 2
_LOOK_UP_EVERY_S = 0.05
"""How soon a sink that waits for a frame sees that it is to stop; a window looks at its keys."""
_PATIENCE_S = 1.2
"""How long a sink may go on with the frame that it has when the run is over."""
_JOIN_S = 4.0


@dataclass
class Target:
    """A sink, and which frames go to it."""

    sink: Sink
    source: str | None = None
    """Of several sources, the one whose frames it gets; None: all, or the grid of them."""


class Outlet:
    """One sink behind an inbox of its own, in a thread of its own.

    `newest`: the sink gets the newest frame when it has time for one, however slow it is;
    otherwise it gets every frame, and `put` waits for it.

    Args:
        target: the sink; it is closed at the end, in the thread that wrote to it.
        newest: as above.
        live: after an error, keep what was written: it cannot be had again.
        name: in the statistics of each sink.
        slots: for each source the place where its frame waits: frames of two cameras do not
            replace each other, unless they come as one picture.
        counted: sources whose frames are the run's `frames_out` when this sink took them; of the
            others only what is told of each sink apart is counted.
        stats: what is counted.
        max_frames: take no more than so many.
    """

    def __init__(
        self,
        target: Target,
        *,
        newest: bool,
        live: bool,
        name: str,
        slots: Mapping[str, int],
        counted: Container[str],
        stats: Statistics,
        max_frames: int | None = None,
    ) -> None:
        self.target = target
        self.full = False
        """Whether it finished because it had `max_frames`."""
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self.keep = True
        """Whether to keep what is in an unfinished file; set before `close`."""
        self._name = name
        self._slots = slots
        self._counted = counted
        self._live = live
        self._stats = stats
        self._left = max_frames
        self._inbox: Inbox[Translated] = Inbox(
            max(slots.values()) + 1, newest=newest, capacity=_QUEUE_CAPACITY
        )
        self._thread: threading.Thread | None = None

    @property
    def in_main_thread(self) -> bool:
        """Whether `pump` has to be called: windows work in the main thread only."""
        return self.target.sink.main_thread

    def start(self) -> None:
        """Begin to take frames."""
        if not self.in_main_thread:
            self._thread = threading.Thread(target=self._run, name="p2p-sink", daemon=True)
            self._thread.start()

    def put(self, frame: Translated) -> None:
        """Leave a frame for the sink."""
        if frame.repeated and not self.target.sink.shows_notes:
            return
        lost = self._inbox.put(frame, self._slots[frame.source])
        if lost is not None and lost is not frame and not lost.repeated:
            for one in (lost, *lost.others):
                if one.source in self._counted:
                    self._stats.of(one.source).was_dropped()
            self._stats.sink_missed(self._name)

    def pump(self, timeout_s: float) -> None:
        """In the main thread: show what waits, or look at the keys when nothing came in time."""
        if self.finished.is_set():
            time.sleep(timeout_s)
            return
        try:
            self._step(timeout_s)
        except Ended:
            self._finish()
        except BaseException as error:  # noqa: BLE001 - raised again by the pipeline
            self._fail(error)
            self._finish()

    def close(self, drain: bool) -> None:
        """Say that nothing will follow; `drain`: what waits is still written."""
        self._inbox.close()
        if not drain:
            self._inbox.empty()

    def join(self, timeout_s: float) -> bool:
        """Wait until the sink is closed; False when it is stuck, and left behind."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        if not self.finished.is_set():
            self._finish()
        return True

    def _run(self) -> None:
        try:
            while True:
                self._step(_LOOK_UP_EVERY_S)
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._fail(error)
        self._finish()

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.keep = self._live or not isinstance(error, Exception)  # Ctrl-C is no failure

    def _step(self, timeout_s: float) -> None:
        sink = self.target.sink
        for _, frame in self._inbox.take(timeout_s):
            started_ns = time.perf_counter_ns()
            sink.write(frame)
            if not frame.repeated:
                self._wrote(frame, started_ns, time.perf_counter_ns())
        self.full = self._left == 0
        if self.full or not sink.wants_more():
            raise Ended

    def _wrote(self, frame: Translated, started_ns: int, done_ns: int) -> None:
        if self._left is not None:
            self._left -= 1
        self._stats.sink_took(self._name, (done_ns - frame.captured_at_ns) / 1e6)
        for one in (frame, *frame.others):
            if one.source in self._counted:
                self._stats.of(one.source).went_out(
                    one.index,
                    one.captured_at_ns,
                    done_ns,
                    {
                        "capture": one.capture_ms,
                        "in": one.in_ms,
                        "infer": one.infer_ms,
                        "out": one.out_ms,
                        "sink": (done_ns - started_ns) / 1e6,
                    },
                )

    def _finish(self) -> None:
        self._inbox.close()
        try:
            self.target.sink.close(self.keep)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.error = self.error or error
        self.finished.set()


def outlets_for(
    targets: Sequence[Target],
    sources: Sequence[str],
    *,
    newest: bool,
    live: bool,
    one_picture: bool,
    stats: Statistics,
    max_frames: int | None,
) -> list[Outlet]:
    """An outlet for each target; each source is counted at the first one that gets its frames.

    Args:
        targets: where frames go.
        sources: names of the sources.
        newest, live, stats, max_frames: as `Outlet` has them.
        one_picture: several sources come as one picture.
    """
    outlets: list[Outlet] = []
    uncounted = set(sources)
    for number, target in enumerate(targets):
        counted = {name for name in uncounted if target.source in (None, name)}
        uncounted -= counted
        name = target.sink.description
        if any(other.sink.description == name for other in targets[:number]):
            name += f" ({number + 1})"
        outlets.append(
            Outlet(
                target,
                newest=newest,
                live=live,
                name=name,
                slots={
                    source: 0 if one_picture else place for place, source in enumerate(sources)
                },
                counted=counted,
                stats=stats,
                max_frames=max_frames,
            )
        )
    return outlets


def join_all(outlets: Sequence[Outlet], on_finishing: Callable[[list[str]], None]) -> list[Outlet]:
    """Wait until all sinks are closed; whoever waits for someone is interrupted after a while,
    and whoever brings a file to its end gets all the time that it needs.

    Args:
        outlets: no frames come to them any more.
        on_finishing: told several times a second which sinks still finish, once that takes long.

    Returns:
        The outlets whose sinks are stuck, and left behind.
    """
    for patience_s, interrupt in ((_PATIENCE_S, True), (_JOIN_S, False)):
        until_s = time.monotonic() + patience_s
        left = [
            outlet for outlet in outlets if not outlet.join(max(0.0, until_s - time.monotonic()))
        ]
        for outlet in left if interrupt else ():
            outlet.target.sink.interrupt()
    while finishing := [outlet for outlet in left if outlet.target.sink.finishing]:
        on_finishing([outlet.target.sink.description for outlet in finishing])
        finishing[0].join(_LOOK_UP_EVERY_S)
    return [outlet for outlet in left if not outlet.join(0.0)]
