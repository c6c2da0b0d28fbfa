"""A drawn test stream: it moves, and each picture says in its pixels which one it is."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import cv2
import numpy as np

from runtime.buffers import FrameBuffers
from runtime.frame import Frame, Image

_CODE_BITS = 24
_CELLS = _CODE_BITS + 2
"""A white and a black cell for reference, then the index, highest bit first."""


class SyntheticSource:
    """A moving test picture with its index written as a row of black and white cells.

    Args:
        size_px: (height, width); None: 480 x 640.
        fps: paced like a camera, and live; None: drawn as fast as it is asked for.
        frames: how many; None: endless.
    """

    warning = ""

    def __init__(
        self,
        size_px: tuple[int, int] | None = None,
        fps: float | None = None,
        frames: int | None = None,
    ) -> None:
        height, width = size_px or (480, 640)
        self.live = fps is not None
        self.fps = fps
        self.size_px: tuple[int, int] | None = (height, width)
        self.frame_count = frames
        self.description = (
            f"synthetic test stream, {width}x{height}, "
            + (f"{fps:g} fps" if fps else "unpaced")
            + ("" if frames is None else f", {frames} frames")
        )
        self._canvas = _canvas(height, width)
        self._cells = list(pairwise(np.linspace(0, width, _CELLS + 1).astype(int).tolist()))
        self._buffers = FrameBuffers()
        self._next_index = 0
        self._started_ns = 0
        self._closed = threading.Event()

    def read(self) -> Frame | None:
        """The next picture, when its time has come; None after the last."""
        index = self._next_index
        if index == self.frame_count or self._closed.is_set():
            return None
        started_ns = time.perf_counter_ns()
        if self.fps is not None:
            self._started_ns = self._started_ns or started_ns
            due_ns = self._started_ns + int(index / self.fps * 1e9)
            if self._closed.wait(max(0, due_ns - started_ns) / 1e9):
                return None
        image = self._draw(index)
        now_ns = time.perf_counter_ns()
        self._next_index += 1
        return Frame(image, index, now_ns, (now_ns - started_ns) / 1e6)

    def interrupt(self) -> None:
        """A `read` that waits for its time returns None."""
        self._closed.set()

    def close(self) -> None:
        """End the stream."""
        self._closed.set()

    def _draw(self, index: int) -> Image:
        assert self.size_px is not None
        height, width = self.size_px
        left = 2 * index % width
        image = self._buffers.take(self.size_px)
        np.copyto(image, self._canvas[:, left : left + width])
        radius = max(2, height // 12)
        bounce = abs((4 * index) % (2 * height) - height)
        cv2.circle(image, (width // 2, bounce), radius, (60, 200, 255), -1, cv2.LINE_AA)
        cv2.putText(
            image, str(index), (width // 20, height - height // 12), cv2.FONT_HERSHEY_SIMPLEX,
            height / 240, (255, 255, 255), max(1, height // 240), cv2.LINE_AA,
        )  # fmt: skip
        rows = image[: _code_height(height)]
        for place, (start, end) in enumerate(self._cells):
            bit = place == 0 if place < 2 else index >> (_CELLS - 1 - place) & 1
            rows[:, start:end] = 255 if bit else 0
        return image


def index_in(image: Image) -> int:
    """Read the index that a picture of the synthetic stream carries.

    Works after lossy compression, and on a negative too: the two reference cells say what is
    white.

    Args:
        image: uint8 [H, W, 3], at least 52 pixels wide.
    """
    rows = image[: _code_height(image.shape[0])]
    middle = rows[rows.shape[0] // 4 : 3 * rows.shape[0] // 4 + 1]
    edges = np.linspace(0, image.shape[1], _CELLS + 1).astype(int)
    centres = [slice(a + (b - a) // 4, b - (b - a) // 4) for a, b in pairwise(edges)]
    white, black, *cells = (float(middle[:, centre].mean()) for centre in centres)
    index = 0
    for cell in cells:
        index = index * 2 + int(abs(cell - white) < abs(cell - black))
    return index


def _code_height(height: int) -> int:
    return max(2, height // 12)


def _canvas(height: int, width: int) -> Image:
    """Soft waves, two pictures wide and seamless, so that a moving window over it never jumps."""
    x = np.arange(2 * width) * (2 * np.pi / width)
    y = np.linspace(0, np.pi, height)[:, np.newaxis]
    waves = [
        127 + 100 * np.sin(x * turns + shift) * np.sin(y + shift)
        for turns, shift in ((1, 0.0), (2, 0.7), (3, 1.4))
    ]
    return np.stack(waves, axis=-1).astype(np.uint8)
