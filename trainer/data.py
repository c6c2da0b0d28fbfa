"""Pairs by number: of two pictures, made of a photo, or drawn; and what of them is held out."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.images import SUFFIXES, Image, centre_square, read_image, resize
from trainer.layouts import (
    HELD_OUT_NAMES,
    PairFile,
    find_pair_files,
    find_pairs_in,
    find_photos,
    find_train_and_held_out,
    has_pairs,
    photos_in,
)
from trainer.scenes import draw_pair
from trainer.tasks import made_input

__all__ = [
    "CACHE_BYTES",
    "SUFFIXES",
    "DataSplit",
    "FolderPairs",
    "Image",
    "Pair",
    "PairFile",
    "Pairs",
    "PhotoPairs",
    "PicturePairs",
    "Planes",
    "ScenePairs",
    "drop_damaged",
    "find_pair_files",
    "open_data",
    "open_pairs",
    "planes_of",
    "read_image",
]

Pair: TypeAlias = tuple[Image, Image]
"""(input, target), of the same size."""
Planes: TypeAlias = NDArray[np.uint8]
"""uint8 [6, S, S], 0 to 255: input and target, RGB; what a batch is made of."""

HELD_OUT_SCENES = 32
FIRST_HELD_OUT_SCENE = 2**31
CACHE_BYTES = 2 << 30
DAMAGED_NAMED = 10
_Item = TypeVar("_Item", bound=Hashable)
_Found = TypeVar("_Found")


class Pairs(Protocol):
    """Pictures by number: what training and evaluation read."""

    @property
    def description(self) -> str:
        """What they are, in words."""

    def __len__(self) -> int: ...

    def pair(self, index: int, size_px: int) -> Pair:
        """Pair `index`, resized to `size_px` x `size_px`."""

    def name(self, index: int) -> str: ...


def planes_of(pair: Pair) -> Planes:
    """(input, target), BGR, as `Planes`."""
    source, target = pair
    return np.stack([*reversed(cv2.split(source)), *reversed(cv2.split(target))])


# ------------------------------------------------------------------------------- on disk


class _PlaneCache:
    """Decoded pairs, kept as long as they fit into `CACHE_BYTES`; shared by parts of a set."""

    def __init__(self) -> None:
        self._planes: dict[Hashable, Planes] = {}
        self._bytes = 0

    def get(self, key: Hashable) -> Planes | None:
        return self._planes.get(key)

    def put(self, key: Hashable, planes: Planes) -> None:
        if key not in self._planes and self._bytes + planes.nbytes <= CACHE_BYTES:
            self._planes[key] = planes
            self._bytes += planes.nbytes

    def __getstate__(self) -> dict[str, object]:
        """Empty: a worker that is not forked reads its pictures faster than it is sent them."""
        return _PlaneCache().__dict__


class PicturePairs(ABC, Generic[_Item]):
    """Pairs that are read from files; decoded once and kept, as long as they fit into memory."""

    def __init__(self, items: Sequence[_Item], description: str) -> None:
        self._items = items
        self._description = description
        self._cache = _PlaneCache()

    @property
    def description(self) -> str:
        return self._description

    def __len__(self) -> int:
        return len(self._items)

    @abstractmethod
    def name(self, index: int) -> str: ...

    @abstractmethod
    def _read(self, index: int, size_px: int) -> Pair:
        """Decode pair `index`; may run in several threads at once."""

    def pair(self, index: int, size_px: int) -> Pair:
        red, green, blue, *target = self.planes(index, size_px)
        source = cv2.merge((blue, green, red))
        return np.asarray(source, np.uint8), np.asarray(cv2.merge(target[::-1]), np.uint8)

    def planes(self, index: int, size_px: int) -> Planes:
        """Pair `index` as uint8 [6, size_px, size_px], RGB; the cache's own array, not to be
        written to."""
        key = (self._items[index], size_px)
        planes = self._cache.get(key)
        if planes is None:
            planes = planes_of(self._read(index, size_px))
            self._cache.put(key, planes)
        return planes

    def read_all(self, size_px: int) -> Iterator[DataError | None]:
        """Read every pair once, several at a time, into the cache; the fault of each, if any."""
        indices = range(len(self))
        threads = min(8, os.cpu_count() or 1)
        ahead = 4 * threads  # what is decoded and not yet in the cache stays little
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(self), ahead):
                part = indices[first : first + ahead]
                reads = pool.map(self._try, part, [size_px] * len(part))
                for index, read in zip(part, reads, strict=True):
                    if isinstance(read, DataError):
                        yield read
                    else:
                        self._cache.put((self._items[index], size_px), read)
                        yield None

    def _try(self, index: int, size_px: int) -> Planes | DataError:
        try:
            cached = self._cache.get((self._items[index], size_px))
            return planes_of(self._read(index, size_px)) if cached is None else cached
        except DataError as fault:
            return fault

    def without(self, indices: Iterable[int]) -> PicturePairs[_Item]:
        """The other pairs, in the same order, with the same cache."""
        left_out = set(indices)
        others = copy.copy(self)
        others._items = [x for i, x in enumerate(self._items) if i not in left_out]
        return others


class FolderPairs(PicturePairs[PairFile]):
    """Pairs of pictures on disk, resized to a square."""

    def __init__(self, files: Sequence[PairFile], direction: str, description: str) -> None:
        super().__init__(files, description)
        self._direction = direction

    def name(self, index: int) -> str:
        return self._items[index].a.stem

    def _read(self, index: int, size_px: int) -> Pair:
        source, target = self._items[index].read(self._direction)
        return resize(source, size_px), resize(target, size_px)


class PhotoPairs(PicturePairs[Path]):
    """Plain photos as targets, with the input that a task makes of each.

    A photo is cropped to its middle square before it is resized: nothing is stretched. The input
    is made at that size, before the random crop.
    """

    def __init__(self, files: Sequence[Path], root: Path, task: str) -> None:
        """root: the folder that the photos are named from."""
        super().__init__(files, f"{root} ({task})")
        self._root = root
        self._task = task

    def name(self, index: int) -> str:
        """The path under the data's folder, without its suffix; `_` between its parts."""
        return "_".join(self._items[index].relative_to(self._root).with_suffix("").parts)

    def _read(self, index: int, size_px: int) -> Pair:
        photo = resize(centre_square(read_image(self._items[index])), size_px)
        return made_input(self._task, photo, self.name(index)), photo


