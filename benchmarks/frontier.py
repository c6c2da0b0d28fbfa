"""Which generator draws how well at what latency, on pairs of your own.

    python benchmarks/frontier.py --data daynight=PAIRS --data facades=PAIRS:BtoA --out FOLDER

Trains a set of generators on the same pairs and the same number of images, exports each through
the gate, measures both forms, and draws the frontier. What lies in FOLDER already is taken as it
is, so that a stopped run goes on. Latencies are a step of their own: --latency-only, on a machine
that does nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.exports.report import between_markers
from benchmarks.frontiers.frames import exported_frames, frames_in, time_frames
from benchmarks.frontiers.latency import Latencies, Timing, latencies_in, measure
from benchmarks.frontiers.page import Shown, write_page
from benchmarks.frontiers.recipes import (
    BATCH_SIZE,
    RECIPES,
    TEACHER,
    Recipe,
    Source,
    by_source,
    given_runs,
    hold_out,
    source_of,
    training_options,
    with_unseen,
)
from benchmarks.frontiers.report import MARKERS, Part, markdown, to_json
from benchmarks.frontiers.rows import Job, Measuring, Row, measured, row_in, train
from benchmarks.progress import told_progress
from export.cli import ImageSize
from runtime.errors import UserError
from runtime.files import write_text
from trainer.errors import TrainerError

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--data", "data", multiple=True, required=True, help="NAME=FOLDER[:BtoA].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of it all.")
@click.option(
    "--only", multiple=True, type=click.Choice([r.name for r in RECIPES]), help="Train these."
)
@click.option("--run", "runs", multiple=True, help="DATA/NAME=RUN: take a run that is there.")
@click.option("--no-train", is_flag=True, help="Only what --run names, or FOLDER has already.")
@click.option("--other-data", is_flag=True, help="Take a --run of another data set, too.")
@click.option("--again", is_flag=True, help="Export and measure anew: the exporter has changed.")
@click.option("--images", default=1500, help="Pairs that each training sees.")
@click.option("--batch-size", default=BATCH_SIZE)
@click.option("--train-options", default="", help="Of p2p-train for all, as one string.")
@click.option("--seed", default=0)
@click.option("--jobs", default=1, help="Trainings at once; the threads are shared among them.")
@click.option("--teacher", default=TEACHER, help="What the others are held against.")
@click.option("--min-psnr", default=38.0, help="dB that INT8 must keep in the gate.")
@click.option("--count", type=click.IntRange(1), help="Measure at most so many pairs.")
@click.option("--unseen", multiple=True, help="[NAME=]FOLDER: pairs of cameras never seen.")
@click.option("--hold-out", multiple=True, help="[NAME=]cam10,cam11: measure these apart.")
@click.option("--latency/--no-latency", default=True, help="Time a frame, once all is measured.")
@click.option("--latency-only", is_flag=True, help="Train and measure nothing.")
@click.option(
    "--frame-size",
    "frame_sizes",
    multiple=True,
    type=ImageSize(),
    help="HxW of a camera: export, compare and time at that size, too.",
)
@click.option("--rounds", type=click.IntRange(1), default=30, help="Of the timing.")
@click.option("--frames", type=click.IntRange(1), default=5, help="In each round.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Of one inference.  [the physical cores; ours as p2p-live takes them]",
)
@click.option("--torch-compile", is_flag=True, help="Also time torch.compile: slow to start.")
@click.option("--json", "json_path", type=FILE, help="All figures.")
@click.option("--docs", multiple=True, type=FILE, help="Markdown with the two markers.")
@click.option("--plot", type=FILE, help="The frontier.  [FOLDER/frontier.png]")
@click.option("--page", type=FILE, help="The pictures.  [FOLDER/pictures.html]")
def frontier(
    data: Sequence[str],
    out: Path,
    only: Sequence[str],
    runs: Sequence[str],
    no_train: bool,
    other_data: bool,
    again: bool,
    images: int,
    batch_size: int,
    train_options: str,
    seed: int,
    jobs: int,
    teacher: str,
    min_psnr: float,
    count: int | None,
    unseen: Sequence[str],
    hold_out: Sequence[str],
    latency: bool,
    latency_only: bool,
    frame_sizes: Sequence[tuple[int, int]],
    rounds: int,
    frames: int,
    threads: int | None,
    torch_compile: bool,
    json_path: Path | None,
    docs: Sequence[Path],
    plot: Path | None,
    page: Path | None,
) -> None:
    """Train or take generators, export and measure them, time them, and draw the frontier."""
    if latency_only and not latency:
        raise UserError("--latency-only with --no-latency", "one of them", "leave one out")
    for path in docs:
        between_markers(path, "", MARKERS)  # a missing marker is told now, not after hours
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    sources = _sources(data, unseen, hold_out, out)
    common = ("--batch-size", str(batch_size), "--seed", str(seed), *shlex.split(train_options))
    recipes = [r for r in RECIPES if (r.name in only if only else r.usual)]
    chosen = [] if no_train and not only else recipes
    work = _jobs(
        sources,
        chosen,
        given_runs(runs, sources),
        lambda own: training_options(own, common, images),
        out,
        no_train,
    )
    how = Measuring(min_psnr, count, other_data, again)
    if not latency_only:
        rows = _rows(work, how, jobs, console)
        for job in work:
            exported_frames(job, frame_sizes, teacher, how, console.print)
    else:
        rows = {(job.source.name, job.name): row for job in work if (row := row_in(job))}
        work = [job for job in work if (job.source.name, job.name) in rows]
    if not rows:
        raise UserError(
            f"no generator in {out}", "a trained or given one", "name some with --only or --run"
        )
    _check_sizes(list(rows.values()))
    timing = Timing(rounds, frames, threads, torch_compile)
    parts = []
    for source in sources:
        own = [job for job in work if job.source.name == source.name]
        if not own:
            continue
        if latency:
            with told_progress(f"{source.name}: timing") as on_progress:
                times: Latencies | None = measure(own, out / source.name, timing, on_progress)
        else:
            times = latencies_in(out / source.name, own)
        if latency and frame_sizes:
            with told_progress(f"{source.name}: timing large frames") as on_progress:
                large = time_frames(own, frame_sizes, out / source.name, timing, on_progress)
        else:
            large = frames_in(own, frame_sizes, out / source.name)
        parts.append(Part(source, [rows[source.name, job.name] for job in own], times, large))
    text = markdown(parts, teacher)
    click.echo(text)
    if json_path:
        settings = {"options": list(common), "images": images, "min_psnr_db": min_psnr}
        told = to_json(parts, teacher, {**settings, "rounds": rounds}, environment())
        write_text(json_path, json.dumps(told, indent=1) + "\n")
        console.print(f"numbers  {json_path}")
    for path in docs:
        write_text(path, between_markers(path, text, MARKERS))
        console.print(f"tables   {path}")
    _draw(parts, plot or out / "frontier.png", console)
    if not latency_only or page:
        page = page or out / "pictures.html"
        shown = [
            (
                part.source,
                [Shown(j, rows[j.source.name, j.name]) for j in work if j.source == part.source],
            )
            for part in parts
        ]
        write_page(page, shown, teacher)
        console.print(f"pictures {page}")


def _sources(
    data: Sequence[str], unseen: Sequence[str], held: Sequence[str], out: Path
) -> list[Source]:
    """The sets of pairs, each with its unseen cameras.

    Raises:
        UserError: two of one name, or an option that does not fit.
    """
    sources = [source_of(text) for text in data]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--data {twice}=... twice", "names that differ", "rename one")
    apart, cameras = by_source("--unseen", unseen, names), by_source("--hold-out", held, names)
    found = []
    for source in sources:
        source = with_unseen(source, apart.get(source.name))
        if source.name in cameras:
            source = hold_out(source, cameras[source.name], out / source.name / "cameras")
        found.append(source)
    return found


def _jobs(
    sources: Sequence[Source],
    recipes: Sequence[Recipe],
    given: dict[tuple[str, str], Path],
    options_of: Callable[[Sequence[str]], Sequence[str]],
    out: Path,
    no_train: bool,
) -> list[Job]:
    """One for each set of pairs and generator; a given run stands in for its recipe.

    Args:
        options_of: from a recipe's own options to all of them.

    Raises:
        UserError: none.
    """
    found = []
    for source in sources:
        names = [recipe.name for recipe in recipes]
        names += [name for data, name in given if data == source.name and name not in names]
        if no_train:
            there = sorted(path.parent.name for path in (out / source.name).glob("*/trained.json"))
            names += [name for name in there if name not in names]
        options = {recipe.name: recipe.options for recipe in RECIPES}
        for name in names:
            run, folder = given.get((source.name, name)), out / source.name / name
            if no_train and run is None and not (folder / "trained.json").exists():
                continue
            more = ("--direction", source.direction, *options_of(options.get(name, ())))
            found.append(Job(source, name, folder, more, run))
    if not found:
        raise UserError("no generator to measure", "one or more", "name some: --run or --only")
    return found


def _rows(
    work: Sequence[Job], how: Measuring, jobs: int, console: Console
) -> dict[tuple[str, str], Row]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda job: train(job, threads, console.print), work))
    rows = {}
    for job in work:
        row = measured(job, how, console.print)
        console.print(f"{row.data}/{row.name}: L1 {row.held_out['fp32']['l1']:.2f}")
        rows[job.source.name, job.name] = row
    return rows


def _check_sizes(rows: Sequence[Row]) -> None:
    """Refuse to put pictures of different size into one table."""
    sizes = {row.size_px: f"{row.data}/{row.name}" for row in rows}
    if len(sizes) > 1:
        told = ", ".join(f"{name} at {px} pixels" for px, name in sizes.items())
        raise UserError(told, "generators of one size", "leave one out, or train it at that size")


def _draw(parts: Sequence[Part], path: Path, console: Console) -> None:
    try:
        from benchmarks.frontiers.plot import draw
    except ImportError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        console.print("no plot: it needs matplotlib; pip install 'pix2pix-edge[bench]'")
        return
    if draw(parts, path):
        console.print(f"frontier {path}")
    else:
        console.print("no plot: it needs latencies; take them with --latency-only")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(
        frontier, arguments, "stopped: run it again to go on", (UserError, TrainerError)
    )


if __name__ == "__main__":
    sys.exit(main())
