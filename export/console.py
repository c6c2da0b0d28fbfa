"""The export on a terminal: bars with a rate and the time left; plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from export.ui import Item, Ui


@contextmanager
def console_ui(console: Console) -> Iterator[Ui]:
    """A `Ui` that writes to `console`; its bars are gone at the end."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    phases: dict[str, TaskID] = {}

    def say(line: str) -> None:
        console.print(line)

    def track(items: Sequence[Item], label: str) -> Iterable[Item]:
        if not console.is_terminal:
            say(f"{label}: {len(items)} to go")
        task = progress.add_task(label, total=len(items))
        try:
            for item in items:
                yield item
                progress.advance(task)
        finally:
            progress.remove_task(task)

    def on_progress(phase: str, done: int, total: int) -> None:
        if phase not in phases:
            phases[phase] = progress.add_task(phase, total=total)
        progress.update(phases[phase], completed=done, total=total)
        if done >= total:
            progress.remove_task(phases.pop(phase))

    with progress:
        yield Ui(say, track, on_progress)
