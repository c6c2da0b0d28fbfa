"""The nested parts of video files: boxes of MP4, elements of Matroska. No decoder, no ffprobe.

Formats: ISO/IEC 14496-12 (MP4 and QuickTime), RFC 8794 (EBML, of which Matroska is made).
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from mmap import mmap
from typing import BinaryIO

EBML_START = b"\x1a\x45\xdf\xa3"


def mp4_boxes(
    file: BinaryIO, at: int, end: int, descended: Container[bytes]
) -> Iterator[tuple[bytes, int]]:
    """Name and place of the content of each box, down into the boxes whose names are `descended`.

    The file may be read in between. A box whose length makes no sense ends the walk.
    """
    while at + 8 <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        content = at + 8
        if size == 1:  # a long one, whose length follows its name
            (size,) = struct.unpack(">Q", file.read(8))
            content = at + 16
        elif size == 0:  # up to the end of the file
            size = end - at
        if size < content - at:
            return
        yield name, content
        if name in descended:
            yield from mp4_boxes(file, content, min(at + size, end), descended)
        at += size


def ebml_elements(
    data: mmap, at: int, end: int, descended: Container[int]
) -> Iterator[tuple[int, int, int]]:
    """Identifier, start and end of each whole element, down into those that are `descended`.

    An element that is descended into may be cut off by the end of the file or of unknown length;
    another may not, and ends the walk.
    """
    while at < end:
        element, at, _ = _ebml_number(data, at, end, keep_marker=True)
        size, at, unknown = _ebml_number(data, at, end)
        if at > end:
            return
        element_end = end if unknown else at + size
        if element in descended:
            element_end = min(element_end, end)
            yield element, at, element_end
            yield from ebml_elements(data, at, element_end, descended)
        elif element_end > end:
            return
        else:
            yield element, at, element_end
        at = element_end


def _ebml_number(
    data: mmap, at: int, end: int, keep_marker: bool = False
) -> tuple[int, int, bool]:
    """A number of one to eight bytes: its value, the place after it, whether it means unknown.

    The place is past `end` where the file is cut off inside the number.
    """
    first = data[at] if at < end else 0
    length = 9 - first.bit_length()
    if length > 8 or at + length > end:
        return 0, end + 1, False
    value = int.from_bytes(data[at : at + length], "big")
    all_ones = (1 << 7 * length) - 1
    bits = value & all_ones
    return (value if keep_marker else bits), at + length, bits == all_ones
