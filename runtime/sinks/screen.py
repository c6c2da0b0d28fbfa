"""Whether there is a screen to open a window on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.errors import SinkError

_SYSTEM_FONTS = Path("/usr/share/fonts")
_MOST_S = 60.0
"""A first start of OpenCV on a slow card takes ten; a screen that does not answer, for ever."""
_TRY_WINDOW = "import cv2; cv2.namedWindow('p2p'); cv2.waitKey(1)"


def give_qt_fonts() -> None:
    """Point OpenCV's Qt to the system's fonts: its wheel ships none, and complains at length."""
    if not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir() and _SYSTEM_FONTS.is_dir():
        os.environ["QT_QPA_FONTDIR"] = str(_SYSTEM_FONTS)


def check_screen() -> None:
    """Qt aborts the whole process where it finds no screen: let another process try first.

    Raises:
        SinkError: no screen, one that does not answer, or an OpenCV without windows.
    """
    mend = "write to a file: --sink out.mp4"
    needs_server = sys.platform not in ("win32", "darwin")
    if needs_server and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError(
            "no screen for a window (DISPLAY and WAYLAND_DISPLAY are not set)",
            "a desktop session",
            mend,
        )
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY_WINDOW], capture_output=True, check=False, timeout=_MOST_S
        )
    except subprocess.TimeoutExpired as error:
        display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY", "")
        raise SinkError(
            f"the screen {display} did not answer within {_MOST_S:.0f} s",
            "a screen that opens a window",
            f"check DISPLAY and WAYLAND_DISPLAY, or {mend}",
        ) from error
    if tried.returncode != 0:
        lines = tried.stderr.decode(errors="replace").strip().splitlines()
        raise SinkError(
            "OpenCV cannot open a window" + (f" ({lines[0]})" if lines else ""),
            "a screen that lets this user in, and opencv-python rather than -headless",
            mend,
        )
