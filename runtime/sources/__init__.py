"""Where frames come from: cameras, streams, files, the screen, a pipe, a drawn test stream."""

from __future__ import annotations

import re
from typing import Any

from runtime.errors import SourceError
from runtime.sources.base import Source
from runtime.sources.files import open_files
from runtime.sources.options import check_asked, read_options
from runtime.uris import redacted

__all__ = ["ACCEPTED", "Source", "open_source"]

ACCEPTED = (
    "a camera (0, /dev/video0, csi://0), a stream (rtsp://, http://, udp://), a video file, an "
    "image, a folder or a pattern of them ('frames/*.png'), screen://, gst://PIPELINE, - "
    "(standard input), or synthetic://?size=640x480&fps=30"
)

_NETWORK = ("rtsp", "rtsps", "http", "https", "udp")


def open_source(
    uri: str, *, size_px: tuple[int, int] | None = None, fps: float | None = None
) -> Source:
    """Open what `uri` names. What its own `?` says comes before the arguments.

    - `0`, `/dev/video0`, `/dev/v4l/by-id/NAME`: a camera by USB; `?size=1280x720&fps=30`
    - `csi://0`: a camera on a Jetson's CSI connector; `?size=1280x720&fps=30&flip=0`
    - `rtsp://`, `rtsps://`, `http://`, `https://`: a stream from the network
    - `udp://@:5000`: an MPEG transport stream that someone sends to this machine's port
    - a video file, an image, a folder of one of the two, a pattern such as `frames/*.png`, or any
      of them behind `file://`: every frame, in order
    - `screen://`, `screen://1?region=LEFT,TOP,WIDTHxHEIGHT&fps=30`: what is on the screen
    - `synthetic://?size=640x480&fps=30&frames=100`: a drawn test stream; live where it has a rate
    - `gst://PIPELINE`: a GStreamer pipeline without its sink
    - `-`: standard input: YUV4MPEG2, or raw pixels with `-?size=640x480&fps=30&format=bgr24`
      (rgb24, gray, bgra); `live=1` where the newest frame counts, and not each one

    Args:
        uri: as above.
        size_px: (height, width) asked of a camera, of a stream of raw pixels, or of the synthetic
            one; what has its own size keeps it.
        fps: rate asked of them.

    Raises:
        SourceError: nothing there, or it cannot be read. Names and passwords are not told.
    """
    check_asked(size_px, fps)
    scheme, mark, rest = uri.partition("://")
    if mark:
        scheme = scheme.lower()
        return _of_scheme(f"{scheme}://{rest}", scheme, rest, size_px, fps)
    camera = re.fullmatch(r"(\d+|/dev/video\d+|/dev/v4l/[^?]+)(?:\?(.*))?", uri, re.ASCII)
    if camera:
        from runtime.sources.camera import CameraSource

        device = camera[1]
        number = re.fullmatch(r"(?:/dev/video)?(\d+)", device)
        given = read_options(uri, camera[2] or "", ("size", "fps"))
        return CameraSource(int(number[1]) if number else device, **_before(given, size_px, fps))
    if uri == "-" or uri.startswith("-?"):
        from runtime.sources.standard_input import StandardInput

        given = read_options(uri, uri[2:], ("size", "fps", "format", "live"))
        if "format" in given:
            given["pixels"] = given.pop("format")
            if "size_px" not in given and size_px is None:
                raise SourceError(
                    f"raw pixels without a size: {uri}",
                    "their width and height",
                    "write for example -?size=640x480&format=bgr24",
                )
        return StandardInput(**_before(given, size_px if "pixels" in given else None, fps))
    return open_files(uri, ACCEPTED)


def _of_scheme(
    uri: str, scheme: str, rest: str, size_px: tuple[int, int] | None, fps: float | None
) -> Source:
    place, _, query = rest.partition("?")
    if scheme in _NETWORK:
        from runtime.sources.network import NetworkSource

        return NetworkSource(uri, size_px, fps)
    if scheme == "file":
        return open_files(rest, ACCEPTED, from_uri=True)
    if scheme == "gst":
        from runtime.sources import gstreamer

        return gstreamer.of_pipeline(rest)
    if scheme == "csi":
        from runtime.sources import gstreamer

        given = read_options(uri, query, ("size", "fps", "flip"))
        return gstreamer.of_csi(_number(uri, place, 0), **_before(given, size_px, fps))
    if scheme == "screen":
        from runtime.sources.screen import ScreenSource

        given = read_options(uri, query, ("region", "fps"))
        given.setdefault("fps", fps)
        return ScreenSource(_number(uri, place, 1), **given)
    if scheme == "synthetic" and not place:
        from runtime.sources.synthetic import SyntheticSource

        given = read_options(uri, query, ("size", "fps", "frames"))
        return SyntheticSource(**_before(given, size_px, fps))
    raise SourceError(f"unknown source {redacted(uri)}", ACCEPTED, "name one of these")


def _before(
    given: dict[str, object], size_px: tuple[int, int] | None, fps: float | None
) -> dict[str, Any]:
    """The options of an address, and the caller's where it says nothing."""
    return {"size_px": size_px, "fps": fps, **given}


def _number(uri: str, place: str, otherwise: int) -> int:
    """The number behind `://`."""
    if not place:
        return otherwise
    if not re.fullmatch(r"\d{1,4}", place, re.ASCII):
        raise SourceError(
            f"cannot read the number in {redacted(uri)}",
            f"a number behind ://, such as {uri.partition('://')[0]}://{otherwise}",
            "leave the rest out",
        )
    return int(place)
