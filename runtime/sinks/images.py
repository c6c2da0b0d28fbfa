"""Pictures as image files."""

from __future__ import annotations

from pathlib import Path

import cv2

from runtime.errors import SinkError
from runtime.files import written_whole
from runtime.frame import Frame
from runtime.images import IMAGE_SUFFIXES


class ImageFolderSink:
    """Image files in a folder: with the source's file names, else `frame_000000.png` onwards.

    Each file is whole or not there; those before an interruption stay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.description = f"{folder}/, image files"

    def write(self, frame: Frame) -> None:
        """Write one file."""
        _write_image(self._folder / (frame.name or f"frame_{frame.index:06d}.png"), frame)

    def wants_more(self) -> bool:
        """Always."""
        return True

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""


class ImageSink:
    """One image file, for a source of one image."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frame: Frame | None = None
        self.description = str(path)

    def write(self, frame: Frame) -> None:
        """Remember the frame until `close`."""
        if self._frame is not None:
            raise SinkError(
                f"{self._path} holds one picture, and a second one came",
                "a source of one image",
                f"name a folder instead: {self._path.with_suffix('')}/",
            )
        self._frame = frame

    def wants_more(self) -> bool:
        """Also a second one, to be told from it."""
        return True

    def close(self, keep: bool = True) -> None:
        """Write the file."""
        frame, self._frame = self._frame, None
        if frame is not None and keep:
            _write_image(self._path, frame)


def _write_image(path: Path, frame: Frame) -> None:
    encoded, data = cv2.imencode(path.suffix, frame.image)
    if not encoded:
        raise SinkError(
            f"OpenCV cannot write {path}", "one of " + ", ".join(IMAGE_SUFFIXES), "rename it"
        )
    with written_whole(path) as beside:
        beside.write_bytes(data.tobytes())
