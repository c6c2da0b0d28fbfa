"""Coding pictures into an unfinished video file that survives the end of its process.

What OpenCV's writer leaves behind after a kill, measured with the FFmpeg of its wheel: an MP4 file
has no index and plays nowhere, and `OPENCV_FFMPEG_WRITER_OPTIONS` reaches the coder alone, so that
fragments cannot be asked for. Matroska and AVI play, but lack the last 256 KiB, which FFmpeg holds
back: 4 s of a calm picture. Into a pipe FFmpeg writes Matroska in pieces of at most a second
and holds nothing back. So the pictures of an MP4 file go through a pipe into a Matroska file, and
at the end that file becomes an MP4 in place (`runtime.sinks.mp4_index`): no slower, never longer
than its pictures for more than an index, and a plain MP4 rather than a fragmented one, so that it
seeks, counts its frames and keeps its exact rate everywhere.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol

import cv2

from runtime.errors import SinkError
from runtime.files import write_error
from runtime.frame import Image
from runtime.quiet import quiet_opencv
from runtime.sinks.frame_rate import store_rate
from runtime.sinks.mp4_index import become_mp4
from runtime.sinks.parts import begun, part_of

_PIPE_READ_BYTES = 1 << 20


class Encoder(Protocol):
    """Pictures of one size in, an unfinished file out. One thread uses it."""

    part: Path
    """The unfinished file, locked until `close`."""

    def write(self, image: Image) -> None:
        """Code one picture.

        Raises:
            UserError: the system refused to write an earlier one.
        """

    def finish(self) -> None:
        """Make the file whole: index and exact rate. `stop` need not be called before.

        Raises:
            UserError: the system refused to write.
        """

    def stop(self) -> None:
        """End coding and leave the file as it is. May be called twice."""

    def close(self) -> None:
        """Let go of the file, after it has its name or is removed: until then it stays locked,
        since without a lock another program takes it for one that a killed run left."""


def open_encoder(path: Path, codec: str, rate: Fraction, size_px: tuple[int, int]) -> Encoder:
    """Begin the unfinished file of `path`, beside it.

    Args:
        path: the finished file; its suffix says which container.
        codec: four characters, as OpenCV knows it.
        rate: frames per second.
        size_px: (height, width) of every picture.

    Raises:
        SinkError: this OpenCV cannot write that.
        UserError: the system refused to write there.
    """
    if path.suffix.lower() == ".mp4" and _can_pipe():
        return _PipedEncoder(path, codec, rate, size_px)
    return _DirectEncoder(path, codec, rate, size_px)


def _can_pipe() -> bool:
    return hasattr(os, "mkfifo") and cv2.CAP_FFMPEG in cv2.videoio_registry.getWriterBackends()


class _PipedEncoder:
    """OpenCV -> pipe -> thread -> Matroska file, which becomes an MP4 file when it is finished."""

    def __init__(self, path: Path, codec: str, rate: Fraction, size_px: tuple[int, int]) -> None:
        self.part = part_of(path, ".mkv")
        self._path = path
        self._rate = rate
        self._error: OSError | None = None
        self._file = begun(self.part, path)
        try:
            with tempfile.TemporaryDirectory(prefix="p2p-") as folder:
                pipe = Path(folder) / "pipe.mkv"
                os.mkfifo(pipe)
                reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # or OpenCV would wait
                try:
                    self._writer = _opened(pipe, path, codec, rate, size_px, cv2.CAP_FFMPEG)
                except BaseException:
                    os.close(reading)
                    raise
        except BaseException:
            self._file.close()
            self.part.unlink(missing_ok=True)
            raise
        os.set_blocking(reading, True)
        self._thread = threading.Thread(
            target=self._keep, args=(reading,), name="p2p-video-file", daemon=True
        )
        self._thread.start()

    def write(self, image: Image) -> None:
        """Code one picture."""
        if self._error is not None:
            raise write_error(self._path, self._error) from self._error
        self._writer.write(image)

    def finish(self) -> None:
        """Write the index."""
        self.stop()
        error = self._error
        if error is None:
            try:
                become_mp4(self.part, self._rate)
                return
            except OSError as caught:
                error = caught
            except ValueError as caught:
                raise SinkError(
                    f"{self._path} could not be finished ({caught})",
                    "an OpenCV whose FFmpeg writes Matroska",
                    "write another format: --sink out.mkv",
                ) from caught
        raise write_error(self._path, error) from error

    def stop(self) -> None:
        """End coding; everything coded so far is in the file."""
        self._writer.release()
        self._thread.join()
        _unopened_for_windows(self._file)

    def close(self) -> None:
        """Give the lock back."""
        self._file.close()

    def _keep(self, reading: int) -> None:
        """The thread: from the pipe to the file; after an error it empties the pipe all the same,
        since OpenCV would wait for ever."""
        rate_stored = False
        with open(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(_PIPE_READ_BYTES):
                if self._error is not None:
                    continue
                try:
                    left = memoryview(data)
                    while left:
                        left = left[self._file.write(left) :]
                    if not rate_stored:
                        store_rate(self.part, self._rate)  # it is in the head, which came first
                        rate_stored = True
                except OSError as error:
                    self._error = error


class _DirectEncoder:
    """OpenCV writes the file itself: Matroska and AVI, and MP4 where there are no pipes."""

    def __init__(self, path: Path, codec: str, rate: Fraction, size_px: tuple[int, int]) -> None:
        self.part = part_of(path, path.suffix)
        self._path = path
        self._rate = rate
        self._file = begun(self.part, path)
        try:
            self._writer = _opened(self.part, path, codec, rate, size_px, cv2.CAP_ANY)
        except BaseException:
            self._file.close()
            self.part.unlink(missing_ok=True)
            raise

    def write(self, image: Image) -> None:
        """Code one picture; OpenCV tells nobody when the disk is full."""
        self._writer.write(image)

    def finish(self) -> None:
        """Let OpenCV write the index, and put the rate right."""
        self.stop()
        try:
            store_rate(self.part, self._rate)
        except OSError as error:
            raise write_error(self._path, error) from error

    def stop(self) -> None:
        """End coding; OpenCV writes its index here already."""
        self._writer.release()
        _unopened_for_windows(self._file)

    def close(self) -> None:
        """Give the lock back."""
        self._file.close()


def _unopened_for_windows(file: BinaryIO) -> None:
    """There a file that is open cannot be renamed, and none is ever locked."""
    if sys.platform == "win32":
        file.close()


def _opened(
    target: Path,
    path: Path,
    codec: str,
    rate: Fraction,
    size_px: tuple[int, int],
    backend: int,
) -> cv2.VideoWriter:
    height, width = size_px
    with quiet_opencv():
        writer = cv2.VideoWriter(
            str(target), backend, cv2.VideoWriter.fourcc(*codec), float(rate), (width, height)
        )
    if not writer.isOpened():
        with suppress(cv2.error):
            writer.release()
        raise SinkError(
            f"OpenCV cannot write the video {path} ({codec}, {width}x{height})",
            "a folder that may be written to, and an OpenCV with FFmpeg",
            "write images instead: --sink FOLDER/; p2p-doctor tells what OpenCV has",
        )
    return writer
