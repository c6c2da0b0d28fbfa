"""Video files as a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2

from runtime.buffers import FrameBuffers
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.quiet import quiet_opencv
from runtime.sources.base import told_fps
from runtime.sources.sound import has_sound

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv"),
    *(".wmv", ".ogv", ".3gp", ".mjpeg", ".mjpg", ".y4m", ".h264", ".264", ".h265", ".hevc"),
)
"""What counts as a video in a folder; a file that is named alone may be called anything."""


class VideoSource:
    """A video file; every frame, as fast as it is asked for.

    Raises:
        SourceError: no video, cut off before its index, or without a frame.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.paths = (path,)
        """The file that is read."""
        self._buffers = FrameBuffers()
        self.size_px: tuple[int, int] | None = None
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
        claimed = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count: int | None = claimed if claimed > 0 else None
        self.description = f"{path.name}, {width}x{height}, {told_fps(self.fps)}" + (
            f", {claimed} frames" if claimed > 0 else ""
        )

    @cached_property
    def has_sound(self) -> bool:
        """Whether the file has sound, which is not read."""
        return has_sound(self._path)

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
        into = None if self.size_px is None else self._buffers.take(self.size_px)
        decoded, image = self._video.read(into)  # `into` itself while the size fits
        if not decoded:
            return None
        self.size_px = (image.shape[0], image.shape[1])
        now_ns = time.perf_counter_ns()
        return Frame(image, index, now_ns, (now_ns - started_ns) / 1e6)

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        """Close the file."""
        self._video.release()


class VideoSequence:
    """Several video files, one after the other, as one stream.

    Each is opened before the first frame, so that a broken one is told before any work is done.

    Args:
        paths: at least one.
        name: for people.

    Raises:
        SourceError: one of them is no video.
    """

    live = False

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.paths = tuple(paths)
        """The files that are read."""
        self._waiting = list(reversed(paths))
        self._next_index = 0
        self.warning = ""
        sizes, counts, sounds, rates = [], [], [], []
        for path in paths:
            video = VideoSource(path)
            sizes.append(video.size_px)
            counts.append(video.frame_count)
            sounds.append(video.has_sound)
            rates.append(video.fps)
            video.close()
        self.has_sound = any(sounds)
        """Whether one of them has sound."""
        known = [count for count in counts if count is not None]
        self.frame_count: int | None = sum(known) if len(known) == len(counts) else None
        self.size_px = sizes[0]
        self.fps = rates[0]
        if len(set(sizes)) > 1 or len(set(rates)) > 1:
            self.warning = (
                f"the videos of {name} differ in size or rate; "
                f"the rate of {paths[0].name} is taken for all"
            )
        assert self.size_px is not None
        height, width = self.size_px
        self.description = f"{name}, {len(paths)} videos, {width}x{height}, {told_fps(self.fps)}"
        self._video: VideoSource | None = VideoSource(self._waiting.pop())

    def read(self) -> Frame | None:
        """The next frame; None at the end of the last file."""
        while self._video is not None:
            frame = self._video.read()
            if frame is not None:
                frame.index = self._next_index
                self._next_index += 1
                return frame
            self.warning = self._video.warning or self.warning
            self._video.close()
            self._video = VideoSource(self._waiting.pop()) if self._waiting else None
        return None

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        """Close the file that is open, and open no more."""
        self._waiting.clear()
        if self._video is not None:
            self._video.close()
            self._video = None
