"""What every source can do."""

from __future__ import annotations

from typing import Protocol

from runtime.frame import Frame


class Source(Protocol):
    """Gives frames, one after the other. Whoever opened it closes it."""

    description: str
    """For people: `clip.mp4, 960x540, 25 fps, 221 frames`."""
    live: bool
    """Frames come in their own time, and are lost when nobody takes them."""
    fps: float | None
    size_px: tuple[int, int] | None
    """(height, width) of the first frame; None before it is known."""
    frame_count: int | None
    """None: endless, or not known."""

    @property
    def warning(self) -> str:
        """What the user should know although no error came of it; empty for nothing."""

    def read(self) -> Frame | None:
        """The next frame; None at the end.

        Raises:
            SourceError: the source broke.
        """

    def interrupt(self) -> None:
        """Get a `read` that waits in another thread back at once, with None or a SourceError.

        Called from any thread. Nothing to do where a `read` never waits for more than two
        seconds, and for what ends by itself. Nothing is read after it.
        """

    def close(self) -> None:
        """Let go of device and file, but not while another thread is in `read`.

        May be called twice.
        """


def told_fps(fps: float | None) -> str:
    return "rate unknown" if fps is None else f"{fps:.5g} fps"
