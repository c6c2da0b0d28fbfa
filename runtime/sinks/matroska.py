"""Where the pictures of a Matroska file lie, read without decoding any, whole or cut off.

Format: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from runtime.containers import EBML_START, ebml_elements

_SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1F43B675, 0xA0
_TRACKS, _TRACK_ENTRY, _VIDEO = 0x1654AE6B, 0xAE, 0xE0
_DESCENDED = (_SEGMENT, _CLUSTER, _BLOCK_GROUP, _TRACKS, _TRACK_ENTRY, _VIDEO)
_CODEC_ID, _CODEC_PRIVATE, _DEFAULT_DURATION = 0x86, 0x63A2, 0x23E383
_WIDTH, _HEIGHT = 0xB0, 0xBA
_CLUSTER_TIME, _SIMPLE_BLOCK, _BLOCK = 0xE7, 0xA3, 0xA1
_READ_WHOLE = (_CODEC_ID, _CODEC_PRIVATE, _DEFAULT_DURATION, _WIDTH, _HEIGHT, _CLUSTER_TIME)
_KEY_FRAME = 0x80
_LACING = 0x06


@dataclass(slots=True)
class MatroskaTrack:
    """The one video track of a file, its pictures in the order in which they are decoded."""

    codec_id: str = ""
    """Such as `V_MPEG4/ISO/AVC`."""
    codec_private: bytes = b""
    """What the decoder needs before the first picture."""
    size_px: tuple[int, int] = (0, 0)
    """(height, width)."""
    frame_duration_ns: int = 0
    first_cluster_at: int = 0
    """Bytes of header before the pictures."""
    offsets: list[int] = field(default_factory=list)
    """Where each coded picture starts in the file."""
    sizes: list[int] = field(default_factory=list)
    """Its length in bytes."""
    shown_at: list[int] = field(default_factory=list)
    """When it is shown, in the file's ticks."""
    keys: list[bool] = field(default_factory=list)
    """Whether decoding may start at it."""


def read_track(path: Path) -> MatroskaTrack:
    """Find every whole picture of a file of one video track; a cut-off last one is left out.

    Raises:
        ValueError: no such file.
    """
    if path.stat().st_size == 0:
        raise ValueError("an empty file")
    track = MatroskaTrack()
    width = height = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != EBML_START:
            raise ValueError("no Matroska file")
        cluster_time = 0
        for element, start, end in ebml_elements(data, 0, len(data), _DESCENDED):
            is_small = element in _READ_WHOLE and end - start <= 1 << 16
            content = data[start:end] if is_small else b""
            if element == _CLUSTER:
                track.first_cluster_at = track.first_cluster_at or start
            elif element == _CODEC_ID:
                track.codec_id = content.rstrip(b"\0").decode("ascii", "replace")
            elif element == _CODEC_PRIVATE:
                track.codec_private = content
            elif element == _DEFAULT_DURATION:
                track.frame_duration_ns = int.from_bytes(content, "big")
            elif element == _WIDTH:
                width = int.from_bytes(content, "big")
            elif element == _HEIGHT:
                height = int.from_bytes(content, "big")
            elif element == _CLUSTER_TIME:
                cluster_time = int.from_bytes(content, "big")
            elif element in (_SIMPLE_BLOCK, _BLOCK):
                _add_picture(track, data[start : start + 4], start, end, cluster_time)
    track.size_px = (height, width)
    if not track.codec_id or 0 in track.size_px:
        raise ValueError("no video track")
    return track


def _add_picture(
    track: MatroskaTrack, head: bytes, start: int, end: int, cluster_time: int
) -> None:
    """A block: track number (one byte below 128), a signed time of two bytes, flags, picture."""
    if head[3] & _LACING or not head[0] & 0x80:
        raise ValueError("several pictures in one block")
    track.offsets.append(start + 4)
    track.sizes.append(end - start - 4)
    track.shown_at.append(cluster_time + int.from_bytes(head[1:3], "big", signed=True))
    track.keys.append(bool(head[3] & _KEY_FRAME))
