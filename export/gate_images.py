"""The pictures that the parity gate looks at: the user's own, else held-out ones, else drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.verify import Image
from runtime.errors import SourceError
from runtime.frame import resized
from runtime.images import IMAGE_SUFFIXES, natural_key, read_image

GATE_IMAGES = 20


@dataclass(frozen=True)
class GateImages:
    """Pictures of the artifact's frame size, uint8 [H, W, 3] BGR, with names and origin."""

    frames: Sequence[Image]
    names: Sequence[str]
    origin: str


def images_of_folder(
    folder: Path, size_px: tuple[int, int], direction: str, count: int = GATE_IMAGES
) -> GateImages:
    """`count` pictures spread over a folder; of side-by-side pairs the input half.

    Raises:
        SourceError: no such folder, no pictures in it, or a damaged one.
    """
    if not folder.is_dir():
        raise SourceError(
            f"no such folder: {folder}", "a folder of pictures", "name it with --images"
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
            "name another folder with --images",
        )
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


def images_of_data(
    data: str, direction: str, size_px: tuple[int, int], count: int = GATE_IMAGES
) -> GateImages | None:
    """Held-out inputs of what a generator was trained on; None where the data are not here."""
    from trainer.data import open_data
    from trainer.errors import DataError

    try:
        held_out = open_data(data, direction).held_out
    except DataError:
        return None
    indices = spread(len(held_out), count)
    side = max(size_px)
    frames = [resized(held_out.pair(i, side)[0], size_px) for i in indices]
    origin = f"held-out inputs of {held_out.description}"
    return GateImages(frames, [held_out.name(i) for i in indices], origin)


def spread(available: int, count: int) -> list[int]:
    """At most `count` indices, evenly over all that are available."""
    return [int(i) for i in np.linspace(0, available - 1, min(count, available))]


def _half(picture: Image, half: str) -> Image:
    middle = picture.shape[1] // 2
    return np.ascontiguousarray(picture[:, :middle] if half == "left" else picture[:, middle:])
