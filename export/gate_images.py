"""The pictures that an export looks at: the user's, else of the training data, else drawn.

The gate compares on pictures that were held out; INT8 is calibrated on others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from export.verify import Image
from runtime.errors import SourceError
from runtime.frame import resized
from runtime.images import IMAGE_SUFFIXES, natural_key, read_image

GATE_IMAGES = 20
CALIBRATION_IMAGES = 100
GATE_BYTES, CALIBRATION_BYTES = 64 << 20, 256 << 20
"""Of all pictures together: of large frames there are fewer, each with more pixels to tell."""
MIN_CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class GateImages:
    """Pictures of the artifact's frame size, uint8 [H, W, 3] BGR, with names and origin."""

    frames: Sequence[Image]
    names: Sequence[str]
    origin: str


def images_of_folder(
    folder: Path,
    size_px: tuple[int, int],
    direction: str,
    count: int = GATE_IMAGES,
    flag: str = "--images",
) -> GateImages:
    """`count` pictures spread over a folder; of side-by-side pairs the input half.

    Raises:
        SourceError: no such folder, no pictures in it, or a damaged one.
    """
    paths, place = _pictures_in(folder, direction, flag)
    chosen = [paths[i] for i in spread(len(paths), count)]
    pictures = [read_image(path) for path in chosen]
    origin = f"{len(chosen)} of {place}"
    if place == folder and all(p.shape[1] == 2 * p.shape[0] for p in pictures):
        half = "left" if direction == "AtoB" else "right"
        pictures = [_half(picture, half) for picture in pictures]
        origin += f", the {half} half of each side-by-side pair"
    return GateImages(
        [resized(picture, size_px) for picture in pictures], [p.name for p in chosen], origin
    )


def _pictures_in(folder: Path, direction: str, flag: str) -> tuple[list[Path], Path]:
    """The pictures, and the folder that they are in: that of the inputs where A and B are two."""
    if not folder.is_dir():
        raise SourceError(
            f"no such folder: {folder}", "a folder of pictures", f"name it with {flag}"
        )
    inputs = folder / ("A" if direction == "AtoB" else "B")
    place = inputs if inputs.is_dir() else folder
    paths = sorted(
        (p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES),
        key=lambda path: natural_key(path.name),
    )
    if not paths:
        raise SourceError(
            f"no pictures in {place}",
            f"files that end in {', '.join(IMAGE_SUFFIXES)}",
            f"name another folder with {flag}",
        )
    return paths, place


def calibration_of_folder(
    folder: Path, size_px: tuple[int, int], direction: str, fraction: float | None
) -> GateImages:
    """The pictures that INT8 is calibrated on: `fraction` of a folder; None: at most 100, fewer
    of large frames.

    Raises:
        SourceError: as `images_of_folder`, or too few pictures to say what is usual.
    """
    flag = "--calibration"
    paths, place = _pictures_in(folder, direction, flag)
    usual = calibration_count(size_px)
    count = usual if fraction is None else math.ceil(fraction * len(paths))
    if min(count, len(paths)) < MIN_CALIBRATION_IMAGES:
        raise SourceError(
            f"{min(count, len(paths))} pictures of the {len(paths)} in {place}",
            f"at least {MIN_CALIBRATION_IMAGES}, and better {CALIBRATION_IMAGES}, that show what "
            "the camera will see",
            f"name a larger folder with {flag}, or raise --fraction",
        )
    return images_of_folder(folder, size_px, direction, count, flag)


def in_two_sizes(images: GateImages, size_px: tuple[int, int]) -> GateImages:
    """Each third picture at another size, since a dynamic model has other activations there:
    its deepest layers see more than the border's zeros."""
    height, width = size_px
    return replace(
        images,
        frames=[
            resized(frame, size_px) if number % 3 == 1 else frame
            for number, frame in enumerate(images.frames)
        ],
        origin=f"{images.origin}, each third at {height}x{width}",
    )


