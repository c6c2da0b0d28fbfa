"""`p2p-live`. Everything that knows click is in this file."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

import click

from runtime.announce import told_choices, told_mode, told_result
from runtime.artifact import existing_model
from runtime.capture import Feed
from runtime.engines import ENGINES, choose_engine
from runtime.errors import ModelError, SourceError, UserError
from runtime.fit import FITS
from runtime.grid import Grid
from runtime.hud import Hud, HudFigures
from runtime.modes import MODES, mode_for, streams_for
from runtime.monitor import Monitor
from runtime.opening import open_feeds, open_targets, refuse_overwriting
from runtime.pipeline import Pipeline
from runtime.report import LiveReport
from runtime.smooth import MOST_STRENGTH, STRENGTH
from runtime.stats import Statistics
from runtime.translator import Translator
from runtime.view import VIEWS, View

P = ParamSpec("P")
R = TypeVar("R")

_USER_ERROR = 2
_STUCK = 3
"""A sink did not finish."""


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """End a command in one line on stderr and exit code 2 for whatever its user can mend."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            told = str(error)
        except OSError as error:
            told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        click.echo("error: " + " ".join(told.split()), err=True)
        sys.exit(_USER_ERROR)

    return guarded


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option(
    "--source",
    "source_texts",
    multiple=True,
    default=["0"],
    metavar="[NAME=]URI",
    help="0 or /dev/video0 (camera), csi://0 (a Jetson's camera), rtsp://..., http://... (MJPEG), "
    "a video, images (a folder, 'frames/*.png'), screen://, gst://PIPELINE, - (standard input), "
    "'synthetic://?size=640x480&fps=30'. Give it several times for several cameras.  [default: 0]",
)
@click.option(
    "--sink",
    "sink_uris",
    multiple=True,
    default=["display://0"],
    metavar="URI",
    help="display://0 (a window), a video (.mp4, .avi, .mkv), images (a folder, a file), "
    "rtsp://..., udp://HOST:PORT, virtual:// (a camera for other programs), - (standard output), "
    "none. Give it several times for several sinks.  [default: display://0]",
)
@click.option("--grid", is_flag=True, help="Show several sources as one picture.")
@click.option("--width", type=click.IntRange(min=1), help="Asked of a camera; with --height.")
@click.option("--height", type=click.IntRange(min=1), help="Asked of a camera; with --width.")
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    help="Rate asked of a camera, and written to a video.  [default: the source's]",
)
@click.option(
    "--fit",
    type=click.Choice(FITS),
    default="stretch",
    show_default=True,
    help="How a frame of another shape or size goes through the network: stretched; with its "
    "borders continued; its middle alone; in tiles at full resolution.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, MOST_STRENGTH),
    is_flag=False,
    flag_value=str(STRENGTH),
    metavar="[STRENGTH]",
    help=f"Smooth what flickers and does not move; 0 to {MOST_STRENGTH}.  [alone: {STRENGTH}]",
)
@click.option("--hud", is_flag=True, help="Draw rate, age and stages onto the picture.")
@click.option("--view", type=click.Choice(VIEWS), default="translated", show_default=True)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="latency: only the newest frame of a camera; throughput: overlapping stages, every "
    "frame.  [default: latency for live sources, throughput for files]",
)
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of one inference.  [default: the physical cores; one where a trial at the "
    "start finds a small network no slower with it]",
)
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.")
@click.option(
    "--stats",
    "stats_path",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Write statistics as JSON lines, one a second; the last one is the summary.",
)
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve the statistics to Prometheus at http://HOST:PORT/metrics.",
)
@one_line_errors
def live(
    model: str | None,
    source_texts: Sequence[str],
    sink_uris: Sequence[str],
    grid: bool,
    width: int | None,
    height: int | None,
    fps: float | None,
    fit: str,
    smooth: float | None,
    hud: bool,
    view: str,
    mode: str | None,
    engine: str,
    threads: int | None,
    frames: int | None,
    stats_path: Path | None,
    metrics: str | None,
) -> None:
    """Stream sources through MODEL (.onnx, .engine or a run's folder) into sinks.

    Without MODEL, the newest runs/*/model.onnx is taken. Ctrl-C, q or Escape ends it cleanly:
    a video holds the frames so far.
    """
    model_path, why = _chosen_model(model)
    chosen_engine = choose_engine(model_path, engine)
    if (width is None) != (height is None):
        raise SourceError("--width without --height", "both or none", "give both")
    with ExitStack() as opening:
        feeds = open_feeds(
            source_texts, size_px=(height, width) if width and height else None, fps=fps
        )
        for feed in feeds:
            opening.callback(feed.source.close)
        grid = grid or (
            len(feeds) > 1 and any(uri.lower().startswith("display:") for uri in sink_uris)
        )
        refuse_overwriting(feeds, sink_uris, grid=grid, model=model_path, stats=stats_path)
        in_grid = grid and len(feeds) > 1
        # A HUD counts the frames that it sees: one for the window's thread, one for each stream.
        shown = [""] if in_grid else [feed.name for feed in feeds]
        views = {name: View(view, [Hud()] if hud else []) for name in shown}
        window_view = View(view, [Hud()] if hud else [])
        targets = open_targets(sink_uris, feeds, grid=grid, fps=fps, view=window_view)
        for target in targets:
            opening.callback(target.sink.close, False)
        any_live = any(feed.source.live for feed in feeds)
        chosen_mode = mode_for(any_live, mode)
        translator = opening.enter_context(
            Translator.load(
                model_path,
                engine=engine,
                threads=threads,
                streams=1 if threads else streams_for(chosen_mode),
                fit=fit,
            )
        )
        if len(feeds) == 1:
            translator.check_takes_one()
        only_windows = all(target.sink.main_thread for target in targets)  # have their own views
        pipeline = Pipeline(
            feeds,
            translator,
            targets,
            mode=chosen_mode,
            view=None if only_windows else views.__getitem__,
            grid=Grid([feed.name for feed in feeds]) if in_grid else None,
            smooth=smooth,
            max_frames=frames,
        )
        opening.pop_all()  # from here on the pipeline closes sources and sinks
    stop = threading.Event()
    frame_count = _frames_to_come(feeds, frames, any_live)
    overlays = [overlay for one in (window_view, *views.values()) for overlay in one.overlays]
    huds = [overlay for overlay in overlays if isinstance(overlay, Hud)]
    with ExitStack() as running:
        running.enter_context(translator)
        monitor = running.enter_context(Monitor())
        running.enter_context(pipeline)
        echo = partial(click.echo, err=any(_is_standard_output(uri) for uri in sink_uris))
        for line in told_choices(model_path, why, chosen_engine, translator, feeds, targets):
            echo(line)
        echo(f"mode    {told_mode(chosen_mode, any_live)}")
        for target in targets:
            if target.sink.notice:
                click.echo(f"note: {target.sink.notice}", err=True)
        if metrics is not None:
            # Here: an HTTP server takes a tenth of the start of those who serve none.
            from runtime.prometheus_endpoint import served_metrics

            endpoint = running.enter_context(served_metrics(metrics, pipeline.stats, monitor))
            echo(f"metrics {endpoint.url}")
        report = running.enter_context(
            LiveReport(frame_count, any_live, stats_path, monitor.sample)
        )
        running.enter_context(_stopped_by_signals(stop))

        def on_progress(stats: Statistics) -> None:
            report.update(stats)
            report.tell(pipeline.lost)
            report.tell_finishing(pipeline.finishing)
            for hud in huds:
                hud.figures = _hud_figures(translator, stats, monitor)

        stats = pipeline.run(stop, on_progress)
        report.finish(
            stats,
            model=str(model_path),
            engine=translator.description,
            source=", ".join(feed.source.description for feed in feeds),
            sink=", ".join(target.sink.description for target in targets),
            mode=chosen_mode,
        )
    for warning in (
        *(feed.source.warning for feed in feeds),
        *(target.sink.warning for target in targets),
        *pipeline.notices,
    ):
        if warning:
            click.echo(f"warning: {warning}", err=True)
    echo(told_result(stats, stopped=stop.is_set()))
    if pipeline.left_behind:  # its thread would abort the interpreter's own end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_STUCK)


