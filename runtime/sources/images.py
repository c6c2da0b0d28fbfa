"""Image files as a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.images import IMAGE_SUFFIXES, check_whole, natural_key, read_image


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

    @classmethod
    def of_folder(cls, folder: Path) -> ImageFolder:
        """The images of one folder in natural order: `9.jpg` before `10.jpg`.

        Raises:
            SourceError: it holds no image.
        """
        paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        if not paths:
            raise SourceError(
                f"no image in the folder {folder}",
                "files that end in " + ", ".join(IMAGE_SUFFIXES),
                "name the folder that holds them",
            )
        paths.sort(key=lambda path: natural_key(path.name))
        return cls(paths, f"{folder}, {len(paths)} images")

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

    def close(self) -> None:
        """Nothing is held open."""
