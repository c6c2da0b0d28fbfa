"""Files that a person makes by a key: named by the time, never over another file."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

import cv2

from runtime.files import written_whole
from runtime.frame import Image


def new_file(folder: Path, suffix: str) -> Path:
    """A name that no file has: `p2p-20261121-183823-4711.png`, then `...-4711-2.png`.

    4711 is the process: a recording has its name only when it is finished, and another window may
    begin one in the same second.
    """
    stem = f"{time.strftime('p2p-%Y%m%d-%H%M%S')}-{os.getpid()}"
    for number in count(1):
        path = folder / f"{stem}{suffix if number == 1 else f'-{number}{suffix}'}"
        if not path.exists():
            return path
    raise AssertionError


def save_screenshot(picture: Image, folder: Path) -> Path:
    """Write a picture as a PNG file with a new name.

    Args:
        picture: uint8 [H, W, 3], BGR.
        folder: where to.

    Raises:
        UserError: the system refused to write.
    """
    path = new_file(folder, ".png")
    _, data = cv2.imencode(".png", picture)
    with written_whole(path) as beside:
        beside.write_bytes(data.tobytes())
    return path
