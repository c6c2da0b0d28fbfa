"""Where frames go: a window, files, the network, other programs, nowhere."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.errors import SinkError
from runtime.images import IMAGE_SUFFIXES
from runtime.sinks.base import NoSink, Sink
from runtime.sinks.images import ImageFolderSink, ImageSink
from runtime.sinks.video import CODECS, VIDEO_SUFFIXES, VideoSink
from runtime.sinks.window import DisplaySink
from runtime.uris import has_slipped, redacted
from runtime.view import View

__all__ = ["ACCEPTED", "NoSink", "Sink", "open_sink"]

ACCEPTED = (
    "display://0 (a window), a video file (" + ", ".join(VIDEO_SUFFIXES) + "), a folder for "
    "images, an image file, rtsp://, rtsps://, udp://, virtual:// (a virtual camera), - "
    "(standard output), or none"
)

_NETWORK = ("rtsp", "rtsps", "udp")


def open_sink(
    uri: str,
    *,
    fps: float | None = None,
    live: bool = False,
    view: View | None = None,
    sound_left_out: bool = False,
) -> Sink:
    """Open what `uri` names; files are made with the first frame, and appear when finished.

    Args:
        uri: `display://0`; a video file, also with `?codec=` and one of avc1, mp4v, mjpg, xvid;
            an image file; a folder (exists, ends in `/`, or has no suffix); `rtsp://`,
            `rtsps://` or `udp://` and an address; `virtual://` and the device, if not the first;
            `-` for raw video on standard output (`-?format=`); or `none`.
        fps: the rate of a video; a window keeps to it too, unless `live`.
        live: frames come in their own time: a window shows each at once, and a video file repeats
            pictures where frames were dropped, so that it plays at the speed of life.
        view: what a window shows at first; all else gets frames whose `image` is what to show.
        sound_left_out: the source has sound, and a video file says that it has none.

    Raises:
        SinkError: no such kind of sink, no screen, or a file that could not be written.
    """
    if uri == "none":
        return NoSink()
    if uri == "-" or uri.startswith("-?"):
        from runtime.sinks.standard_output import StandardOutputSink

        pixels = _option(uri, "format")
        return StandardOutputSink(fps, pixels) if pixels else StandardOutputSink(fps)
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme == "display" and separator:
        return DisplaySink(view, None if live else fps, fps)
    if scheme in _NETWORK and separator:
        from runtime.sinks.network import NetworkSink

        return NetworkSink(uri, fps, live)
    if scheme == "virtual" and separator:
        from runtime.sinks.virtual_camera import VirtualCameraSink

        return VirtualCameraSink(fps, rest or None)
    if separator and scheme != "file":
        raise SinkError(f"unknown sink {redacted(uri)}", ACCEPTED, "name one of these")
    if not separator and has_slipped(uri):
        raise SinkError(f"{redacted(uri)} is no address", ACCEPTED, "write :// behind rtsp or udp")
    return _open_files(rest if separator else uri, fps, live, sound_left_out)


def _open_files(name: str, fps: float | None, live: bool, sound_left_out: bool) -> Sink:
    without_options = re.sub(r"\?\w+=[^/?]*$", "", name)
    suffix = Path(without_options).suffix.lower()
    if suffix in VIDEO_SUFFIXES and not Path(without_options).is_dir():
        return VideoSink(
            Path(without_options),
            fps,
            live,
            codec=_option(name, "codec"),
            sound_left_out=sound_left_out,
        )
    path = Path(name)
    if not name.strip() or (path.name in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)):
        raise SinkError(f"the sink {redacted(name)!r} has no name", ACCEPTED, "name one of these")
    if path.is_dir() or name.endswith("/") or not path.suffix:
        return ImageFolderSink(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSink(path)
    raise SinkError(
        redacted(f"cannot write {path.suffix.lower()} files: {name}"),
        ACCEPTED,
        "name one of these",
    )


def _option(uri: str, known: str) -> str | None:
    """The value of the one option that this kind of sink knows, after a question mark.

    Raises:
        SinkError: another option, or no value.
    """
    _, mark, text = uri.rpartition("?")
    if not mark:
        return None
    option, _, value = text.partition("=")
    if option != known or not value:
        choices = "|".join(CODECS) if known == "codec" else "..."
        raise SinkError(
            redacted(f"unknown option ?{text} of the sink {uri}"),
            f"?{known}={choices}",
            "leave it out",
        )
    return value
