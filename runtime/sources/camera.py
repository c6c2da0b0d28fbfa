"""A camera on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import cv2

from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.quiet import quiet_opencv
from runtime.sources.base import told_fps


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
        claimed = float(self._camera.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = claimed if claimed > 0 else None
        self.description = f"{self._name}, {width}x{height}, {told_fps(self.fps)}"
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
