"""Whether a video file has sound, read from its container alone: no decoder, no ffprobe."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.containers import EBML_START, ebml_elements, mp4_boxes

_MOST_HEADER_BYTES = 1 << 26
_MKV_CLUSTER, _MKV_TRACK_TYPE, _MKV_AUDIO = 0x1F43B675, 0x83, 2
_MKV_WAY_TO_THE_TYPE = (0x18538067, 0x1654AE6B, 0xAE)  # Segment, Tracks, TrackEntry


def has_sound(path: Path) -> bool:
    """Whether a file holds a track of sound; False where its container is not known here.

    Read are MP4 and QuickTime (ISO/IEC 14496-12: a `hdlr` box of the type `soun` in a track),
    Matroska and WebM (RFC 9559: a TrackEntry of the type audio), AVI (a stream header of the type
    `auds`) and FLV.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
            file.seek(0)
            if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _mp4_has_sound(file)
            if start.startswith(EBML_START):
                return _mkv_has_sound(file)
            if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
                return _avi_has_sound(file)
            if start.startswith(b"FLV"):
                return bool(start[4] & 0x04)
    except (struct.error, EOFError, IndexError):
        return False  # cut off: the decoder tells what is wrong with it
    return False


def _mp4_has_sound(file: BinaryIO) -> bool:
    for name, content in mp4_boxes(file, 0, _length(file), (b"moov", b"trak", b"mdia")):
        if name == b"hdlr":
            file.seek(content)
            if file.read(12)[8:12] == b"soun":  # after version, flags and a field of zeros
                return True
    return False


def _mkv_has_sound(file: BinaryIO) -> bool:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for element, start, end in ebml_elements(data, 0, len(data), _MKV_WAY_TO_THE_TYPE):
            if element == _MKV_CLUSTER:
                return False  # pictures: the tracks were before them, or nowhere
            if element == _MKV_TRACK_TYPE and int.from_bytes(data[start:end], "big") == _MKV_AUDIO:
                return True
    return False


def _riff_chunks(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int]]:
    """Name and end of each chunk; the file stands at its content."""
    while file.tell() + 8 <= end:
        name, size = struct.unpack("<4sI", file.read(8))
        chunk_end = min(end, file.tell() + size)
        yield name, chunk_end
        file.seek(chunk_end + size % 2)


def _avi_has_sound(file: BinaryIO) -> bool:
    file.seek(12)
    for name, end in _riff_chunks(file, min(_length(file), _MOST_HEADER_BYTES)):
        if name != b"LIST" or file.read(4) != b"hdrl":
            continue
        for inner, inner_end in _riff_chunks(file, end):
            if inner != b"LIST" or file.read(4) != b"strl":
                continue
            for header, _ in _riff_chunks(file, inner_end):
                if header == b"strh" and file.read(4) == b"auds":
                    return True
        return False
    return False


def _length(file: BinaryIO) -> int:
    at = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(at)
    return end
