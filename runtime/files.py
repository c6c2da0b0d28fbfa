"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_error(path: Path, error: OSError) -> UserError:
    """The one line for a file that the system refused to write."""
    if error.errno in _FULL:
        return UserError(
            f"the disk is full: {path} could not be written ({error.strerror})",
            "room for the whole file",
            "free some space or name a folder on another disk",
        )
    return UserError(
        f"{path} could not be written ({error.strerror or error})",
        "a folder that may be written to",
        "name another one",
    )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` at the end.

    The suffix stays the same, since video writers choose the container by it. When the body
    raises, the temporary file is removed and an older file at `path` is left as it was.

    Raises:
        UserError: the system refused to write (disk full, no permission).
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # the error above says more than this one would
            beside.unlink(missing_ok=True)


@contextmanager
def scratch_folder(inside: Path) -> Iterator[Path]:
    """Give an empty folder inside `inside` (made if need be), gone at the end.

    Raises:
        UserError: the system refused to make it.
    """
    try:
        inside.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".p2p-", dir=inside)
    except OSError as error:
        raise write_error(inside, error) from error
    with scratch as folder:
        yield Path(folder)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