def _chosen_model(model: str | None) -> tuple[Path, str]:
    """The model file, and why it is this one."""
    if model is not None:
        path = Path(model)
        inside = path / "model.onnx"
        return (inside, "of this run") if inside.is_file() else (existing_model(path), "as asked")
    found = sorted(Path("runs").glob("*/model.onnx"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ModelError(
            "no MODEL was named, and there is no runs/*/model.onnx",
            "an .onnx or .engine file",
            "make one with: p2p-train, then p2p-export",
        )
    return found[-1], "the newest under runs/"


def _frames_to_come(feeds: Sequence[Feed], most: int | None, live: bool) -> int | None:
    """How many frames a run will show; None where nobody knows. `most`: of each file, or of all
    live sources together."""
    counts = [feed.source.frame_count for feed in feeds]
    if live:
        counts = [sum(count for count in counts if count) if None not in counts else None, most]
        return min((count for count in counts if count is not None), default=None)
    known = [min((n for n in (count, most) if n is not None), default=None) for count in counts]
    return None if None in known else sum(count for count in known if count)


def _is_standard_output(uri: str) -> bool:
    return uri.partition("?")[0] == "-"


def _hud_figures(translator: Translator, stats: Statistics, monitor: Monitor) -> HudFigures:
    return HudFigures(
        engine=translator.description.partition(",")[0],
        precision=translator.meta.precision,
        dropped=stats.dropped,
        reopened=stats.reopened,
        machine=monitor.sample(),
    )


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the run cleanly; a second one ends it at once."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in numbers:
        signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        restore()
