"""The exact frame rate of a video file.

OpenCV's writer rounds 30000/1001 to 2997/100. The few numbers of the header that say so are put
right afterwards, in place: nothing moves.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from runtime.containers import mp4_boxes

_NTSC = 1001
_WAY_TO_THE_TIMES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def nearest_rate(fps: float) -> Fraction:
    """The rate that a float stands for: 29.97003 is 30000/1001, 12.5 is 25/2."""
    return Fraction(fps).limit_denominator(_NTSC)


def store_rate(path: Path, rate: Fraction) -> None:
    """Write `rate` into a finished video file of one track and constant rate (mp4, avi, mkv).

    Rates that OpenCV keeps by itself, and files whose header looks different from what FFmpeg
    writes, are left alone.
    """
    if rate.denominator != _NTSC or not path.is_file():
        return
    store = {".mp4": _store_in_mp4, ".avi": _store_in_avi, ".mkv": _store_in_mkv}
    with path.open("r+b") as file:
        store[path.suffix.lower()](file, rate)


def _store_in_mp4(file: BinaryIO, rate: Fraction) -> None:
    """ISO/IEC 14496-12: `mdhd` holds ticks per second, `stts` runs of (frames, ticks of each)."""
    places = dict(mp4_boxes(file, 0, file.seek(0, 2), _WAY_TO_THE_TIMES))
    if b"mdhd" not in places or b"stts" not in places:
        return
    file.seek(places[b"stts"])
    version, runs, frames, _ = struct.unpack(">4I", file.read(16))
    if version != 0 or runs != 1:
        return
    file.seek(-8, 1)
    file.write(struct.pack(">2I", frames, rate.denominator))
    after_dates = places[b"mdhd"] + 12
    file.seek(after_dates)
    file.write(struct.pack(">2I", rate.numerator, frames * rate.denominator))


def _store_in_avi(file: BinaryIO, rate: Fraction) -> None:
    """AVI 1.0: the video's `strh` ends its fixed part with dwScale and dwRate."""
    file.seek(0)
    scale = file.read(4096).find(b"strh") + 28
    if scale > 28:
        file.seek(scale)
        file.write(struct.pack("<2I", rate.denominator, rate.numerator))


def _store_in_mkv(file: BinaryIO, rate: Fraction) -> None:
    """Matroska: DefaultDuration, four bytes long, holds the nanoseconds of one frame."""
    file.seek(0)
    element = file.read(4096).find(b"\x23\xe3\x83\x84")
    if element > 0:
        file.seek(element + 4)
        file.write(struct.pack(">I", round(1_000_000_000 / rate)))
