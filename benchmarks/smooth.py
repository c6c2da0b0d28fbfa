"""`python benchmarks/smooth.py`: what temporal smoothing does to a model's flicker, and its price.

Flicker is how much the translation changes where the camera's picture does not
(`trainer.flicker`). A ghost is what smoothing changes where the picture surely moves: there the
translation of the new frame alone is right.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.progress import told_progress
from benchmarks.timing import Distribution, round_sizes
from runtime.errors import SourceError, UserError
from runtime.files import write_text, written_whole
from runtime.fit import FITS
from runtime.frame import Image
from runtime.smooth import MOST_STRENGTH, STRENGTH, Smoother
from runtime.sources import open_source
from runtime.translator import Translator
from trainer.flicker import SMOOTHING_PX, Change, Flicker, change_between, flicker_of

SCHEMA = 1
LEAD_IN = 8
"""Frames that are smoothed before anything is judged: there is no history at the start."""
MOVING_LEVELS = 8.0
"""A pixel surely moves when a channel of the smoothed input changes by more; below lies what
compression does to a still picture at a key frame."""
_AMPLIFIED = 6
"""Differences are drawn so many times brighter."""


@dataclass(frozen=True)
class Judged:
    """A smoothed translation beside the same translation unsmoothed."""

    before: Flicker
    after: Flicker
    ghost_levels: float
    """Mean absolute difference between smoothed and unsmoothed where the input surely moves."""
    moving_share: float
    """Part of all pixels that surely moves, 0 to 1."""

    @property
    def factor(self) -> float | None:
        """Flicker before over flicker after; None where nothing stands still or flickers."""
        before, after = self.before.flicker, self.after.flicker
        return before / after if before and after else None


class Judge:
    """Compares frame by frame, and keeps no more than the last one."""

    def __init__(self) -> None:
        self._last: tuple[Image, Image, Image] | None = None
        self._before: list[Change] = []
        self._after: list[Change] = []
        self._ghost = 0.0
        self._moving = 0

    def add(self, original: Image, translated: Image, smoothed: Image) -> None:
        """Take the next frame: three pictures of one size."""
        if self._last is not None:
            inputs = self._last[0], original
            self._before.append(change_between(inputs, (self._last[1], translated)))
            self._after.append(change_between(inputs, (self._last[2], smoothed)))
            moving = moving_pixels(*inputs)
            self._moving += int(moving.sum())
            self._ghost += float(cv2.absdiff(smoothed, translated)[moving].sum()) / 3
        self._last = original, translated, smoothed

    def judged(self) -> Judged:
        """What was found in all frames; at least two of them."""
        pixels = sum(change.pixels for change in self._before)
        return Judged(
            before=flicker_of(self._before),
            after=flicker_of(self._after),
            ghost_levels=self._ghost / max(1, self._moving),
            moving_share=self._moving / pixels,
        )


def judged(
    originals: Sequence[Image], translations: Sequence[Image], smoothed: Sequence[Image]
) -> Judged:
    """Compare whole clips, without their first `LEAD_IN` frames."""
    judge = Judge()
    for frame in list(zip(originals, translations, smoothed, strict=True))[LEAD_IN:]:
        judge.add(*frame)
    return judge.judged()


def moving_pixels(before: Image, now: Image) -> NDArray[np.bool_]:
    """bool [H, W]: where two consecutive inputs surely show something else."""
    difference = cv2.subtract(now.astype(np.float32), before.astype(np.float32))
    smooth = cv2.GaussianBlur(difference, (0, 0), SMOOTHING_PX)
    return np.asarray(np.abs(smooth).max(axis=2) > MOVING_LEVELS)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--source", required=True, help="A video file, or what else p2p-live takes.")
@click.option("--frames", type=click.IntRange(min=LEAD_IN + 2), default=100, help="At most.")
@click.option("--strength", type=click.FloatRange(0, MOST_STRENGTH), default=STRENGTH)
@click.option("--fit", type=click.Choice(FITS), default="stretch")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Result."
)
@click.option(
    "--picture",
    "picture_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG of the last frame: input, translation, smoothed; below, six times brighter, how "
    "much translation and smoothed changed since the frame before, and how much they differ.",
)
def smooth(
    model: Path,
    source: str,
    frames: int,
    strength: float,
    fit: str,
    threads: int | None,
    json_path: Path | None,
    picture_path: Path | None,
) -> None:
    """Translate --source with MODEL, smooth it, and tell flicker, ghosts and milliseconds."""
    for path in filter(None, (json_path, picture_path)):
        if not path.parent.is_dir():
            raise UserError(f"no folder {path.parent}", "one that exists", "make it first")
    cv2.setNumThreads(1)
    judge = Judge()
    costs_ms: list[float] = []
    sheet: Image | None = None
    last: tuple[Image, Image, Image] | None = None
    for triple, cost_ms in _smoothed(model, source, frames, strength, fit, threads):
        if len(costs_ms) >= LEAD_IN:
            judge.add(*triple)
        costs_ms.append(cost_ms)
        if picture_path is not None and last is not None:
            sheet = contact_sheet(last, triple)
        last = triple
    if last is None or len(costs_ms) < LEAD_IN + 2:
        raise SourceError(
            f"{len(costs_ms)} frames came from the source",
            f"{LEAD_IN + 2} or more",
            "name a longer clip with --source",
        )
    found = judge.judged()
    cost = Distribution.of(costs_ms[LEAD_IN:])
    _tell(found, cost, last[0].shape)
    if picture_path is not None and sheet is not None:
        with written_whole(picture_path) as beside:
            cv2.imwrite(str(beside), sheet)
    if json_path is not None:
        told = {
            "schema": SCHEMA,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "model": model.name,
            "source": source.rsplit("/", 1)[-1],
            "size_px": list(last[0].shape[:2]),
            "fit": fit,
            "strength": strength,
            "frames": len(costs_ms),
            "flicker_before": asdict(found.before),
            "flicker_after": asdict(found.after),
            "factor": found.factor,
            "ghost_levels": found.ghost_levels,
            "moving_share": found.moving_share,
            "smooth_ms": asdict(cost),
            "environment": environment(),
        }
        write_text(json_path, json.dumps(told, indent=2) + "\n")


def _smoothed(
    model: Path, uri: str, frames: int, strength: float, fit: str, threads: int | None
) -> Iterator[tuple[tuple[Image, Image, Image], float]]:
    """Input, translation and smoothed translation of each frame, and the smoothing's cost."""
    smoother = Smoother(strength)
    with (
        Translator.load(model, threads=threads, fit=fit) as translator,
        closing(open_source(uri)) as source,
        told_progress("smooth") as on_progress,
    ):
        translator.check_takes_one()
        sizes = round_sizes(frames)
        for number, size in enumerate(sizes):
            for _ in range(size):
                if (frame := source.read()) is None:
                    return
                done = translator.translate([frame.image])
                original, translated = done.originals[0], done.images[0]
                started_ns = time.perf_counter_ns()
                result = smoother.smooth(original, translated)
                cost_ms = (time.perf_counter_ns() - started_ns) / 1e6
                yield (original, translated, result), cost_ms
            on_progress(number + 1, len(sizes))


