"""Two folders of pictures of the same names, joined side by side: A left, B right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from trainer.data import SUFFIXES, Image, read_image
from trainer.errors import ConfigError, DataError
from trainer.files import write_whole
from trainer.layouts import by_stem, pictures_in

SPLITS = ("train", "val", "test")
FORMATS = {"png": ".png", "jpg": ".jpg"}
JPEG_QUALITY = 95
Follow = Callable[[str, int], Callable[[], object]]
"""Told what begins and how many steps it has; gives what is called after each step."""


@dataclass(frozen=True)
class Joint:
    """Two files and the file that both go into."""

    a: Path
    b: Path
    out: Path


@dataclass(frozen=True)
class CombineReport:
    """counts: pairs by split, "" without splits. lonely: pictures that have no partner."""

    counts: dict[str, int]
    lonely: list[Path]


def combine_folders(
    folder_a: Path,
    folder_b: Path,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    suffix: str = ".png",
    skip_lonely: bool = False,
    overwrite: bool = False,
    follow: Follow = lambda _what, _steps: lambda: None,
) -> CombineReport:
    """Write a side-by-side picture for each name that is in both folders.

    Names match without their suffix. `train/`, `val/` and `test/` in A stay what they are. All is
    read once before the first file is written, so that a fault leaves no half a data set.

    size: (width, height) in pixels that both halves are resized to. suffix: ".png" or ".jpg".

    Raises:
        DataError: a folder without pictures, a lonely, damaged or doubled picture, other sizes.
        ConfigError: `out` is A or B, or holds pictures that are not to be overwritten.
    """
    if out.resolve() in (folder_a.resolve(), folder_b.resolve()):
        raise ConfigError(f"OUT {out} is A or B", "another folder", "name a new one")
    joints, lonely = _find(folder_a, folder_b, out, suffix)
    if lonely and not skip_lonely:
        raise DataError(
            f"{len(lonely)} without a partner, the first is {lonely[0]}",
            "a picture of the same name in the other folder",
            "add it, or leave the lonely ones out with --skip-lonely",
        )
    if not joints:
        raise DataError(
            f"no picture is in both {folder_a} and {folder_b}",
            f"pictures of the same name in both ({', '.join(SUFFIXES)})",
            "check the names",
        )
    _check_out(joints, out, overwrite)
    tick = follow("checking pictures", len(joints))
    for joint in joints:
        _read(joint, size)
        tick()
    tick = follow("writing pairs", len(joints))
    counts: dict[str, int] = {}
    for joint in joints:
        write_picture(joint.out, side_by_side(*_read(joint, size), size))
        split = joint.out.parent.relative_to(out).as_posix()
        counts["" if split == "." else split] = counts.get("" if split == "." else split, 0) + 1
        tick()
    return CombineReport(counts, lonely)


def side_by_side(a: Image, b: Image, size: tuple[int, int] | None = None) -> Image:
    """A left, B right, uint8 [H, 2 * W, 3]; size: (W, H) that each is resized to first."""
    if size is not None:
        a, b = _resized(a, size), _resized(b, size)
    return np.hstack([a, b])


def write_picture(path: Path, image: Image) -> None:
    """Write uint8 [H, W, 3] BGR as PNG, or as JPEG of quality 95 with full colour resolution.

    The colour of JPEG's blocks is not halved: it would run from A into B.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(path.suffix, image, options if path.suffix == ".jpg" else [])
    write_whole(path, lambda beside: beside.write_bytes(data.tobytes()))


def _resized(image: Image, size: tuple[int, int]) -> Image:
    """Area average where a side shrinks, against aliasing, else bicubic."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    shrinks = image.shape[1] > size[0] or image.shape[0] > size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


def _find(
    folder_a: Path, folder_b: Path, out: Path, suffix: str
) -> tuple[list[Joint], list[Path]]:
    for folder in (folder_a, folder_b):
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}", "a folder of pictures", "check the path")
    splits = [name for name in SPLITS if (folder_a / name).is_dir()]
    joints: list[Joint] = []
    lonely: list[Path] = []
    for split in splits or [""]:
        a, b = by_stem(folder_a / split), by_stem(folder_b / split)
        joints += [Joint(a[s], b[s], out / split / f"{s}{suffix}") for s in sorted(a.keys() & b)]
        lonely += [(a.get(s) or b[s]) for s in sorted(a.keys() ^ b.keys())]
    if splits:  # a split that only B has, and pictures beside the splits, would be lost unsaid
        rest = [folder_b / name for name in SPLITS if name not in splits]
        for folder in [folder_a, folder_b, *rest]:
            lonely += sorted(by_stem(folder).values())
    return joints, lonely


def _check_out(joints: Sequence[Joint], out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds pictures: old ones among new ones are found too late."""
    wanted = {joint.out for joint in joints}
    there = [path for folder in ("", *SPLITS) for path in pictures_in(out / folder)]
    others = [path for path in there if path not in wanted]
    if there and not overwrite:
        raise ConfigError(
            f"{out} holds {len(there)} pictures already, the first is {there[0]}",
            "an empty or a new folder",
            "name another, or replace them with --overwrite",
        )
    if others:
        raise ConfigError(
            f"{out} holds {len(others)} pictures of other names, the first is {others[0]}",
            "only pictures that are written anew, or old pairs would be among the new ones",
            "take them out, or name another folder",
        )


def _read(joint: Joint, size: tuple[int, int] | None) -> tuple[Image, Image]:
    a, b = read_image(joint.a), read_image(joint.b)
    if size is None and a.shape != b.shape:
        raise DataError(
            f"{joint.a} is {a.shape[1]}x{a.shape[0]} and {joint.b} is {b.shape[1]}x{b.shape[0]}",
            "two pictures of the same size, one pixel on the other",
            "resize both with --size WIDTHxHEIGHT",
        )
    return a, b
