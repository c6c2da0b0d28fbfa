"""A camera on this machine."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import cv2

from runtime.buffers import FrameBuffers
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.quiet import quiet_opencv
from runtime.sources.base import told_fps

# OpenCV would wait 10 s for a camera that stalls. It reads this when it waits for the first
# frame of the process, and never again; whoever set it before is right.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")

_BUFFERS = 2
"""One that the driver fills while OpenCV decodes the other. With one alone, a camera that sends
raw pictures without a pause finds no free buffer at the start of every second frame, and gives
half of its rate; what is older than two is dropped by the driver in either case."""

_OLDEST_S = 1.0


class CameraSource:
    """A camera that OpenCV opens: on Linux a V4L2 device, with the driver's shortest queue.

    On Linux the driver is asked first for what the camera offers, and the frames carry the time
    at which the driver had them. A `read` waits two seconds at most.

    Args:
        device: the number of the camera, or the path of its device (`/dev/v4l/by-id/...`).
        size_px: (height, width) asked; the nearest that it offers is taken, and `warning` says so.
        fps: rate asked.

    Raises:
        SourceError: it is not there, is in use, or gives no frame.
    """

    live = True
    frame_count: int | None = None

    def __init__(
        self,
        device: int | str,
        size_px: tuple[int, int] | None = None,
        fps: float | None = None,
    ) -> None:
        self.warning = ""
        self._next_index = 0
        self._buffers = FrameBuffers()
        self._name = f"camera {device}"
        model, fourcc = "", None
        if sys.platform == "linux":
            node = Path(f"/dev/video{device}" if isinstance(device, int) else device)
            self._name = str(node)
            model, fourcc, size_px, fps = self._negotiated(node, size_px, fps)
            device = os.path.realpath(node)
        with quiet_opencv():
            backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
            self._camera = cv2.VideoCapture(device, backend)
            if fourcc is not None:  # the format must come before the size
                self._camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
            if size_px is not None:
                self._camera.set(cv2.CAP_PROP_FRAME_HEIGHT, size_px[0])
                self._camera.set(cv2.CAP_PROP_FRAME_WIDTH, size_px[1])
            if fps is not None:
                self._camera.set(cv2.CAP_PROP_FPS, fps)
            self._camera.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
            gave, image = self._camera.read() if self._camera.isOpened() else (False, None)
        if not gave or image is None:
            self._camera.release()
            raise _silent(self._name)
        height, width = image.shape[:2]
        self.size_px: tuple[int, int] | None = (height, width)
        claimed = float(self._camera.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = claimed if claimed > 0 else None
        taken = f"{width}x{height}" + (f" {fourcc}" if fourcc else "")
        told_model = f" ({model})" if model else ""
        self.description = f"{self._name}{told_model}, {taken}, {told_fps(self.fps)}"

    def read(self) -> Frame | None:
        """Wait for the next frame; it never ends by itself."""
        assert self.size_px is not None
        started_ns = time.perf_counter_ns()
        into = self._buffers.take(self.size_px)
        with quiet_opencv():
            gave, image = self._camera.read(into)
        now_ns = time.perf_counter_ns()
        if not gave:
            raise SourceError(
                f"{self._name} stopped giving frames after {self._next_index}",
                "a camera that stays connected",
                "check its cable and start again",
            )
        self.size_px = (image.shape[0], image.shape[1])  # `into` itself while that fits
        stamped_ns = stamp_of(self._camera.get(cv2.CAP_PROP_POS_MSEC), now_ns)
        frame = Frame(image, self._next_index, stamped_ns, (now_ns - started_ns) / 1e6)
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """A `read` comes back within two seconds by itself."""

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.release()

    def _negotiated(
        self, node: Path, size_px: tuple[int, int] | None, fps: float | None
    ) -> tuple[str, str | None, tuple[int, int] | None, float | None]:
        """The camera's model, and the format, size and rate to ask for."""
        from runtime.sources import v4l2  # needs fcntl

        _check_device(node)
        try:
            offered = v4l2.ask(node)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _in_use(node) from error
            raise SourceError(
                f"{node} does not answer as a camera ({os.strerror(error.errno or 0)})",
                "a V4L2 camera",
                "name another one; p2p-doctor lists them",
            ) from error
        if not offered.captures:
            raise SourceError(
                f"{node} ({offered.card}) gives no pictures: a second node of a camera",
                "the node with the pictures",
                "name the camera's other number; p2p-doctor lists them",
            )
        choice = v4l2.choose(offered.modes, size_px, fps)
        if choice is None:  # a driver that tells nothing: OpenCV tries
            return offered.card, None, size_px, fps
        height, width = choice.size_px
        if size_px is not None and size_px != choice.size_px:
            self.warning = (
                f"{node} does not offer {size_px[1]}x{size_px[0]}: "
                f"it gives its nearest size, {width}x{height}"
            )
        elif fps is not None and choice.fps is not None and choice.fps < fps * 0.99:
            self.warning = (
                f"{node} does not offer {fps:g} fps in {width}x{height}: "
                f"it gives its highest rate, {choice.fps:g} fps"
            )
        return offered.card, choice.fourcc, choice.size_px, choice.fps or fps


def stamp_of(position_ms: float, now_ns: int) -> int:
    """When the driver had the frame, on the clock of `time.perf_counter_ns`.

    V4L2 drivers stamp a frame by CLOCK_MONOTONIC, which is that clock on Linux. A driver that
    stamps by another clock gives a time in the future or long ago: then it is now.

    Args:
        position_ms: OpenCV's CAP_PROP_POS_MSEC.
        now_ns: when the frame was in hand.
    """
    stamped_ns = int(position_ms * 1e6)
    if sys.platform == "linux" and 0 <= now_ns - stamped_ns <= _OLDEST_S * 1e9:
        return stamped_ns
    return now_ns


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


def _in_use(device: Path) -> SourceError:
    from runtime.sources import v4l2

    held_by = ", ".join(v4l2.holders(device))
    return SourceError(
        f"{device} is in use" + (f" by {held_by}" if held_by else " by another program"),
        "a camera that no other program uses",
        "close that program, or name another camera; p2p-doctor lists them",
    )


def _silent(name: str) -> SourceError:
    if sys.platform == "linux":
        from runtime.sources import v4l2

        if v4l2.holders(Path(name)):
            return _in_use(Path(name))
    return SourceError(
        f"{name} gives no frame",
        "a camera that no other program uses, on a port with enough power",
        "unplug it and connect it again, or name another camera; p2p-doctor lists them",
    )
