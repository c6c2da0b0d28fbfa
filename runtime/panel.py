"""Panels on pictures: anti-aliased letters on a dark sheet that lets the picture shine through."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from runtime.frame import Image, resized

Colour: TypeAlias = tuple[int, int, int]
"""BGR, 0 to 255; on a `Panel` at least one channel has 170 or more, else it is see-through."""

WHITE: Colour = (255, 255, 255)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FULL_INK = 170
_OPACITY = 0.65


def fineness(height_px: float) -> int:
    """How many times as large letters of this height want to be drawn, and then shrunk: straight
    at 8 pixels, OpenCV's letters lose their dots."""
    return 1 if height_px >= 18 else 2 if height_px >= 9 else 3


class Letters:
    """Letters of one size.

    Args:
        height_px: of a capital letter.
    """

    def __init__(self, height_px: float) -> None:
        self.height_px = max(1, round(height_px))
        unit_px = cv2.getTextSize("0", _FONT, 10.0, 1)[0][1] / 10
        self._scale = height_px / unit_px
        self._thickness = max(1, round(height_px / 10))
        self._space_px = max(1, round(height_px * 0.4))  # OpenCV 5 leaves almost none

    def width_px(self, text: str) -> int:
        """How wide a line of text is."""
        return sum(map(self._word_px, text.split(" "))) + self._space_px * text.count(" ")

    def write(
        self, canvas: Image, text: str, left_px: int, base_px: int, colour: Colour = WHITE
    ) -> None:
        """Write a line of ASCII text; `base_px` is the line that its letters stand on."""
        for word in text.split(" "):
            at = (left_px, base_px)
            cv2.putText(canvas, word, at, _FONT, self._scale, colour, self._thickness, cv2.LINE_AA)
            left_px += self._word_px(word) + self._space_px

    def fitted(self, text: str, width_px: int) -> str:
        """`text`, cut with two dots where it is wider than `width_px`."""
        if self.width_px(text) <= width_px:
            return text
        while text and self.width_px(text + "..") > width_px:
            text = text[:-1]
        return text.rstrip() + ".."

    def _word_px(self, word: str) -> int:
        return int(cv2.getTextSize(word, _FONT, self._scale, self._thickness)[0][0])


class Panel:
    """A dark sheet with drawings on it: made when something changes, laid over every picture.

    Args:
        ink: uint8 [H, W, 3] BGR, what is drawn, on black. The panel keeps it.
        drawn_larger: `ink` is so many times as large as the panel shall be (`fineness`).
    """

    def __init__(self, ink: Image, drawn_larger: int = 1) -> None:
        if drawn_larger > 1:
            ink = resized(ink, (ink.shape[0] // drawn_larger, ink.shape[1] // drawn_larger))
        self.size_px: tuple[int, int] = (ink.shape[0], ink.shape[1])
        self._ink = ink
        covered = cv2.max(cv2.max(ink[:, :, 0], ink[:, :, 1]), ink[:, :, 2])
        shining = (1 - _OPACITY) * 255 * (1 - np.arange(256) / _FULL_INK)
        kept = cv2.LUT(covered, np.round(shining).clip(0).astype(np.uint8))
        self._kept = cv2.merge((kept, kept, kept))

    def lay_over(self, image: Image, left_px: int, top_px: int) -> None:
        """Draw the panel on `image`, in place; what lies outside of the image is cut off.

        Args:
            image: uint8 [H, W, 3] BGR, writeable.
            left_px, top_px: where the panel's corner comes, not negative.
        """
        height = min(self.size_px[0], image.shape[0] - top_px)
        width = min(self.size_px[1], image.shape[1] - left_px)
        if height <= 0 or width <= 0:
            return
        below = image[top_px : top_px + height, left_px : left_px + width]
        cv2.multiply(below, self._kept[:height, :width], dst=below, scale=1 / 255)
        cv2.add(below, self._ink[:height, :width], dst=below)


def label(text: str, height_px: float, most_px: int, colour: Colour = WHITE) -> Panel:
    """A panel of one line: a name, a note.

    Args:
        text: letters that OpenCV cannot draw become question marks.
        height_px: of its capital letters.
        most_px: the widest that the panel may be; longer text is cut.
    """
    larger = fineness(height_px)
    letters = Letters(height_px * larger)
    margin_px = round(letters.height_px * 0.6)
    drawable = text.encode("ascii", "replace").decode()
    told = letters.fitted(drawable, most_px * larger - 2 * margin_px)
    width_px = letters.width_px(told) + 2 * margin_px
    ink = np.zeros((letters.height_px + 2 * margin_px, width_px, 3), np.uint8)
    letters.write(ink, told, margin_px, margin_px + letters.height_px, colour)
    return Panel(ink, larger)
