"""Prepared forms of models, kept on disk so that the next start is a short one."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import UserError
from runtime.files import scratch_folder, write_error
from runtime.machine import read_text

MOST_BYTES = 2 * 10**9
"""All kinds together; beyond it, what was used longest ago goes."""

_KINDS = ("onnxruntime", "openvino", "tensorrt-provider")
_SEAL = "seal.json"


def cache_folder() -> Path:
    """P2P_CACHE, else XDG_CACHE_HOME/pix2pix-edge, else ~/.cache/pix2pix-edge.

    Raises:
        UserError: there is no home directory to put it into.
    """
    if named := os.environ.get("P2P_CACHE"):
        return Path(named).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "pix2pix-edge"
    try:
        return Path.home() / ".cache" / "pix2pix-edge"
    except RuntimeError as error:
        raise UserError(
            "there is no home directory for a cache", "HOME, or P2P_CACHE", "set P2P_CACHE=FOLDER"
        ) from error


class ModelCache:
    """The prepared forms of one kind: a folder for each model and each way to prepare it.

    Any number of processes may use one cache. What was used longest ago goes when all is larger
    than `MOST_BYTES`, never what this object gave last; a file that another process has mapped
    stays readable to it.

    Args:
        kind: which library's, one of `_KINDS`.

    Raises:
        UserError: there is no place for a cache.
    """

    def __init__(self, kind: str) -> None:
        self._root = cache_folder()
        self._folder = self._root / kind

    def find(self, key: str) -> Path | None:
        """The folder that `make` filled, or None. One that has changed since is thrown away."""
        entry = self._folder / key
        if not entry.is_dir():
            return None
        if not _is_sealed(entry):
            self.discard(key)
            return None
        with suppress(OSError):  # a cache that may only be read still serves
            os.utime(entry)
        return entry

    @contextmanager
    def make(self, key: str) -> Iterator[Path]:
        """Give an empty folder to fill; at the end of the block it becomes the entry, whole.

        When the block raises, nothing is kept. When another process was faster, its entry stays.

        Raises:
            UserError: the system refused to write.
        """
        with scratch_folder(self._folder) as scratch:
            filled = scratch / "entry"
            try:
                filled.mkdir()
                yield filled
                _seal(filled)
                with suppress(FileExistsError):
                    _rename_folder(filled, self._folder / key)
            except OSError as error:
                raise write_error(self._folder, error) from error
        self._trim(key)

    def open_folder(self, key: str) -> Path:
        """A folder for a library that keeps its own files in it; made if need be.

        Raises:
            UserError: the system refused to make it, or to let it be written to.
        """
        entry = self._folder / key
        with scratch_folder(entry):  # what cannot be written to is told here, in our words
            os.utime(entry)
        self._trim(key)
        return entry

    def discard(self, key: str) -> None:
        """Throw an entry away; one that cannot be removed is made unusable by its missing seal."""
        entry = self._folder / key
        with suppress(OSError):
            (entry / _SEAL).unlink(missing_ok=True)
        shutil.rmtree(entry, ignore_errors=True)

    def _trim(self, keep: str) -> None:
        entries = []
        for kind in _KINDS:
            with suppress(OSError):  # another process trims, too
                for entry in (self._root / kind).iterdir():
                    entries.append((entry.stat().st_mtime_ns, _size_bytes(entry), entry))
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries, key=lambda found: found[0]):
            if total <= MOST_BYTES:
                return
            if entry != self._folder / keep:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


def key_of(path: Path, *settings: str) -> str:
    """What a prepared form is found again by: the file as the system knows it, and the settings.

    Reading 218 MB for a hash costs 0.1 to 0.5 s, more than the cache saves. Size, inode and the
    times of change do as well: no program can set the time of a file's last change of state
    (ctime), so that a file that was overwritten in place and dated back is told apart, too.

    Args:
        path: the model.
        settings: library and version, provider, options, processor.
    """
    found = path.stat()
    identity = (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
    text = json.dumps([str(path.resolve()), identity, settings])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def keeps_weights_elsewhere(path: Path) -> bool:
    """Whether an ONNX file names other files for its weights: no key covers a change of those."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # StringStringEntryProto of TensorProto.external_data: field 1, length 8, its fixed key.
        return data.find(b"\x0a\x08location\x12") >= 0


def check_room(folder: Path, size_bytes: int) -> None:
    """Refuse to fill the disk: what a library could not write of a model is not always an error.

    Args:
        folder: the one that `ModelCache.make` gave.
        size_bytes: of the model.

    Raises:
        UserError: there is no room for the model twice.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < 2 * size_bytes:
        raise UserError(
            f"{folder.parent.parent} has {free_bytes / 1e6:.0f} MB free",
            f"{2 * size_bytes / 1e6:.0f} MB",
            "free some space or set P2P_CACHE=FOLDER",
        )


def processor() -> str:
    """What code for this processor depends on: its model and the instructions that it has."""
    told = read_text("/proc/cpuinfo")
    found = [
        re.search(rf"^{key}\s*:\s*(.+)$", told, re.MULTILINE)
        for key in ("model name", "flags", "CPU part", "Features")  # x86, then ARM
    ]
    return " ".join([platform.machine(), *(match[1] for match in found if match)])


def _seal(entry: Path) -> None:
    """Note what was written, after it has reached the disk: a power cut leaves files of zeros."""
    files = {}
    for file in entry.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
        files[file.name] = _stamp(file)
    (entry / _SEAL).write_text(json.dumps(files), encoding="utf-8")


def _is_sealed(entry: Path) -> bool:
    try:
        files = json.loads((entry / _SEAL).read_text(encoding="utf-8"))
        there = {file.name for file in entry.iterdir()} - {_SEAL}
        # A file that came later was never checked, and a library may take it for its own.
        return there == set(files) != set() and all(
            _stamp(entry / name) == files[name] for name in files
        )
    except (OSError, ValueError, TypeError, AttributeError):  # no seal, or one that is damaged
        return False


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _rename_folder(folder: Path, to: Path) -> None:
    """Rename onto nothing.

    Raises:
        FileExistsError: something is there; systems tell that in several ways.
    """
    try:
        folder.rename(to)
    except OSError as error:
        if to.exists():
            raise FileExistsError(str(to)) from error
        raise


def _size_bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