def contact_sheet(before: tuple[Image, Image, Image], now: tuple[Image, Image, Image]) -> Image:
    """uint8 [2 H, 3 W, 3]: the pictures of one frame above, differences below."""

    def difference(a: Image, b: Image) -> Image:
        strongest = cv2.absdiff(a, b).max(axis=2)
        return np.asarray(
            cv2.cvtColor(cv2.convertScaleAbs(strongest, alpha=_AMPLIFIED), cv2.COLOR_GRAY2BGR)
        )

    below = difference(before[1], now[1]), difference(before[2], now[2])
    return np.vstack([np.hstack(now), np.hstack([*below, difference(now[1], now[2])])])


def _tell(found: Judged, cost: Distribution, shape: Sequence[int]) -> None:
    def told(value: float | None, unit: str = "") -> str:
        return "-" if value is None else f"{value:.2f}{unit}"

    table = Table("", "unsmoothed", "smoothed", "", box=None, pad_edge=False)
    table.add_row(
        "flicker, grey levels a frame",
        told(found.before.flicker),
        told(found.after.flicker),
        "-" if found.factor is None else f"{found.factor:.1f} times less",
    )
    table.add_row("the input's own change", told(found.before.input_change))
    table.add_row("stands still", f"{found.before.still_share:.0%}")
    table.add_row("surely moves", f"{found.moving_share:.1%}")
    table.add_row("ghost there, grey levels", "", told(found.ghost_levels))
    table.add_row(
        f"cost at {shape[1]}x{shape[0]}",
        "",
        told(cost.p50, " ms"),
        f"p99 {told(cost.p99, ' ms')}, one thread",
    )
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return exit_code_of(smooth, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
