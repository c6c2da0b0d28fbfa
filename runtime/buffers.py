"""Memory for pictures, used again and again: no allocation per frame in steady state."""

from __future__ import annotations

import threading
import weakref

import numpy as np

from runtime.frame import Image

_MOST_IDLE = 8


class FrameBuffers:
    """Lends uint8 arrays and takes each back when nobody refers to it any more.

    A borrower does nothing to return an array but forget it, and may keep it as long as it
    likes: a picture that someone still holds is never written over. That works because numpy
    arrays that look into foreign memory keep themselves alive through every view of them.

    A fresh array of a megabyte costs 0.1 to 0.3 ms, mostly in page faults at its first use; one
    from here costs about 5 microseconds. Any thread may borrow and forget.

    Args:
        most_idle: how many unused blocks of memory to keep.
    """

    def __init__(self, most_idle: int = _MOST_IDLE) -> None:
        self._most_idle = most_idle
        self._idle: list[bytearray] = []
        self._size_bytes = 0
        self._lent: dict[int, weakref.ref[Image]] = {}
        self._lock = threading.RLock()  # a collection may run `_returned` inside `take`

    def take(self, size_px: tuple[int, int]) -> Image:
        """An array with old pixels in it.

        Args:
            size_px: (height, width).

        Returns:
            uint8 [height, width, 3], C-contiguous.
        """
        return self.take_shape((*size_px, 3))

    def take_shape(self, shape: tuple[int, ...]) -> Image:
        """As `take`, of any shape; a change of size gives the idle blocks of the old one away."""
        size_bytes = int(np.prod(shape))
        with self._lock:
            if size_bytes != self._size_bytes:
                self._idle.clear()
                self._size_bytes = size_bytes
            block = self._idle.pop() if self._idle else bytearray(size_bytes)
            image: Image = np.ndarray(shape, np.uint8, buffer=block)
            key = id(block)

            def returned(_: weakref.ref[Image]) -> None:
                with self._lock:
                    del self._lent[key]
                    if len(block) == self._size_bytes and len(self._idle) < self._most_idle:
                        self._idle.append(block)

            self._lent[key] = weakref.ref(image, returned)
        return image

    @property
    def lent(self) -> int:
        """How many arrays are in use."""
        return len(self._lent)
