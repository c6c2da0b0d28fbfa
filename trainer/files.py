"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from trainer.errors import TrainerError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    When it fails the temporary file is removed and an older file at `path` stays as it was.

    Raises:
        TrainerError: the system refused to write (disk full, no permission).
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)
    except OSError as error:
        raise TrainerError(
            f"{path} could not be written ({error.strerror or error})",
            "a folder with room that may be written to",
            "free some space or name another folder with --out",
        ) from error
    finally:
        beside.unlink(missing_ok=True)
