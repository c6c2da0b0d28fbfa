"""Image files as a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from runtime.frame import Frame
from runtime.images import check_whole, read_image


class ImageFolder:
    """Image files as a stream, each file once.

    Raises:
        SourceError: a file that is cut off: told before the first frame, so that no half result
            is written.
    """

    live = False
    fps: float | None = None
    warning = ""

    def __init__(self, paths: Sequence[Path], description: str) -> None:
        for path in paths:
            check_whole(path)
        self._paths = list(paths)
        self._next_index = 0
        self.size_px: tuple[int, int] | None = None
        self.frame_count: int | None = len(self._paths)
        self.description = description

    def read(self) -> Frame | None:
        """The next image; None after the last."""
        if self._next_index == len(self._paths):
            return None
        path = self._paths[self._next_index]
        started_ns = time.perf_counter_ns()
        image = read_image(path)
        now_ns = time.perf_counter_ns()
        frame = Frame(image, self._next_index, now_ns, (now_ns - started_ns) / 1e6, path.name)
        if self.size_px is None:
            self.size_px = (image.shape[0], image.shape[1])
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        """Nothing is held open."""
