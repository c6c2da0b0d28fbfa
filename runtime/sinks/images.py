"""Pictures as image files."""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from runtime.errors import SinkError
from runtime.files import written_whole
from runtime.frame import Frame
from runtime.images import IMAGE_SUFFIXES
from runtime.sinks.base import BaseSink
from runtime.sinks.writable import check_file, check_folder


class ImageFolderSink(BaseSink):
    """Image files in a folder: with the source's file names, else `frame_000000.png` onwards.

    Each file is whole or not there; those before an interruption stay. Where the folder holds
    numbered pictures already, the new ones go on behind the highest number, and `notice` says so:
    a second run replaces none of the first. A file with the source's name is replaced.

    Raises:
        SinkError: the folder could not be written to.
    """

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self._folder = folder
        self._first_number = _behind_numbered(folder)
        if self._first_number:
            self.notice = (
                f"{folder}/ holds numbered pictures: those of a source without file names go on "
                f"with {_numbered(self._first_number)}"
            )
        self.description = f"{folder}/, image files"

    def write(self, frame: Frame) -> None:
        """Write one file."""
        name = frame.name or _numbered(self._first_number + frame.index)
        _write_image(self._folder / name, frame)

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""


class ImageSink(BaseSink):
    """One image file, for a source of one image.

    Raises:
        SinkError: the file could not be written.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
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

    def close(self, keep: bool = True) -> None:
        """Write the file."""
        frame, self._frame = self._frame, None
        if frame is not None and keep:
            _write_image(self._path, frame)


def _numbered(number: int) -> str:
    return f"frame_{number:06d}.png"


def _behind_numbered(folder: Path) -> int:
    """The number behind the highest that a picture in the folder has; 0 where there is none."""
    found = (re.fullmatch(r"frame_(\d+)\.png", path.name) for path in folder.glob("frame_*.png"))
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _write_image(path: Path, frame: Frame) -> None:
    encoded, data = cv2.imencode(path.suffix, frame.image)
    if not encoded:
        raise SinkError(
            f"OpenCV cannot write {path}", "one of " + ", ".join(IMAGE_SUFFIXES), "rename it"
        )
    with written_whole(path) as beside:
        beside.write_bytes(data.tobytes())
