"""Writing a video file that is whole or not there, and not lost when the run is killed."""

from __future__ import annotations

import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import SinkError, UserError
from runtime.files import write_error
from runtime.frame import Frame, Image, resized
from runtime.quiet import quiet_opencv
from runtime.sinks.base import BaseSink
from runtime.sinks.encoders import Encoder, open_encoder
from runtime.sinks.frame_rate import nearest_rate
from runtime.sinks.leftovers import recovered
from runtime.sinks.parts import refuse_if_written
from runtime.sinks.writable import check_file

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv")
CODECS = {"avc1": "avc1", "mp4v": "mp4v", "mjpg": "MJPG", "xvid": "XVID"}
"""What a user may ask for, and what OpenCV calls it."""
DEFAULT_FPS = 25.0
"""For a source that has no rate, such as a folder of images."""

_LOOK_AT_DISK_EVERY = 32
_DISK_RESERVE = 1 << 20
_MOST_REPEATED_S = 1.0
"""A picture is repeated for so long at once."""
_AHEAD_S = 0.5
"""How far a live video may run ahead of life before a picture is left out."""


class VideoSink(BaseSink):
    """A video file, made with the first frame's size, renamed to its name when it is finished.

    After a kill the unfinished file lies beside, as `.night.mp4.1234.part.mkv`, and plays; the
    next sink of that name makes `night-recovered-1.mp4` of it and says so in `notice`. An MP4
    loses at most the last second that way (12 pictures of camera noise), Matroska and AVI the
    last 256 KiB; `runtime.sinks.encoders` says why.

    OpenCV's writer tells nobody when the disk is full, so `close` looks at what it wrote.

    Coders take even sizes only: the last row and column of an odd one is there twice.

    Args:
        path: ends in one of `VIDEO_SUFFIXES`.
        fps: the rate, kept exactly (30000/1001 too); None: 25.
        live: pictures come in their own time: repeat one where frames were dropped, so that the
            video plays at the speed of life, and fit a frame of another size into the first one's.
        codec: one of `CODECS`; None: H.264 in MP4 and Matroska if OpenCV has it, else MPEG-4.
        sound_left_out: the source has sound; say that the file has none.

    Raises:
        SinkError: the file could not be written, another program or sink writes it now, or this
            OpenCV lacks the codec.
    """

    def __init__(
        self,
        path: Path,
        fps: float | None = None,
        live: bool = False,
        *,
        codec: str | None = None,
        sound_left_out: bool = False,
    ) -> None:
        check_file(path)
        refuse_if_written(path)
        self.path = path
        """The finished file."""
        self.finishing = False
        """Whether `close` is at work, which takes as long as the disk does: do not give up on it,
        and do not end the process."""
        self._rate = nearest_rate(fps or DEFAULT_FPS)
        self._live = live
        self._codec = _codec_for(path.suffix.lower(), codec)
        self._interrupted = threading.Event()
        self._encoder: Encoder | None = None
        self._size_px = (0, 0)
        self._canvas: Image | None = None
        self._even: Image | None = None
        self._odd_size_px = (0, 0)
        self._first_captured_at_ns = 0
        self._written = 0
        self.notice = recovered(path)
        self.description = f"{path}, {self._codec}, {float(self._rate):.5g} fps" + (
            ", without the source's sound" if sound_left_out else ""
        )

    def write(self, frame: Frame) -> None:
        """Write a frame (more than once where a live source dropped some before it)."""
        if self._encoder is None:
            self._begin(frame)
        assert self._encoder is not None
        copies = self._copies(frame)
        image = self._of_even_size(self._of_one_size(frame.image)) if copies else frame.image
        for _ in range(copies):
            if self._interrupted.is_set():
                return
            self._encoder.write(image)
            self._written += 1
            if self._written % _LOOK_AT_DISK_EVERY == 0:
                self._check_room()

    def interrupt(self) -> None:
        """Leave off repeating a picture."""
        self._interrupted.set()

    def close(self, keep: bool = True) -> None:
        """Finish the file and check that every frame is in it, or remove it.

        Where finishing fails the unfinished file stays, until `close(keep=False)`.
        """
        encoder = self._encoder
        if encoder is None:
            return
        self.finishing = True
        try:
            if keep:
                self._finish(encoder)
            else:
                encoder.stop()
                encoder.part.unlink(missing_ok=True)
        finally:
            self.finishing = False
        self._encoder = None
        encoder.close()

    def _begin(self, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        if min(height, width) < 2:
            raise SinkError(
                f"a picture of {width}x{height} came for {self.path}",
                "at least 2 pixels each way, as a video has",
                f"write images instead: --sink {self.path.with_suffix('')}/",
            )
        self._size_px = (height, width)
        even_px = (height + height % 2, width + width % 2)
        self._encoder = open_encoder(self.path, self._codec, self._rate, even_px)
        if even_px != self._size_px:
            self._even = np.empty((*even_px, 3), np.uint8)
        self._first_captured_at_ns = frame.captured_at_ns

    def _finish(self, encoder: Encoder) -> None:
        try:
            encoder.finish()
            if not _holds(encoder.part, self._written, self.path.suffix.lower()):
                raise SinkError(
                    f"{self.path} does not hold the {self._written} frames that were written",
                    "room for the whole file (is the disk full?)",
                    "free some space or name a folder on another disk",
                )
            encoder.part.replace(self.path)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _of_even_size(self, image: Image) -> Image:
        if self._even is None:
            return image
        height, width = image.shape[:2]
        self._even[:height, :width] = image
        self._even[height:, :width] = image[-1]
        self._even[:, width:] = self._even[:, width - 1 : width]
        return self._even

    def _of_one_size(self, image: Image) -> Image:
        height, width = image.shape[:2]
        full_height, full_width = self._size_px
        if (height, width) == self._size_px:
            return image
        if not self._live:
            raise SinkError(
                f"a frame of {width}x{height} came for {self.path}",
                f"{full_width}x{full_height}, as the first one had",
                "write images of different sizes to a folder",
            )
        self.warning = self.warning or (
            f"frames of {width}x{height} came for {self.path}, which is {full_width}x"
            f"{full_height}: they stand in it with black bars"
        )
        if self._canvas is None or self._odd_size_px != (height, width):
            self._canvas = np.zeros((full_height, full_width, 3), np.uint8)
            self._odd_size_px = (height, width)
        scale = min(full_height / height, full_width / width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (full_height - inner_height) // 2, (full_width - inner_width) // 2
        inner = self._canvas[top : top + inner_height, left : left + inner_width]
        resized(image, (inner_height, inner_width), inner)
        return self._canvas

    def _copies(self, frame: Frame) -> int:
        if not self._live:
            return 1
        elapsed_s = (frame.captured_at_ns - self._first_captured_at_ns) / 1e9
        missing = round(elapsed_s * self._rate) + 1 - self._written
        if missing < -_AHEAD_S * self._rate:
            return 0
        # After a long loss of the camera the video catches up over the next frames: the thread
        # that writes must not be busy for minutes with one of them.
        return max(1, min(missing, round(_MOST_REPEATED_S * self._rate)))

    def _check_room(self) -> None:
        if shutil.disk_usage(self.path.parent).free < _DISK_RESERVE:
            raise SinkError(
                f"the disk is full: {self.path} could not be written",
                "room for the whole file",
                "free some space or name a folder on another disk",
            )


def _codec_for(suffix: str, asked: str | None) -> str:
    """What OpenCV calls the codec."""
    if asked is None:
        if suffix == ".avi":
            return "XVID"
        return "avc1" if _writes(suffix, "avc1") else "mp4v"  # browsers play H.264 only
    codec = CODECS.get(asked.lower())
    if codec is None or not _writes(suffix, codec):
        here = [name for name, code in CODECS.items() if _writes(suffix, code)]
        raise SinkError(
            f"codec {asked} cannot be written to {suffix} files"
            + ("" if codec is None else " by this OpenCV"),
            "one of " + ", ".join(here),
            f"name one: out{suffix}?codec={here[0] if here else 'mp4v'}",
        )
    return codec


@cache
def _writes(suffix: str, codec: str) -> bool:
    """Whether OpenCV has the coder on this machine: try on a small file."""
    frames = 8
    rate = nearest_rate(DEFAULT_FPS)
    with tempfile.TemporaryDirectory(prefix="p2p-") as folder:
        try:
            encoder = open_encoder(Path(folder) / f"try{suffix}", codec, rate, (240, 320))
        except UserError:
            return False
        try:
            for _ in range(frames):
                encoder.write(np.zeros((240, 320, 3), np.uint8))
            encoder.finish()
            return _holds(encoder.part, frames, suffix)
        except UserError:
            return False
        finally:
            encoder.stop()
            encoder.close()


def _holds(path: Path, frames: int, container: str) -> bool:
    """Whether a finished video file counts `frames` frames, and its last one decodes."""
    with quiet_opencv():
        video = cv2.VideoCapture(str(path))
        try:
            counted = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            if container == ".mkv":  # has no count: OpenCV guesses from the duration
                counted = frames if abs(counted - frames) <= 1 else counted
            if not video.isOpened() or counted != frames:
                return False
            video.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
            return bool(video.grab())
        finally:
            video.release()
