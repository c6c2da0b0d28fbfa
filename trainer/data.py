"""Paired pictures: found on disk or drawn, and what of them is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.scenes import draw_pair

Image: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], BGR, 0 to 255."""
Pair: TypeAlias = tuple[Image, Image]
"""(input, target), of the same size."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
HELD_OUT_NAMES = ("val", "test")
HELD_OUT_SCENES = 32
FIRST_HELD_OUT_SCENE = 2**31
CACHE_BYTES = 2 << 30


class Pairs(Protocol):
    """Pictures by number: what training and evaluation read."""

    @property
    def description(self) -> str:
        """What they are, in words."""

    def __len__(self) -> int: ...

    def pair(self, index: int, size_px: int) -> Pair:
        """Pair `index`, resized to `size_px` x `size_px`."""

    def name(self, index: int) -> str: ...


# ------------------------------------------------------------------------------- on disk


@dataclass(frozen=True)
class PairFile:
    """One pair on disk: two files, or one file whose left half is A and right half is B."""

    a: Path
    b: Path | None

    def read(self, direction: str) -> Pair:
        """(input, target) at the size that they have on disk.

        Raises:
            DataError: damaged, of odd width, or two pictures of different size.
        """
        image = read_image(self.a)
        if self.b is None:
            width = image.shape[1]
            if width % 2:
                raise DataError(
                    f"{self.a} is {width} pixels wide",
                    "an even width: A in the left half, B in the right half",
                    "put A and B into two folders A/ and B/, or crop it to an even width",
                )
            a, b = image[:, : width // 2], image[:, width // 2 :]
        else:
            a, b = image, read_image(self.b)
            if a.shape != b.shape:
                raise DataError(
                    f"{self.a} is {a.shape[1]}x{a.shape[0]} and "
                    f"{self.b} is {b.shape[1]}x{b.shape[0]}",
                    "two pictures of the same size, one pixel on the other",
                    "resize one to the other, or take the pair out",
                )
        return (a, b) if direction == "AtoB" else (b, a)


class FolderPairs:
    """Pairs of one folder; decoded once and kept, as long as they fit into memory."""

    def __init__(self, files: Sequence[PairFile], direction: str, description: str) -> None:
        self._files = files
        self._direction = direction
        self._description = description
        self._cache: dict[tuple[int, int], Pair] = {}
        self._cached_bytes = 0

    @property
    def description(self) -> str:
        return self._description

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files[index].a.stem

    def pair(self, index: int, size_px: int) -> Pair:
        key = (index, size_px)
        if key not in self._cache:
            source, target = self._files[index].read(self._direction)
            pair = resize(source, size_px), resize(target, size_px)
            size_bytes = pair[0].nbytes + pair[1].nbytes
            if self._cached_bytes + size_bytes > CACHE_BYTES:
                return pair
            self._cached_bytes += size_bytes
            self._cache[key] = pair
        return self._cache[key]


def read_image(path: Path) -> Image:
    """Decode one picture, uint8 [H, W, 3] BGR.

    OpenCV fills the missing part of a cut JPEG with grey and says nothing: that is found here.

    Raises:
        DataError: missing, damaged or cut short.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror})", "a picture", "check the path"
        ) from error
    image = None if is_cut_short(data) else _decode(data)
    if image is None:
        raise DataError(
            f"{path} is damaged or cut short",
            "a whole JPEG, PNG, BMP or WebP picture",
            "copy it again, or take the pair out of the folder",
        )
    return image


def _decode(data: bytes) -> Image | None:
    if not data:
        return None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if decoded is None else np.asarray(decoded, dtype=np.uint8)


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: the EOI marker behind the last scan, the IEND chunk."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-64:]
    return False


def resize(image: Image, size_px: int) -> Image:
    """To a square: bicubic up, as the paper's code does; area average down, against aliasing."""
    if image.shape[:2] == (size_px, size_px):
        return np.ascontiguousarray(image)
    shrinks = image.shape[0] > size_px or image.shape[1] > size_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(image, (size_px, size_px), interpolation=interpolation)
    return np.asarray(resized, dtype=np.uint8)