def _identity(indices: Iterable[int]) -> Iterable[int]:
    return indices


def drop_damaged(
    split_part: Pairs,
    size_px: int,
    limit: float,
    tell: Callable[[str], None],
    progress: Callable[[Iterable[int]], Iterable[int]] = _identity,
) -> Pairs:
    """Read every pair once, which fills the cache, and leave out those that cannot be read.

    Args:
        split_part: pairs on disk; drawn scenes are returned as they are.
        size_px: size that they will be asked for.
        limit: largest part of them that may be damaged, 0 to 1.
        tell: is given a line for each damaged pair, for the first `DAMAGED_NAMED` of them.
        progress: is given the indices and gives them back one by one, to show how far it is.

    Returns:
        The whole ones, in the same order.

    Raises:
        DataError: more than `limit` of them are damaged, or all.
    """
    if not isinstance(split_part, PicturePairs):
        return split_part
    faults: dict[int, DataError] = {}
    total = len(split_part)
    for index, fault in zip(progress(range(total)), split_part.read_all(size_px), strict=True):
        if fault is not None:
            faults[index] = fault
    if not faults:
        return split_part
    too_many = len(faults) > limit * total or len(faults) == total
    first = next(iter(faults.values()))
    if not too_many or len(faults) > 1:
        for fault in list(faults.values())[:DAMAGED_NAMED]:
            tell(fault.received)
        if len(faults) > DAMAGED_NAMED:
            tell(f"and {len(faults) - DAMAGED_NAMED} more")
    if too_many:
        raise DataError(
            f"{len(faults)} of {total} pairs cannot be read: {first.received}",
            f"{first.expected}, for all but {limit:.2%} of them",
            f"{first.mend}, or allow more with --bad-pairs",
        )
    tell(f"{len(faults)} of {total} pairs cannot be read, {total - len(faults)} can")
    return split_part.without(faults)


# ---------------------------------------------------------------------------------- drawn


class ScenePairs:
    """Street scenes by day and by night, drawn when they are asked for.

    With a task other than `pairs`, the picture by day is the photo that the input is made of.
    """

    def __init__(self, count: int, first_seed: int, direction: str, task: str = "pairs") -> None:
        self._count = count
        self._first_seed = first_seed
        self._direction = direction
        self._task = task

    @property
    def description(self) -> str:
        task = "" if self._task == "pairs" else f" ({self._task})"
        return f"street scenes drawn by trainer/scenes.py{task}"

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"scene-{self._first_seed + index}"

    def pair(self, index: int, size_px: int) -> Pair:
        day, night = draw_pair(self._first_seed + index, size_px, size_px)
        if self._task != "pairs":
            return made_input(self._task, day, self.name(index)), day
        return (day, night) if self._direction == "AtoB" else (night, day)


