"""What `p2p-pairs timelapse` finds in folders of several cameras that were mixed on purpose.

    python benchmarks/timelapse.py PAIRS --out FOLDER

PAIRS holds dated day-night pairs of three or more fixed cameras, side by side, as `p2p-pairs
timelapse` writes them: CAMERA_20151102_060150_to_20151102_003122.jpg, or a folder a camera. They
are taken apart. Each camera gets a folder with its own pictures, some of them moved, and with what
does not belong there; the pair maker is run on it, and the pairs are held against what was put in.
The folders stay in FOLDER, with the contact sheets.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import click
import cv2
import numpy as np

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.exports.report import between_markers
from benchmarks.timelapse_mix import KINDS, MOVED, OWN, TWICE, Mixer, Motion, Put, cameras_in
from runtime.errors import UserError
from runtime.files import write_text
from trainer.errors import DataError, TrainerError
from trainer.images import read_image
from trainer.timelapse import DROPPED_FILE, MANIFEST_FILE, TimelapseConfig, make_pairs

SCHEMA = 1
MARKERS = ("<!-- timelapse:start -->", "<!-- timelapse:end -->")
_HALVES = ("day", "night")


@dataclass
class Outcome:
    """What became of the pictures of one camera's folder."""

    camera: str
    put: dict[str, int]
    """Pictures of each kind."""
    paired: dict[str, int] = field(default_factory=dict)
    """Of those, in one pair or more; of files that are there twice, where both copies are."""
    left_out: dict[str, int] = field(default_factory=dict)
    """The camera's own pictures that are in no pair, by the reason."""
    pairs: int = 0
    wrong_halves: int = 0
    """Pairs whose left half is no day, or whose right half is no night."""
    residuals_px: list[tuple[float, float]] = field(default_factory=list)
    """Of each pair with a moved half: how far its halves are off each other, in the middle and in
    the worst corner, by the motions that were made and the one that was found."""
    refused: str | None = None
    """The line that the pair maker ended with, where it made none."""


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--max-gap", default=12.0, help="As of p2p-pairs timelapse, like the next two.")
@click.option("--per-day", default=2)
@click.option("--per-night", default=3)
@click.option("--seed", default=0, help="Of the motions.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where the rows go.")
@click.option("--docs", type=click.Path(path_type=Path), help="Markdown with the two markers.")
def timelapse(
    pairs: Path,
    out: Path,
    max_gap: float,
    per_day: int,
    per_night: int,
    seed: int,
    json_path: Path | None,
    docs: Path | None,
) -> None:
    """Mix the cameras in PAIRS, make pairs of each folder, and tell what was found."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if out.exists():
        raise UserError(f"--out {out} is there already", "a new folder", "name another")
    config = TimelapseConfig(max_gap_days=max_gap, per_day=per_day, per_night=per_night)
    cameras = cameras_in(pairs)
    outcomes = []
    for number, camera in enumerate(cameras):
        folder = out / camera.name
        mixer = Mixer(folder / "mixed", seed + number)
        mixer.mix(cameras, number)
        outcomes.append(_made(camera.name, folder, mixer.put, config))
        told = outcomes[-1].refused or f"{outcomes[-1].pairs} pairs"
        console.print(f"{number + 1}/{len(cameras)} {camera.name}: {told}")
    text = "\n".join(_markdown(outcomes))
    click.echo(text)
    if json_path:
        told_all = {
            "schema": SCHEMA,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {**asdict(config), "seed": seed},
            "environment": environment(),
            "cameras": [asdict(outcome) for outcome in outcomes],
        }
        write_text(json_path, json.dumps(told_all, indent=1) + "\n")
    if docs:
        write_text(docs, between_markers(docs, text, MARKERS))


def _made(camera: str, folder: Path, put: Mapping[str, Put], config: TimelapseConfig) -> Outcome:
    """Make the pairs of `folder / "mixed"` in `folder / "pairs"`, and look at them."""
    try:
        make_pairs(folder / "mixed", folder / "pairs", config, lambda _what, _steps: lambda: None)
    except DataError as error:  # only days, no common view, ...: a result, and told as one
        return Outcome(camera, _counted(put.values()), refused=str(error))
    return outcome_of(camera, put, folder / "mixed", folder / "pairs")


def outcome_of(camera: str, put: Mapping[str, Put], mixed: Path, made: Path) -> Outcome:
    """Hold the pairs in `made` against what was put into `mixed`, by the files' names."""
    pairs = _rows(made / MANIFEST_FILE)
    why = {row["file"]: row["reason"] for row in _rows(made / DROPPED_FILE)}
    used = {pair[half] for pair in pairs for half in _HALVES}
    paired = [
        one
        for name, one in put.items()
        if name in used and (one.copy_of is None or one.copy_of in used)
    ]
    lost = [why[name] for name, one in put.items() if one.kind in OWN and name not in used]
    told = Outcome(camera, _counted(put.values()), _counted(paired), dict(Counter(lost)))
    told.pairs = len(pairs)
    for pair in pairs:
        day, night = (put[pair[half]] for half in _HALVES)
        told.wrong_halves += (day.half, night.half) != _HALVES
        if MOVED in (day.kind, night.kind):
            size = read_image(mixed / pair["day"]).shape[:2]
            truth = night.motion @ np.linalg.inv(day.motion)
            told.residuals_px.append(_apart(truth, _found(pair, size), size))
    return told


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _counted(pictures: Iterable[Put]) -> dict[str, int]:
    return dict(Counter(one.kind for one in pictures))


