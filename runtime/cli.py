"""`p2p-live`. Everything that knows click is in this file."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

import click

from runtime.artifact import ArtifactMeta, existing_model
from runtime.engines import ENGINES
from runtime.errors import ModelError, SinkError, UserError
from runtime.pipeline import MODES, VIEWS, Pipeline, mode_for
from runtime.report import LiveReport
from runtime.sinks import open_sink
from runtime.sources import open_source
from runtime.stats import STAGES, Statistics
from runtime.translator import Translator

P = ParamSpec("P")
R = TypeVar("R")

_USER_ERROR = 2


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
    "source_uri",
    default="0",
    show_default=True,
    metavar="URI",
    help="0 or /dev/video0 (camera; also 0?size=1280x720), a video, a folder of images, an image, "
    "or 'synthetic://?size=640x480&fps=30&frames=100'.",
)
@click.option(
    "--sink",
    "sink_uri",
    default="display://0",
    show_default=True,
    metavar="URI",
    help="display://0 (a window), a video (.mp4, .avi, .mkv), a folder for images, an image, "
    "or none.",
)
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
    help="CPU threads of one inference.  [default: the physical cores]",
)
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.")
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    help="Rate asked of a camera, and written to a video.  [default: the source's]",
)
@click.option(
    "--stats",
    "stats_path",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Write statistics as JSON lines, one a second; the last one is the summary.",
)
@one_line_errors
def live(
    model: str | None,
    source_uri: str,
    sink_uri: str,
    view: str,
    mode: str | None,
    engine: str,
    threads: int | None,
    frames: int | None,
    fps: float | None,
    stats_path: Path | None,
) -> None:
    """Stream a source through MODEL (.onnx, .engine or a run's folder) into a sink.

    Without MODEL, the newest runs/*/model.onnx is taken. Ctrl-C, q or Escape ends it cleanly:
    a video holds the frames so far.
    """
    model_path, why = _chosen_model(model)
    with ExitStack() as opening:
        source = open_source(source_uri, fps=fps)
        opening.callback(source.close)
        _refuse_overwriting(source_uri, sink_uri)
        sink = open_sink(sink_uri, fps=fps or source.fps, live=source.live)
        translator = opening.enter_context(
            Translator.load(model_path, engine=engine, threads=threads)
        )
        translator.check_takes_one()
        opening.pop_all()  # from here on the pipeline closes the source
    meta = translator.meta
    click.echo(
        f"model   {model_path}, {meta.generator} {meta.precision}, {_told_size(meta)} ({why})"
    )
    click.echo(f"engine  {translator.description}")
    click.echo(f"source  {source.description}")
    click.echo(f"sink    {sink.description}")
    click.echo(f"mode    {_told_mode(mode_for(source, mode), source.live)}")
    stop = threading.Event()
    frame_count = min((n for n in (frames, source.frame_count) if n is not None), default=None)
    with (
        translator,
        Pipeline(source, translator, sink, mode=mode, view=view, max_frames=frames) as pipeline,
        LiveReport(frame_count, source.live, stats_path) as report,
        _stopped_by_signals(stop),
    ):
        stats = pipeline.run(stop, report.update)
        report.finish(
            stats,
            model=str(model_path),
            engine=translator.description,
            source=source.description,
            sink=sink.description,
            mode=mode_for(source, mode),
        )
    if source.warning:
        click.echo(f"warning: {source.warning}", err=True)
    click.echo(_told_result(stats, stopped=stop.is_set()))


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


def _refuse_overwriting(source_uri: str, sink_uri: str) -> None:
    """Keep a user's own pictures and videos: results never take the place of the source."""
    source, sink = Path(source_uri), Path(sink_uri)
    if not (source.exists() and sink.exists()):
        return
    if sink.samefile(source) or (source.is_file() and sink.samefile(source.parent)):
        raise SinkError(
            f"the sink {sink_uri} would write over the source {source_uri}",
            "another file or folder",
            "name one with --sink",
        )


def _told_size(meta: ArtifactMeta) -> str:
    height, width = meta.frame_size_px
    if not meta.dynamic:
        return f"{width}x{height}"
    return f"any size in steps of {meta.size_multiple}, tuned for {width}x{height}"


def _told_mode(mode: str, live: bool) -> str:
    if mode == "throughput":
        return "throughput (every frame, in order; the stages overlap)"
    if live:
        return "latency (the newest frame; older ones are dropped)"
    return "latency (every frame, one after the other)"


def _told_result(stats: Statistics, stopped: bool) -> str:
    summary = stats.summary()
    how = "stopped" if stopped else "done"
    return (
        f"{how}: {stats.frames_in} frames in, {stats.frames_out} out, "
        f"{stats.dropped} dropped, {summary['fps']:.1f} fps; ms p50/p99: "
        + ", ".join(
            f"{stage} {summary[f'{stage}_p50_ms']:.1f}/{summary[f'{stage}_p99_ms']:.1f}"
            for stage in STAGES
        )
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
