"""A video file as a stream."""

from __future__ import annotations

import time
from pathlib import Path

import cv2

from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.quiet import quiet_opencv
from runtime.sources.base import told_fps


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
        self.description = f"{path.name}, {width}x{height}, {told_fps(self.fps)}" + (
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
