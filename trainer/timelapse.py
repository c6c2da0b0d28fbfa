"""Day-night pairs from one fixed camera's own pictures: read, sort, match, cut to fit, write."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from trainer.combine import side_by_side, write_picture
from trainer.contact_sheet import Entry, draw_pages
from trainer.data import Image, read_image
from trainer.errors import ConfigError, DataError
from trainer.files import write_whole
from trainer.timelapse_match import match_nearest, split_by_date
from trainer.timelapse_read import (
    BY_POSITION,
    VIDEO_SUFFIXES,
    Shot,
    count_samples,
    extract_frames,
    find_pictures,
    read_folder,
    read_video,
)
from trainer.timelapse_register import (
    Motion,
    after,
    aligned,
    correlation,
    displacement_px,
    field_of,
    inverse,
    scaled,
    turn_deg,
    warped,
)
from trainer.timelapse_sort import DAMAGED, UNMATCHED, Follow, Placed, sort_shots

MANIFEST_FILE, DROPPED_FILE = "manifest.csv", "dropped.csv"
SHEETS_FOLDER = "contact_sheet"
DAY_S = 86_400.0
_SHEET_TILE_PX = 400
_SEEN_PX = 0.5


@dataclass(frozen=True)
class TimelapseConfig:
    """How pairs are made.

    max_gap_days: a night is at most this far from its day; a video has no dates and no limit.
    per_day, per_night: pairs that one picture may be in.
    val: part of the days that is held out, 0 to 0.5.
    max_shift: how far the camera may have moved, as a part of the picture's width.
    every_s: seconds between the frames that are taken from a video.
    size: (width, height) in pixels of each half, or None for what the shifts leave.
    suffix: ".jpg" (quality 95) or ".png".
    """

    max_gap_days: float = 3.0
    per_day: int = 1
    per_night: int = 2
    val: float = 0.1
    max_shift: float = 0.05
    every_s: float = 1.0
    size: tuple[int, int] | None = None
    suffix: str = ".jpg"

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("--max-gap", self.max_gap_days, 1e-3, 10_000),
            ("--per-day", self.per_day, 1, 1000),
            ("--per-night", self.per_night, 1, 1000),
            ("--val", self.val, 0.0, 0.5),
            ("--max-shift", 100 * self.max_shift, 0.0, 25.0),
            ("--every", self.every_s, 1e-3, 1e6),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} {value:g}", f"{low:g} to {high:g}", "change it")


@dataclass(frozen=True)
class TimelapseReport:
    """What came out: counts, and lines to print."""

    train: int
    val: int
    dropped: list[tuple[str, str, str]]
    notes: list[str]


@dataclass(frozen=True)
class PairPlan:
    """One pair to write. motion: where a pixel of the day's small copy lies in the night's."""

    day: Placed
    night: Placed
    file: str
    motion: Motion
    score: float

    @property
    def full_motion(self) -> Motion:
        """The same at full size; none where no corner moves by half a pixel."""
        size = self.day.shot.size
        motion = scaled(self.motion, size[1] / self.day.shot.luma.shape[1])
        return motion if displacement_px(motion, size)[2] >= _SEEN_PX else np.eye(2, 3)


def make_pairs(
    source: Path, out: Path, config: TimelapseConfig, follow: Follow, overwrite: bool = False
) -> TimelapseReport:
    """Write `train/`, `val/`, `manifest.csv`, `dropped.csv` and `contact_sheet/` into `out`.

    source: a folder of dated pictures of one fixed camera, or a video. follow: shown how far it
    is. overwrite: forget the pairs that an earlier run left in `out`.

    Raises:
        DataError: no pictures, only days or only nights, no common view, or no pairs.
        ConfigError: `out` lies in `source` or holds pictures.
    """
    _check_out(source, out, overwrite)
    shots, dropped = _read(source, config, follow)
    is_video = shots[0].dated_by == BY_POSITION
    notes = [_dates_note(shots)]
    found = sort_shots(shots, config.max_shift, follow)
    dropped += found.dropped
    notes.append(
        f"{len(found.days)} day and {len(found.nights)} night pictures of one view "
        f"(correlation of day and night {found.link_score:.2f})"
    )
    days = {n: one.shot.taken_s for n, one in enumerate(found.days)}
    nights = {n: one.shot.taken_s for n, one in enumerate(found.nights)}
    max_gap_s = float("inf") if is_video else config.max_gap_days * DAY_S

    def match(some_days: dict[int, float], some: dict[int, float]) -> list[tuple[int, int]]:
        return match_nearest(some_days, some, max_gap_s, config.per_day, config.per_night)

    train, val, split_note = split_by_date(days, nights, match, config.val)
    if not train:
        raise DataError(
            f"no night picture within {config.max_gap_days:g} days of a day picture "
            f"({len(days)} days, {len(nights)} nights)",
            "at least one pair",
            "raise --max-gap",
        )
    notes.append(split_note)
    matched = [{pair[side] for pair in train + val} for side in (0, 1)]
    for half, used in zip((found.days, found.nights), matched, strict=True):
        dropped += [(p.shot.name, UNMATCHED, "") for n, p in enumerate(half) if n not in used]
    names: set[str] = set()
    plans = []
    for folder, matches in (("train", train), ("val", val)):
        for day, night in matches:
            plans.append(_plan(found.days[day], found.nights[night], folder, names, config.suffix))
    if overwrite:
        _forget(out)
    _write_tables(out, plans, dropped)  # first, so that --overwrite knows a broken run's pairs
    with _full_size(source, plans, config) as paths:
        _write(plans, paths, out, config, follow)
    return TimelapseReport(len(train), len(val), dropped, notes)


# ------------------------------------------------------------------------------- reading


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    if source.is_dir() and (
        out.resolve() == source.resolve() or source.resolve() in out.resolve().parents
    ):
        raise ConfigError(
            f"OUT {out} lies in SOURCE",
            "a folder beside it, since SOURCE is read with all below it",
            "name another folder",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"OUT {out} is a file", "a folder", "name another")
    left = [name for name in ("train", "val", MANIFEST_FILE) if (out / name).exists()]
    if left and not overwrite:
        raise ConfigError(
            f"{out} holds {left[0]} already",
            "a new folder, so that nothing is lost",
            "name another folder, or replace its pairs with --overwrite",
        )


def _read(
    source: Path, config: TimelapseConfig, follow: Follow
) -> tuple[list[Shot], list[tuple[str, str, str]]]:
    shots: list[Shot] = []
    dropped: list[tuple[str, str, str]] = []
    if source.is_dir():
        files = find_pictures(source)
        for read in read_folder(source, files, follow("reading pictures", len(files))):
            if isinstance(read, Shot):
                shots.append(read)
            else:
                dropped.append((read[0], DAMAGED, read[1]))
    elif source.suffix.lower() in VIDEO_SUFFIXES and source.is_file():
        tick = follow("reading frames", count_samples(source, config.every_s))
        shots += read_video(source, config.every_s, tick)
    else:
        raise DataError(
            f"{source} is no folder and no video",
            f"a folder of pictures, or a file that ends in {', '.join(VIDEO_SUFFIXES)}",
            "check the path",
        )
    if not shots:
        raise DataError(
            f"all {len(dropped)} pictures of {source} are damaged", "whole pictures", "copy again"
        )
    return shots, dropped


def _dates_note(shots: Sequence[Shot]) -> str:
    by = [shot.dated_by for shot in shots]
    if by[0] == BY_POSITION:
        return f"{len(shots)} frames, ordered by their position; a video has no dates"
    told = ", ".join(f"{by.count(how)} by {how}" for how in dict.fromkeys(by))
    first, last = (
        f"{datetime.fromtimestamp(edge(s.taken_s for s in shots), timezone.utc):%Y-%m-%d %H:%M}"
        for edge in (min, max)
    )
    return f"{len(shots)} pictures from {first} to {last}; dated: {told}"


# ------------------------------------------------------------------------------- writing


def _plan(day: Placed, night: Placed, folder: str, names: set[str], suffix: str) -> PairPlan:
    motion = after(inverse(day.motion), night.motion)
    score = correlation(field_of(day.shot.luma), warped(field_of(night.shot.luma), motion))
    stem = f"{day.shot.label}_to_{night.shot.label}"
    name, number = stem, 1
    while name in names:  # two pictures of one second
        number += 1
        name = f"{stem}-{number}"
    names.add(name)
    return PairPlan(day, night, f"{folder}/{name}{suffix}", motion, score)


@contextmanager
def _full_size(
    source: Path, plans: Sequence[PairPlan], config: TimelapseConfig
) -> Iterator[dict[Path | int, Path]]:
    """The files of full size by `Shot.where`; frames of a video lie there for the time being."""
    wanted = {one.shot.where for plan in plans for one in (plan.day, plan.night)}
    with tempfile.TemporaryDirectory(prefix="p2p-pairs-") as folder:
        frames = {where for where in wanted if isinstance(where, int)}
        paths: dict[Path | int, Path] = {w: w for w in wanted if isinstance(w, Path)}
        if frames:
            written = extract_frames(source, config.every_s, frames, Path(folder))
            paths.update(written.items())
        yield paths


def _write(
    plans: Sequence[PairPlan],
    paths: dict[Path | int, Path],
    out: Path,
    config: TimelapseConfig,
    follow: Follow,
) -> None:
    tick = follow("writing pairs", len(plans))

    def entries() -> Iterator[Entry]:
        for plan in plans:
            day, night = (read_image(paths[p.shot.where]) for p in (plan.day, plan.night))
            pair = side_by_side(*cut_to_fit(day, night, plan.full_motion), config.size)
            write_picture(out / plan.file, pair)
            tick()
            yield Entry(pair, f"{plan.file}  {plan.score:.2f}")

    for number, page in enumerate(draw_pages(entries(), tile_px=_SHEET_TILE_PX), 1):
        write_picture(out / SHEETS_FOLDER / f"page-{number:03d}.png", page)


def cut_to_fit(day: Image, night: Image, motion: Motion) -> tuple[Image, Image]:
    """Both pictures where they show the same, in the day's pixels and its aspect ratio.

    day, night: uint8 [H, W, 3]. motion: where a pixel of the day lies in the night.
    """
    height, width = day.shape[:2]
    if np.array_equal(motion, np.eye(2, 3)):
        return day, night
    back = inverse(motion)
    right, low = width - 1.0, height - 1.0
    corners = np.array([[0, 0], [right, 0], [right, low], [0, low]]) @ back[:, :2].T + back[:, 2]
    x0 = max(0, int(np.ceil(max(corners[0, 0], corners[3, 0]) - 1e-6)))
    x1 = min(width, int(np.floor(min(corners[1, 0], corners[2, 0]) + 1e-6)) + 1)
    y0 = max(0, int(np.ceil(max(corners[0, 1], corners[1, 1]) - 1e-6)))
    y1 = min(height, int(np.floor(min(corners[2, 1], corners[3, 1]) + 1e-6)) + 1)
    part = min((x1 - x0) / width, (y1 - y0) / height)
    cut_width, cut_height = int(width * part), int(height * part)
    x0 += (x1 - x0 - cut_width) // 2
    y0 += (y1 - y0 - cut_height) // 2
    window = (slice(y0, y0 + cut_height), slice(x0, x0 + cut_width))
    moved = aligned(night, motion, cv2.INTER_CUBIC)
    return np.ascontiguousarray(day[window]), np.ascontiguousarray(moved[window])


def _write_tables(
    out: Path, plans: Sequence[PairPlan], dropped: Sequence[tuple[str, str, str]]
) -> None:
    rows: list[Sequence[object]] = [
        ["file", "day", "night", "shift_x_px", "shift_y_px", "turn_deg", "gap_s", "score"]
    ]
    for plan in plans:
        x, y, _ = displacement_px(plan.full_motion, plan.day.shot.size)
        gap_s = plan.night.shot.taken_s - plan.day.shot.taken_s
        turn = turn_deg(plan.full_motion)
        rows.append(
            [
                plan.file,
                plan.day.shot.name,
                plan.night.shot.name,
                *(f"{x:.2f}", f"{y:.2f}", f"{turn:.3f}", f"{gap_s:.0f}", f"{plan.score:.3f}"),
            ]
        )
    _write_csv(out / MANIFEST_FILE, rows)
    _write_csv(out / DROPPED_FILE, [["file", "reason", "detail"], *sorted(dropped)])


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, lambda beside: beside.write_text(text.getvalue(), encoding="utf-8"))


def _forget(out: Path) -> None:
    """Remove what an earlier run's manifest lists, and its sheets; nothing else."""
    manifest = out / MANIFEST_FILE
    if manifest.exists():
        with manifest.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                folder, _, name = (row.get("file") or "").partition("/")
                if folder in ("train", "val") and name and name == Path(name).name:
                    (out / folder / name).unlink(missing_ok=True)
        manifest.unlink()
    for page in (out / SHEETS_FOLDER).glob("page-*.png"):
        page.unlink()
