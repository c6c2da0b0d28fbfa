"""The middle of the way: newest frames out of the inbox, translated, in order, to whoever shows
them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count

from runtime.capture import BroughtToBgr, Capture, Feed
from runtime.frame import Frame, Translated
from runtime.mailbox import Ended, Inbox
from runtime.stats import Statistics
from runtime.translator import Translator

_REMIND_EVERY_S = 0.25
"""How often a picture is shown again to count the seconds since its camera was lost."""


def translated_frames(
    translator: Translator, frames: Sequence[tuple[str, Frame]]
) -> list[Translated]:
    """Translate frames together, each with the name of its source.

    Raises:
        UserError: from the translator.
    """
    translation = translator.translate([frame.image for _, frame in frames])
    return [
        Translated(
            image=translation.images[place],
            index=frame.index,
            captured_at_ns=frame.captured_at_ns,
            capture_ms=frame.capture_ms,
            name=frame.name,
            translated=translation.images[place],
            original=translation.originals[place],
            in_ms=translation.in_ms,
            infer_ms=translation.infer_ms,
            out_ms=translation.out_ms,
            source=source,
        )
        for place, (source, frame) in enumerate(frames)
    ]


def presented(present: Callable[[Translated], Translated], frame: Translated) -> Translated:
    """The frame as it is to be shown; what that costs counts as `out`."""
    started_ns = time.perf_counter_ns()
    shown = present(frame)
    shown.out_ms += (time.perf_counter_ns() - started_ns) / 1e6
    return shown


class Worker:
    """Translates what waits in an inbox; of several sources, as many in one inference as fit.

    Several threads may call `step` where the engine runs several inferences at once; what they
    give still comes in the order in which it was taken.

    Args:
        captures: by slot of the inbox.
        inbox: where their frames wait.
        translator: what is done to them.
        present: makes what is to be shown out of each translated frame.
        hand_on: takes each result, in order.
        only_fresh: pass over a frame that waited, when the next one is due.
        one_picture: each presented frame shows the ones before it too, as in a grid: of those
            that were translated together only the last is handed on.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        inbox: Inbox[Frame],
        translator: Translator,
        present: Callable[[Translated], Translated],
        hand_on: Callable[[Translated], None],
        *,
        only_fresh: bool,
        one_picture: bool,
    ) -> None:
        self._captures = captures
        self._inbox = inbox
        self._translator = translator
        self._present = present
        self._hand_on = hand_on
        self._only_fresh = only_fresh
        self._one_picture = one_picture
        self._most = max(1, min(len(captures), translator.meta.batch))
        self._taking = threading.Lock()
        self._turn = threading.Condition()
        self._taken = self._handed_on = 0
        self._broken = False
        self._newest: dict[str, Translated] = {}
        self._reminded_s = 0.0

    def step(self, timeout_s: float) -> bool:
        """Take, translate and hand on what waits.

        Returns:
            False when nothing came in time.

        Raises:
            Ended: nothing will come any more.
            UserError: from a source or the translator.
        """
        with self._taking:
            if self._broken:
                raise Ended
            if self._only_fresh:
                wait_s = self._captures[0].rhythm.worth_waiting_s()
                if wait_s > 0:
                    self._inbox.waits_for_newer(0, wait_s)
            taken = self._inbox.take(timeout_s, self._most)
            ticket = self._taken
            self._taken += bool(taken)
        if not taken:
            with self._in_turn(ticket):
                self._remind()
            return False
        named = [(self._captures[slot].name, frame) for slot, frame in taken]
        with self._breaks_all():
            translated = translated_frames(self._translator, named)
        with self._in_turn(ticket):
            self._newest.update((frame.source, frame) for frame in translated)
            self._show(translated)
            self._remind()
            self._handed_on += 1
        return True

    def _show(self, frames: Sequence[Translated]) -> None:
        shown = [presented(self._present, frame) for frame in frames]
        if self._one_picture:
            *others, last = shown
            last.others = tuple(others)
            shown = [last]
        for frame in shown:
            self._hand_on(frame)

    def _remind(self) -> None:
        """Show the last picture of a lost camera again, with what there is to know."""
        notes = {capture.name: capture.note for capture in self._captures if capture.note}
        if not notes or time.monotonic() - self._reminded_s < _REMIND_EVERY_S:
            return
        self._reminded_s = time.monotonic()
        for name, note in notes.items():
            if name in self._newest:
                reminder = replace(self._newest[name], note=note, repeated=True)
                self._hand_on(presented(self._present, reminder))

    @contextmanager
    def _in_turn(self, ticket: int) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: self._handed_on >= ticket or self._broken)
            if self._broken:
                raise Ended
            with self._breaks_all():
                yield
            self._turn.notify_all()

    @contextmanager
    def _breaks_all(self) -> Iterator[None]:
        """Let no other thread wait for the turn of one that failed."""
        try:
            yield
        except BaseException:
            with self._turn:
                self._broken = True
                self._turn.notify_all()
            raise


def one_by_one(
    feeds: Sequence[Feed],
    translator: Translator,
    present: Callable[[Translated], Translated],
    hand_on: Callable[[Translated], None],
    *,
    stats: Statistics,
    max_frames: int | None = None,
) -> Generator[None, None, None]:
    """Every frame of files, one after the other in the caller's thread, of several in turn."""
    with ExitStack() as opened:
        for feed in feeds:
            opened.callback(feed.source.close)
        reading = list(feeds)
        bring = BroughtToBgr()
        for _ in count() if max_frames is None else range(max_frames):
            for feed in tuple(reading):
                frame = feed.source.read()
                if frame is None:
                    reading.remove(feed)
                    continue
                bring(frame)
                stats.of(feed.name).came_in()
                [translated] = translated_frames(translator, [(feed.name, frame)])
                hand_on(presented(present, translated))
                yield
            if not reading:
                return
