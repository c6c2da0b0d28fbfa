"""Pictures laid one after the other into the batches of frames that an engine takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.buffers import FrameBuffers
from runtime.fit import Fit, Size
from runtime.frame import Image


class Packing:
    """Fills batches without a gap: a picture's tiles may begin in one and end in the next.

    Args:
        buffers: where batches come from; each is used again when nobody refers to it.
        size_px: of the frames.
        length: how many frames a batch has.
        padded: whether the last batch must have so many too, or may be shorter.
    """

    def __init__(self, buffers: FrameBuffers, size_px: Size, length: int, padded: bool) -> None:
        self._buffers = buffers
        self._size_px = size_px
        self._length = length
        self._padded = padded
        self._batches: list[NDArray[np.uint8]] = []
        self._free = 0

    def add(self, image: Image, fit: Fit) -> None:
        """Pack one picture; where it is just what the network takes it is not even copied."""
        if self._length == 1 and image.shape[:2] == self._size_px:
            self._batches.append(np.ascontiguousarray(image)[np.newaxis])
        else:
            fit.pack(image, self._room(fit.frames))

    def take(self, *, all_of_them: bool) -> list[NDArray[np.uint8]]:
        """Take out the batches that are full.

        Args:
            all_of_them: nothing will be added: the last one too, cut off or filled up with its
                last frame.

        Returns:
            uint8 [N, h, w, 3] each, C-contiguous.
        """
        if all_of_them and self._free:
            last, used = self._batches[-1], self._length - self._free
            if self._padded:
                last[used:] = last[used - 1]
            else:
                self._batches[-1] = last[:used]
            self._free = 0
        full = len(self._batches) - bool(self._free)
        taken, self._batches = self._batches[:full], self._batches[full:]
        return taken

    def _room(self, count: int) -> list[Image]:
        room: list[Image] = []
        while len(room) < count:
            if not self._free:
                self._batches.append(self._buffers.take_shape((self._length, *self._size_px, 3)))
                self._free = self._length
            used = self._length - self._free
            taken = self._batches[-1][used : used + count - len(room)]
            self._free -= len(taken)
            room.extend(taken)
        return room
