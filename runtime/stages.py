"""The threads between the sources and the sinks: captures, and the workers that translate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from runtime.capture import Capture, Feed
from runtime.frame import Frame, Translated
from runtime.mailbox import Ended, Inbox
from runtime.stats import Statistics
from runtime.translator import Translator
from runtime.worker import Worker

_QUEUE_CAPACITY = 2
_LOOK_UP_EVERY_S = 0.1
"""How soon a worker that waits for a frame sees that a camera was lost."""

_JOIN_CAPTURES_S = 2.0


class Stages:
    """Captures and workers of one run; `with` starts the captures and ends every thread.

    Args:
        feeds: what is read; all are closed at the end.
        translator: what is done to the frames.
        present: makes what is to be shown out of each translated frame.
        hand_on: takes each result, in order.
        newest: keep only the newest frame of each source; else every one.
        one_picture: several sources come as one picture.
        stats: what is counted.
        max_frames: read no more than so many of each source.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        translator: Translator,
        present: Callable[[Translated], Translated],
        hand_on: Callable[[Translated], None],
        *,
        newest: bool,
        one_picture: bool = False,
        stats: Statistics,
        max_frames: int | None = None,
    ) -> None:
        self._inbox: Inbox[Frame] = Inbox(len(feeds), newest=newest, capacity=_QUEUE_CAPACITY)
        self.captures = [
            Capture(feed, self._inbox, slot, stats.of(feed.name), max_frames)
            for slot, feed in enumerate(feeds)
        ]
        self.ended = threading.Event()
        """Set when no result will come any more."""
        self.error: BaseException | None = None
        """What ended it, if that was an error."""
        self._worker = Worker(
            self.captures,
            self._inbox,
            translator,
            present,
            hand_on,
            only_fresh=newest and len(feeds) == 1,
            one_picture=one_picture,
        )
        self._threads: list[threading.Thread] = []
        self._working = 0
        self._lock = threading.Lock()

    def start_workers(self, threads: int) -> None:
        """Translate in so many threads of their own from now on."""
        self._working = threads
        self._threads = [
            threading.Thread(target=self._work, name="p2p-translate", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def step(self, timeout_s: float) -> bool:
        """Translate what waits in the caller's thread, where there are no workers.

        Returns:
            False when nothing came in time.

        Raises:
            Ended: nothing will come any more.
            UserError: from a source or the translator.
        """
        return self._worker.step(timeout_s)

    def look_after(self) -> None:
        """Notice sources that hang. Call it several times a second, from one thread."""
        for capture in self.captures:
            capture.look_after()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            while True:
                self._worker.step(_LOOK_UP_EVERY_S)
        except Ended:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised again in the main thread
            error = caught
        with self._lock:
            self.error = self.error or error
            self._working -= 1
            if self._working == 0:
                self.ended.set()

    def __enter__(self) -> Stages:
        for capture in self.captures:
            capture.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inbox.close()
        self._inbox.empty()
        failed: list[Exception] = []
        for capture in self.captures:
            try:
                capture.stop()
            except Exception as caught:  # noqa: BLE001 - raised when all threads have ended
                failed.append(caught)
        for thread in self._threads:
            thread.join()
        until_s = time.monotonic() + _JOIN_CAPTURES_S
        for capture in self.captures:
            capture.join(max(0.0, until_s - time.monotonic()))
        if failed and error is None:
            raise failed[0]
