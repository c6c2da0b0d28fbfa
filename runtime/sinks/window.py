"""A window on the screen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2

from runtime.errors import SinkError
from runtime.frame import Frame

_ESCAPE = 27
_LOOK_AT_KEYS_EVERY_NS = 50_000_000


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
