"""`python benchmarks/startup.py [MODEL ...]`: from typing a command to its first frame.

Also `python -m benchmarks.startup`. Everything that knows click is in this file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.command import exit_code_of
from benchmarks.conditions.clocks import ClockWatch
from benchmarks.conditions.environment import environment
from benchmarks.progress import told_progress
from benchmarks.rounds.models import models_of, short_names
from benchmarks.starts.install_size import install_sizes, to_json
from benchmarks.starts.page_cache import can_drop
from benchmarks.starts.runs import HOW, STAGES, STATES, Starts, Subject, measure_starts
from benchmarks.timing import Distribution
from runtime.engines import ENGINES
from runtime.errors import UserError
from runtime.files import write_text

SCHEMA = 2
SOME_NOT_RUN = 1
_WIDTH = 130
"""Columns of a table that goes into a log."""
_HEADS = ("process", "imports", "load", "frame 1", "frame 2")
"""Of `STAGES`."""
MEANINGS = {
    "interpreter": "from the parent's call that spawns the process to the first line of Python",
    "imports": "of all that the command imports, with the engine's library",
    "loading": "opening the model; ours also draws one frame to warm up and to check its output",
    "first_frame": "a picture of 640x480 is read, resized, translated and resized again",
    "second_frame": "the same picture again",
    "total_ms": "interpreter, imports, loading and first_frame",
    "command_ms": "of p2p-live itself: from its start to the first byte of the first frame in a "
    "pipe",
    "cold": "the cache of prepared models (P2P_CACHE) is empty, and the pages of the model and of "
    "all files that the start reads were dropped by posix_fadvise(DONTNEED); kept_mb is what the "
    "system kept all the same, such as the interpreter, which this benchmark runs on itself",
    "warm": "the cache holds the model, and the same start has just run",
    "bytecode": "of all modules is there in both states, as after an installation",
    "memory_mb": "rss and pss now, peak so far; at_rest: after the imports, before the model is "
    "opened; medians of the runs",
    "distribution": "p50 and p90 by nearest rank, least and most",
}


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(ENGINES),
    multiple=True,
    default=["auto"],
    help="Give it several times for several engines.",
)
@click.option("--runs", type=click.IntRange(min=1), default=10, metavar="N")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    default=STATES,
    help="Of the caches; give it several times.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Started by torch beside the models.  [default: generator.safetensors beside a MODEL]",
)
@click.option("--peers/--no-peers", default=True, help="Also torch and a plain ONNX Runtime.")
@click.option("--install-size", is_flag=True, help="Also the bytes on disk of each extra.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the numbers go.  [default: nowhere]",
)
def startup(
    models: tuple[str, ...],
    engines: tuple[str, ...],
    runs: int,
    states: tuple[str, ...],
    threads: int | None,
    checkpoint: Path | None,
    peers: bool,
    install_size: bool,
    json_path: Path | None,
) -> int:
    """Measure a start: each is a fresh process, in turn for each MODEL (.onnx, .engine, a folder
    of them), with cold and with warm caches, stage by stage.

    Without MODEL, those of the newest export under runs/ are taken; with --install-size alone,
    none.

    Exit code: 0; 1 if something that was named did not start; 2 for what the user can mend.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    sizes = install_sizes() if install_size else []
    subjects = [] if install_size and not models else _subjects(models, engines, checkpoint, peers)
    states = tuple(dict.fromkeys(states))
    around = environment()
    with ClockWatch() as watch, told_progress("starting") as on_progress:
        results = measure_starts(
            subjects, runs=runs, threads=threads, states=states, on_progress=on_progress
        )
    around["clocks"] = watch.to_json()
    failed = [starts for starts in results if starts.error is not None]
    if results and len(failed) == len(results):
        assert failed[0].error is not None
        raise failed[0].error
    warnings = watch.warnings() + _warnings(results)
    if results:
        console.print(_table(results))
    for starts in failed:
        console.print(f"not run  {_name(starts)}: {starts.error}", soft_wrap=True, markup=False)
    if sizes:
        console.print(_size_table(to_json(sizes)))
    for line in warnings:
        console.print(f"warning: {line}", soft_wrap=True, markup=False)
    if json_path is not None:
        told = {
            "schema": SCHEMA,
            "kind": "startup",
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "meanings": MEANINGS,
            "settings": {
                "engines": list(engines),
                "runs": runs,
                "states": list(states),
                "threads": threads,
            },
            "environment": around,
            "warnings": warnings,
            "rows": [row_json(starts) for starts in results],
            "install_size": to_json(sizes) if sizes else None,
        }
        write_text(json_path, json.dumps(told, indent=1) + "\n")
        console.print(f"numbers  {json_path}", soft_wrap=True, markup=False)
    return SOME_NOT_RUN if failed else 0


