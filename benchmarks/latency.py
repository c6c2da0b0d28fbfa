"""`python benchmarks/latency.py [MODEL ...]`: what a frame costs on this machine.

Also `python -m benchmarks.latency`. Everything that knows click is in this file.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.compare import (
    ACROSS_MACHINES,
    changes,
    check_comparable,
    other_settings,
    table_of,
)
from benchmarks.conditions.clocks import ClockWatch
from benchmarks.conditions.environment import environment
from benchmarks.page import write_page
from benchmarks.peers import PEERS
from benchmarks.plot import SUFFIXES
from benchmarks.progress import told_progress
from benchmarks.report import tables
from benchmarks.result_file import not_run, read_result, told_machine
from benchmarks.rounds.ends import BUILTIN, existing_folder
from benchmarks.rounds.latency_run import Settings, run_latency
from benchmarks.rounds.measure import Plan
from benchmarks.rounds.models import models_of
from runtime.engines import ENGINES
from runtime.errors import UserError
from runtime.files import write_text

FRAMES = 100
SOME_NOT_RUN = 1
GOT_WORSE = 1


def _a_duration(_context: click.Context, _option: click.Parameter, value: float | None) -> Any:
    if value is not None and not (0 < value < math.inf):
        raise click.BadParameter(f"{value:g} is not a number of seconds above 0")
    return value


def _peers(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    if value in ("all", "none"):
        return tuple(PEERS) if value == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(
                f"{name!r} is no peer; all, none, or some of {', '.join(PEERS)}"
            )
    return names


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
    metavar="N",
    help=f"Frames that are measured of each row, in each way.  [default: {FRAMES}]",
)
@click.option(
    "--duration",
    type=float,
    callback=_a_duration,
    metavar="SECONDS",
    help="Instead of --frames: how long all rows together are measured.",
)
@click.option(
    "--peers",
    default="none",
    metavar="NAMES",
    callback=_peers,
    help="Other programs that run the same checkpoint, measured in the same rounds: all, none, "
    f"or some of {', '.join(PEERS)}, with commas. The checkpoint is the one that is named, or "
    "that lies beside the model.",
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
    "--page",
    "page_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the HTML page goes.  [default: beside the JSON file]",
)
@click.option(
    "--compare",
    "old_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OLD.json",
    help="Tell what changed since an older run on this machine, in this power mode; exit code 1 "
    "if a row became slower, or its lead over a peer smaller, by more than --tolerance.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="PERCENT",
    help="How much of a change --compare lets pass.",
)
@click.option(
    ACROSS_MACHINES,
    is_flag=True,
    help="Let --compare take a run of another machine: then ratios alone decide.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of one inference.  [default: the physical cores; for our rows what "
    "p2p-live takes, which is one for a small network that is no slower with it]",
)
@click.option(
    "--warmup",
    "warm_up",
    type=click.IntRange(min=0),
    default=10,
    metavar="N",
    help="Frames of each row that are translated before.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(ENGINES),
    multiple=True,
    default=("auto",),
    help="May be given several times: each file is run with each of them that loads it.",
)
@click.option(
    "--roof",
    is_flag=True,
    help="Also measure what this machine could do at most, and tell each row's share of it.",
)
@click.option(
    "--power",
    is_flag=True,
    help="Also measure what a frame costs in energy, where the machine has sensors: a Jetson, an "
    "NVIDIA card, a processor's RAPL for root.",
)
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
    frames: int | None,
    duration: float | None,
    peers: tuple[str, ...],
    json_path: Path | None,
    plot_path: Path | None,
    page_path: Path | None,
    old_path: Path | None,
    tolerance: float,
    across_machines: bool,
    threads: int | None,
    warm_up: int,
    engines: tuple[str, ...],
    roof: bool,
    power: bool,
    sink: str,
) -> int:
    """Measure what a frame costs, per stage and end to end, of each MODEL: an .onnx, an .engine,
    a checkpoint (.safetensors, .pth, a run's folder: as PyTorch runs it), or a folder of models.

    Without MODEL, those of the newest export under runs/ are taken. Two numbers that differ: the
    LATENCY of one frame whose stages run one after the other, as from a live camera, and the
    THROUGHPUT over a file, where the stages of different frames overlap.

    Exit code: 0; 1 if a MODEL that was named did not run, or --compare found a change for the
    worse; 2 for what the user can mend.
    """
    if frames is not None and duration is not None:
        raise click.UsageError("--frames and --duration: give one of them")
    paths = models_of(models)
    json_path = json_path or _beside(paths) / "latency.json"
    plot_path = plot_path or json_path.with_suffix(".png")
    page_path = page_path or json_path.with_suffix(".html")
    _check_outputs(json_path, plot_path, page_path)
    plan = Plan(frames or (None if duration else FRAMES), duration, warm_up)
    engines = tuple(dict.fromkeys(engines))
    settings = Settings(source, sink, plan, engines, peers, threads, roof, power)
    named = [path for path in paths if _was_named(path, models)]
    old = read_result(old_path) if old_path is not None else None
    with ClockWatch() as clocks:
        around = {**environment(), "clocks": clocks.to_json()}
        if old is not None and old_path is not None:
            check_comparable(
                old["environment"], around, old_path.name, across_machines=across_machines
            )
        with told_progress("measuring") as on_progress:
            outcome = run_latency(paths, named, settings, around, clocks, on_progress)
    result = outcome.result
    console = Console(highlight=False)
    console.print(tables(result))
    write_text(json_path, json.dumps(result, indent=1) + "\n")
    _tell_conditions(console, result)
    _say(console, f"numbers  {json_path}")
    write_page(result, page_path)
    _say(console, f"page     {page_path}")
    if _drew(result, plot_path):
        _say(console, f"picture  {plot_path}")
    worse = False
    if old is not None:
        worse = _compared(console, old, result, tolerance, across_machines)
    return SOME_NOT_RUN if outcome.failed else GOT_WORSE if worse else 0


def _was_named(path: Path, models: Sequence[str]) -> bool:
    """Whether a path is a MODEL, or all that the folder which is one holds."""
    return any(path == Path(model) for model in models)


def _beside(paths: Sequence[Path]) -> Path:
    """The folder of the first model that is there, else the working folder."""
    return next((path.parent for path in paths if path.is_file()), Path())


def _check_outputs(json_path: Path, plot_path: Path, page_path: Path) -> None:
    """Tell before the measurement, not after it, that its results cannot be kept.

    Raises:
        UserError: a folder that may not be written to, or an unknown kind of picture.
    """
    for path in (json_path, plot_path, page_path):
        folder = existing_folder(path)
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UserError(
                f"{path} cannot be written: {folder} is no folder that this user may write to",
                "a folder that may be written to",
                "name another file with --json, --plot and --page",
            )
    if plot_path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"cannot draw into {plot_path.name}", "one of " + ", ".join(SUFFIXES), "rename it"
        )


def _tell_conditions(console: Console, result: Mapping[str, Any]) -> None:
    settings = result["settings"]
    for row in not_run(result):
        _say(console, f"not run  {row['name']}: {row['why']}")
    sizes = settings["rounds"]
    _say(
        console,
        f"source   {settings['source_description']}; {sum(sizes)} frames in {len(sizes)} "
        f"round{'s' if len(sizes) > 1 else ''}, after {settings['warm_up']} to warm up",
    )
    _say(console, f"sink     {settings['sink_description']}")
    _say(console, f"machine  {told_machine(result['environment'])}")
    for warning in result["warnings"]:
        _say(console, f"warning: {warning}")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _drew(result: Mapping[str, Any], plot_path: Path) -> bool:
    from benchmarks.plot import draw

    try:
        draw(result, plot_path)
    except ImportError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        click.echo(
            "no picture: matplotlib is not installed; pip install 'pix2pix-edge[bench]'", err=True
        )
        return False
    return True


def _compared(
    console: Console,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    tolerance_percent: float,
    across_machines: bool,
) -> bool:
    """Tell what changed; whether something is worse than the tolerance allows."""
    found = changes(old, new, across_machines=across_machines)
    console.print(table_of(found, tolerance_percent))
    for line in other_settings(old, new):
        _say(console, f"warning: the settings differ: {line}")
    worse = [change for change in found if change.worse(tolerance_percent)]
    told = f"{len(worse)} of {len(found)} figures" if worse else "no figure"
    told += f" worse by over {tolerance_percent:g} %"
    _say(console, f"compared with the run of {old['created_at']}: {told}")
    return bool(worse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(latency, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
