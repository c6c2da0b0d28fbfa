"""`p2p-pairs`: training pairs from two folders, or from one fixed camera's own pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trainer.combine import FORMATS, Follow, combine_folders
from trainer.errors import ConfigError
from trainer.timelapse import DROPPED_FILE, SHEETS_FOLDER, TimelapseConfig, make_pairs
from trainer.ui import one_line_errors

_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"]}
_LINES = 4


@click.group(context_settings=_SETTINGS)
@click.version_option(package_name="pix2pix-edge")
def pairs() -> None:
    """Make training pairs for p2p-train."""


@pairs.command(context_settings=_SETTINGS)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--size", help="Resize both to WIDTHxHEIGHT.  [the size that both have]")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="png")
@click.option("--skip-lonely", is_flag=True, help="Leave out pictures that have no partner.")
@click.option("--overwrite", is_flag=True, help="Replace the pairs in OUT.")
@one_line_errors
def combine(
    a: Path, b: Path, out: Path, size: str | None, kind: str, skip_lonely: bool, overwrite: bool
) -> None:
    """Join pictures of the same name side by side: A left, B right.

    train/, val/ and test/ in A are kept as they are.
    """
    with _following() as follow:
        report = combine_folders(
            a,
            b,
            out,
            size=_size(size),
            suffix=FORMATS[kind],
            skip_lonely=skip_lonely,
            overwrite=overwrite,
            follow=follow,
        )
    if report.lonely:
        click.echo(f"left out   {len(report.lonely)} without partner, first {report.lonely[0]}")
    counts = ", ".join(f"{n} {split}".rstrip() for split, n in report.counts.items())
    click.echo(f"wrote      {counts} side-by-side pairs, A left, B right, to {out}")
    click.echo(f"next       p2p-train {out}")


@pairs.command(context_settings=_SETTINGS)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--max-gap", default=3.0, help="Days between a day picture and its night.")
@click.option("--per-day", default=1, help="Pairs that one day picture may be in.")
@click.option("--per-night", default=2, help="Pairs that one night picture may be in.")
@click.option("--val", default=0.1, help="Part of the day pictures that is held out, the last.")
@click.option("--max-shift", default=5.0, help="How far the camera may move, % of the width.")
@click.option("--every", default=1.0, help="Seconds between the frames taken from a video.")
@click.option("--size", help="Resize each half to WIDTHxHEIGHT.  [what the shifts leave]")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="jpg")
@click.option("--overwrite", is_flag=True, help="Replace the pairs of an earlier run in OUT.")
@one_line_errors
def timelapse(
    source: Path,
    out: Path,
    max_gap: float,
    per_day: int,
    per_night: int,
    val: float,
    max_shift: float,
    every: float,
    size: str | None,
    kind: str,
    overwrite: bool,
) -> None:
    """Find day-night pairs in SOURCE: one fixed camera's dated pictures, or a video of it.

    Day is A, night is B. OUT gets train/, val/, manifest.csv, dropped.csv and contact_sheet/.
    """
    config = TimelapseConfig(
        max_gap_days=max_gap,
        per_day=per_day,
        per_night=per_night,
        val=val,
        max_shift=max_shift / 100.0,
        every_s=every,
        size=_size(size),
        suffix=FORMATS[kind],
    )
    with _following() as follow:
        report = make_pairs(source, out, config, follow, overwrite)
    for title, note in zip(("read", "sorted", "split"), report.notes, strict=True):
        click.echo(f"{title:10s} {note}")
    reasons = [reason for _, reason, _ in report.dropped]
    if reasons:
        counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        told = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        click.echo(f"left out   {told}; see {out / DROPPED_FILE}")
    click.echo(f"wrote      {report.train} train and {report.val} val pairs to {out}")
    click.echo(f"look at    {out / SHEETS_FOLDER}")
    click.echo(f"next       p2p-train {out}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or not all(16 <= int(side) <= 8192 for side in found.groups()):
        raise ConfigError(f"--size {text}", "WIDTHxHEIGHT, 16 to 8192 pixels", "e.g. 512x256")
    return int(found[1]), int(found[2])


@contextmanager
def _following() -> Iterator[Follow]:
    """A bar for each stage on a terminal, elsewhere a few plain lines."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def follow(what: str, steps: int) -> Callable[[], object]:
            task = bar.add_task(what, total=steps)
            done = 0
            every = max(1, -(-steps // _LINES))

            def tick() -> None:
                nonlocal done
                done += 1
                bar.update(task, advance=1)
                if not console.is_terminal and (done % every == 0 or done == steps):
                    console.print(f"{what} {done}/{steps}")

            return tick

        yield follow
