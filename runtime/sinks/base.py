"""What every sink can do, and the one that does nothing."""

from __future__ import annotations

from typing import Protocol

from runtime.frame import Frame


class Sink(Protocol):
    """Takes frames, in order, from one thread. Whoever opened it closes it."""

    description: str
    """For people: `night.mp4, mp4v, 25 fps`."""

    def write(self, frame: Frame) -> None:
        """Show or keep a frame; it is not read after this returns.

        Raises:
            UserError: it could not be kept; a full disk is one cause.
        """

    def wants_more(self) -> bool:
        """Whether another frame may come; called between frames, and while none comes."""

    def close(self, keep: bool = True) -> None:
        """Finish, or throw an unfinished file away (`keep=False`). May be called twice.

        Raises:
            UserError: the file could not be finished; a full disk is one cause.
        """


class NoSink:
    """Takes every frame and keeps none: for measuring."""

    description = "none"

    def write(self, frame: Frame) -> None:
        """Forget the frame."""

    def wants_more(self) -> bool:
        """Always."""
        return True

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""
