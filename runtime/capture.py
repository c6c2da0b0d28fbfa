"""One source, read in a thread of its own and kept alive whatever its camera does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from runtime.buffers import FrameBuffers
from runtime.errors import FrameError, SourceError
from runtime.frame import Frame, as_bgr
from runtime.mailbox import Inbox
from runtime.sources.base import Source
from runtime.stats import Statistics

STALLED_AFTER_S = 2.5
"""A read of a live source that takes so long is taken for lost; a slow source has three intervals.
Most sources give up by themselves after two seconds."""
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.2)
"""Before each attempt to open a lost source again; the last one is kept to, so that a camera that
comes back is on the screen again within two seconds."""
_STEADY_AFTER_S = 5.0
"""A source that gave frames for so long after it was opened is not about to break again."""
_JOIN_S = 2.0
_STAMPS = 9


@dataclass
class Feed:
    """A source with its name, and how to open it once more."""

    source: Source
    name: str = ""
    reopen: Callable[[], Source] | None = None
    """Opens the same source again; None: one that breaks ends the run."""


class Capture:
    """Reads a feed in a thread and leaves its frames in one slot of an inbox.

    A live source that gives no frame for `STALLED_AFTER_S`, or breaks, is lost: it is interrupted
    and closed, and opened again, with growing pauses, in a thread of its own, so that a driver
    that hangs hangs alone. Until the next frame `note` says so. The indices of its frames go on
    where they stopped. A source that ends by itself ends its slot.

    Args:
        feed: what to read; it is closed at the end.
        inbox, slot: where its frames go.
        stats: what is counted.
        max_frames: read no more than so many.
    """

    def __init__(
        self,
        feed: Feed,
        inbox: Inbox[Frame],
        slot: int,
        stats: Statistics,
        max_frames: int | None = None,
    ) -> None:
        self.name = feed.name
        self.rhythm = Rhythm()
        self._reopen = feed.reopen if feed.source.live else None
        self._inbox = inbox
        self._slot = slot
        self._stats = stats
        self._left = max_frames
        self._bring = BroughtToBgr()
        self._next_index = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._current: _Opened | None = _Opened(feed.source)
        self._readers: list[threading.Thread] = []
        self._lost_at_s: float | None = None
        self._reason = ""
        self._attempts = 0
        self._opened_at_s = self._last_frame_s = time.monotonic()
        interval_s = 1 / feed.source.fps if feed.source.fps else 0.0
        self._patience_s = max(STALLED_AFTER_S, 3 * interval_s)

    def start(self) -> None:
        """Begin to read."""
        self._opened_at_s = self._last_frame_s = time.monotonic()
        self._start_reader(self._current)

    @property
    def note(self) -> str:
        """What the viewer must know; empty while frames come."""
        lost_at_s = self._lost_at_s
        if lost_at_s is None:
            return ""
        who = f"{self.name}: " if self.name else ""
        return f"{who}no picture for {time.monotonic() - lost_at_s:.0f} s, opening again"

    @property
    def reason(self) -> str:
        """Why the source was lost last; empty if it never was."""
        return self._reason

    @property
    def warning(self) -> str:
        """What came that had to be mended; empty for nothing."""
        return self._bring.warning

    def look_after(self) -> None:
        """Notice a source that hangs. Call it several times a second, from one thread."""
        opened = self._current
        if self._reopen is None or opened is None or self._stopped.is_set():
            return
        since_s = opened.reading_since_s
        silent_s = 0.0 if since_s is None else time.monotonic() - since_s
        if silent_s > self._patience_s and self._lose(
            opened, f"gave no frame for {silent_s:.1f} s"
        ):
            opened.interrupt()  # its own thread closes it when it comes back

    def stop(self) -> None:
        """Let no more frames come; a read that waits is interrupted."""
        self._stopped.set()
        with self._lock:
            opened = self._current
        if opened is not None:
            opened.interrupt()

    def join(self, timeout_s: float = _JOIN_S) -> None:
        """Wait for the threads to end. One that is stuck in a driver is left behind, as a
        daemon, and closes its source if it ever comes back."""
        until_s = time.monotonic() + timeout_s
        for reader in self._readers:
            reader.join(max(0.0, until_s - time.monotonic()))

    def _start_reader(self, opened: _Opened | None) -> None:
        self._readers = [reader for reader in self._readers if reader.is_alive()]
        name = f"p2p-capture-{self.name}" if self.name else "p2p-capture"
        reader = threading.Thread(target=self._run, args=(opened,), name=name, daemon=True)
        self._readers.append(reader)
        reader.start()

    def _run(self, opened: _Opened | None) -> None:
        error: BaseException | None = None
        try:
            opened = opened or self._opened_again()
            if opened is not None:
                self._read(opened)
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that takes
            error = caught
        try:
            if opened is not None:
                opened.close()
        except Exception as caught:  # noqa: BLE001 - as above
            error = error or caught
        if opened is not None and self._current is not opened:
            return  # it was given up: another thread reads, whatever this one met
        if isinstance(error, SourceError) and self._reopen and not self._stopped.is_set():
            self._lose(opened, error.received)
            return
        if error is not None and not self._stopped.is_set():
            self._inbox.close(error)
        self._inbox.end(self._slot)

    def _read(self, opened: _Opened) -> None:
        """Read until the end, or until the source was given up."""
        while not self._stopped.is_set() and self._left != 0:
            frame = opened.read()
            if frame is None or self._stopped.is_set() or self._current is not opened:
                return
            if self._left is not None:
                self._left -= 1
            self._bring(frame)
            self._came(frame)
            lost = self._inbox.put(frame, self._slot)
            if lost is frame:
                return
            if lost is not None:
                self._stats.was_dropped()

    def _came(self, frame: Frame) -> None:
        frame.index, self._next_index = self._next_index, self._next_index + 1
        self._last_frame_s = time.monotonic()
        if self._lost_at_s is not None:
            self._lost_at_s = None
            self._stats.was_reopened()
            self.rhythm = Rhythm()
        self._stats.came_in()
        self.rhythm.arrived()

    def _lose(self, opened: _Opened | None, reason: str) -> bool:
        """Give a source up and have it opened again; False where another thread was quicker."""
        with self._lock:
            if opened is None or self._current is not opened:
                return False
            self._current = None
            self._reason = reason
            newly = self._lost_at_s is None
            if newly:
                self._lost_at_s = self._last_frame_s
        if newly:
            self._stats.was_lost()
        self._start_reader(None)
        return True

    def _opened_again(self) -> _Opened | None:
        """The source, as soon as it can be opened; None when stopped."""
        assert self._reopen is not None
        if self._last_frame_s - self._opened_at_s > _STEADY_AFTER_S:
            self._attempts = 0
        while not self._stopped.wait(_PAUSES_S[min(self._attempts, len(_PAUSES_S) - 1)]):
            self._attempts += 1
            try:
                opened = _Opened(self._reopen())
            except SourceError as error:
                self._reason = error.received
                continue
            with self._lock:
                self._current = opened
                self._opened_at_s = time.monotonic()
            return opened
        return None


class _Opened:
    """A source that one thread reads: closed once, and never interrupted after that."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._closed = False
        self.reading_since_s: float | None = None
        """Since when a read waits; None outside of one: then nobody may blame the source."""

    def read(self) -> Frame | None:
        self.reading_since_s = time.monotonic()
        try:
            return self._source.read()
        finally:
            self.reading_since_s = None

    def interrupt(self) -> None:
        with self._lock:
            if not self._closed:
                self._source.interrupt()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._source.close()


