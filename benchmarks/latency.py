"""`python benchmarks/latency.py [MODEL ...]`: what a frame costs on this machine.

Also `python -m benchmarks.latency`. Everything that knows click is in this file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.environment import environment, load_average
from benchmarks.measure import EndlessSource, Measured, NotRun, Result, measure
from benchmarks.models import models_of, short_names
from benchmarks.progress import told_progress
from benchmarks.report import MEANINGS, SCHEMA, tables, to_json
from benchmarks.timing import round_sizes
from runtime.engines import ENGINES
from runtime.errors import SinkError, UserError
from runtime.files import write_text
from runtime.sinks import Sink, open_sink
from runtime.sources.synthetic import SyntheticSource

BUILTIN = "builtin"
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_BUILTIN_FRAMES = 60
_BUILTIN_FPS = 30.0

SOME_NOT_RUN = 1


@dataclass(frozen=True)
class Settings:
    """What was asked of a benchmark."""

    source: str
    """A URI as `runtime.sources.open_source` takes it, or `builtin`."""
    sink: str
    frames: int
    """How many are measured of each model, in each way."""
    warm_up: int
    engine: str
    threads: int | None
    """CPU threads of one inference; None: the physical cores."""


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--source",
    default=BUILTIN,
    metavar="URI",
    help="A video, an image, a folder of images, a camera (0), synthetic://?size=640x480, or "
    "'builtin': a drawn video of 640x480. A file starts again at its end.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=100,
    metavar="N",
    help="Frames that are measured of each model, in each way.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the numbers go.  [default: latency.json beside the first model]",
)
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the picture goes (.png, .svg, .pdf).  [default: beside the JSON file]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of one inference.  [default: the physical cores]",
)
@click.option(
    "--warmup",
    "warm_up",
    type=click.IntRange(min=0),
    default=10,
    metavar="N",
    help="Frames of each model that are translated before.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="auto")
@click.option(
    "--sink",
    default="none",
    metavar="URI",
    help="none, display://0, or a video or folder to learn what writing costs there; what is "
    "written is removed afterwards.",
)
def latency(
    models: tuple[str, ...],
    source: str,
    frames: int,
    json_path: Path | None,
    plot_path: Path | None,
    threads: int | None,
    warm_up: int,
    engine: str,
    sink: str,
) -> int:
    """Measure what a frame costs, per stage and end to end, of each MODEL (.onnx, .engine, or a
    folder that holds some).

    Without MODEL, those of the newest export under runs/ are taken. Two numbers that differ: the
    LATENCY of one frame whose stages run one after the other, as from a live camera, and the
    THROUGHPUT over a file, where the stages of different frames overlap.

    Exit code: 0; 1 if a MODEL that was named did not run; 2 for what the user can mend.
    """
    paths = models_of(models)
    json_path = json_path or _beside(paths) / "latency.json"
    plot_path = plot_path or json_path.with_suffix(".png")
    _check_outputs(json_path, plot_path)
    settings = Settings(source, sink, frames, warm_up, engine, threads)
    names = short_names(paths)
    around = environment()
    with ExitStack() as opened:
        stream = opened.enter_context(_opened_source(source))
        target = opened.enter_context(_opened_sink(sink, stream))
        on_progress = opened.enter_context(told_progress("measuring"))
        results = measure(
            paths,
            stream,
            target,
            frames=frames,
            warm_up=warm_up,
            engine=engine,
            threads=threads,
            on_progress=on_progress,
        )
        described = {"source": stream.description, "sink": target.description}
    around["load_average_1m_after"] = load_average()
    measured = [result for result in results if isinstance(result, Measured)]
    refused = [result for result in results if isinstance(result, NotRun)]
    if not measured:
        raise refused[0].error
    console = Console(highlight=False)
    console.print(tables(results, names))
    for result, name in zip(results, names, strict=True):
        if isinstance(result, NotRun):
            console.print(f"not run  {name}: {result.why}", soft_wrap=True, markup=False)
    _write_json(json_path, results, settings, described, around)
    _tell_conditions(console, settings, described, around)
    console.print(f"numbers  {json_path}", soft_wrap=True, markup=False)
    if _drew(measured, paths, names, described, around, plot_path):
        console.print(f"picture  {plot_path}", soft_wrap=True, markup=False)
    named = {Path(model) for model in models}
    return SOME_NOT_RUN if any(result.path in named for result in refused) else 0


def _beside(paths: Sequence[Path]) -> Path:
    """The folder of the first model that is there, else the working folder."""
    return next((path.parent for path in paths if path.is_file()), Path())


def _check_outputs(json_path: Path, plot_path: Path) -> None:
    """Tell before the measurement, not after it, that its results cannot be kept.

    Raises:
        UserError: a folder that may not be written to, or an unknown kind of picture.
    """
    for path in (json_path, plot_path):
        folder = _existing_folder(path)
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UserError(
                f"{path} cannot be written: {folder} is no folder that this user may write to",
                "a folder that may be written to",
                "name another file with --json and --plot",
            )
    if plot_path.suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(
            f"cannot draw into {plot_path.name}", "one of " + ", ".join(PLOT_SUFFIXES), "rename it"
        )


def _existing_folder(path: Path) -> Path:
    """The nearest of a path's parents that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())


