"""How a picture of any size goes through a network of one size, and comes back.

Each way is a class, made once for one size of picture and one of network, with the same two
methods: `pack` lays a picture into the network's frames, `unpack` makes the result of what the
network drew of them. Both know all geometry beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import cv2
import numpy as np

from runtime.buffers import FrameBuffers
from runtime.frame import Image, resized
from runtime.tiles import axis_of, blend_weights

FITS = ("stretch", "letterbox", "crop", "tile")

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

BORDER = cv2.BORDER_REFLECT_101
"""What fills the frame beside a picture: the picture mirrored at its edge.

A network draws what it sees: of grey or black bars it makes walls and windows, and their edge
shines into the picture. A mirror has no edge, and the texture that the network knows.
"""


class Fit(Protocol):
    """Brings pictures of one size to a network of one size. Any thread may call any method."""

    frames: int
    """How many of the network's frames one picture takes."""

    def part(self, image: Image) -> Image:
        """What of a picture is translated, of the result's size: itself, or a view into it."""

    def pack(self, image: Image, into: Sequence[Image]) -> None:
        """Fill the network's frames.

        Args:
            image: uint8 [H, W, 3] of the size that this was made for.
            into: `frames` arrays, uint8 [h, w, 3] each, of the network's size; written over.
        """

    def unpack(self, frames: Sequence[Image]) -> Image:
        """The result of what the network made of what `pack` gave.

        Args:
            frames: `frames` arrays, uint8 [h, w, 3] each; only read.

        Returns:
            uint8, of the size of `part`; memory that nobody else refers to, but for a picture of
            the network's own size: that is `frames[0]`.
        """


FitMaker: TypeAlias = Callable[[Size, Size], Fit]
"""From the sizes of a picture and of a network to the fit between them."""


def fit_maker(fit: str, overlap_px: int | None = None) -> FitMaker:
    """What makes the fits of one name.

    Args:
        fit: one of `FITS`.
        overlap_px: of neighbouring tiles, at least; None: an eighth of the tile's smaller side.

    Raises:
        ValueError: no such fit.
    """
    makers: dict[str, FitMaker] = {
        "stretch": Stretch,
        "letterbox": Letterbox,
        "crop": Crop,
        "tile": partial(tiled, overlap_px=overlap_px),
    }
    if fit not in makers:
        raise ValueError(f"fit {fit!r} is none of {FITS}")
    return makers[fit]


class Stretch:
    """The whole picture is the network's frame, whatever its aspect."""

    frames = 1

    def __init__(self, size_px: Size, network_px: Size) -> None:
        self._size_px = size_px
        self._network_px = network_px
        self._results = FrameBuffers()

    def part(self, image: Image) -> Image:
        return image

    def pack(self, image: Image, into: Sequence[Image]) -> None:
        resized(image, self._network_px, into=into[0])

    def unpack(self, frames: Sequence[Image]) -> Image:
        if self._size_px == self._network_px:
            return frames[0]
        return resized(frames[0], self._size_px, into=self._results.take(self._size_px))


