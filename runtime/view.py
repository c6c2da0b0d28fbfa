"""The picture to show of a translated frame: which of its two pictures, and what is on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from runtime.buffers import FrameBuffers
from runtime.frame import Image, Translated, resized
from runtime.lettering import text_scale, wrapped, write_block

VIEWS = ("translated", "side-by-side", "split", "original")

Overlay: TypeAlias = Callable[[Image, Translated], None]
"""Draws onto a picture, uint8 [H, W, 3] BGR, in place; what else is known is in the frame."""

_DIMMED = 0.7
_DARK = (0, 0, 0)
_LIGHT = (255, 255, 255)


class View:
    """Makes the picture to show out of a frame. One thread uses it.

    Args:
        view: one of `VIEWS`: the translation alone; the original on the left of it; left of a
            line the original and right of it the translation; the original alone.
        overlays: drawn onto the picture, in this order.
        split_at: where the line of `split` stands, 0 (left edge) to 1.

    Raises:
        ValueError: no such view.
    """

    def __init__(
        self,
        view: str = "translated",
        overlays: Sequence[Overlay] = (),
        split_at: float = 0.5,
    ) -> None:
        self.view = view
        self.overlays = tuple(overlays)
        self.overlays_shown = True
        """False leaves the overlays out; a note is drawn all the same."""
        self.split_at = split_at
        self._buffers = FrameBuffers()

    @property
    def view(self) -> str:
        """Which view it is; may be set at any time."""
        return self._view

    @view.setter
    def view(self, view: str) -> None:
        if view not in VIEWS:
            raise ValueError(f"view {view!r} is none of {VIEWS}")
        self._view = view

    @property
    def split_at(self) -> float:
        """Where the line of `split` stands; what is set is brought into 0 to 1."""
        return self._split_at

    @split_at.setter
    def split_at(self, split_at: float) -> None:
        self._split_at = min(1.0, max(0.0, split_at))

    def to_next(self) -> None:
        """Go to the next of `VIEWS`, and from the last to the first."""
        self._view = VIEWS[(VIEWS.index(self._view) + 1) % len(VIEWS)]

    def picture(self, frame: Translated) -> Image:
        """The picture to show.

        Args:
            frame: where `translated` is None its `image` stands for it, and where `original` is
                None the translation. An original of another size is brought to the translation's.

        Returns:
            uint8 [H, W, 3] (side-by-side: [H, 2 W, 3]), BGR. It is the frame's own array where
            nothing has to be done to it, else one that belongs to whoever holds it; neither is
            ever drawn onto later, and the caller must not either.
        """
        translated = frame.image if frame.translated is None else frame.translated
        original = translated if frame.original is None else frame.original
        drawn_on = bool(frame.note) or (self.overlays_shown and bool(self.overlays))
        picture = self._composed(translated, original, drawn_on)
        if self.overlays_shown:
            for overlay in self.overlays:
                overlay(picture, frame)
        if frame.note:
            draw_note(picture, frame.note)
        return picture

    def _composed(self, translated: Image, original: Image, ours: bool) -> Image:
        """The bare picture; in a buffer of ours if `ours`."""
        height, width = translated.shape[:2]
        size_px = (height, width)
        if self._view == "side-by-side":
            picture = self._buffers.take((height, 2 * width))
            _copy(original, picture[:, :width])
            picture[:, width:] = translated
            return picture
        if self._view == "split":
            picture = self._buffers.take(size_px)
            left = round(self._split_at * width)
            if original.shape[:2] == size_px:
                picture[:, :left] = original[:, :left]
            elif left > 0:
                _copy(original, picture)
            picture[:, left:] = translated[:, left:]
            _draw_line(picture, left)
            return picture
        one = translated if self._view == "translated" else original
        if one.shape[:2] == size_px and not ours:
            return one
        picture = self._buffers.take(size_px)
        _copy(one, picture)
        return picture


def draw_note(picture: Image, note: str) -> None:
    """Dim the picture a little and write `note` along its lower edge, in place.

    Args:
        picture: uint8 [H, W, 3], BGR.
        note: one sentence; broken into lines where it is wider than the picture.
    """
    cv2.convertScaleAbs(picture, dst=picture, alpha=_DIMMED)
    scale = text_scale(picture, 15)
    lines = wrapped(note, round(picture.shape[1] * 0.92), scale)
    write_block(picture, lines, scale=scale, at_bottom=True, full_width=True)


def _copy(image: Image, into: Image) -> None:
    if image.shape == into.shape:
        np.copyto(into, image)
    else:
        height, width = into.shape[:2]
        resized(image, (height, width), into)


def _draw_line(picture: Image, x: int) -> None:
    """A light line with dark edges, seen on any picture, and whole at both ends of its way."""
    height, width = picture.shape[:2]
    half = max(1, height // 720)
    x = min(max(x, 2 * half), max(0, width - 2 * half))
    picture[:, max(0, x - 2 * half) : x + 2 * half] = _DARK
    picture[:, max(0, x - half) : x + half] = _LIGHT
