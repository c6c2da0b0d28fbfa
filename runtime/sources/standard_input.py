"""Video that another program writes to our standard input."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np

from runtime.buffers import FrameBuffers
from runtime.errors import SourceError
from runtime.frame import Frame, Image
from runtime.pipe_capacity import widen
from runtime.sources.base import told_fps
from runtime.sources.pipes import Waker, fill, read_some
from runtime.sources.raw_video import Y4M_START, PackedVideo, RawVideo, Yuv4MpegVideo

_OPEN_S = 30.0
"""For the first byte: what writes may open a camera, or ask for a password, first."""
_STALLED_S = 2.0
_SHORTEST_LINE = len(b"FRAME\n")
_LONGEST_LINE = 1024

_PIPE_IT = "ffmpeg -i clip.mp4 -f yuv4mpegpipe - | p2p-live MODEL --source -"


class _Stream:
    """A descriptor with its place in the video.

    It outlives the source: after a stall the stream goes on in the middle of a frame, and has no
    second header.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lock = threading.Lock()
        self.video: RawVideo | None = None
        self.line = bytearray()
        """A line of YUV4MPEG2 that has not come to its end."""
        self.in_frame = False
        self.picture: Image | None = None
        self.raw: Image | None = None
        self.filled = 0
        self.buffers = FrameBuffers()


_streams: dict[tuple[int, int, int], _Stream] = {}
"""By descriptor, device and inode of what is open there."""


