"""Where frames go: a window, a video file, image files, nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import cv2

from runtime.errors import SinkError
from runtime.files import written_whole
from runtime.frame import Frame
from runtime.images import IMAGE_SUFFIXES
from runtime.video_file import VIDEO_SUFFIXES, VideoSink

ACCEPTED = (
    "display://0 (a window), a video file (" + ", ".join(VIDEO_SUFFIXES) + "), "
    "a folder for images, an image file, or none"
)
_ESCAPE = 27
_LOOK_AT_KEYS_EVERY_NS = 50_000_000


class Sink(Protocol):
    """Takes frames, in order, from one thread. Whoever opened it closes it."""

    description: str
    """For people: `night.mp4, mp4v, 25 fps`."""

    def write(self, frame: Frame) -> None:
        """Show or keep a frame; it is not read after this returns.

        Raises:
            UserError: it could not be kept; a full disk is one cause.
        """

    def wants_more(self) -> bool:
        """Whether another frame may come; called between frames, and while none comes."""

    def close(self, keep: bool = True) -> None:
        """Finish, or throw an unfinished file away (`keep=False`). May be called twice.

        Raises:
            UserError: the file could not be finished; a full disk is one cause.
        """


def open_sink(uri: str, *, fps: float | None = None, live: bool = False) -> Sink:
    """Open what `uri` names; files are made with the first frame, and appear when finished.

    Args:
        uri: `display://0`, a video file, an image file, a folder (exists, ends in `/`, or has no
            suffix), or `none`.
        fps: the rate of a video file; a window keeps to it too, unless `live`.
        live: frames come in their own time: a window shows each at once, and a video file repeats
            pictures where frames were dropped, so that it plays at the speed of life.

    Raises:
        SinkError: no such kind of sink, or no screen.
    """
    if uri == "none":
        return NoSink()
    scheme, separator, rest = uri.partition("://")
    if scheme == "display":
        return DisplaySink(None if live else fps)
    if separator and scheme != "file":
        raise SinkError(f"unknown sink {uri}", ACCEPTED, "name one of these")
    uri = rest if separator else uri
    path = Path(uri)
    suffix = path.suffix.lower()
    if path.is_dir() or uri.endswith("/") or not suffix:
        return ImageFolderSink(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoSink(path, fps, live)
    if suffix in IMAGE_SUFFIXES:
        return ImageSink(path)
    raise SinkError(f"cannot write {suffix} files: {uri}", ACCEPTED, "name one of these")


class NoSink:
    """Takes every frame and keeps none: for measuring."""

    description = "none"

    def write(self, frame: Frame) -> None:
        """Forget the frame."""

    def wants_more(self) -> bool:
        """Always."""
        return True

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""


class ImageFolderSink:
    """Image files in a folder: with the source's file names, else `frame_000000.png` onwards.

    Each file is whole or not there; those before an interruption stay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.description = f"{folder}/, image files"

    def write(self, frame: Frame) -> None:
        """Write one file."""
        _write_image(self._folder / (frame.name or f"frame_{frame.index:06d}.png"), frame)

    def wants_more(self) -> bool:
        """Always."""
        return True

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""


class ImageSink:
    """One image file, for a source of one image."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frame: Frame | None = None
        self.description = str(path)

    def write(self, frame: Frame) -> None:
        """Remember the frame until `close`."""
        if self._frame is not None:
            raise SinkError(
                f"{self._path} holds one picture, and a second one came",
                "a source of one image",
                f"name a folder instead: {self._path.with_suffix('')}/",
            )
        self._frame = frame

    def wants_more(self) -> bool:
        """Also a second one, to be told from it."""
        return True

    def close(self, keep: bool = True) -> None:
        """Write the file."""
        frame, self._frame = self._frame, None
        if frame is not None and keep:
            _write_image(self._path, frame)


def _write_image(path: Path, frame: Frame) -> None:
    encoded, data = cv2.imencode(path.suffix, frame.image)
    if not encoded:
        raise SinkError(
            f"OpenCV cannot write {path}", "one of " + ", ".join(IMAGE_SUFFIXES), "rename it"
        )
    with written_whole(path) as beside:
        beside.write_bytes(data.tobytes())


class DisplaySink:
    """A window; q, Escape or its close button ends the run. Use it from the main thread.

    Args:
        paced_fps: show no faster than this; None: each frame at once.

    Raises:
        SinkError: no screen, or an OpenCV without windows.
    """

    description = "a window (q or Escape closes it)"
    _title = "pix2pix-edge"

    def __init__(self, paced_fps: float | None = None) -> None:
        _check_screen()
        self._interval_ns = int(1e9 / paced_fps) if paced_fps else 0
        self._due_ns = 0
        self._looked_at_ns = 0
        self._wanted = True
        self._shown = False

    def write(self, frame: Frame) -> None:
        """Show the frame, when its time has come."""
        if not self._shown:
            _give_qt_fonts()
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL  # no toolbar
            cv2.namedWindow(self._title, flags)
            cv2.resizeWindow(self._title, frame.image.shape[1], frame.image.shape[0])
            self._shown = True
        while (
            self._wanted and (wait_ms := (self._due_ns - time.perf_counter_ns()) // 1_000_000) > 0
        ):
            self._look_at_keys(wait_ms)
        self._due_ns = max(self._due_ns, time.perf_counter_ns() - self._interval_ns)
        self._due_ns += self._interval_ns
        cv2.imshow(self._title, frame.image)
        self._look_at_keys(1)

    def wants_more(self) -> bool:
        """False once the user closed it."""
        if self._shown and time.perf_counter_ns() - self._looked_at_ns > _LOOK_AT_KEYS_EVERY_NS:
            self._look_at_keys(1)  # no frame came for a while: the window must not freeze
        return self._wanted

    def close(self, keep: bool = True) -> None:  # noqa: ARG002 - nothing is kept
        """Close the window."""
        if self._shown:
            cv2.destroyWindow(self._title)
        self._shown = self._wanted = False

    def _look_at_keys(self, wait_ms: int) -> None:
        key = cv2.waitKey(wait_ms) & 0xFF
        self._looked_at_ns = time.perf_counter_ns()
        closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if key in (ord("q"), _ESCAPE) or closed:
            self._wanted = False


_SYSTEM_FONTS = Path("/usr/share/fonts")


def _give_qt_fonts() -> None:
    """Point OpenCV's Qt to the system's fonts: its wheel ships none, and complains at length."""
    if not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir() and _SYSTEM_FONTS.is_dir():
        os.environ["QT_QPA_FONTDIR"] = str(_SYSTEM_FONTS)


_TRY_WINDOW = "import cv2; cv2.namedWindow('pix2pix-edge'); cv2.waitKey(1)"


def _check_screen() -> None:
    """Qt aborts the whole process where it finds no screen: let another process try first.

    Raises:
        SinkError: no screen, or an OpenCV without windows.
    """
    mend = "write to a file: --sink out.mp4"
    needs_server = sys.platform not in ("win32", "darwin")
    if needs_server and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError(
            "no screen for a window (DISPLAY and WAYLAND_DISPLAY are not set)",
            "a desktop session",
            mend,
        )
    tried = subprocess.run(
        [sys.executable, "-c", _TRY_WINDOW], capture_output=True, check=False, timeout=60
    )
    if tried.returncode != 0:
        lines = tried.stderr.decode(errors="replace").strip().splitlines()
        raise SinkError(
            "OpenCV cannot open a window" + (f" ({lines[0]})" if lines else ""),
            "a screen that lets this user in, and opencv-python rather than -headless",
            mend,
        )