class BroughtToBgr:
    """Makes every frame of a stream uint8 [H, W, 3] BGR, grey and four channels too."""

    def __init__(self) -> None:
        self._buffers = FrameBuffers()
        self.warning = ""
        """What had to be converted; empty for nothing."""

    def __call__(self, frame: Frame) -> None:
        """Change `frame.image` where it has to be.

        Raises:
            SourceError: it is no picture.
        """
        image = frame.image
        if image.ndim == 3 and image.shape[2] == 3:
            return
        try:
            into = self._buffers.take((image.shape[0], image.shape[1])) if image.ndim > 1 else None
            frame.image = as_bgr(image, into)
        except FrameError as error:
            raise SourceError(error.received, error.expected, error.mend) from error
        self.warning = f"frames of shape {list(image.shape)} came: they were turned into BGR"


class Rhythm:
    """When a live source's frames come, and so when the next one is due."""

    def __init__(self) -> None:
        self._arrived_s: deque[float] = deque(maxlen=_STAMPS)

    def arrived(self) -> None:
        """A frame came now."""
        self._arrived_s.append(time.monotonic())

    def worth_waiting_s(self) -> float:
        """How long to wait for a fresher frame than the newest one; 0: take that one.

        A frame that waited for more than a quarter of the camera's interval is passed over. To
        begin at once with an old frame, or a little later with a fresh one, shows about as many
        pictures, and the fresh one is younger when it is shown: for a translation of T and an
        interval of I, the mean age of what is on the screen is T + (T + I) / 2 without waiting
        and T + P / 2 with it, where the period P, a multiple of I, is at most T + I.
        """
        stamps = list(self._arrived_s)
        if len(stamps) < _STAMPS:
            return 0.0
        interval_s = median(b - a for a, b in pairwise(stamps))
        waited_s = time.monotonic() - stamps[-1]
        if waited_s <= interval_s / 4 or waited_s >= interval_s:
            return 0.0
        return 1.25 * interval_s - waited_s
