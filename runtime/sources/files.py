"""Files as a source: one, a folder of them, or what a pattern matches."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from runtime.errors import SourceError
from runtime.images import IMAGE_SUFFIXES, natural_key
from runtime.sources.base import Source
from runtime.sources.images import ImageFolder
from runtime.sources.video import VIDEO_SUFFIXES, VideoSequence, VideoSource
from runtime.uris import has_slipped, redacted


def open_files(name: str, accepted: str, from_uri: bool = False) -> Source:
    """Open the file, the folder or the pattern that `name` is.

    Args:
        name: a path, or a pattern with `*`, `?`, `[...]` or `**`.
        accepted: what else a source can be, for the error.
        from_uri: it stood behind `file://`, where `%20` is a space.

    Raises:
        SourceError: nothing there, nothing that is read here, or pictures and videos together.
    """
    told = repr(redacted(name))
    path = Path(name)
    if from_uri and not path.exists():
        path = Path(unquote(name))
    if name and path.is_dir():
        return _of_many(list(path.iterdir()), f"the folder {path}", str(path), f"{path}/*")
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFolder([path], path.name)
        return VideoSource(path)
    if has_slipped(name) and not from_uri:
        raise SourceError(
            f"{told} is no file and no address",
            accepted,
            "write :// behind the kind of an address: rtsp://HOST, http://HOST",
        )
    if asked := re.search(r"\?(size|fps|frames)=.*$", str(path)):
        raise SourceError(
            f"options for a file: {told}",
            "the name alone: a file has its own size and rate",
            f"write {redacted(str(path)[: asked.start()])!r}",
        )
    if glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern before Python 3.13.
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        if found:
            return _of_many(found, f"what {path} matches", str(path), str(path))
        raise SourceError(
            f"no file matches {told}",
            "pictures or videos",
            "check the pattern, and put it in quotation marks",
        )
    raise SourceError(f"no such source: {told}", accepted, "check the name")


def _of_many(found: Sequence[Path], where: str, told: str, pattern: str) -> Source:
    """The pictures or the videos among the files, in natural order: `9.jpg` before `10.jpg`."""
    ordered = sorted(found, key=lambda path: natural_key(str(path)))
    files = [path for path in ordered if path.is_file()]
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if pictures and videos:
        stem = pattern.rpartition("*")[0] or pattern
        raise SourceError(
            f"{len(pictures)} pictures and {len(videos)} videos in {where}",
            "one kind of them",
            f"name one kind: '{stem}*{pictures[0].suffix}' or '{stem}*{videos[0].suffix}'",
        )
    if pictures:
        return ImageFolder(pictures, f"{told}, {len(pictures)} images")
    if videos:
        return VideoSource(videos[0]) if len(videos) == 1 else VideoSequence(videos, told)
    raise SourceError(
        f"no image and no video in {where}",
        f"files that end in {', '.join(IMAGE_SUFFIXES)}, or in {', '.join(VIDEO_SUFFIXES[:6])}",
        "name the folder that holds them",
    )
