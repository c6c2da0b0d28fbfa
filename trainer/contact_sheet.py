"""Many pictures on a few pages, to look through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trainer.data import Image

_CAPTION_PX = 18
_GAP_PX = 6
_PAPER = 32


@dataclass(frozen=True)
class Entry:
    """A picture, uint8 [H, W, 3] BGR, and a line below it (ASCII)."""

    image: Image
    caption: str


def draw_pages(
    entries: Iterable[Entry], columns: int = 3, rows: int = 6, tile_px: int = 400
) -> Iterator[Image]:
    """Pages uint8 [H, W, 3] BGR of at most columns x rows pictures, each `tile_px` wide.

    Entries are taken one at a time, so that they need not fit into memory together. Pages are as
    high as the pictures on them need.
    """
    page: list[Image] = []
    for entry in entries:
        page.append(_tile(entry, tile_px))
        if len(page) == columns * rows:
            yield _page(page, columns)
            page = []
    if page:
        yield _page(page, columns)


def _tile(entry: Entry, width_px: int) -> Image:
    height, width = entry.image.shape[:2]
    size = (width_px, max(1, round(height * width_px / width)))
    shrinks = width > width_px
    small = cv2.resize(
        entry.image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    tile = np.full((size[1] + _CAPTION_PX, width_px, 3), _PAPER, np.uint8)
    tile[: size[1]] = small
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = 0.4
    (needed_px, _), _ = cv2.getTextSize(entry.caption, font, scale, 1)
    scale *= min(1.0, (width_px - 4) / max(needed_px, 1))
    base = (2, size[1] + _CAPTION_PX - 5)
    cv2.putText(tile, entry.caption, base, font, scale, (230, 230, 230), 1, cv2.LINE_AA)
    return tile


def _page(tiles: Sequence[Image], columns: int) -> Image:
    width_px = tiles[0].shape[1]
    bands = []
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        height_px = max(tile.shape[0] for tile in row)
        full = (width_px + _GAP_PX) * columns + _GAP_PX
        band = np.full((height_px + _GAP_PX, full, 3), _PAPER, np.uint8)
        for place, tile in enumerate(row):
            left = _GAP_PX + place * (width_px + _GAP_PX)
            band[_GAP_PX : _GAP_PX + tile.shape[0], left : left + width_px] = tile
        bands.append(band)
    return np.vstack(bands)
