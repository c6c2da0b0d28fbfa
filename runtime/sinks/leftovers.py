"""What a run that was killed left behind: brought back under a name of its own, and told."""

from __future__ import annotations

import glob
import os
import re
from itertools import count
from pathlib import Path

from runtime.sinks.encoders import locked
from runtime.sinks.mp4_index import become_mp4

_MP4_MARK = b"ftyp"


def recovered(path: Path) -> str:
    """Bring unfinished files of `path` back, those that no process writes any more.

    `.night.mp4.1234.part.mkv` becomes `night-recovered-1.mp4`, or the next number that is free:
    no file is ever written over, and none that holds a picture is removed.

    Returns:
        What was done, in one line for people; empty where there was nothing.
    """
    told = []
    pattern = re.compile(re.escape(f".{path.name}.") + r"\d+\.part(\.\w+)")
    for part in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.part.*")):
        match = pattern.fullmatch(part.name)
        if match is None:
            continue
        try:
            with part.open("rb") as file:
                if not locked(file):
                    continue
                told.append(_brought_back(part, path, match[1]))
        except OSError as error:
            told.append(f"{part.name} could not be brought back ({error.strerror or error})")
    told = [line for line in told if line]
    return f"a run that was killed left a video: {'; '.join(told)}" if told else ""


def _brought_back(part: Path, path: Path, suffix: str) -> str:
    pictures = ""
    if part.stat().st_size == 0:
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
