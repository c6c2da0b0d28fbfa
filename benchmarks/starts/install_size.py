"""What each extra of the package takes on the disk, from the files of what is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from runtime.errors import UserError

PACKAGE = "pix2pix-edge"
BASE = "base"
"""What every extra stands on: the package's own requirements."""


@dataclass(frozen=True)
class ExtraSize:
    """One extra."""

    name: str
    distributions: tuple[str, ...]
    """All that it brings, with what that requires, but not what the base brings."""
    missing: tuple[str, ...]
    """Required, and not installed here: then the sizes are not the whole."""
    own_bytes: int
    """Of `distributions`."""
    total_bytes: int
    """With the base."""


def install_sizes(package: str = PACKAGE) -> list[ExtraSize]:
    """The base, then each extra of an installed package, in the order of their names.

    Requirements whose markers exclude this machine count for nothing.

    Raises:
        UserError: `package` or the library `packaging` is not installed.
    """
    try:
        import packaging.requirements
    except ImportError as error:
        raise UserError(
            "--install-size needs packaging, which is not installed",
            "the package packaging",
            "pip install 'pix2pix-edge[bench]'",
        ) from error
    del packaging
    try:
        extras = metadata.metadata(package).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"--install-size: {package} is not installed",
            "an installed package, whose metadata names its extras",
            "pip install -e .",
        ) from error
    base, base_missing = _closure(package, frozenset())
    base_bytes = _bytes_of(base)
    told = [ExtraSize(BASE, tuple(sorted(base)), base_missing, base_bytes, base_bytes)]
    for extra in sorted(extras):
        found, missing = _closure(package, frozenset([extra]))
        own = found - base
        told.append(
            ExtraSize(extra, tuple(sorted(own)), missing, _bytes_of(own), _bytes_of(found))
        )
    return told


def to_json(sizes: Iterable[ExtraSize]) -> list[dict[str, Any]]:
    """`install_size` of a result."""
    return [
        {
            "extra": size.name,
            "installed": not size.missing,
            "missing": list(size.missing),
            "own_mb": round(size.own_bytes / 1e6, 2),
            "total_mb": round(size.total_bytes / 1e6, 2),
            "distributions": list(size.distributions),
        }
        for size in sizes
    ]


def _closure(package: str, extras: frozenset[str]) -> tuple[set[str], tuple[str, ...]]:
    """Every distribution that `package[extras]` requires, without itself; and what is missing."""
    from packaging.requirements import Requirement

    root = _normal(package)
    found: set[str] = set()
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(root, extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        if name != root:
            found.add(name)
        for text in required:
            requirement = Requirement(text)
            if _applies(requirement.marker, wanted):
                brought = _normal(requirement.name), frozenset(requirement.extras)
                waiting.append(brought)
    return found, tuple(sorted(missing))


def _applies(marker: Any, extras: frozenset[str]) -> bool:
    if marker is None:
        return True
    return any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def _bytes_of(names: Iterable[str]) -> int:
    """Of the files that the installer recorded; one that two distributions share counts once."""
    files: set[Path] = set()
    for name in names:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            files.add(Path(os.path.normpath(str(distribution.locate_file(file)))))
    return sum(file.stat().st_size for file in files if file.is_file())


def _normal(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()
