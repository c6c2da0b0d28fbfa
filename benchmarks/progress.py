"""How far a benchmark is: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.rounds.measure import OnProgress

_PLAIN_LINE_EVERY_S = 5.0


@contextmanager
def told_progress(what: str) -> Iterator[OnProgress]:
    """Give a function that is told rounds done and rounds in all; it tells them on stderr."""
    if not sys.stderr.isatty():
        yield _plain_lines(what)
        return
    # Nothing draws while something is measured: no refreshing thread.
    with Progress(
        TextColumn(what),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)
        progress.refresh()

        def update(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)
            progress.refresh()

        yield update


def _plain_lines(what: str) -> OnProgress:
    last_line_at_s = time.monotonic()

    def update(done: int, of: int) -> None:
        nonlocal last_line_at_s
        if time.monotonic() - last_line_at_s >= _PLAIN_LINE_EVERY_S:
            last_line_at_s = time.monotonic()
            sys.stderr.write(f"{what}: round {done} of {of}\n")

    return update
