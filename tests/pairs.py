"""Small folders of pairs for tests: B is the negative of A, so that a pair can be recognised."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """A smooth coloured picture, uint8 [H, W, 3]."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_side_by_side(folder: Path, count: int, height: int = 64, width: int = 64) -> Path:
    """PNG files 000.png, 001.png, ...: A left, B = 255 - A right."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        a = picture(number, height, width)
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), np.hstack([a, 255 - a]))
    return folder


def write_two_folders(folder: Path, count: int) -> Path:
    """A/000.png and B/000.png, ..."""
    for name in ("A", "B"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        a = picture(number)
        cv2.imwrite(str(folder / "A" / f"{number:03d}.png"), a)
        cv2.imwrite(str(folder / "B" / f"{number:03d}.png"), 255 - a)
    return folder
