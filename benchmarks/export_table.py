"""`python benchmarks/export_table.py FOLDER ...`: size, builds, parity and time of exports.

Also `python -m benchmarks.export_table`. Everything that knows click is in this file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment, load_average
from benchmarks.exports.naive import naive_row
from benchmarks.exports.report import between_markers, markdown, tables, to_json
from benchmarks.exports.rows import (
    Export,
    Row,
    build_engines,
    export_in,
    time_frames,
)
from benchmarks.progress import told_progress
from export.to_tensorrt import tensorrt_library
from runtime.artifact import BUILT_AHEAD
from runtime.errors import EngineError, UserError
from runtime.files import write_text

SOME_MISSING = 1
_WIDTH = 100
"""Columns of the terminal that the table takes; a pipe has no width of its own."""


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument(
    "folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path)
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Pictures that naive INT8 is calibrated on; with --images.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Pictures that naive INT8 is compared on; with --calibration.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=30,
    metavar="N",
    help="Frames that are timed of each form.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where all figures go.",
)
@click.option(
    "--docs",
    "docs_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A Markdown file that gets the tables between its two markers.",
)
def export_table(
    folders: tuple[Path, ...],
    calibration: Path | None,
    images: Path | None,
    rounds: int,
    json_path: Path | None,
    docs_path: Path | None,
) -> int:
    """Tell what each form of an export costs and keeps.

    FOLDER is what `p2p-export RUN --fp16 --int8 --out FOLDER` left. Engines are built anew, three
    times each, in a temporary folder; a frame is timed by ONNX Runtime, all forms in turn. With
    --calibration and --images there is a row of naive INT8, which ONNX Runtime's own quantiser
    makes of model.onnx with its defaults.

    Exit code: 0; 1 if something is missing, and its row says why; 2 for what the user can mend.
    """
    if (calibration is None) != (images is None):
        raise click.UsageError("naive INT8 needs both --calibration and --images")
    pictures = None if calibration is None or images is None else (calibration, images)
    if docs_path:
        between_markers(docs_path, "")  # a missing marker is told now, not after the builds
    for path in (json_path, docs_path):
        if path:
            _check_writable(path)
    around = environment()
    without_engines = _why_no_engines()
    exports = []
    for folder in folders:
        exports.append(_measured(folder, pictures, rounds, not without_engines))
    around["load_average_1m_after"] = load_average()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    for part in tables(exports):
        console.print(part)
    conditions = list(_conditions(exports, rounds, around, without_engines))
    for line in conditions:
        console.print(line, soft_wrap=True, markup=False)
    if json_path:
        values = to_json(exports, rounds, around)
        write_text(json_path, json.dumps(values, indent=1) + "\n")
        console.print(f"numbers  {json_path}", soft_wrap=True, markup=False)
    if docs_path:
        write_text(docs_path, between_markers(docs_path, markdown(exports, conditions)))
        console.print(f"tables   {docs_path}", soft_wrap=True, markup=False)
    return 0 if all(export.complete for export in exports) else SOME_MISSING


def _check_writable(path: Path) -> None:
    """Tell before the measurement, not after it, that its results cannot be kept.

    Raises:
        UserError: a folder that may not be written to.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(
            f"{path} cannot be written: {folder} is no folder that this user may write to",
            "a folder that may be written to",
            "name another file with --json or --docs",
        )


def _why_no_engines() -> str:
    """Empty where there is a TensorRT."""
    try:
        tensorrt_library()
    except EngineError as error:
        return f"no engines: {error}"
    return ""


def _measured(
    folder: Path, pictures: tuple[Path, Path] | None, rounds: int, builds: bool
) -> Export:
    """All that can be had of one folder."""
    export, paths = export_in(folder)
    with tempfile.TemporaryDirectory(prefix="p2p-export-table-") as scratch:
        if pictures:
            calibration, images = pictures
            if "fp32" in paths:
                click.echo(f"{export.name}: making naive INT8", err=True)
                target = Path(scratch) / "naive.onnx"
                row, path = naive_row(export, paths["fp32"], calibration, images, target)
                if path:
                    paths["naive"] = path
            else:
                row = Row("naive", "", lacks=["no FP32 to quantise"])
            export.rows.append(row)
        if builds:
            with told_progress(f"{export.name}: building") as on_progress:
                build_engines(export.rows, paths, Path(scratch), on_progress)
        with told_progress(f"{export.name}: timing") as on_progress:
            time_frames(export, paths, rounds, on_progress)
    return export


def _conditions(
    exports: Sequence[Export], rounds: int, around: dict[str, Any], without_engines: str
) -> Iterator[str]:
    """What the figures depend on, a line each."""
    told = [around["jetson"], around["power_mode"], *around["gpus"]]
    told += [f"{around['cpu']}, {around['cpu_threads']} threads", around["os"]]
    today = datetime.now(timezone.utc).date().isoformat()
    yield f"Measured on {today}: " + ", ".join(part for part in told if part)
    if runners := dict.fromkeys(export.frames_by for export in exports if export.frames_by):
        yield f"Frames: {'; '.join(runners)}; {rounds} rounds, all forms in turn"
    built = [row.engine for export in exports for row in export.rows if row.engine]
    for library, gpu in dict.fromkeys((engine.library, engine.gpu) for engine in built):
        where = "without a GPU" if gpu == BUILT_AHEAD else f"on {gpu}"
        late = "; the kernels it compiles where the engine is loaded are not in the build's time"
        yield f"Engines: {library}, {where}" + late * library.startswith("tensorrt_rtx")
    if without_engines:
        yield without_engines
    load, threads = around["load_average_1m"], around["cpu_threads"]
    if load is not None and load > threads / 2:
        yield (
            f"Warning: other programs kept this machine busy (load {load:.1f} on {threads} "
            "threads): these timings are noisy"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(export_table, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
