"""What a run that was killed left behind: brought back under a name of its own, and told."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

from runtime.sinks.mp4_index import become_mp4
from runtime.sinks.parts import YOUNG_S, Lock, is_still_named, locked, parts_in, parts_of

_MP4_MARK = b"ftyp"


def recovered(path: Path) -> str:
    """Bring unfinished files of `path` back, those that no process writes any more.

    `.night.mp4.1234.part.mkv` becomes `night-recovered-1.mp4`, or the next number that is free:
    no file is ever written over, and none that holds a picture is removed. Where the file system
    has no locks a part may be alive: it stays, and is named.

    Returns:
        What was done, in one line for people; empty where there was nothing.
    """
    return _told([(part, path) for part in parts_of(path)])


def recovered_in(folder: Path, name: str, suffixes: tuple[str, ...]) -> str:
    """Bring every unfinished video of a folder back whose finished name is like `name`.

    Args:
        folder: where to look.
        name: a pattern of `glob`, such as `p2p-*`.
        suffixes: of the finished files, such as `.mp4`.

    Returns:
        As `recovered`.
    """
    return _told([found for found in parts_in(folder, name) if found[1].suffix in suffixes])


def _told(parts: list[tuple[Path, Path]]) -> str:
    back, left = [], []
    for part, path in parts:
        try:
            with part.open("r+b") as file:
                lock = locked(file)
                if lock is Lock.THEIRS or not is_still_named(file, part):
                    continue  # alive, or finished by its writer a moment ago
                if lock is Lock.UNKNOWN:
                    left.append(part.name)
                else:
                    back.append(_brought_back(part, path))
        except FileNotFoundError:
            continue  # finished or brought back by another program
        except OSError as error:
            back.append(f"{part.name} could not be brought back ({error.strerror or error})")
    back = [line for line in back if line]
    told = [f"a run that was killed left a video: {'; '.join(back)}"] if back else []
    if left:
        told.append(
            f"{', '.join(left)} stays as it is, since this file system cannot tell whether a "
            f"program writes it still"
        )
    return "; ".join(told)


def _brought_back(part: Path, path: Path) -> str:
    suffix, pictures = part.suffix, ""
    status = part.stat()
    if status.st_size == 0:
        if time.time() - status.st_mtime > YOUNG_S:  # else its process may be about to lock it
            part.unlink()
        return ""
    if suffix != path.suffix:  # Matroska on its way to an MP4
        with part.open("rb") as file:
            finished = file.read(8)[4:] == _MP4_MARK
        try:
            pictures = "" if finished else f", {become_mp4(part)} pictures"
            suffix = path.suffix
        except ValueError as error:
            if str(error) == "no picture":
                part.unlink()
                return ""
            pictures = f", as Matroska ({error})"
    return f"{_placed(part, path.with_suffix(suffix)).name}{pictures}"


def _placed(part: Path, path: Path) -> Path:
    """Give the file the first free name, without a moment in which another could lose its own."""
    for number in count(1):
        place = path.with_name(f"{path.stem}-recovered-{number}{path.suffix}")
        if place.exists():
            continue
        try:
            os.link(part, place)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            part.rename(place)
            return place
        part.unlink()
        return place
    raise AssertionError