class Letterbox:
    """The whole picture inside the network's frame, its aspect kept.

    The rest of the frame is filled with the mirrored picture, and cut off the result.
    """

    frames = 1

    def __init__(self, size_px: Size, network_px: Size) -> None:
        scale = min(network_px[0] / size_px[0], network_px[1] / size_px[1])
        inner = [
            min(side, max(1, round(own * scale)))
            for own, side in zip(size_px, network_px, strict=True)
        ]
        top, left = ((side - own) // 2 for own, side in zip(inner, network_px, strict=True))
        self._inner_px = (inner[0], inner[1])
        self._rows = slice(top, top + inner[0])
        self._columns = slice(left, left + inner[1])
        self._borders = (
            top,
            network_px[0] - inner[0] - top,
            left,
            network_px[1] - inner[1] - left,
        )
        self._size_px = size_px
        self._network_px = network_px
        self._results = FrameBuffers()

    def part(self, image: Image) -> Image:
        return image

    def pack(self, image: Image, into: Sequence[Image]) -> None:
        inner = into[0][self._rows, self._columns]
        resized(image, self._inner_px, into=inner)
        # In place: the picture lies in the middle already, only the borders are written.
        cv2.copyMakeBorder(inner, *self._borders, BORDER, dst=into[0])

    def unpack(self, frames: Sequence[Image]) -> Image:
        if self._size_px == self._network_px:
            return frames[0]
        inner = frames[0][self._rows, self._columns]
        return resized(inner, self._size_px, into=self._results.take(self._size_px))


class Crop:
    """The largest part of the picture that has the network's aspect, out of its middle."""

    frames = 1

    def __init__(self, size_px: Size, network_px: Size) -> None:
        scale = min(size_px[0] / network_px[0], size_px[1] / network_px[1])
        height, width = (
            min(own, max(1, round(side * scale)))
            for own, side in zip(size_px, network_px, strict=True)
        )
        top, left = (size_px[0] - height) // 2, (size_px[1] - width) // 2
        self._rows = slice(top, top + height)
        self._columns = slice(left, left + width)
        self._stretch = Stretch((height, width), network_px)

    def part(self, image: Image) -> Image:
        return image[self._rows, self._columns]

    def pack(self, image: Image, into: Sequence[Image]) -> None:
        self._stretch.pack(self.part(image), into)

    def unpack(self, frames: Sequence[Image]) -> Image:
        return self._stretch.unpack(frames)


def tiled(size_px: Size, network_px: Size, overlap_px: int | None = None) -> Fit:
    """`Tile`; for a picture smaller than the network both ways `Letterbox`, which enlarges it."""
    if size_px[0] < network_px[0] and size_px[1] < network_px[1]:
        return Letterbox(size_px, network_px)
    return Tile(size_px, network_px, overlap_px)


class Tile:
    """Overlapping tiles of the network's size, at the picture's own resolution.

    The tiles are spread evenly. Neighbours are blended along a ramp in the middle of their
    overlap, so that the outermost pixels of a tile, where a network knows least of what is
    around, are never seen. Where the picture is smaller than the network one way, the mirrored
    picture fills the tile up.

    Args:
        size_px: of the pictures.
        network_px: of the tiles.
        overlap_px: of neighbouring tiles, at least; None: an eighth of the tile's smaller side.
            More than a third of a side of the tile is taken as that third.
    """

    def __init__(self, size_px: Size, network_px: Size, overlap_px: int | None = None) -> None:
        overlap = min(network_px) // 8 if overlap_px is None else overlap_px
        self._down = axis_of(size_px[0], network_px[0], overlap)
        self._across = axis_of(size_px[1], network_px[1], overlap)
        self._network_px = network_px
        self._size_px = size_px
        self.frames = len(self._down.spans) * len(self._across.spans)
        rise = blend_weights(self._down.ramp_px)[:, np.newaxis]
        self._rise_down = np.repeat(rise, size_px[1], axis=1)
        self._fall_down = 1 - self._rise_down
        rise = blend_weights(self._across.ramp_px)[np.newaxis]
        self._rise_across = np.repeat(rise, network_px[0], axis=0)
        self._fall_across = 1 - self._rise_across
        self._results = FrameBuffers()
        self._strips = FrameBuffers()

    def part(self, image: Image) -> Image:
        return image

    def pack(self, image: Image, into: Sequence[Image]) -> None:
        height, width = self._network_px
        places = ((down, across) for down in self._down.spans for across in self._across.spans)
        for (down, across), tile in zip(places, into, strict=True):
            top, left = max(0, -down.start), max(0, -across.start)
            seen = image[
                down.start + top : down.start + height, across.start + left : across.start + width
            ]
            if seen.shape == tile.shape:
                np.copyto(tile, seen)
            else:
                bottom, right = height - len(seen) - top, width - seen.shape[1] - left
                cv2.copyMakeBorder(seen, top, bottom, left, right, BORDER, dst=tile)

    def unpack(self, frames: Sequence[Image]) -> Image:
        if self._size_px == self._network_px:
            return frames[0]
        result = self._results.take(self._size_px)
        columns = len(self._across.spans)
        for row, span in enumerate(self._down.spans):
            tiles = frames[row * columns : (row + 1) * columns]
            if span.ramp_to > span.ramp_from:
                # The ramp holds the row above already; this row's own goes beside it first.
                ramp = result[span.ramp_from : span.ramp_to]
                strip = self._strips.take(ramp.shape[:2])
                self._lay(tiles, span.ramp_from - span.start, strip)
                cv2.blendLinear(ramp, strip, self._fall_down, self._rise_down, dst=ramp)
            self._lay(tiles, span.ramp_to - span.start, result[span.ramp_to : span.end])
        return result

    def _lay(self, tiles: Sequence[Image], first_row: int, into: Image) -> None:
        """Lay one row of tiles side by side, from their row `first_row` on, for all of `into`."""
        count = len(into)
        rows = slice(first_row, first_row + count)
        for span, tile in zip(self._across.spans, tiles, strict=True):
            if span.ramp_to > span.ramp_from:
                ramp = into[:, span.ramp_from : span.ramp_to]
                own = tile[rows, span.ramp_from - span.start : span.ramp_to - span.start]
                weights = self._fall_across[:count], self._rise_across[:count]
                cv2.blendLinear(ramp, own, *weights, dst=ramp)
            own = tile[rows, span.ramp_to - span.start : span.end - span.start]
            into[:, span.ramp_to : span.end] = own
