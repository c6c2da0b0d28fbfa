"""Whether a file can be written, known before the first frame is translated."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from runtime.errors import SinkError
from runtime.files import write_error

_NAME_BYTES = 255 - 32
"""The longest name of usual file systems, less what an unfinished file adds to it."""


def check_file(path: Path) -> None:
    """Refuse a file that could not be made, or not be replaced.

    Raises:
        SinkError: a folder of that name, too long a name, or a place that may not be written to.
    """
    if path.is_dir():
        raise SinkError(f"{path} is a folder", "the name of a file", f"name one: {path}/out.mp4")
    if len(os.fsencode(path.name)) > _NAME_BYTES:
        raise SinkError(
            f"the name {path.name[:24]}... is {len(os.fsencode(path.name))} bytes long",
            f"at most {_NAME_BYTES}",
            "name a shorter one",
        )
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that could not be made or not be written to; nothing is left in it.

    Raises:
        SinkError: the system does not let us; the line says why.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise SinkError(
            f"{folder} could not be written ({existing} is a file)",
            "a folder that may be written to",
            "name another one",
        )
    try:
        with tempfile.TemporaryFile(prefix=".p2p-", dir=existing):
            pass
    except OSError as error:
        told = write_error(folder, error)
        raise SinkError(told.received, told.expected, told.mend) from error
