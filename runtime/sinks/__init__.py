"""Where frames go: a window, a video file, image files, nowhere."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import SinkError
from runtime.images import IMAGE_SUFFIXES
from runtime.sinks.base import NoSink, Sink
from runtime.sinks.images import ImageFolderSink, ImageSink
from runtime.sinks.video import VIDEO_SUFFIXES, VideoSink
from runtime.sinks.window import DisplaySink

__all__ = ["ACCEPTED", "NoSink", "Sink", "open_sink"]

ACCEPTED = (
    "display://0 (a window), a video file (" + ", ".join(VIDEO_SUFFIXES) + "), "
    "a folder for images, an image file, or none"
)


def open_sink(uri: str, *, fps: float | None = None, live: bool = False) -> Sink:
    """Open what `uri` names; files are made with the first frame, and appear when finished.

    Args:
        uri: `display://0`, a video file, an image file, a folder (exists, ends in `/`, or has no
            suffix), or `none`.
        fps: the rate of a video file; a window keeps to it too, unless `live`.
        live: frames come in their own time: a window shows each at once, and a video file repeats
            pictures where frames were dropped, so that it plays at the speed of life.

    Raises:
        SinkError: no such kind of sink, or no screen.
    """
    if uri == "none":
        return NoSink()
    scheme, separator, rest = uri.partition("://")
    if scheme == "display":
        return DisplaySink(None if live else fps)
    if separator and scheme != "file":
        raise SinkError(f"unknown sink {uri}", ACCEPTED, "name one of these")
    uri = rest if separator else uri
    path = Path(uri)
    suffix = path.suffix.lower()
    if path.is_dir() or uri.endswith("/") or not suffix:
        return ImageFolderSink(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoSink(path, fps, live)
    if suffix in IMAGE_SUFFIXES:
        return ImageSink(path)
    raise SinkError(f"cannot write {suffix} files: {uri}", ACCEPTED, "name one of these")
