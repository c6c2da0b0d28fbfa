"""`python benchmarks/roof.py [MODEL.onnx ...]`: what this machine could do at most, and where the
time of a model must go.

Also `python -m benchmarks.roof`, and the one name that `benchmarks/latency.py --roof` imports. The
parts, in `benchmarks.roofs`: `graph_work` counts, `peaks` measures, `roofline` compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.roofs.graph_work import Layer, Work, work_of
from benchmarks.roofs.peaks import CPU, CUDA, Effort, Peaks, peaks
from benchmarks.roofs.roofline import (
    MEANINGS,
    RoofShare,
    layer_times,
    layers_table,
    peaks_table,
    roof_table,
    share,
)
from benchmarks.rounds.models import short_names
from runtime.engines.threads import threads_each
from runtime.files import write_text

__all__ = [
    "MEANINGS",
    "Effort",
    "Layer",
    "Peaks",
    "RoofShare",
    "Work",
    "peaks",
    "roof_table",
    "share",
    "work_of",
]

SCHEMA = 1


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="[MODEL.onnx]...")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads.  [default: the physical cores]",
)
@click.option(
    "--device",
    type=click.Choice([CPU, CUDA]),
    default=CPU,
    help="What is measured. cuda needs torch with CUDA.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the numbers go.",
)
def roof(
    models: tuple[Path, ...], threads: int | None, device: str, json_path: Path | None
) -> int:
    """Measure the peak of this machine, and print where the time of each MODEL must go.

    Peaks are those of matrix products in FP32, FP16, BF16 and INT8, by the fastest of torch, ONNX
    Runtime and OpenVINO, and of memory. Measure while nothing else runs.

    Exit code: 0; 2 for what the user can mend.
    """
    works = [work_of(path) for path in models]  # bad files are told before the measurement
    names = short_names(models)
    found = peaks(threads_each(threads, 1), device, on_step=_tell_step)
    console = Console(highlight=False)
    console.print(peaks_table(found))
    for name, work in zip(names, works, strict=True):
        console.print()
        console.print(layers_table(name, work, found))
    for note in found.notes:
        console.print(f"note     {note}", soft_wrap=True, markup=False)
    if json_path is not None:
        values = _to_json(found, list(zip(names, works, strict=True)))
        write_text(json_path, json.dumps(values, indent=1) + "\n")
        console.print(f"numbers  {json_path}", soft_wrap=True, markup=False)
    return 0


def _tell_step(told: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"measuring {told}", err=True)


def _to_json(found: Peaks, works: Sequence[tuple[str, Work]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "roof",
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "meanings": MEANINGS,
        "environment": environment(),
        "roof": found.to_json(),
        "models": [
            {
                "file": Path(name).name,
                "macs": work.macs,
                "moved_bytes": work.moved_bytes,
                "by_precision": work.by_precision(),
                "least_ms": sum(time.least_ms for time in layer_times(work, found)),
                "layers": [
                    {
                        **asdict(time.layer),
                        "compute_ms": time.compute_ms,
                        "memory_ms": time.memory_ms,
                        "least_ms": time.least_ms,
                        "bound": time.bound,
                        "peak": time.peak,
                    }
                    for time in layer_times(work, found)
                ],
            }
            for name, work in works
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(roof, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
