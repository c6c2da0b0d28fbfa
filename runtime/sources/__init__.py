"""Where frames come from: camera, video file, pictures, a drawn test stream."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from runtime.errors import SourceError
from runtime.images import IMAGE_SUFFIXES
from runtime.sources.base import Source
from runtime.sources.camera import CameraSource
from runtime.sources.images import ImageFolder
from runtime.sources.synthetic import SyntheticSource
from runtime.sources.video import VideoSource

__all__ = ["ACCEPTED", "Source", "open_source"]

ACCEPTED = (
    "a camera (0, /dev/video0), a video file, a folder of images, an image, "
    "or synthetic://?size=640x480&fps=30"
)


def open_source(
    uri: str, *, size_px: tuple[int, int] | None = None, fps: float | None = None
) -> Source:
    """Open what `uri` names.

    Args:
        uri: `0` or `/dev/video0` (camera), a video file, a folder of images, an image, or
            `synthetic://?size=640x480&fps=30&frames=100`; a camera takes `?size=` and `?fps=` too.
        size_px: (height, width) asked of a camera or of the synthetic stream.
        fps: rate asked of a camera or of the synthetic stream.

    Raises:
        SourceError: nothing there, or it cannot be read.
    """
    scheme, _, rest = uri.partition("://")
    if rest or "://" in uri:
        if scheme == "synthetic":
            asked = _asked(uri, rest.removeprefix("?"), size_px, fps, ("size", "fps", "frames"))
            return SyntheticSource(**asked)
        if scheme != "file":
            raise SourceError(f"unknown source {uri}", ACCEPTED, "name one of these")
        uri = rest
    camera = re.fullmatch(r"(\d+|/dev/video\d+)(?:\?(.*))?", uri)
    if camera:
        device, query = camera[1], camera[2] or ""
        number = int(device.removeprefix("/dev/video"))
        return CameraSource(number, **_asked(uri, query, size_px, fps, ("size", "fps")))
    path = Path(uri)
    if uri and path.is_dir():
        return ImageFolder.of_folder(path)
    if not path.is_file():
        raise SourceError(f"no such source: {uri!r}", ACCEPTED, "check the name")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFolder([path], path.name)
    return VideoSource(path)


def _asked(
    uri: str,
    query: str,
    size_px: tuple[int, int] | None,
    fps: float | None,
    known: tuple[str, ...],
) -> dict[str, Any]:
    """The options of a URI's query as keyword arguments, its own before the given ones."""
    asked: dict[str, Any] = {"size_px": size_px, "fps": fps}
    try:
        for key, value in parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True):
            if key not in known:
                raise ValueError(key)
            if key == "size":
                width, height = (int(number) for number in value.split("x"))
                asked["size_px"] = (height, width)
            else:
                asked[key] = int(value) if key == "frames" else float(value)
        if not all(
            number > 0
            for number in (*(asked["size_px"] or ()), asked["fps"] or 1, asked.get("frames", 1))
        ):
            raise ValueError("not above zero")
    except ValueError as error:
        raise SourceError(
            f"cannot read the options of {uri} ({error})",
            " and ".join(f"{key}={_EXAMPLES[key]}" for key in known)
            + " after a '?', joined by '&'",
            "write for example synthetic://?size=640x480&fps=30",
        ) from error
    return asked


_EXAMPLES = {"size": "640x480", "fps": "30", "frames": "100"}
