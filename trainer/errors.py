"""What the user can mend, each told in one line: what came, what was expected, what mends it."""

from __future__ import annotations


class TrainerError(Exception):
    """A cause that lies with the data, the settings or the machine, not with this code."""

    def __init__(self, received: str, expected: str, mend: str) -> None:
        self.received = received
        self.expected = expected
        self.mend = mend
        super().__init__(f"{received}; expected {expected}; {mend}")


class ConfigError(TrainerError):
    """Settings that contradict each other or lie outside what exists."""


class DataError(TrainerError):
    """A data set that cannot be read as pairs."""


class CheckpointError(TrainerError):
    """A file that is not a checkpoint of this trainer, or does not fit the run."""
