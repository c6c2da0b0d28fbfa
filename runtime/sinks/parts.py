"""Unfinished files: their names, and who writes one now.

A part is locked (`flock`) from its beginning until it has its name or is removed, so that a part
without a lock is one that a killed process left. Some file systems (NFS without its lock service,
some FUSE and network mounts) have no locks; there nobody can tell, and a part counts as alive.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from runtime.errors import SinkError
from runtime.files import write_error

YOUNG_S = 5.0
"""An empty part is so long one that its process may be about to lock."""

_PART = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.part(?P<suffix>\.\w+)")
_TRIES = 200
_PAUSE_S = 0.01


class Lock(Enum):
    """What came of asking for a lock."""

    OURS = auto()
    THEIRS = auto()
    """Someone else writes the file."""
    UNKNOWN = auto()
    """The file system has no locks."""


def part_of(path: Path, suffix: str) -> Path:
    """The name of this process' unfinished file for `path`: `.night.mp4.1234.part.mkv`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")


def parts_in(folder: Path, name: str = "*") -> Iterator[tuple[Path, Path]]:
    """Each unfinished file in a folder, and the file that it was to become.

    Args:
        folder: where to look.
        name: of the finished files, a pattern of `glob`.
    """
    for part in sorted(folder.glob(f".{name}.*.part.*")):
        match = _PART.fullmatch(part.name)
        if match is not None:
            yield part, part.with_name(match["name"])


def parts_of(path: Path) -> Iterator[Path]:
    """Each unfinished file that was to become `path`."""
    for part, finished in parts_in(path.parent, glob.escape(path.name)):
        if finished.name == path.name:
            yield part


def locked(file: BinaryIO, shared: bool = False) -> Lock:
    """Lock a file, open to be written (NFS wants that), until it is closed or its process ends.

    Args:
        file: the unfinished file.
        shared: only to see whether it is free; others who look do not hinder each other.
    """
    if sys.platform == "win32":
        return Lock.OURS  # there a file that is open can be neither renamed nor removed
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.THEIRS
    except OSError:
        return Lock.UNKNOWN
    return Lock.OURS


def is_still_named(file: BinaryIO, part: Path) -> bool:
    """Whether an open file has its name yet: it may have been renamed or removed meanwhile."""
    mine = os.fstat(file.fileno())
    try:
        named = part.stat()
    except FileNotFoundError:
        return False
    return mine.st_nlink > 0 and (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


def begun(part: Path, path: Path) -> BinaryIO:
    """The new unfinished file of `path`, locked; what is written to it is on its way at once.

    Raises:
        SinkError: another program or sink writes `path`.
        UserError: the system refused to write there.
    """
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = _made_and_locked(part)
    except FileExistsError as error:
        raise _is_written(path, part) from error
    except OSError as error:
        raise write_error(path, error) from error
    if file is None:
        raise _is_written(path, part)
    try:
        refuse_if_written(path, but=part)
    except BaseException:
        file.close()
        part.unlink(missing_ok=True)
        raise
    return file


def _made_and_locked(part: Path) -> BinaryIO | None:
    """Between making a file and locking it someone who looks for left-over files may have it.

    Returns:
        None where someone keeps it locked.

    Raises:
        FileExistsError: a part of that name holds something.
    """
    for _ in range(_TRIES):
        file = _made_or_taken_over(part)
        lock = locked(file)
        if lock is not Lock.THEIRS and is_still_named(file, part):
            return file
        file.close()
        time.sleep(_PAUSE_S)
    return None


def _made_or_taken_over(part: Path) -> BinaryIO:
    """A new file, or an empty one that a process of the same number (in a container: 1) left."""
    try:
        return part.open("xb", buffering=0)
    except FileExistsError:
        if part.stat().st_size > 0:
            raise
        return part.open("r+b", buffering=0)


def refuse_if_written(path: Path, but: Path | None = None) -> None:
    """Refuse a file that a process writes now: the last to end would replace the other's.

    Args:
        path: the finished file.
        but: one's own part.

    Raises:
        SinkError: it is being written.
    """
    for part in parts_of(path):
        if part == but:
            continue
        with suppress(OSError), part.open("r+b") as file:  # gone, or not ours to open
            if locked(file, shared=True) is Lock.THEIRS and is_still_named(file, part):
                raise _is_written(path, part)


def _is_written(path: Path, part: Path) -> SinkError:
    match = _PART.fullmatch(part.name)
    ours = match is not None and int(match["process"]) == os.getpid()
    return SinkError(
        f"{path} is being written "
        + ("already by this program" if ours else "by another program")
        + f" ({part.name})",
        "one program and one sink for one file",
        "name another file, or end the other one first",
    )
