"""Frames on the standard output, for a player or an encoder behind a pipe."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import SinkError
from runtime.frame import Frame, Image
from runtime.sinks.base import BaseSink
from runtime.sinks.frame_rate import nearest_rate

FORMATS = ("yuv4mpeg", "bgr24")
DEFAULT_FPS = 25.0

_STDOUT, _STDERR = 1, 2
_LOOK_UP_EVERY_MS = 100


class StandardOutputSink(BaseSink):
    """YUV4MPEG2 (4:2:0, limited range, BT.601) or raw BGR on the standard output.

        p2p-live model.onnx --sink - | ffplay -

    From here to `close`, whatever else this process writes to its standard output goes to its
    standard error: a line of a library in the middle of the pictures would spoil them.

    A reader that closes the pipe ends the run. One that waits is waited for: `write` comes back
    when the frame is written, the reader is gone, or `close` is called from another thread.

    Args:
        fps: the rate in the header; None: 25.
        pixels: `yuv4mpeg`, which says its size and rate itself, or `bgr24`, the bare bytes.

    Raises:
        SinkError: the standard output is a terminal, or no such format.
    """

    def __init__(self, fps: float | None = None, pixels: str = FORMATS[0]) -> None:
        if pixels not in FORMATS:
            raise SinkError(
                f"no such format for the standard output: {pixels}",
                " or ".join(FORMATS),
                "write --sink - or --sink '-?format=bgr24'",
            )
        if os.isatty(_STDOUT):
            raise SinkError(
                "the standard output is a terminal",
                "a pipe or a file that takes the pictures",
                "write for example: p2p-live ... --sink - | ffplay -",
            )
        self._rate = nearest_rate(fps or DEFAULT_FPS)
        self._bare = pixels == "bgr24"
        self._size_px = (0, 0)
        self._wanted = True
        self._closing = threading.Event()
        self._planes = np.empty((0, 0), np.uint8)
        sys.stdout.flush()
        self._kept = os.dup(_STDOUT)
        self._fd = _without_waiting(self._kept)
        self._is_pipe = self._fd != self._kept
        os.dup2(_STDERR, _STDOUT)
        self._open = True
        self.description = f"standard output, {pixels}, {float(self._rate):.5g} fps"

    def write(self, frame: Frame) -> None:
        """Write a frame; nothing once the reader is gone.

        Raises:
            SinkError: a frame of another size than the first, or the disk behind it is full.
        """
        size_px = (frame.image.shape[0], frame.image.shape[1])
        if self._size_px == (0, 0):
            self._size_px = size_px
            if not self._bare:
                self._write(self._header())
        if size_px != self._size_px:
            raise SinkError(
                f"a frame of {size_px[1]}x{size_px[0]} came for the standard output",
                f"{self._size_px[1]}x{self._size_px[0]}, as the first one had",
                "start again: its header tells the reader one size",
            )
        if self._bare:
            self._write(np.ascontiguousarray(frame.image))
            return
        self._write(b"FRAME\n")
        for plane in self._in_planes(frame.image):
            self._write(plane)

    def wants_more(self) -> bool:
        """False once the reader has closed the pipe."""
        if self._wanted and self._is_pipe and self._open:
            poll = select.poll()
            poll.register(self._fd, 0)  # an end that nobody reads is told as an error
            self._wanted = not poll.poll(0)
        return self._wanted

    def interrupt(self) -> None:
        """Wait for the reader no more."""
        self._closing.set()

    def close(self, keep: bool = True) -> None:  # noqa: ARG002 - nothing is kept
        """Give the standard output back; the reader sees the end when this process ends."""
        self._closing.set()
        self._wanted = False
        if self._open:
            self._open = False
            sys.stdout.flush()
            os.dup2(self._kept, _STDOUT)
            os.close(self._kept)
            if self._is_pipe:
                os.close(self._fd)

    def _header(self) -> bytes:
        height, width = self._size_px
        rate = f"{self._rate.numerator}:{self._rate.denominator}"
        return f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\n".encode()

    def _in_planes(self, image: Image) -> Iterator[NDArray[np.uint8]]:
        """Y, U and V of a picture: uint8, each C-contiguous, valid until the next call.

        OpenCV converts pictures of even sides only: an odd one repeats its last line for it.
        """
        height, width = image.shape[:2]
        below, right = height % 2, width % 2
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        rows, columns = height + below, width + right
        if self._planes.shape != (rows * 3 // 2, columns):
            self._planes = np.empty((rows * 3 // 2, columns), np.uint8)
        cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420, dst=self._planes)
        yield np.ascontiguousarray(self._planes[:height, :width])
        yield self._planes[rows:]  # U and V, one behind the other

    def _write(self, data: bytes | NDArray[np.uint8]) -> None:
        left = (memoryview(data) if isinstance(data, bytes) else data.data).cast("B")
        while left and self._wanted and not self._closing.is_set():
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(_LOOK_UP_EVERY_MS)
            except BrokenPipeError:
                self._wanted = False
            except OSError as error:
                raise SinkError(
                    f"the standard output took no more ({error.strerror})",
                    "a reader, or a disk with room",
                    "free some space, or send it elsewhere",
                ) from error


def _without_waiting(pipe: int) -> int:
    """The same pipe, opened once more so that a write never waits; else `pipe` itself.

    To make the given one so would also change it for every process that shares it.
    """
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode) or sys.platform != "linux":
        return pipe
    try:
        return os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # another user's
        return pipe
