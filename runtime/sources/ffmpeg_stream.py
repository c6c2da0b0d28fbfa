"""A stream that OpenCV's FFmpeg reads, kept at its newest picture."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from runtime.buffers import FrameBuffers
from runtime.frame import Image
from runtime.quiet import quiet_opencv

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 2.0

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_THREADS = "OPENCV_FFMPEG_THREADS"
# FFmpeg counts frames for its estimate of the rate, and more for a rate that varies: without
# `fpsprobesize` the open takes 1 s instead of 0.1 to 0.3 s. `fflags;nobuffer` would throw away
# what was read meanwhile, with it the key frame, and then wait for the next one.
_LOW_LATENCY = "rtsp_transport;tcp|fpsprobesize;0|analyzeduration;2000000"
_environment = threading.Lock()

_BEHIND_S = 0.1
_CATCH_UP_WITHIN_S = 1.0
_DRIFT = 2e-4
"""Two clocks of quartz differ by less than this; the best delay seen is forgotten as fast."""
_JUMP_S = 10.0
_STILL_FRAMES = 5
_EDGE_FRAMES = 3
_FLUSHED_AFTER_S = 0.95 * READ_TIMEOUT_S


class FfmpegStream:
    """Pictures of one stream, in memory that is used again.

    FFmpeg decodes in one thread: OpenCV's default, a thread for each core, delays every picture
    by as many pictures (measured: 271 ms with eight threads, 34 ms with one). Where one core is
    too slow for the stream, OPENCV_FFMPEG_THREADS asks for more. Its other options are OpenCV's:
    OPENCV_FFMPEG_CAPTURE_OPTIONS, where it is set, takes the place of ours.

    Args:
        uri: what FFmpeg opens.
        live: skip to the newest picture.
    """

    def __init__(self, uri: str, live: bool = True) -> None:
        self.skipped = 0
        """Pictures that came too late to be shown."""
        self._buffers = FrameBuffers()
        self._size_px: tuple[int, int] | None = None
        self._delay = _Delay()
        self._interrupted = threading.Event()
        parameters = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_TIMEOUT_S * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(READ_TIMEOUT_S * 1000),
        ]  # fmt: skip
        if _THREADS not in os.environ:
            parameters += [cv2.CAP_PROP_N_THREADS, 1]
        with quiet_opencv(), _asked_for_low_latency():
            self._video = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, parameters)
        self.opened = bool(self._video.isOpened())
        fps = float(self._video.get(cv2.CAP_PROP_FPS)) if self.opened else 0.0
        self.fps: float | None = fps if 1 <= fps <= 240 else None
        count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT)) if self.opened else 0
        self.frame_count: int | None = count if count > 0 else None
        """Of a file; None for a stream without an end."""
        self._live = live and self.frame_count is None

    def read(self) -> tuple[Image, int] | None:
        """The next picture, or the newest where several wait, and when it was there.

        Returns:
            uint8 [H, W, 3] BGR and `time.perf_counter_ns`; None when none came within
            `READ_TIMEOUT_S`, at the end, or after `interrupt`.
        """
        with quiet_opencv():
            if self._interrupted.is_set() or not self._grab():
                return None
            if self._live and self._delay.is_behind and not self._catch_up():
                return None
        came_ns = time.perf_counter_ns()
        into = None if self._size_px is None else self._buffers.take(self._size_px)
        decoded, image = self._video.retrieve(into)
        if not decoded:
            return None
        self._size_px = (image.shape[0], image.shape[1])
        return image, came_ns

    def interrupt(self) -> None:
        """Let the `read` that runs be the last one; it returns within `READ_TIMEOUT_S`."""
        self._interrupted.set()

    def close(self) -> None:
        """Let go of the stream."""
        self._interrupted.set()
        self._video.release()

    def _grab(self) -> bool:
        started_s = time.monotonic()
        grabbed = bool(self._video.grab())
        now_s = time.monotonic()
        if self._live and now_s - started_s > _FLUSHED_AFTER_S:
            return False  # when it gives up, FFmpeg's decoder gives what it had kept back
        if grabbed and self._live:
            position_s = float(self._video.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
            self._delay.came(position_s, now_s)
        return grabbed

    def _catch_up(self) -> bool:
        """Pass over the pictures that waited; False where the stream ends meanwhile."""
        until_s = time.monotonic() + _CATCH_UP_WITHIN_S
        while self._delay.is_behind and time.monotonic() < until_s:
            if self._interrupted.is_set() or not self._grab():
                return False
            self.skipped += 1
            if self._delay.at_edge:
                self._delay.start_from_here()
        return True


class _Delay:
    """How far pictures are behind the best that was seen: what has piled up on the way.

    The time stamps of the stream say how far apart pictures were taken. Those that have piled up
    come faster than that; when three in a row do not (one may have met a busy processor), the
    last was taken just now.
    """

    def __init__(self) -> None:
        self._least_s: float | None = None
        self._offset_s = 0.0
        self._position_s = 0.0
        self._came_s = 0.0
        self._still = 0
        self._at_pace = 0

    def came(self, position_s: float, now_s: float) -> None:
        """A picture came `now_s` whose time in the stream is `position_s`."""
        offset_s = now_s - position_s
        between_s = position_s - self._position_s
        self._still = self._still + 1 if between_s == 0 else 0
        at_pace = between_s > 0 and offset_s > self._offset_s - between_s / 2
        self._at_pace = self._at_pace + 1 if at_pace else 0
        if self._least_s is not None:
            self._least_s += (now_s - self._came_s) * _DRIFT
            if abs(between_s) > _JUMP_S or between_s < -1:  # another clock from here on
                self._least_s = offset_s
            self._least_s = min(self._least_s, offset_s)
        if self._still > _STILL_FRAMES:  # no time stamps: nothing can be said
            self._least_s = offset_s
        self._offset_s, self._position_s, self._came_s = offset_s, position_s, now_s

    @property
    def is_behind(self) -> bool:
        """Whether newer pictures must be waiting; also before the first catching up."""
        return self._least_s is None or self._offset_s - self._least_s > _BEHIND_S

    @property
    def at_edge(self) -> bool:
        """Whether the newest pictures came no sooner after each other than they were taken."""
        return self._at_pace >= _EDGE_FRAMES

    def start_from_here(self) -> None:
        """The newest picture was not late."""
        self._least_s = self._offset_s


@contextmanager
def _asked_for_low_latency() -> Iterator[None]:
    """Set FFmpeg's options for the open inside the block; they are the whole process's."""
    with _environment:
        if _OPTIONS in os.environ:
            yield
            return
        os.environ[_OPTIONS] = _LOW_LATENCY
        try:
            yield
        finally:
            del os.environ[_OPTIONS]
