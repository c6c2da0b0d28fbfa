"""Pictures from files, whole or refused."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import SourceError
from runtime.frame import Image
from runtime.quiet import quiet_opencv

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which the numbers of a name count as numbers, before letters."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]
    return [*key, (-1, 0, name)]


def read_image(path: Path) -> Image:
    """Read an image file as uint8 [H, W, 3], BGR.

    Raises:
        SourceError: no image, or cut off (OpenCV alone fills a cut JPEG with grey).
    """
    data = path.read_bytes()
    image: Image | None = None
    if is_whole(data):
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise _broken(path)
    return image


def is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file reaches its end mark; True for other formats.

    Sources: ITU-T T.81, annex B (markers); PNG specification, chunk IEND.
    """
    if data.startswith(_PNG_START):
        return data.rfind(_PNG_END) > 0
    if data.startswith(_JPEG_START):
        # A preview inside the header has an end mark of its own: look behind the first scan.
        return data.find(_JPEG_END, _first_scan(data)) > 0
    return bool(data)


def _first_scan(data: bytes) -> int:
    """Where the first scan of a JPEG starts; the file's length if it never does."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # padding before a marker
            at += 1
            continue
        if data[at : at + 2] == _JPEG_SCAN:
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data)


def check_whole(path: Path) -> None:
    """Refuse an image file that is cut off, mostly without reading it all.

    Raises:
        SourceError: empty, or without its end mark.
    """
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0, 2)
        file.seek(-min(2, file.tell()), 2)
        if start == _JPEG_START and file.read(2) == _JPEG_END:
            return  # the usual case, without reading it all
        file.seek(0)
        if not is_whole(file.read()):
            raise _broken(path)


def _broken(path: Path) -> SourceError:
    return SourceError(
        f"{path} is empty, cut off, or no image",
        "a whole image file",
        "copy it again, or take it out of the folder",
    )