class StandardInput:
    """YUV4MPEG2, or raw pixels of a size that is told, from standard input.

    Args:
        size_px: (height, width) of raw pixels; None: a YUV4MPEG2 stream, which tells its own.
        fps: rate of raw pixels, or instead of the one that the stream claims.
        pixels: format of raw pixels: one of `raw_video.PACKED`.
        live: the frames come in their own time and the newest counts; else each one, in order.
        descriptor: what to read; standard input.

    Raises:
        SourceError: a terminal, nothing there, or no such stream.
    """

    def __init__(
        self,
        size_px: tuple[int, int] | None = None,
        fps: float | None = None,
        pixels: str = "bgr24",
        live: bool = False,
        descriptor: int = 0,
    ) -> None:
        self.live = live
        self.frame_count: int | None = None
        self.warning = ""
        self._next_index = 0
        self._pixels = pixels
        if sys.platform == "win32":
            raise SourceError(
                "standard input is not read on Windows",
                "a video file, or a stream",
                "write a file first, or send it with: ffmpeg -f mpegts udp://127.0.0.1:5000",
            )
        if os.isatty(descriptor):
            raise SourceError(
                "standard input is a terminal", "a pipe that carries video", f"write: {_PIPE_IT}"
            )
        _forget_closed()
        opened = os.fstat(descriptor)
        self._key = (descriptor, opened.st_dev, opened.st_ino)
        self._stream = _streams.setdefault(self._key, _Stream(descriptor))
        self._waker = Waker()
        try:
            with self._stream.lock:
                if self._stream.video is None:
                    widen(descriptor)
                    self._stream.video = self._opened(size_px, fps)
        except BaseException:
            self._forget()
            self.close()
            raise
        self._video = self._stream.video
        self.size_px: tuple[int, int] | None = self._video.size_px
        self.fps = fps or self._video.fps
        height, width = self._video.size_px
        self.description = (
            f"standard input, {self._video.told}, {width}x{height}, {told_fps(self.fps)}"
        )

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end, and then `warning` tells if it was cut off."""
        started_ns = time.perf_counter_ns()
        with self._stream.lock:
            image = self._next()
        if image is None:
            if not self._waker.woken:
                self._forget()
            return None
        now_ns = time.perf_counter_ns()
        frame = Frame(image, self._next_index, now_ns, (now_ns - started_ns) / 1e6)
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """A `read` that waits returns None."""
        self._waker.wake()

    def close(self) -> None:
        """Stop to read; standard input itself stays open."""
        self._waker.close()

    def _forget(self) -> None:
        _streams.pop(self._key, None)

    def _opened(self, size_px: tuple[int, int] | None, fps: float | None) -> RawVideo:
        if size_px is not None:
            return PackedVideo(size_px, fps, self._pixels)
        line = self._line(len(Y4M_START), _OPEN_S)
        if line == Y4M_START:
            rest = self._line(_LONGEST_LINE, _OPEN_S)
            if rest is not None and rest.endswith(b"\n"):
                return Yuv4MpegVideo(line + rest[:-1])
        raise SourceError(
            f"standard input {_what_came(line)}",
            "a YUV4MPEG2 stream, or raw pixels whose size is told: --source '-?size=640x480'",
            f"write: {_PIPE_IT}",
        )

    def _next(self) -> Image | None:
        stream, video = self._stream, self._video
        if not stream.in_frame and isinstance(video, Yuv4MpegVideo):
            line = self._line(_LONGEST_LINE, _STALLED_S if self.live else None)
            if line is None:
                return None
            if not (line.startswith(b"FRAME") and line.endswith(b"\n")):
                if not line.endswith(b"\n"):
                    self._cut_off()
                    return None
                raise SourceError(
                    f"standard input has {line[:20]!r} where a frame begins",
                    "a whole YUV4MPEG2 stream",
                    "let nothing else write to this pipe (ffmpeg's messages go to stderr)",
                )
        if stream.picture is None:
            stream.picture = stream.buffers.take(video.size_px)
            if stream.raw is None and not video.is_bgr:
                stream.raw = np.empty(video.frame_bytes, np.uint8)
        stream.in_frame = True
        raw = stream.picture if video.is_bgr else stream.raw
        assert raw is not None
        stream.filled, ended = fill(
            self._waker,
            stream.descriptor,
            raw.data.cast("B"),
            stream.filled,
            _STALLED_S if self.live else None,
        )
        if stream.filled < video.frame_bytes:
            if ended:
                if stream.filled or isinstance(video, Yuv4MpegVideo):
                    self._cut_off()
            else:
                self._check_woken(_STALLED_S)
            return None
        picture, stream.picture = stream.picture, None
        stream.in_frame, stream.filled = False, 0
        if not video.is_bgr:
            video.to_bgr(raw, picture)
        return picture

    def _line(self, longest: int, timeout_s: float | None) -> bytes | None:
        """Bytes up to an end of line, or to `longest`; fewer at the end of the stream.

        None at the end of the stream, or when it was woken.
        """
        line, chunk = self._stream.line, memoryview(bytearray(_SHORTEST_LINE))
        while len(line) < longest and not line.endswith(b"\n"):
            if not self._waker.wait([self._stream.descriptor], timeout_s):
                self._check_woken(timeout_s or 0.0)
                return None
            wanted = min(max(1, _SHORTEST_LINE - len(line)), longest - len(line))
            count = read_some(self._stream.descriptor, chunk[:wanted])
            if count == 0:
                break
            line += chunk[:count]
        whole = bytes(line)
        line.clear()
        return whole or None

    def _check_woken(self, after_s: float) -> None:
        """Nothing came because it was woken.

        Raises:
            SourceError: it was not woken.
        """
        if not self._waker.woken:
            raise SourceError(
                f"nothing came on standard input for {after_s:.0f} s",
                "frames from the program before the pipe",
                f"write: {_PIPE_IT}",
            )

    def _cut_off(self) -> None:
        self._stream.in_frame, self._stream.filled = False, 0
        self.warning = (
            f"standard input ended in the middle of frame {self._next_index}: "
            "the part that came was thrown away"
        )


def _forget_closed() -> None:
    """Let go of streams whose descriptor was closed, or is another one's now."""
    for key in list(_streams):
        try:
            opened = os.fstat(key[0])
        except OSError:
            _streams.pop(key, None)
            continue
        if (opened.st_dev, opened.st_ino) != key[1:]:
            _streams.pop(key, None)


def _what_came(line: bytes | None) -> str:
    if line is None:
        return "ended before its first byte"
    return f"starts with {line[:12]!r}"