# ---------------------------------------------------------------------------- what to train on


@dataclass(frozen=True)
class DataSplit:
    """What to train on, what to hold out, and how that was decided, in words."""

    train: Pairs
    held_out: Pairs
    note: str


def open_data(data: str, direction: str, scenes_seed: int = 0, task: str = "pairs") -> DataSplit:
    """Find the pairs that `data` names: a folder, or `scenes`.

    The layout follows from the folders that are there (docs/data.md); where nothing is held out,
    every tenth pair is.

    Args:
        data: folder, or `scenes`.
        direction: which half of a pair is the input; without meaning for other tasks.
        scenes_seed: which drawn scenes.
        task: `pairs`, or one that makes the input of plain photos.

    Raises:
        DataError: no pictures in a layout that is known, or a picture without its other half.
    """
    if data == "scenes":
        seen = "by day and by night" if task == "pairs" else f"by day, for the task {task}"
        return DataSplit(
            ScenePairs(FIRST_HELD_OUT_SCENE, scenes_seed * 1_000_003 % 2**30, direction, task),
            ScenePairs(HELD_OUT_SCENES, FIRST_HELD_OUT_SCENE, direction, task),
            f"street scenes drawn on the fly, {seen}; none is seen twice",
        )
    if task != "pairs":
        return _open_photos(Path(data), task)
    train, held_out = find_train_and_held_out(Path(data))
    apart = (held_out.files, held_out.place) if held_out else None
    trained, tested, note = _divided(train.files, train.place, apart, "pair")
    remarks = dict.fromkeys(train.remarks + (held_out.remarks if held_out else ()))
    return DataSplit(
        FolderPairs(trained, direction, data),
        FolderPairs(tested, direction, data),
        "; ".join((note, *remarks)),
    )


def open_pairs(data: str, direction: str, task: str = "pairs") -> Pairs:
    """What `p2p-eval` measures on: all pairs of a folder, or the held-out drawn scenes.

    Where a folder holds no pairs itself but is the root of a data set, its held-out pairs.

    Raises:
        DataError: see `open_data`.
    """
    if data == "scenes":
        return ScenePairs(HELD_OUT_SCENES, FIRST_HELD_OUT_SCENE, direction, task)
    folder = Path(data)
    if task != "pairs":
        if any((folder / name).is_dir() for name in HELD_OUT_NAMES):
            return open_data(data, direction, task=task).held_out
        found = photos_in(folder)
        return PhotoPairs(found.files, found.root, task)
    if folder.is_dir() and not has_pairs(folder):
        return open_data(data, direction).held_out
    return FolderPairs(find_pairs_in(folder).files, direction, data)


def _open_photos(folder: Path, task: str) -> DataSplit:
    train, held_out = find_photos(folder)
    apart = (held_out.files, str(held_out.root)) if held_out else None
    trained, tested, note = _divided(train.files, str(train.root), apart, "photo")
    return DataSplit(
        PhotoPairs(trained, train.root, task),
        PhotoPairs(tested, held_out.root if held_out else train.root, task),
        "; ".join((note, f"input made of each one's middle square: {task}", *train.remarks)),
    )


def _divided(
    files: list[_Found], place: str, held_out: tuple[list[_Found], str] | None, what: str
) -> tuple[list[_Found], list[_Found], str]:
    """Files to train on, files held out, and how that was decided."""
    if held_out is not None:
        tested, where = held_out
        note = f"{len(files)} {what}s of {place}, {len(tested)} held out in {where}"
        return files, tested, note
    if len(files) < 2:
        raise DataError(
            f"1 {what} in {place}",
            "at least 2: one to train on, one to hold out",
            f"add {what}s",
        )
    tested = files[9::10] or files[-1:]
    trained = [x for i, x in enumerate(files) if i % 10 != 9] if len(files) > 9 else files[:-1]
    note = (
        f"{len(trained)} {what}s of {place}; {len(tested)} more (each tenth) held out, "
        "since there is no val/ or test/"
    )
    return trained, tested, note
