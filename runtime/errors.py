"""What the user can mend, each told in one line: what came, what was expected, what mends it."""

from __future__ import annotations


class UserError(Exception):
    """A cause that lies with the input, the device or the installation, not with this code.

    A command prints it as one line and ends with exit code 2; a program that embeds the runtime
    catches this class.
    """

    def __init__(self, received: str, expected: str, mend: str) -> None:
        self.received = received
        self.expected = expected
        self.mend = mend
        super().__init__(f"{received}; expected {expected}; {mend}")


class ModelError(UserError):
    """A model file that is missing, broken, or does not keep the frame-in frame-out contract."""


class EngineError(UserError):
    """An engine whose library or device is not here, or that refused to run the model."""


class FrameError(UserError):
    """An array that is not a uint8 [H, W, 3] BGR frame."""


class SourceError(UserError):
    """A source of frames that does not exist, does not open, or broke."""


class SinkError(UserError):
    """A sink that does not open or could not keep what it was given."""
