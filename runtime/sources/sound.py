"""Whether a video file has sound, read from its container alone: no decoder, no ffprobe."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MOST_HEADER_BYTES = 1 << 26
_MKV_SEGMENT, _MKV_CLUSTER, _MKV_TRACKS = 0x18538067, 0x1F43B675, 0x1654AE6B
_MKV_TRACK, _MKV_TRACK_TYPE, _MKV_AUDIO = 0xAE, 0x83, 2
_MKV_START = b"\x1a\x45\xdf\xa3"


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
            if start.startswith(_MKV_START):
                return _mkv_has_sound(file)
            if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
                return _avi_has_sound(file)
            if start.startswith(b"FLV"):
                return bool(start[4] & 0x04)
    except (struct.error, EOFError, IndexError):
        return False  # cut off: the decoder tells what is wrong with it
    return False


def _mp4_boxes(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box, up to `end`."""
    while file.tell() + 8 <= end:
        at = file.tell()
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        elif size == 0:
            size = end - at
        if size < file.tell() - at:
            return
        yield kind, file.tell(), min(at + size, end)
        file.seek(at + size)


def _mp4_has_sound(file: BinaryIO) -> bool:
    def sound_below(end: int, path: tuple[bytes, ...]) -> bool:
        for kind, content, content_end in _mp4_boxes(file, end):
            if kind != path[0]:
                continue
            file.seek(content)
            if len(path) > 1:
                if sound_below(content_end, path[1:]):
                    return True
            elif file.read(12)[8:12] == b"soun":  # after version, flags and a field of zeros
                return True
        return False

    return sound_below(_length(file), (b"moov", b"trak", b"mdia", b"hdlr"))


def _ebml_number(file: BinaryIO, keep_marker: bool) -> int:
    """A number of variable length; -1 for `unknown`, which only a size can be."""
    first = file.read(1)
    if not first or first[0] == 0:
        raise EOFError
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        raise EOFError
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return -1 if value == (1 << 7 * length) - 1 else value


def _ebml_elements(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Identity and end of each element up to `end`; the file stands at its content."""
    while file.tell() < end:
        identity = _ebml_number(file, keep_marker=True)
        size = _ebml_number(file, keep_marker=False)
        element_end = end if size < 0 else min(end, file.tell() + size)
        yield identity, element_end
        file.seek(element_end)


def _mkv_has_sound(file: BinaryIO) -> bool:
    for identity, end in _ebml_elements(file, _length(file)):
        if identity != _MKV_SEGMENT:
            continue
        for inner, inner_end in _ebml_elements(file, end):
            if inner == _MKV_CLUSTER:
                return False  # pictures: the tracks were before them, or nowhere
            if inner == _MKV_TRACKS:
                return any(
                    kind == _MKV_TRACK and _is_audio(file, track_end)
                    for kind, track_end in _ebml_elements(file, inner_end)
                )
    return False


def _is_audio(file: BinaryIO, end: int) -> bool:
    for identity, element_end in _ebml_elements(file, end):
        if identity == _MKV_TRACK_TYPE:
            return int.from_bytes(file.read(element_end - file.tell()), "big") == _MKV_AUDIO
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
