"""What every sink can do, and the one that does nothing."""

from __future__ import annotations

from typing import Protocol

from runtime.frame import Frame


class Sink(Protocol):
    """Takes frames, in order. Whoever opened it closes it.

    `write`, `wants_more` and `close` are called from one thread, whichever it is; a sink may be
    made in another. With `main_thread` that one is the thread in which the program started:
    window systems want it so.
    """

    description: str
    """For people: `night.mp4, mp4v, 25 fps`."""
    main_thread: bool
    """True for a window, which the main thread must serve."""
    shows_notes: bool
    """Whether it wants repeated frames, which carry a note and no new picture, such as those of a
    camera that is being opened again: someone watches it now. A recording does not."""
    notice: str
    """Something to tell when it was opened, such as a video that a killed run left; else empty."""
    warning: str
    """Something to tell at the end, such as frames of another size; else empty."""
    finishing: bool
    """True while `close` brings a file to its end, which a slow disk may make long."""

    def write(self, frame: Frame) -> None:
        """Show or keep a frame; it is not read after this returns.

        Raises:
            UserError: it could not be kept; a full disk is one cause.
        """

    def wants_more(self) -> bool:
        """Whether another frame may come; called between frames, and while none comes."""

    def interrupt(self) -> None:
        """Get a `write` that waits for someone back at once; its frame may be lost.

        Called from any thread. Nothing to do where a `write` never waits for more than a second.
        Only `close` follows.
        """

    def close(self, keep: bool = True) -> None:
        """Finish, or throw an unfinished file away (`keep=False`). May be called twice.

        Raises:
            UserError: the file could not be finished; a full disk is one cause.
        """


class BaseSink:
    """What most sinks have in common: any thread, nothing to tell, always another frame."""

    main_thread = False
    shows_notes = False
    notice: str = ""
    warning: str = ""
    finishing: bool = False

    def wants_more(self) -> bool:
        """Always."""
        return True

    def interrupt(self) -> None:
        """Nothing waits for anyone."""


class NoSink(BaseSink):
    """Takes every frame and keeps none: for measuring."""

    description = "none"

    def write(self, frame: Frame) -> None:
        """Forget the frame."""

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""
