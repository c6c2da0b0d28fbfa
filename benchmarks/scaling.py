"""`python benchmarks/scaling.py MODEL`: how the time of a frame grows with what is asked for.

With the frame's size, with the batch, with the number of cameras and with the threads. Each point
runs in a process of its own, and all take their turn in each round. Everything that knows click
is in this file.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment, load_average
from benchmarks.growths.models import (
    PRECISIONS,
    Family,
    Size,
    check_size,
    families_of,
    usual_sizes,
)
from benchmarks.growths.options import (
    Counts,
    FrameSize,
    check_names,
    check_options,
    check_outputs,
)
from benchmarks.growths.points import Outcome, Point, Timing, measure
from benchmarks.growths.report import (
    EXPONENT_GOAL,
    KIND,
    MEANINGS,
    SCHEMA,
    Questions,
    series_to_json,
    skipped,
    warnings_of,
)
from benchmarks.growths.tables import tables
from benchmarks.progress import told_progress
from runtime.engines import ENGINES
from runtime.engines.threads import physical_cores
from runtime.errors import UserError
from runtime.files import write_text
from trainer.errors import TrainerError

SOME_NOT_RUN = 1
_BATCHES, _CAMERAS = (1, 2, 4, 8), (1, 2, 4)
_ONNX_ENGINES = [engine for engine in ENGINES if engine != "tensorrt"]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=FrameSize(),
    help="HEIGHTxWIDTH of the frames, 480p, 720p, 1080p or 4k; several times.  "
    "[default: 256x256 to 1080p, as near as the network takes them]",
)
@click.option(
    "--at",
    type=FrameSize(),
    help="Size at which batches, cameras and threads are measured.  [default: the smallest]",
)
@click.option("--batch", "batches", type=Counts(), help="Frames of one inference.  [1,2,4,8]")
@click.option(
    "--cameras", type=Counts(none_allowed=True), help="Live sources at once.  [1,2,4]; 0: none"
)
@click.option(
    "--threads",
    type=Counts(),
    help="CPU threads of one inference; the most are used for all else.  "
    "[1 and twice as many up to the physical cores]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="Of a run or checkpoint; several times.  [default: fp32]",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Pictures for INT8.  [those of training]",
)
@click.option(
    "--fixed",
    is_flag=True,
    help="An export for each size (--imgsz) in place of one for all (--dynamic).",
)
@click.option("--rounds", type=click.IntRange(min=3), default=10)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=5,
    help="Of each point in each round, or batches.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    help="Of each run with cameras in each round.",
)
@click.option(
    "--camera-fps",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    help="Rate of each camera.",
)
@click.option(
    "--warmup", "warm_up", type=click.IntRange(min=0), default=2, help="Frames of each process."
)
@click.option("--engine", type=click.Choice(_ONNX_ENGINES), default="auto")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default="scaling.json")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    help="Picture (.png, .svg, .pdf).  [default: beside the JSON file]",
)
def scaling(
    models: tuple[Path, ...],
    sizes: tuple[Size, ...],
    at: Size | None,
    batches: tuple[int, ...] | None,
    cameras: tuple[int, ...] | None,
    threads: tuple[int, ...] | None,
    precisions: tuple[str, ...],
    calibration: Path | None,
    fixed: bool,
    rounds: int,
    frames: int,
    seconds: float,
    camera_fps: float,
    warm_up: int,
    engine: str,
    json_path: Path,
    plot_path: Path | None,
) -> int:
    """Measure how the time of a frame grows: with its size, the batch, cameras and threads.

    MODEL is a run or a checkpoint, which is exported as needed into a folder that is removed at
    the end, or an ONNX file of p2p-export --dynamic. Sizes are height x width, as p2p-export has
    them.

    Exit code: 0; 1 if a point did not run; 2 for what the user can mend.
    """
    plot_path = plot_path or json_path.with_suffix(".png")
    check_outputs(json_path, plot_path)
    check_options(sizes, batches, threads, precisions, calibration)
    console = Console(highlight=False)
    most_threads = max(threads or _usual_threads())
    with tempfile.TemporaryDirectory(prefix="p2p-scaling-") as scratch:
        families = families_of(
            models,
            Path(scratch),
            precisions=tuple(dict.fromkeys(precisions)),
            fixed=fixed,
            most_batch=max(batches or _BATCHES),
            calibration=calibration,
            say=lambda line: click.echo(f"exporting: {line}", err=True),
        )
        check_names(families)
        for family in families:  # all of them before the first export, which takes its time
            for size_px in sizes:
                check_size(family, size_px)
            if at is not None:
                check_size(family, at, "--at")
        around = environment()
        asked = [
            _questions(
                family,
                sizes=sorted(set(sizes) or usual_sizes(family), key=lambda s: (math.prod(s), s)),
                at=at,
                batches=_batches_of(family, batches),
                cameras=_CAMERAS if cameras is None else cameras,
                threads=threads or _usual_threads(),
                most_threads=most_threads,
            )
            for family in families
        ]
        timing = Timing(
            engine, rounds, frames, seconds, warm_up, camera_fps, Path(scratch) / "cache"
        )
        with told_progress("measuring") as on_progress:
            outcomes = measure(
                (point for one in asked for point in _points(one)),
                [family.name for family in families if family.scratch],
                timing,
                on_progress,
            )
        around["load_average_1m_after"] = load_average()
        result = _result(asked, outcomes, timing, around)
    for series in result["series"]:
        console.print(tables(series))
    for line in result["warnings"]:
        console.print(f"warning: {line}", soft_wrap=True, markup=False)
    write_text(json_path, json.dumps(result, indent=1) + "\n")
    console.print(f"numbers  {json_path}", soft_wrap=True, markup=False)
    if _drew(result, plot_path):
        console.print(f"picture  {plot_path}", soft_wrap=True, markup=False)
    return SOME_NOT_RUN if any(skipped(one, outcomes) for one in asked) else 0


def _usual_threads() -> tuple[int, ...]:
    """1, 2, 4 and so on, and the physical cores."""
    cores = physical_cores()
    return tuple(
        sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})
    )


def _batches_of(family: Family, asked: Sequence[int] | None) -> Sequence[int]:
    """Those that were asked for; else the usual ones that the file takes."""
    most = family.most_batch
    if asked is not None:
        return asked
    return [batch for batch in _BATCHES if most is None or batch <= most]


def _questions(
    family: Family,
    *,
    sizes: Sequence[Size],
    at: Size | None,
    batches: Sequence[int],
    cameras: Sequence[int],
    threads: Sequence[int],
    most_threads: int,
) -> Questions:
    """The points of one family; its files are made here."""
    base = at or sizes[0]

    def point(
        size_px: Size, batch: int = 1, threads: int = most_threads, cameras: int = 0
    ) -> Point:
        file = family.file_for(size_px, batch)
        return Point(family.name, file, size_px, batch, threads, cameras)

    return Questions(
        family,
        pixels=[point(size_px) for size_px in sizes],
        batch=[point(base, batch) for batch in batches] if len(batches) > 1 else (),
        cameras=[point(base, cameras=count) for count in cameras],
        threads=[point(base, threads=count) for count in threads] if len(threads) > 1 else (),
    )


def _points(asked: Questions) -> Iterable[Point]:
    yield from (*asked.pixels, *asked.batch, *asked.cameras, *asked.threads)


def _result(
    asked: Sequence[Questions],
    outcomes: dict[Point, Outcome],
    timing: Timing,
    around: dict[str, Any],
) -> dict[str, Any]:
    series = [series_to_json(one, outcomes) for one in asked]
    warnings = [line for one in asked for line in skipped(one, outcomes)]
    warnings += [line for one in series for line in warnings_of(one)]
    load, cpus = around["load_average_1m"], around["cpu_threads"]
    if load is not None and load > cpus / 2:
        warnings.insert(
            0,
            f"other programs kept this machine busy (load {load:.1f} on {cpus} threads): these "
            "timings are noisy",
        )
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "meanings": MEANINGS,
        "settings": {
            "engine": timing.engine,
            "rounds": timing.rounds,
            "frames": timing.frames,
            "seconds": timing.seconds,
            "warm_up": timing.warm_up,
            "camera_fps": timing.camera_fps,
            "exponent_goal": EXPONENT_GOAL,
        },
        "environment": around,
        "warnings": warnings,
        "series": series,
    }


def _drew(result: dict[str, Any], plot_path: Path) -> bool:
    try:
        from benchmarks.growths.plot import draw
    except ImportError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        click.echo(
            "no picture: matplotlib is not installed; pip install 'pix2pix-edge[bench]'", err=True
        )
        return False
    draw(result, plot_path)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(
        scaling, arguments, "stopped: nothing was written", (UserError, TrainerError)
    )


if __name__ == "__main__":
    sys.exit(main())
