"""Image files as a stream."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from runtime.frame import Frame
from runtime.images import check_whole, read_image


class ImageFolder:
    """Image files as a stream, each file once.

    A frame is called what its file is called. Where files of several folders share a name, each
    frame's name begins with the folders below the one that holds them all (`day/1.png`), so that
    a sink keeps them apart.

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
        self.paths = tuple(paths)
        """The files that are read."""
        self.names = _names(self.paths)
        """What the frames are called, in order."""
        self._next_index = 0
        self.size_px: tuple[int, int] | None = None
        self.frame_count: int | None = len(self.paths)
        self.description = description

    def read(self) -> Frame | None:
        """The next image; None after the last."""
        if self._next_index == len(self.paths):
            return None
        index = self._next_index
        path = self.paths[index]
        started_ns = time.perf_counter_ns()
        image = read_image(path)
        now_ns = time.perf_counter_ns()
        frame = Frame(image, index, now_ns, (now_ns - started_ns) / 1e6, self.names[index])
        if self.size_px is None:
            self.size_px = (image.shape[0], image.shape[1])
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        """Nothing is held open."""


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    names = tuple(path.name for path in paths)
    if len({name.casefold() for name in names}) == len(names):  # some disks take A.png for a.png
        return names
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 a link keeps its name
    shared = os.path.commonpath([path.parent for path in whole])
    return tuple(path.relative_to(shared).as_posix() for path in whole)