@dataclass(frozen=True)
class TrainedOn:
    """What a generator was trained on, as the trainer was told."""

    data: str
    """A folder, or `scenes`."""
    task: str
    """What its inputs are: see `trainer.config.TrainConfig.task`."""


def images_of_data(
    trained_on: TrainedOn,
    direction: str,
    size_px: tuple[int, int],
    count: int = GATE_IMAGES,
    held_out: bool = True,
) -> GateImages | None:
    """Inputs of what a generator was trained on; None where the data are not here.

    Args:
        trained_on: where they are.
        direction: which half is the input.
        size_px: (height, width) of the artifact's frames.
        count: at most so many, evenly over all.
        held_out: those that training did not see; False: those that it did.
    """
    from trainer.data import open_data
    from trainer.errors import DataError

    try:
        split = open_data(trained_on.data, direction, task=trained_on.task)
    except DataError:
        return None
    pairs = split.held_out if held_out else split.train
    indices = spread(len(pairs), count)
    side = max(size_px)
    frames = [resized(pairs.pair(i, side)[0], size_px) for i in indices]
    which = "held-out" if held_out else "training"
    return GateImages(
        frames, [pairs.name(i) for i in indices], f"{which} inputs of {pairs.description}"
    )


def drawn_scenes(size_px: tuple[int, int], count: int = GATE_IMAGES, first: int = 0) -> GateImages:
    """Street scenes by day, drawn by the trainer's own code."""
    from trainer.scenes import draw_pair

    seeds = range(first, first + count)
    frames = [draw_pair(seed, *size_px)[0] for seed in seeds]
    return GateImages(frames, [f"scene-{seed}" for seed in seeds], "drawn street scenes")


def pairs_of(
    folder: Path | None,
    trained_on: TrainedOn | None,
    direction: str,
    size_px: tuple[int, int],
    count: int,
) -> list[tuple[Image, Image]]:
    """(input, target) pictures where there are pairs: in `folder`, else held out of training.

    Args:
        folder: the user's pictures, which may be pairs or not.
        trained_on: looked at only where there is no `folder`; a task on photos has no pairs there.
        direction: which half is the input.
        size_px: (height, width) to resize both to.
        count: at most so many.
    """
    from trainer.data import Pairs, find_pair_files, open_data
    from trainer.errors import DataError

    pairs: Pairs
    try:
        if trained_on and trained_on.task != "pairs" and folder is not None:
            return []
        if folder is not None:
            from trainer.data import FolderPairs

            files = find_pair_files(folder)
            pairs = FolderPairs(files, direction, str(folder))
            if files[0].b is None and not _is_side_by_side(files[0].a):
                return []
        elif trained_on is not None:
            pairs = open_data(trained_on.data, direction, task=trained_on.task).held_out
        else:
            return []
        side = max(size_px)
        chosen = [pairs.pair(i, side) for i in spread(len(pairs), count)]
    except DataError:
        return []
    return [(resized(a, size_px), resized(b, size_px)) for a, b in chosen]


def gate_count(size_px: tuple[int, int]) -> int:
    """So many pictures of this size are compared."""
    return min(GATE_IMAGES, max(1, GATE_BYTES // (3 * math.prod(size_px))))


def calibration_count(size_px: tuple[int, int]) -> int:
    """So many pictures of this size INT8 is calibrated on, where nobody says how many."""
    fitting = CALIBRATION_BYTES // (3 * math.prod(size_px))
    return min(CALIBRATION_IMAGES, max(MIN_CALIBRATION_IMAGES, fitting))


def spread(available: int, count: int) -> list[int]:
    """At most `count` indices, evenly over all that are available."""
    return [int(i) for i in np.linspace(0, available - 1, min(count, available))]


def _is_side_by_side(path: Path) -> bool:
    height, width = read_image(path).shape[:2]
    return bool(width == 2 * height)


def _half(picture: Image, half: str) -> Image:
    middle = picture.shape[1] // 2
    return np.ascontiguousarray(picture[:, :middle] if half == "left" else picture[:, middle:])
