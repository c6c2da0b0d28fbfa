"""One picture from disk: decoded whatever its kind, refused when damaged, resized."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError

Image: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], BGR, 0 to 255."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TYPES_WITH_ALPHA = (b"\x04", b"\x06")


def read_image(path: Path) -> Image:
    """Decode one picture, uint8 [H, W, 3] BGR.

    The orientation in its EXIF data is applied. Grey and palette pictures become BGR, 16 bits
    become 8 (65535 is 255), and what is transparent in a PNG or WebP picture becomes white.

    Raises:
        DataError: missing, damaged, cut short, or neither of 8 nor of 16 bits.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror})", "a picture", "check the path"
        ) from error
    image = None if is_cut_short(data) else _decode(data)
    if image is None:
        raise DataError(
            f"{path} is damaged or cut short",
            "a whole JPEG, PNG, BMP, WebP or TIFF picture of 8 or 16 bits",
            "copy it again, or take the pair out of the folder",
        )
    return image


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: the EOI marker behind the last scan, the IEND chunk.

    OpenCV fills the missing part of a cut JPEG with grey and says nothing. It refuses a cut BMP,
    WebP or TIFF picture by itself.
    """
    if data[:2] == _JPEG:
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    if data[:8] == _PNG:
        return b"IEND" not in data[-64:]
    return False


def resize(image: Image, size_px: int) -> Image:
    """To a square: bicubic up, as the paper's code does; area average down, against aliasing."""
    if image.shape[:2] == (size_px, size_px):
        return np.ascontiguousarray(image)
    shrinks = image.shape[0] > size_px or image.shape[1] > size_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(image, (size_px, size_px), interpolation=interpolation)
    return np.asarray(resized, dtype=np.uint8)


def centre_square(image: Image) -> Image:
    """The largest square in the middle of a picture, uint8 [S, S, 3]."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _decode(data: bytes) -> Image | None:
    """BGR of 8 bits, or None where OpenCV cannot tell what it is."""
    if not data:
        return None
    encoded = np.frombuffer(data, np.uint8)
    try:
        if _may_be_transparent(data):
            raw = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
            if raw is not None and raw.ndim == 3 and raw.shape[2] == 4:
                of_8_bits = _to_8_bits(raw)
                # An opaque one goes the common way: only there is its orientation applied.
                if of_8_bits is not None and of_8_bits[..., 3].min() < 255:
                    return _over_white(of_8_bits)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # more pixels than OpenCV takes, or a header that contradicts itself
        return None
    return None if decoded is None else _to_8_bits(decoded)


def _to_8_bits(decoded: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    if decoded.dtype == np.uint16:
        # OpenCV's own way drops the low byte; this one rounds, so that 65535 / 257 = 255.
        return ((decoded.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.asarray(decoded, dtype=np.uint8) if decoded.dtype == np.uint8 else None


def _may_be_transparent(data: bytes) -> bool:
    """Whether the header of a PNG or WebP picture speaks of transparency.

    TIFF is left out: whether OpenCV gives its colours multiplied by alpha depends on the file.
    """
    if data[:8] == _PNG:
        header = data[: max(data.find(b"IDAT"), 0)]
        return header[25:26] in _PNG_TYPES_WITH_ALPHA or b"tRNS" in header
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data[12:16] == b"VP8L" or (
            data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 0x10 != 0
        )
    return False


def _over_white(image: NDArray[np.uint8]) -> Image:
    """uint8 [H, W, 4], BGRA, laid over white."""
    alpha = image[..., 3:].astype(np.float32) / 255.0
    laid = np.rint(image[..., :3] * alpha + 255.0 * (1.0 - alpha))
    return np.asarray(laid, dtype=np.uint8)
