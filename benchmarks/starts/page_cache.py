"""Put files out of the system's page cache, and say what stayed in it."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Dropped:
    """What became of the pages of some files."""

    dropped_bytes: int
    kept_bytes: int
    """Still in memory: mostly what a running process has mapped, as the interpreter itself."""


def can_drop() -> bool:
    """Whether this system takes the advice, and tells what came of it."""
    return hasattr(os, "posix_fadvise") and sys.platform.startswith("linux")


def drop(paths: Iterable[Path]) -> Dropped:
    """Ask the system to forget the pages of these files; those that cannot be opened are left.

    Pages that another process has mapped or that are not yet on the disk stay (`os.sync` before
    mends the latter), and so do those of a file system in memory. A
    user who does not own a file is told by the kernel that all of it is in memory (Linux 5.2):
    then `kept_bytes` is the most that it can be.
    """
    dropped = kept = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                number = file.fileno()
                size = os.fstat(number).st_size
                if not size:
                    continue
                before = _resident_bytes(number, size)
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
                after = _resident_bytes(number, size)
        except OSError:  # gone meanwhile, or not ours to open: nothing was promised of it
            continue
        dropped += max(0, before - after)
        kept += after
    return Dropped(dropped, kept)


def _resident_bytes(number: int, size: int) -> int:
    """How much of an open file is in memory, by mincore(2)."""
    pages = -(-size // mmap.PAGESIZE)
    states = np.zeros(pages, np.uint8)
    with mmap.mmap(number, size, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        start, told = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(states.ctypes.data)
        failed = libc.mincore(start, ctypes.c_size_t(size), told)
        del view  # else the map does not close
    if failed:
        raise OSError(ctypes.get_errno(), "mincore failed")
    resident = int((states & 1).sum())
    return min(size, resident * mmap.PAGESIZE)
