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


def write_training_pairs(root: Path, train: int, held_out: int) -> Path:
    """`train/` and `val/` in `root` with so many side-by-side pairs of 128 pixels."""
    write_side_by_side(root / "train", train, 128, 128)
    write_side_by_side(root / "val", held_out, 128, 128)
    return root


def write_two_folders(
    folder: Path,
    count: int,
    names: tuple[str, str] = ("A", "B"),
    endings: tuple[str, str] = ("", ""),
) -> Path:
    """A/000.png and B/000.png, ...; `names` and `endings` (of the files' stems) may differ."""
    for name, ending, negative in zip(names, endings, (False, True), strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            a = picture(number)
            path = folder / name / f"{number:03d}{ending}.png"
            assert cv2.imwrite(str(path), 255 - a if negative else a)
    return folder


def write_photos(folder: Path, count: int, height: int = 64, width: int = 96) -> Path:
    """PNG files 000.png, 001.png, ...: plain pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = picture(number, height, width)
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


def jpeg_with_orientation(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG whose EXIF data say how a phone was held (1 to 8)."""
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    entry = b"\x12\x01" + b"\x03\x00" + b"\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    tiff = b"II*\x00" + b"\x08\x00\x00\x00" + b"\x01\x00" + entry + b"\x00\x00\x00\x00"
    payload = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[2:]