def _found(pair: Mapping[str, str], size_px: tuple[int, int]) -> Motion:
    """Where a pixel of the day lies in the night, as the manifest has it."""
    middle = ((size_px[1] - 1) / 2, (size_px[0] - 1) / 2)
    motion = np.eye(3)
    motion[:2] = cv2.getRotationMatrix2D(middle, -float(pair["turn_deg"]), 1.0)
    motion[:2, 2] += float(pair["shift_x_px"]), float(pair["shift_y_px"])
    return motion


def _apart(one: Motion, other: Motion, size_px: tuple[int, int]) -> tuple[float, float]:
    """How far two motions bring a pixel apart: the middle's, and the worst of the corners'."""
    right, low = size_px[1] - 1.0, size_px[0] - 1.0
    places = np.array([[right / 2, low / 2], [0, 0], [right, 0], [0, low], [right, low]])
    points = np.column_stack([places, np.ones(5)]).T
    apart = np.hypot(*((one - other) @ points)[:2])
    return float(apart[0]), float(apart[1:].max())


def _markdown(outcomes: Sequence[Outcome]) -> Iterator[str]:
    pairs = sum(outcome.pairs for outcome in outcomes)
    folders = f"put into the folders of {len(outcomes)} cameras"
    yield f"| {folders} | pictures | in one of {pairs} pairs |"
    yield "|---|---:|---:|"
    for kind in KINDS:
        count, paired = (
            sum(counts.get(kind, 0) for counts in column)
            for column in ([o.put for o in outcomes], [o.paired for o in outcomes])
        )
        yield f"| {kind} | {count} | {paired}{' with both copies' if kind == TWICE else ''} |"
    yield ""
    lost: Counter[str] = Counter()
    for outcome in outcomes:
        lost.update(outcome.left_out)
    reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common()) or "none"
    yield f"- The cameras' own pictures that are in no pair: {reasons}."
    yield f"- Pairs with a wrong half: {sum(outcome.wrong_halves for outcome in outcomes)}."
    residuals = np.array([r for outcome in outcomes for r in outcome.residuals_px])
    if len(residuals):
        middle, corner = (
            f"{np.median(column):.2f} (median), {np.quantile(column, 0.9):.2f} (9 of 10), "
            f"{column.max():.2f} (largest)"
            for column in residuals.T
        )
        yield (
            f"- The halves of the {len(residuals)} pairs with a moved picture are off each other, "
            f"in pixels: {middle} in the middle, {corner} in the worst corner."
        )
    for outcome in outcomes:
        if outcome.refused:
            yield f"- {outcome.camera} was refused: {outcome.refused}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(timelapse, arguments, "stopped", (UserError, TrainerError))


if __name__ == "__main__":
    sys.exit(main())
