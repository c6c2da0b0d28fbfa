"""Turning a Matroska file into an MP4 file where it lies: no picture is copied or coded again.

An MP4 file may keep anything between its pictures, as long as its index says where each of them
starts. So the index is appended, and the head of the Matroska file becomes the head of an MP4
whose media data reach from there to the index. It costs a few bytes a picture.

Format: ISO/IEC 14496-12 (boxes), 14496-14 (MPEG-4 in MP4), 14496-15 (AVC and HEVC in MP4).
"""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from runtime.sinks.frame_rate import nearest_rate
from runtime.sinks.matroska import MatroskaTrack, read_track

_MPEG4_VISUAL, _JPEG = 0x20, 0x6C
_SAMPLE_ENTRIES = {
    "V_MPEG4/ISO/ASP": b"mp4v",
    "V_MJPEG": b"mp4v",
    "V_MPEG4/ISO/AVC": b"avc1",
    "V_MPEGH/ISO/HEVC": b"hvc1",
}
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def become_mp4(path: Path, rate: Fraction | None = None) -> int:
    """Make an MP4 file of constant rate out of a Matroska file of one video track, in place.

    The Matroska file stays readable until the last step, one write of 64 bytes.

    Args:
        path: whole or cut off; what is whole in it is kept.
        rate: frames per second; None: as the file says, else 25.

    Returns:
        How many pictures it holds.

    Raises:
        ValueError: not such a file, without a picture, or of a codec that MP4 does not know.
        OSError: it could not be written.
    """
    track = read_track(path)
    if not track.offsets:
        raise ValueError("no picture")
    if rate is None:
        rate = nearest_rate(1e9 / track.frame_duration_ns if track.frame_duration_ns else 25.0)
    index = _moov(track, rate)
    with path.open("r+b") as file:
        data_end = track.offsets[-1] + track.sizes[-1]
        file.truncate(data_end)  # what follows is a picture that was cut off
        file.seek(data_end)
        file.write(index)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        file.write(_head(data_end, track))
    return len(track.offsets)


def _head(data_end: int, track: MatroskaTrack) -> bytes:
    brand = b"avc1" if track.codec_id == "V_MPEG4/ISO/AVC" else b"mp41"
    head = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isom", b"iso2", b"mp41", brand)
    large_size = 1  # the length follows the name, in eight bytes
    data = struct.pack(">I4sQ", large_size, b"mdat", data_end - len(head))
    if len(head) + len(data) > track.first_cluster_at:
        raise ValueError("no room for another head")
    return head + data


def _moov(track: MatroskaTrack, rate: Fraction) -> bytes:
    count = len(track.offsets)
    ticks = count * rate.denominator
    scale = rate.numerator
    if ticks >= 1 << 32:
        raise ValueError("too long for the times of an MP4 file")
    height, width = track.size_px
    late, shifts = _presentation(track)
    movie = _full_box(
        b"mvhd",
        struct.pack(">4I", 0, 0, scale, ticks),
        struct.pack(">IH10x", 0x10000, 0x100),
        _MATRIX,
        bytes(24),
        struct.pack(">I", 2),
    )
    shown = 3  # enabled, in the movie
    head = _full_box(
        b"tkhd",
        struct.pack(">5I8x", 0, 0, 1, 0, ticks),
        bytes(8),
        _MATRIX,
        struct.pack(">2I", width << 16, height << 16),
        flags=shown,
    )
    edits = _box(
        b"edts",
        _full_box(b"elst", struct.pack(">IIiI", 1, ticks, late * rate.denominator, 0x10000)),
    )
    undetermined = 0x55C4  # the language "und", five bits a letter
    media = _box(
        b"mdia",
        _full_box(b"mdhd", struct.pack(">4IHH", 0, 0, scale, ticks, undetermined, 0)),
        _full_box(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"VideoHandler\0"),
        _box(
            b"minf",
            _full_box(b"vmhd", bytes(8), flags=1),
            _box(b"dinf", _full_box(b"dref", struct.pack(">I", 1), _full_box(b"url ", flags=1))),
            _box(
                b"stbl",
                _full_box(b"stsd", struct.pack(">I", 1), _sample_entry(track)),
                _full_box(b"stts", struct.pack(">3I", 1, count, rate.denominator)),
                *_composition(shifts, rate.denominator),
                *_key_frames(track.keys),
                *_places(track),
            ),
        ),
    )
    return _box(b"moov", movie, _box(b"trak", head, edits, media))