def _subjects(
    models: Sequence[str], engines: Sequence[str], checkpoint: Path | None, peers: bool
) -> list[Subject]:
    paths = models_of(models)
    engines = list(dict.fromkeys(engines))
    found = []
    for path, name in zip(paths, short_names(paths), strict=True):
        for engine in engines:
            told = name if engine == "auto" else f"{name}, {engine}"
            found.append(Subject(told, "ours", path, engine))
    if not peers:
        return found
    found += [
        Subject(f"{name}, plain ONNX Runtime", "onnxruntime", path)
        for path, name in zip(paths, short_names(paths), strict=True)
        if path.suffix.lower() == ".onnx" and path.is_file()
    ]
    near = [path.parent / up / "generator.safetensors" for path in paths for up in ("", "..")]
    weights = checkpoint or next((path for path in near if path.is_file()), None)
    if weights is not None:
        found.append(Subject(f"{weights.name}, torch eager", "torch", weights))
    return found


def row_json(starts: Starts) -> dict[str, Any]:
    """A row of the result."""
    subject = starts.subject
    told: dict[str, Any] = {
        "name": subject.name,
        "role": "ours" if subject.kind == "ours" else "peer",
        "peer": {"onnxruntime": "onnxruntime_plain"}.get(subject.kind, subject.kind)
        if subject.kind != "ours"
        else "",
        "engine": subject.engine if subject.kind == "ours" else subject.kind,
        "file": subject.path.name,
        "how": HOW[subject.kind],
        "state": starts.state,
        "status": "measured" if starts.error is None else "not run",
    }
    if starts.error is not None:
        why = str(starts.error).replace(str(subject.path.resolve()), subject.path.name)
        return {**told, "why": why}
    samples = {**starts.stages_ms, "total": starts.to_first_frame_ms}
    if starts.command_ms:
        samples["command"] = starts.command_ms
    return {
        **told,
        "stages_ms": {stage: distribution(starts.stages_ms[stage]) for stage in STAGES},
        "total_ms": distribution(starts.to_first_frame_ms),
        "command_ms": distribution(starts.command_ms) if starts.command_ms else None,
        "memory_mb": _median_memory(starts),
        "page_cache": {
            "dropped_mb": round(median(one.dropped_bytes for one in starts.dropped) / 1e6, 1),
            "kept_mb": round(median(one.kept_bytes for one in starts.dropped) / 1e6, 1),
        }
        if starts.dropped
        else None,
        "samples_ms": {name: [round(ms, 3) for ms in values] for name, values in samples.items()},
    }


def distribution(samples: Sequence[float]) -> dict[str, float]:
    """Of at least one start, in milliseconds; a start is too long for rarer percentiles."""
    told = Distribution.of(samples)
    return {
        "count": told.count,
        "p50": round(told.p50, 3),
        "p90": round(told.p90, 3),
        "least": round(told.least, 3),
        "most": round(told.most, 3),
    }


def _median_memory(starts: Starts) -> dict[str, dict[str, float]]:
    first = starts.memory_mb[0]
    return {
        moment: {
            kind: round(median(run[moment][kind] for run in starts.memory_mb), 1)
            for kind in first[moment]
        }
        for moment in first
    }


def _warnings(results: Sequence[Starts]) -> list[str]:
    if not any(starts.state == "cold" and starts.error is None for starts in results):
        return []
    if not can_drop():
        return ["this system drops no pages on request: cold means an empty cache alone"]
    dropped = [one for starts in results for one in starts.dropped]
    kept, gone = (
        sum(part) for part in zip(*((o.kept_bytes, o.dropped_bytes) for o in dropped), strict=True)
    )
    if kept <= gone:
        return []
    return [
        f"{100 * kept / (kept + gone):.0f} % of what a cold start reads stayed in memory, since "
        "other processes use it: end them, or echo 3 | sudo tee /proc/sys/vm/drop_caches before"
    ]


def _name(starts: Starts) -> str:
    return f"{starts.subject.name} ({starts.state})"


def _table(results: Sequence[Starts]) -> Table:
    table = Table(title="from the command to the first frame, ms (p50)", title_justify="left")
    for head in ("start", "caches", *_HEADS, "total", "p90", "most", "p2p-live", "peak MB"):
        right = head not in ("start", "caches")
        table.add_column(head, justify="right" if right else "left", no_wrap=right)
    for starts in results:
        if starts.error is not None:
            continue
        row = row_json(starts)
        total, command = row["total_ms"], row["command_ms"]
        peak = row["memory_mb"]["at_the_end"].get("peak")
        table.add_row(
            starts.subject.name,
            starts.state,
            *(f"{row['stages_ms'][stage]['p50']:.0f}" for stage in STAGES),
            *(f"{total[part]:.0f}" for part in ("p50", "p90", "most")),
            "" if command is None else f"{command['p50']:.0f}",
            "" if peak is None else f"{peak:.0f}",
        )
    return table


def _size_table(sizes: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="on disk, MB", title_justify="left")
    for head, justify in (("extra", "left"), ("own", "right"), ("with base", "right")):
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    table.add_column("")
    for size in sizes:
        told = "" if size["installed"] else "not installed: " + ", ".join(size["missing"])
        table.add_row(size["extra"], f"{size['own_mb']:.1f}", f"{size['total_mb']:.1f}", told)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(startup, arguments, "stopped: nothing was written", (UserError,))


if __name__ == "__main__":
    sys.exit(main())