@contextmanager
def _opened_source(uri: str) -> Iterator[EndlessSource]:
    with tempfile.TemporaryDirectory(prefix="p2p-latency-") as folder:
        if uri == BUILTIN:
            clip = _draw_clip(Path(folder) / "drawn.mp4")
            source = EndlessSource(str(clip))
            source.description = source.description.replace(clip.name, "built-in video")
        else:
            source = EndlessSource(uri)
        try:
            yield source
        finally:
            source.let_go()


def _draw_clip(path: Path) -> Path:
    """A video as a camera's: 640x480, so that a model has to resize; real decoding costs time."""
    drawn = SyntheticSource((480, 640), frames=_BUILTIN_FRAMES)
    sink = open_sink(str(path), fps=_BUILTIN_FPS)
    while (frame := drawn.read()) is not None:
        sink.write(frame)
    sink.close()
    return path


@contextmanager
def _opened_sink(uri: str, source: EndlessSource) -> Iterator[Sink]:
    """A sink whose files are written where the user would have them, and removed."""
    with ExitStack() as opened:
        name = uri.removeprefix("file://")
        if uri != "none" and "://" not in name and not name.startswith("/dev/"):
            folder = _existing_folder(Path(name))
            try:
                beside = tempfile.TemporaryDirectory(prefix=".p2p-latency-", dir=folder)
            except OSError as error:
                raise SinkError(
                    f"the sink {uri} cannot be written: {folder}: {error.strerror}",
                    "a folder that may be written to",
                    "name another one, or measure with --sink none",
                ) from error
            uri = str(Path(opened.enter_context(beside)) / Path(name).name)
        windowed = uri.startswith("display:")
        sink = open_sink(uri, fps=None if windowed else source.fps, live=source.live)
        opened.callback(sink.close, keep=False)
        yield sink


def _write_json(
    path: Path,
    results: Sequence[Result],
    settings: Settings,
    described: dict[str, str],
    around: dict[str, Any],
) -> None:
    asked = asdict(settings)
    values = {
        "schema": SCHEMA,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "meanings": MEANINGS,
        "settings": {
            **asked,
            "source_description": described["source"],
            "sink_description": described["sink"],
            "rounds": round_sizes(settings.frames),
        },
        "environment": around,
        "models": [to_json(result) for result in results],
    }
    write_text(path, json.dumps(values, indent=1) + "\n")


def _tell_conditions(
    console: Console, settings: Settings, described: dict[str, str], around: dict[str, Any]
) -> None:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    rounds = len(round_sizes(settings.frames))
    say(
        f"source   {described['source']}; {settings.frames} frames in {rounds} "
        f"round{'s' if rounds > 1 else ''}, after {settings.warm_up} to warm up"
    )
    say(f"sink     {described['sink']}")
    say(f"machine  {_told_machine(around)}")
    load, threads = around["load_average_1m"], around["cpu_threads"]
    if load is not None and load > threads / 2:
        say(
            f"warning: other programs kept this machine busy (load {load:.1f} on {threads} "
            "threads): these timings are noisy"
        )


def _told_machine(around: dict[str, Any]) -> str:
    parts = [
        around["jetson"],
        around["power_mode"],
        *around["gpus"],
        f"{around['cpu']}, {around['cpu_threads']} threads",
        around["os"],
    ]
    return ", ".join(part for part in parts if part)


def _drew(
    measured: Sequence[Measured],
    paths: Sequence[Path],
    names: Sequence[str],
    described: dict[str, str],
    around: dict[str, Any],
    plot_path: Path,
) -> bool:
    try:
        from benchmarks.plot import draw
    except ImportError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        click.echo(
            "no picture: matplotlib is not installed; pip install 'pix2pix-edge[bench]'", err=True
        )
        return False
    names_of = dict(zip(paths, names, strict=True))
    load = around["load_average_1m"]
    subtitle = f"{_told_machine(around)}; {described['source']}" + (
        "" if load is None else f"; load before: {load:.1f}"
    )
    draw(measured, [names_of[result.path] for result in measured], subtitle, plot_path)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(latency, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
