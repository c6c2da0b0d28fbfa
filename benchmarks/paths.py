"""Results say nothing of where a machine keeps its files."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

_PATH = re.compile(r"(?<![\w./-])(?:~|\.{1,2})?(?:/[^\s/,;:()]+)+")


def without_paths(text: str, folders: Collection[Path] = ()) -> str:
    """`text` in one line, paths in it cut to their last two names, and to one inside `folders`."""
    for folder in folders:
        for spelled in (folder, folder.resolve()):
            if spelled != Path():
                text = text.replace(f"{spelled}/", "")
    line = " ".join(text.split())
    return _PATH.sub(lambda found: "/".join(found[0].split("/")[-2:]), line)
