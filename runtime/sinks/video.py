"""Writing a video file that is whole or not there."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import SinkError
from runtime.files import written_whole
from runtime.frame import Frame
from runtime.quiet import quiet_opencv
from runtime.sinks.frame_rate import nearest_rate, store_rate

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv")
DEFAULT_FPS = 25.0
"""For a source that has no rate, such as a folder of images."""

_LOOK_AT_DISK_EVERY = 32
_DISK_RESERVE = 1 << 20


class VideoSink:
    """A video file, made with the first frame's size, renamed to its name when it is finished.

    OpenCV's writer tells nobody when the disk is full, so `close` reads back what it wrote.

    Args:
        path: ends in one of `VIDEO_SUFFIXES`.
        fps: the rate, kept exactly (30000/1001 too); None: 25.
        live: repeat a picture where frames were dropped, so that the video plays at the speed of
            life.
    """

    def __init__(self, path: Path, fps: float | None = None, live: bool = False) -> None:
        self._path = path
        self._rate = nearest_rate(fps or DEFAULT_FPS)
        self._live = live
        self._codec = _codec_for(path.suffix.lower())
        self._unfinished = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._beside = path
        self._size_px = (0, 0)
        self._first_captured_at_ns = 0
        self._written = 0
        self.description = f"{path}, {self._codec}, {float(self._rate):.5g} fps"

    def write(self, frame: Frame) -> None:
        """Write a frame (more than once where a live source dropped some before it)."""
        if self._writer is None:
            self._open(frame)
        assert self._writer is not None
        size_px = frame.image.shape[:2]
        if size_px != self._size_px:
            raise SinkError(
                f"a frame of {size_px[1]}x{size_px[0]} came for {self._path}",
                f"{self._size_px[1]}x{self._size_px[0]}, as the first one had",
                "write images of different sizes to a folder",
            )
        for _ in range(self._copies(frame)):
            self._writer.write(frame.image)
            self._written += 1
        if self._written % _LOOK_AT_DISK_EVERY == 0:
            self._check_room()

    def wants_more(self) -> bool:
        """Always."""
        return True

    def close(self, keep: bool = True) -> None:
        """Finish the file and check that every frame is in it, or remove it."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with self._unfinished:  # its end renames the file, or removes it after an error
            writer.release()
            if not keep:
                self._beside.unlink(missing_ok=True)
                self._unfinished.pop_all()
                return
            store_rate(self._beside, self._rate)
            if not _holds(self._beside, self._written):
                raise SinkError(
                    f"{self._path} does not hold the {self._written} frames that were written",
                    "room for the whole file (is the disk full?)",
                    "free some space or name a folder on another disk",
                )

    def _open(self, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        self._beside = self._unfinished.enter_context(written_whole(self._path))
        with quiet_opencv():
            writer = cv2.VideoWriter(
                str(self._beside),
                cv2.VideoWriter.fourcc(*self._codec),
                float(self._rate),
                (width, height),
            )
        if not writer.isOpened():
            raise SinkError(
                f"OpenCV cannot write the video {self._path} ({self._codec}, {width}x{height})",
                "a folder that may be written to, and an OpenCV with FFmpeg",
                "write images instead: --sink FOLDER/; p2p-doctor tells what OpenCV has",
            )
        self._writer = writer
        self._size_px = (height, width)
        self._first_captured_at_ns = frame.captured_at_ns

    def _copies(self, frame: Frame) -> int:
        if not self._live:
            return 1
        elapsed_s = (frame.captured_at_ns - self._first_captured_at_ns) / 1e9
        return max(1, round(elapsed_s * self._rate) + 1 - self._written)

    def _check_room(self) -> None:
        if shutil.disk_usage(self._path.parent).free < _DISK_RESERVE:
            raise SinkError(
                f"the disk is full: {self._path} could not be written",
                "room for the whole file",
                "free some space or name a folder on another disk",
            )


def _codec_for(suffix: str) -> str:
    if suffix == ".avi":
        return "XVID"
    return "avc1" if _writes_h264() else "mp4v"


@cache
def _writes_h264() -> bool:
    """Browsers play H.264 only, and OpenCV has it on some machines: try on a small file."""
    with tempfile.TemporaryDirectory() as folder, quiet_opencv():
        path = Path(folder) / "try.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"avc1"), 25.0, (320, 240))
        if not writer.isOpened():
            return False
        for _ in range(8):
            writer.write(np.zeros((240, 320, 3), np.uint8))
        writer.release()
        return _holds(path, 8)


def _holds(path: Path, frames: int) -> bool:
    """Whether a finished video file counts `frames` frames, and its last one decodes."""
    with quiet_opencv():
        video = cv2.VideoCapture(str(path))
        try:
            counted = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            if path.suffix.lower() == ".mkv":  # has no count: OpenCV guesses from the duration
                counted = frames if abs(counted - frames) <= 1 else counted
            if not video.isOpened() or counted != frames:
                return False
            video.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
            return bool(video.grab())
        finally:
            video.release()