def _presentation(track: MatroskaTrack) -> tuple[int, list[int]]:
    """For coders that send pictures out of order: how many pictures late the first is shown, and
    how many after its turn to be decoded each one is."""
    order = sorted(range(len(track.shown_at)), key=track.shown_at.__getitem__)
    place = [0] * len(order)
    for rank, picture in enumerate(order):
        place[picture] = rank
    late = max(turn - rank for turn, rank in enumerate(place))
    return late, [rank - turn + late for turn, rank in enumerate(place)]


def _composition(shifts: list[int], ticks: int) -> list[bytes]:
    if not any(shifts):
        return []
    runs = [(len(list(run)), shift * ticks) for shift, run in groupby(shifts)]
    return [
        _full_box(b"ctts", struct.pack(">I", len(runs)), *(struct.pack(">2I", *r) for r in runs))
    ]


def _key_frames(keys: list[bool]) -> list[bytes]:
    if all(keys):
        return []
    numbers = [number for number, key in enumerate(keys, start=1) if key]
    return [_full_box(b"stss", struct.pack(f">{len(numbers) + 1}I", len(numbers), *numbers))]


def _places(track: MatroskaTrack) -> list[bytes]:
    """Each picture is a chunk of its own: a few bytes of Matroska lie before it."""
    count = len(track.offsets)
    return [
        _full_box(b"stsc", struct.pack(">4I", 1, 1, 1, 1)),
        _full_box(b"stsz", struct.pack(f">{count + 2}I", 0, count, *track.sizes)),
        _full_box(b"co64", struct.pack(f">I{count}Q", count, *track.offsets)),
    ]


def _sample_entry(track: MatroskaTrack) -> bytes:
    name = _SAMPLE_ENTRIES.get(track.codec_id)
    if name is None:
        raise ValueError(f"the codec {track.codec_id} has no place in an MP4 file")
    if name == b"mp4v":
        setup = _full_box(b"esds", _elementary_stream(track))
    else:
        setup = _box({b"avc1": b"avcC", b"hvc1": b"hvcC"}[name], track.codec_private)
    height, width = track.size_px
    inch = 72 << 16
    return _box(
        name,
        struct.pack(">6xH16x2H2I4xH32x2H", 1, width, height, inch, inch, 1, 24, 0xFFFF),
        setup,
    )


def _elementary_stream(track: MatroskaTrack) -> bytes:
    """The descriptors of ISO/IEC 14496-1: stream, decoder, what the decoder needs, sync layer."""
    kind = _JPEG if track.codec_id == "V_MJPEG" else _MPEG4_VISUAL
    visual_stream = 4 << 2 | 1
    setup = _descriptor(5, track.codec_private) if track.codec_private else b""
    decoder = _descriptor(4, struct.pack(">2B3x2I", kind, visual_stream, 0, 0), setup)
    return _descriptor(3, struct.pack(">HB", 1, 0), decoder, _descriptor(6, b"\x02"))


def _descriptor(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    sevens = [0x80 | size >> 21 & 0x7F, 0x80 | size >> 14 & 0x7F, 0x80 | size >> 7 & 0x7F]
    return bytes((tag, *sevens, size & 0x7F)) + content


def _full_box(name: bytes, *contents: bytes, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", flags), *contents)


def _box(name: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), name) + content
