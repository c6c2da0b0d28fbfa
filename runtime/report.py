"""What a running pipeline tells: a line on the terminal, and JSON lines in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from runtime.stats import Statistics

if TYPE_CHECKING:
    from rich.progress import Progress

_REDRAW_EVERY_S = 0.25
_PLAIN_LINE_EVERY_S = 5.0
_JSON_LINE_EVERY_S = 1.0


class LiveReport:
    """Tells on stderr how a run goes: a moving line on a terminal, plain lines elsewhere.

    Args:
        machine: gives the machine's figures, for the statistics.
        frame_count: how many frames will come; None: endless or not known.
        live: show the age of frames, which counts there; else how long the network takes.
        stats_path: also write JSON lines there, one a second and the summary at the end.
    """

    def __init__(
        self,
        frame_count: int | None,
        live: bool,
        stats_path: Path | None,
        machine: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self._machine = machine
        self._told: set[str] = set()
        self._told_finishing = False
        self._stage = "age" if live else "infer"
        self._open = ExitStack()
        self._last_frames = 0
        self._last_line_at_s = self._last_json_at_s = time.monotonic()
        self._json_lines = None
        if stats_path is not None:
            stats_path.parent.mkdir(parents=True, exist_ok=True)
            self._json_lines = self._open.enter_context(stats_path.open("w", encoding="utf-8"))
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            self._progress = _bar()
            self._task = self._progress.add_task("starting", total=frame_count)

    def update(self, stats: Statistics) -> None:
        """Tell how it goes, when it is time to."""
        now_s = time.monotonic()
        wait_s = _REDRAW_EVERY_S if self._progress else _PLAIN_LINE_EVERY_S
        if now_s - self._last_line_at_s >= wait_s:
            line = self._line(stats, now_s - self._last_line_at_s)
            self._last_line_at_s = now_s
            if self._progress is None:
                self._write_line(f"{stats.frames_out} frames, {line}")
            else:
                self._progress.update(self._task, completed=stats.frames_out, description=line)
                self._progress.refresh()
        if now_s - self._last_json_at_s >= _JSON_LINE_EVERY_S:
            self._last_json_at_s = now_s
            self._write_json({**self._figures(stats), "final": False})

    def tell(self, news: Mapping[str, str]) -> None:
        """Say what is new, once: a camera that was lost, and that it is back.

        Args:
            news: for each source that is lost now, why.
        """
        for name in self._told - news.keys():
            self._write_line(f"{name or 'the source'} is back")
        for name in news.keys() - self._told:
            self._write_line(f"{name or 'the source'} was lost: {news[name]}; opening it again")
        self._told = set(news)

    def tell_finishing(self, descriptions: Sequence[str]) -> None:
        """Say once why the end takes its time."""
        if descriptions and not self._told_finishing:
            self._told_finishing = True
            self._write_line(f"finishing {', '.join(descriptions)}; a second Ctrl-C leaves it")

    def finish(self, stats: Statistics, **told: str) -> None:
        """Write the summary as the last JSON line, with what was `told` about the run."""
        if self._progress is not None:
            self._progress.update(self._task, completed=stats.frames_out, description="done")
        self._write_json({**self._figures(stats), **told, "final": True})

    def __enter__(self) -> LiveReport:
        if self._progress is not None:
            self._open.enter_context(self._progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _line(self, stats: Statistics, since_s: float) -> str:
        frames, self._last_frames = stats.frames_out - self._last_frames, stats.frames_out
        return (
            f"{frames / since_s:.1f} fps, {self._stage} "
            f"p50 {stats.percentile_ms(self._stage, 50):.1f} "
            f"p99 {stats.percentile_ms(self._stage, 99):.1f} ms, {stats.dropped} dropped"
        )

    def _figures(self, stats: Statistics) -> dict[str, object]:
        figures: dict[str, object] = {**stats.summary()}
        if stats.by_source:
            figures["sources"] = {name: of.summary() for name, of in stats.by_source.items()}
        if len(stats.by_sink) > 1:
            figures["sinks"] = stats.by_sink_summary()
        if self._json_lines is not None:
            figures["machine"] = self._machine()
        return figures

    def _write_line(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            sys.stderr.write(line + "\n")

    def _write_json(self, values: dict[str, object]) -> None:
        if self._json_lines is not None:
            self._json_lines.write(json.dumps(values) + "\n")
            self._json_lines.flush()


def _bar() -> Progress:
    """A moving line. Imported here: a start whose lines go to a log takes a tenth less."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        auto_refresh=False,  # a second thread would draw while a sink prints
    )
