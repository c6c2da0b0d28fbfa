"""What is free, and what a point will take: so that no point ends in the system's killer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.machine import read_text

MARGIN = 1.15
"""Of what is expected, so much has to be free."""
_LIBRARIES_BYTES = 150 << 20
"""Of Python, OpenCV and an engine's library, before anything was measured."""
_WEIGHTS = 3
"""Times the file's size: as it is read, as it is packed for the processor, and room."""


@dataclass(frozen=True)
class Seen:
    """What one point took."""

    pixels: int
    """Of all frames of one inference."""
    before_bytes: int
    """Of its process, before the model was opened."""
    peak_bytes: int


def free_bytes() -> int | None:
    """Memory that new work may have, in this container; None where the system does not tell."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", read_text("/proc/meminfo"))
    if found is None:
        return None
    free = int(found[1]) * 1024
    limit, used = (read_text(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        # What the group holds of files goes when memory is asked for.
        files = re.search(r"^inactive_file (\d+)$", read_text(_GROUP_DETAIL), re.MULTILINE)
        free = min(free, int(limit) - int(used) + (int(files[1]) if files else 0))
    return max(0, free)


_GROUP_DETAIL = "/sys/fs/cgroup/memory.stat"


def expected_bytes(pixels: int, file_bytes: int, seen: Mapping[int, Seen]) -> int:
    """What a point will have in memory at its peak.

    Activations grow with the pixels, weights do not: from two points of one family the line
    through them, from one point all of it in proportion, which is too much rather than too little.

    Args:
        pixels: of all frames of one inference.
        file_bytes: of the model's file.
        seen: what points of the same family took, by their pixels.
    """
    if pixels in seen:
        return seen[pixels].peak_bytes
    if not seen:
        return _LIBRARIES_BYTES + _WEIGHTS * file_bytes
    *_, largest = (seen[count] for count in sorted(seen))
    if len(seen) == 1:
        taken = largest.peak_bytes - largest.before_bytes
        grown = taken * max(1.0, pixels / largest.pixels)
        return largest.before_bytes + int(grown)
    below = seen[sorted(seen)[-2]]
    slope = max(0, largest.peak_bytes - below.peak_bytes) / (largest.pixels - below.pixels)
    return max(below.peak_bytes, int(largest.peak_bytes + slope * (pixels - largest.pixels)))


def told_bytes(count: float) -> str:
    """`3.1 GiB` or `240 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
