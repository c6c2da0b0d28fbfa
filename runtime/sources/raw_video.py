"""Uncompressed video in a byte stream: what a frame's bytes are, and how they become BGR.

YUV4MPEG2 is what `ffmpeg -f yuv4mpegpipe` and mjpegtools write: one line that describes the
stream, then before each frame a line that starts with `FRAME` (mjpegtools, yuv4mpeg(5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from runtime.errors import SourceError
from runtime.frame import Image, as_bgr
from runtime.sources.options import MOST_FPS, MOST_SIDE_PX

Y4M_START = b"YUV4MPEG2"
PACKED = {"bgr24": 3, "rgb24": 3, "gray": 1, "bgra": 4}
"""FFmpeg's names of the packed pixel formats, with their bytes per pixel."""

_SUBSAMPLING = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "mono": None}
"""How many rows and columns share one value of colour."""
_ASK_FFMPEG = "let ffmpeg write it: ffmpeg -i ... -pix_fmt yuv420p -f yuv4mpegpipe -"


class RawVideo(Protocol):
    """What the bytes of a stream mean."""

    size_px: tuple[int, int]
    """(height, width)."""
    fps: float | None
    told: str
    """The format, for people."""
    frame_bytes: int
    is_bgr: bool
    """The bytes are the picture; `to_bgr` has nothing to do."""

    def to_bgr(self, raw: Image, into: Image) -> None:
        """Turn one frame into BGR.

        Args:
            raw: uint8 [frame_bytes].
            into: uint8 [height, width, 3]; written.
        """


class PackedVideo:
    """Frames of packed pixels, one after the other, with nothing in between.

    Raises:
        SourceError: a format that is none of `PACKED`.
    """

    def __init__(self, size_px: tuple[int, int], fps: float | None, pixels: str) -> None:
        if pixels not in PACKED:
            raise SourceError(
                f"unknown pixel format {pixels!r}",
                f"one of {', '.join(PACKED)}",
                "write for example -?size=640x480&format=bgr24",
            )
        self.size_px, self.fps, self.told = size_px, fps, pixels
        self._pixels = pixels
        self._shape = (*size_px, PACKED[pixels])
        self.frame_bytes = size_px[0] * size_px[1] * PACKED[pixels]
        self.is_bgr = pixels == "bgr24"

    def to_bgr(self, raw: Image, into: Image) -> None:
        """As `RawVideo`."""
        image = raw.reshape(self._shape)
        if self._pixels == "rgb24":
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=into)
        elif as_bgr(image, into) is not into:
            np.copyto(into, image)


@dataclass(frozen=True)
class _Header:
    size_px: tuple[int, int]
    fps: float | None
    chroma: str
    full_range: bool


class Yuv4MpegVideo:
    """A YUV4MPEG2 stream of 8 bits: 4:2:0, 4:2:2, 4:4:4 or grey.

    The colours are those of ITU-R BT.601, in its limited range unless the header says
    `XCOLORRANGE=FULL`. Grey is of full range, as ffmpeg writes it whatever the header says.

    Args:
        line: the first line of the stream, without its end.

    Raises:
        SourceError: a header that is broken, or a format that is not read here.
    """

    is_bgr = False

    def __init__(self, line: bytes) -> None:
        header = _parsed(line)
        height, width = self.size_px = header.size_px
        self.fps = header.fps
        self.told = f"yuv4mpeg {header.chroma}"
        self._shared = _SUBSAMPLING[header.chroma]
        self._full_range = header.full_range
        self._chroma_px = (0, 0)
        if self._shared is not None:
            rows, columns = self._shared
            self._chroma_px = (-(-height // rows), -(-width // columns))
        self._chroma_bytes = self._chroma_px[0] * self._chroma_px[1]
        self.frame_bytes = height * width + 2 * self._chroma_bytes
        self._direct = header.chroma == "420" and not (height % 2 or width % 2 or self._full_range)
        self._merged = np.empty((height, width, 3), np.uint8)
        self._wide = np.empty((2, height + height % 2, width + width % 2), np.uint8)
        self._to_full = _to_full_range()

    def to_bgr(self, raw: Image, into: Image) -> None:
        """As `RawVideo`."""
        height, width = self.size_px
        if self._direct:
            planes = raw.reshape(height * 3 // 2, width)
            cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420, dst=into)
            return
        luma = raw[: height * width].reshape(height, width)
        if self._shared is None:
            as_bgr(luma, into)
            return
        rows, columns = self._shared
        wide_px = (self._chroma_px[0] * rows, self._chroma_px[1] * columns)
        chroma = []
        for plane in (0, 1):
            start = height * width + plane * self._chroma_bytes
            small = raw[start : start + self._chroma_bytes].reshape(self._chroma_px)
            wide = self._wide[plane, : wide_px[0], : wide_px[1]]
            for row in range(rows):  # each value to the pixels that share it
                for column in range(columns):
                    wide[row::rows, column::columns] = small
            chroma.append(wide[:height, :width])
        cv2.merge((luma, chroma[1], chroma[0]), dst=self._merged)
        if not self._full_range:
            cv2.LUT(self._merged, self._to_full, dst=self._merged)
        cv2.cvtColor(self._merged, cv2.COLOR_YCrCb2BGR, dst=into)


def _to_full_range() -> Image:
    """uint8 [1, 256, 3]: limited range to full range of Y, Cr and Cb (ITU-R BT.601)."""
    values = np.arange(256, dtype=np.float64)
    luma = (values - 16) * (255 / 219)
    chroma = (values - 128) * (255 / 224) + 128
    table = np.stack([luma, chroma, chroma], axis=-1)
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[np.newaxis]


def _parsed(line: bytes) -> _Header:
    told = line.decode("latin-1")
    fields = told.split(" ")[1:]
    found = {field[:1]: field[1:] for field in fields if not field.startswith("X")}
    try:
        width, height = int(found["W"]), int(found["H"])
        above, below = (int(part) for part in found.get("F", "0:0").split(":"))
        if not 0 < min(width, height) <= max(width, height) <= MOST_SIDE_PX:
            raise ValueError(told)
        if above < 0 or below < 0 or above > below * MOST_FPS > 0:
            raise ValueError(told)
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"a YUV4MPEG2 header that cannot be read: {told[:80]!r}",
            f"its width and height (up to {MOST_SIDE_PX}) and its rate (up to {MOST_FPS:g}), "
            "such as W640 H480 F30:1",
            _ASK_FFMPEG,
        ) from error
    chroma = found.get("C", "420")
    if chroma in ("420jpeg", "420mpeg2", "420paldv"):  # they differ in where colour was sampled
        chroma = "420"
    if chroma not in _SUBSAMPLING:
        raise SourceError(
            f"YUV4MPEG2 in the format {chroma}",
            "8 bits in one of " + ", ".join(_SUBSAMPLING),
            _ASK_FFMPEG,
        )
    fps = above / below if above and below else None
    return _Header((height, width), fps, chroma, "XCOLORRANGE=FULL" in fields)
