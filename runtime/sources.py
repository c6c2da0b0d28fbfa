"""Where frames come from: camera, video file, pictures, a drawn test stream."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

import cv2

from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.images import IMAGE_SUFFIXES, ImageFolder
from runtime.quiet import quiet_opencv
from runtime.synthetic import SyntheticSource

ACCEPTED = (
    "a camera (0, /dev/video0), a video file, a folder of images, an image, "
    "or synthetic://?size=640x480&fps=30"
)


class Source(Protocol):
    """Gives frames, one after the other. Whoever opened it closes it."""

    description: str
    """For people: `clip.mp4, 960x540, 25 fps, 221 frames`."""
    live: bool
    """Frames come in their own time, and are lost when nobody takes them."""
    fps: float | None
    size_px: tuple[int, int] | None
    """(height, width) of the first frame; None before it is known."""
    frame_count: int | None
    """None: endless, or not known."""
    warning: str
    """What the user should know although no error came of it; empty for nothing."""

    def read(self) -> Frame | None:
        """The next frame; None at the end.

        Raises:
            SourceError: the source broke.
        """

    def close(self) -> None:
        """Let go of device and file, but not while another thread is in `read`.

        May be called twice.
        """


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


class VideoSource:
    """A video file; every frame, as fast as it is asked for.

    Raises:
        SourceError: no video, cut off before its index, or without a frame.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        with quiet_opencv():
            self._video = cv2.VideoCapture(str(path))
            opened = self._video.isOpened()
            started_ns = time.perf_counter_ns()
            self._first = self._decode(started_ns, 0) if opened else None
        if self._first is None:
            self._video.release()
            raise SourceError(
                f"{path} holds no frame that OpenCV can read",
                "a whole video file (mp4, avi, mkv, ...)",
                "check that it plays, or was copied to its end",
            )
        self._next_index = 0
        self.warning = ""
        fps = float(self._video.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = fps if fps > 0 else None
        height, width = self._first.image.shape[:2]
        self.size_px: tuple[int, int] | None = (height, width)
        claimed = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count: int | None = claimed if claimed > 0 else None
        self.description = f"{path.name}, {width}x{height}, {_told_fps(self.fps)}" + (
            f", {claimed} frames" if claimed > 0 else ""
        )

    def read(self) -> Frame | None:
        """The next frame; None at the end, and then `warning` tells if frames are missing."""
        frame, self._first = self._first, None
        if frame is None:
            frame = self._decode(time.perf_counter_ns(), self._next_index)
        else:
            frame.captured_at_ns = time.perf_counter_ns()  # waiting to be asked for is no age
        if frame is not None:
            self._next_index += 1
        elif self.frame_count and self._next_index < self.frame_count:
            self.warning = (
                f"{self._path.name} claims {self.frame_count} frames, "
                f"but only {self._next_index} could be decoded"
            )
        return frame

    def _decode(self, started_ns: int, index: int) -> Frame | None:
        decoded, image = self._video.read()
        if not decoded:
            return None
        now_ns = time.perf_counter_ns()
        return Frame(image, index, now_ns, (now_ns - started_ns) / 1e6)

    def close(self) -> None:
        """Close the file."""
        self._video.release()


class CameraSource:
    """A camera that OpenCV opens: on Linux a V4L2 device, with a driver's queue of one frame.

    Raises:
        SourceError: it is not there, is in use, or gives no frame.
    """

    live = True
    frame_count: int | None = None
    warning = ""

    def __init__(
        self, number: int, size_px: tuple[int, int] | None = None, fps: float | None = None
    ) -> None:
        self._name = f"/dev/video{number}" if sys.platform == "linux" else f"camera {number}"
        if sys.platform == "linux":
            _check_device(Path(self._name))
        with quiet_opencv():
            backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
            self._camera = cv2.VideoCapture(number, backend)
            # Raw pictures of a large size do not fit through USB; refused, the camera keeps its
            # own format. MJPEG must come before the size.
            self._camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            if size_px is not None:
                self._camera.set(cv2.CAP_PROP_FRAME_HEIGHT, size_px[0])
                self._camera.set(cv2.CAP_PROP_FRAME_WIDTH, size_px[1])
            if fps is not None:
                self._camera.set(cv2.CAP_PROP_FPS, fps)
            self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            gave, image = self._camera.read() if self._camera.isOpened() else (False, None)
        if not gave:
            self._camera.release()
            raise SourceError(
                f"{self._name} gives no frame",
                "a camera that no other program uses",
                "close the other program, or name another camera; p2p-doctor lists them",
            )
        assert image is not None
        height, width = image.shape[:2]
        self.size_px: tuple[int, int] | None = (height, width)
        told_fps = float(self._camera.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = told_fps if told_fps > 0 else None
        self.description = f"{self._name}, {width}x{height}, {_told_fps(self.fps)}"
        self._next_index = 0

    def read(self) -> Frame | None:
        """Wait for the next frame; it never ends by itself."""
        started_ns = time.perf_counter_ns()
        gave, image = self._camera.read()
        now_ns = time.perf_counter_ns()
        if not gave:
            raise SourceError(
                f"{self._name} stopped giving frames after {self._next_index}",
                "a camera that stays connected",
                "check its cable and start again",
            )
        frame = Frame(image, self._next_index, now_ns, (now_ns - started_ns) / 1e6)
        self._next_index += 1
        return frame

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.release()


def _check_device(device: Path) -> None:
    """Tell a camera that is not there from one that may not be opened."""
    if not device.exists():
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
        raise SourceError(
            f"there is no camera {device}",
            f"one of {there}" if there else "a camera (none is connected)",
            "connect one, or try --source 'synthetic://?fps=30' or a video file",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(
            f"{device} may not be opened by this user",
            "a member of the group video",
            "run: sudo usermod -aG video $USER, and log in again",
        )


def _told_fps(fps: float | None) -> str:
    return "rate unknown" if fps is None else f"{fps:.5g} fps"
