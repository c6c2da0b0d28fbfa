"""How an export speaks to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Say = Callable[[str], None]
"""Takes one line."""
OnProgress = Callable[[str, int, int], None]
"""Of an engine that is built: phase, steps done, steps in all."""
Item = TypeVar("Item")


class Track(Protocol):
    """Wraps long work: shows how far it is."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]: ...


def untracked(items: Sequence[Item], label: str) -> Iterable[Item]:  # noqa: ARG001
    """A `Track` that shows nothing."""
    return items


@dataclass(frozen=True)
class Ui:
    """Lines, progress of a loop, progress of an engine that is built."""

    say: Say
    track: Track = untracked
    on_progress: OnProgress | None = None