def find_pair_files(folder: Path) -> list[PairFile]:
    """The pairs of one folder, sorted: `A/` + `B/` inside it, or side-by-side pictures in it.

    Raises:
        DataError: no such folder, no pictures, or a picture without its other half.
    """
    if not folder.is_dir():
        raise DataError(
            f"no such folder: {folder}",
            "a folder of side-by-side pictures, or one with A/ and B/",
            "name it, or leave DATA out to train on drawn street scenes",
        )
    if (folder / "A").is_dir() and (folder / "B").is_dir():
        return _match(folder / "A", folder / "B")
    files = [PairFile(path, None) for path in _pictures(folder)]
    if not files:
        raise DataError(
            f"no pairs in {folder}",
            f"side-by-side pictures ({', '.join(SUFFIXES)}), or the folders A/ and B/",
            "put the pairs there, or name the folder that holds them",
        )
    return files


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _match(folder_a: Path, folder_b: Path) -> list[PairFile]:
    a = {path.stem: path for path in _pictures(folder_a)}
    b = {path.stem: path for path in _pictures(folder_b)}
    if lonely := sorted(set(a) ^ set(b)):
        path = a.get(lonely[0]) or b[lonely[0]]
        others = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        missing = folder_b if path.parent == folder_a else folder_a
        raise DataError(
            f"{path}{others} has no partner",
            f"a picture named {path.stem} in {missing}",
            "add it or take the lonely one out",
        )
    if not a:
        raise DataError(
            f"no pictures in {folder_a} and {folder_b}",
            f"pictures of the same name in both ({', '.join(SUFFIXES)})",
            "put the pairs there",
        )
    return [PairFile(a[stem], b[stem]) for stem in sorted(a)]


# ---------------------------------------------------------------------------------- drawn


class ScenePairs:
    """Street scenes by day and by night, drawn when they are asked for."""

    def __init__(self, count: int, first_seed: int, direction: str) -> None:
        self._count = count
        self._first_seed = first_seed
        self._direction = direction

    @property
    def description(self) -> str:
        return "street scenes drawn by trainer/scenes.py"

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"scene-{self._first_seed + index}"

    def pair(self, index: int, size_px: int) -> Pair:
        day, night = draw_pair(self._first_seed + index, size_px, size_px)
        return (day, night) if self._direction == "AtoB" else (night, day)


# ---------------------------------------------------------------------------- what to train on


@dataclass(frozen=True)
class DataSplit:
    """What to train on, what to hold out, and how that was decided, in words."""

    train: Pairs
    held_out: Pairs
    note: str


def open_data(data: str, direction: str, scenes_seed: int = 0) -> DataSplit:
    """Find the pairs that `data` names: a folder, or `scenes`.

    A folder may hold `train/` and `val/` or `test/`, or be such a `train/` itself; where there is
    nothing held out, every tenth pair is.

    Raises:
        DataError: see `find_pair_files`.
    """
    if data == "scenes":
        return DataSplit(
            ScenePairs(FIRST_HELD_OUT_SCENE, scenes_seed * 1_000_003 % 2**30, direction),
            ScenePairs(HELD_OUT_SCENES, FIRST_HELD_OUT_SCENE, direction),
            "street scenes drawn on the fly, by day and by night; none is seen twice",
        )
    folder = Path(data)
    train_folder = folder / "train" if (folder / "train").is_dir() else folder
    files = find_pair_files(train_folder)
    root = train_folder.parent if train_folder.name == "train" else train_folder
    for name in HELD_OUT_NAMES:
        if (root / name).is_dir() and (root / name) != train_folder:
            held_out = find_pair_files(root / name)
            note = (
                f"{len(files)} pairs of {train_folder}, {len(held_out)} held out in {root / name}"
            )
            break
    else:
        if len(files) < 2:
            raise DataError(
                f"1 pair in {train_folder}",
                "at least 2: one to train on, one to hold out",
                "add pairs",
            )
        held_out = files[9::10] or files[-1:]
        files = [file for file in files if file not in held_out]
        note = (
            f"{len(files)} pairs of {train_folder}; {len(held_out)} more (each tenth) held out, "
            "since there is no val/ or test/"
        )
    return DataSplit(
        FolderPairs(files, direction, str(folder)),
        FolderPairs(held_out, direction, str(folder)),
        note,
    )


def open_pairs(data: str, direction: str) -> FolderPairs | ScenePairs:
    """All pairs of one folder (or the held-out drawn scenes): what `p2p-eval` measures on."""
    if data == "scenes":
        return ScenePairs(HELD_OUT_SCENES, FIRST_HELD_OUT_SCENE, direction)
    return FolderPairs(find_pair_files(Path(data)), direction, data)
