"""What a window writes over its picture for the person in front of it, and for nobody else."""

from __future__ import annotations

import time

import cv2
import numpy as np

from runtime.buffers import FrameBuffers
from runtime.frame import Image
from runtime.lettering import text_scale, wrapped, write_block

HELP = (
    "space  pause, go on",
    "v  next view",
    "mouse  moves the split line",
    "s  screenshot",
    "r  record, stop recording",
    "h  figures on, off",
    "f  full screen, back",
    "?  this help, F1 too",
    "q  end, Escape too",
)

_MESSAGE_NS = 3_000_000_000
_RED = (40, 40, 230)
_WHITE = (255, 255, 255)


class WindowMarks:
    """A red dot while recording, two bars while paused, the keys, and messages for 3 s."""

    def __init__(self) -> None:
        self.recording = False
        self.paused = False
        self._help = False
        self._message = ""
        self._message_ends_ns = 0
        self._drawn = ""
        self._buffers = FrameBuffers()

    def say(self, text: str) -> None:
        """Show a message, in place of an earlier one."""
        self._message = text
        self._message_ends_ns = time.perf_counter_ns() + _MESSAGE_NS

    def help_on_or_off(self) -> None:
        """Show the list of keys, or hide it."""
        self._help = not self._help

    @property
    def changed(self) -> bool:
        """Whether the message that was drawn last is no longer the one to show."""
        return self._drawn != self._current()

    def drawn_on(self, picture: Image) -> Image:
        """The picture with the marks on it.

        Args:
            picture: uint8 [H, W, 3], BGR; never drawn onto.

        Returns:
            `picture` itself where there is nothing to draw, else a picture of its own.
        """
        self._drawn = self._current()
        if not (self.recording or self.paused or self._help or self._drawn):
            return picture
        height, width = picture.shape[:2]
        marked = self._buffers.take((height, width))
        np.copyto(marked, picture)
        scale = text_scale(marked)
        if self._help:
            write_block(marked, HELP, scale=scale, darkness=0.12)
        if self._drawn:
            lines = wrapped(self._drawn, round(width * 0.92), scale)
            write_block(marked, lines, scale=scale, at_bottom=True, darkness=0.2)
        if self.recording or self.paused:
            self._draw_state(marked)
        return marked

    def _current(self) -> str:
        return self._message if time.perf_counter_ns() < self._message_ends_ns else ""

    def _draw_state(self, marked: Image) -> None:
        """In the upper right corner, out of the way of the figures on the left."""
        height, width = marked.shape[:2]
        radius = max(4, min(height, width) // 40)
        right, middle = width - 2 * radius, 2 * radius
        if self.recording:
            cv2.circle(marked, (right, middle), radius, _RED, -1, cv2.LINE_AA)
            cv2.circle(marked, (right, middle), radius, _WHITE, max(1, radius // 6), cv2.LINE_AA)
            right -= 3 * radius
        if self.paused:
            bar = max(1, radius // 3)
            for left in (right - radius, right + radius - 2 * bar):
                corners = (left, middle - radius), (left + 2 * bar, middle + radius)
                cv2.rectangle(marked, *corners, _WHITE, -1)
                cv2.rectangle(marked, *corners, (0, 0, 0), 1)
