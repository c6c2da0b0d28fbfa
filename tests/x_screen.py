"""A real X server without a screen, and hands on its keyboard and mouse."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

_PUSH_CLOSE_BUTTON = """
import ctypes, sys
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int),
                ("display", ctypes.c_void_p), ("window", ctypes.c_ulong),
                ("kind", ctypes.c_ulong), ("format", ctypes.c_int), ("data", ctypes.c_long * 5)]
class Event(ctypes.Union):
    _fields_ = [("message", Message), ("pad", ctypes.c_long * 24)]
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = ctypes.c_ulong
x.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
x.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long,
                         ctypes.c_void_p]
x.XCloseDisplay.argtypes = [ctypes.c_void_p]
display = x.XOpenDisplay(None)
window = int(sys.argv[1])
event = Event()
event.message.type = 33
event.message.window = window
event.message.kind = x.XInternAtom(display, b"WM_PROTOCOLS", 0)
event.message.format = 32
event.message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
x.XSendEvent(display, window, 0, 0, ctypes.byref(event))
x.XCloseDisplay(display)
"""
SIZE_PX = (600, 900)
_PATIENCE_S = 20


class XScreen:
    """An Xvfb of 900x600, whose picture lies in a file that it keeps up to date."""

    def __init__(self, display: str, picture: Path) -> None:
        self.environment = {**os.environ, "DISPLAY": display, "LANG": "C"}
        self.environment.pop("WAYLAND_DISPLAY", None)
        self._picture = picture

    def picture(self):
        """The screen: uint8 [600, 900, 3], BGR. (XWD: a header, a colour table, the rows.)"""
        data = self._picture.read_bytes()
        header = struct.unpack(">25I", data[:100])
        header_bytes, height, width = header[0], header[5], header[4]
        row_bytes, colours = header[12], header[19]
        rows = np.frombuffer(data, np.uint8, height * row_bytes, header_bytes + 12 * colours)
        return rows.reshape(height, row_bytes)[:, : 4 * width].reshape(height, width, 4)[..., :3]

    def do(self, *words: str) -> str:
        """Run xdotool."""
        ran = subprocess.run(
            ["xdotool", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
        return ran.stdout.strip()

    def window(self) -> str:
        """The window of ours that is shown; waits for it."""
        found = until(lambda: self.do("search", "--onlyvisible", "--name", "pix2pix-edge"))
        return found.splitlines()[-1]

    def press(self, key: str) -> None:
        """Press a key, as X names it, in the window under the mouse."""
        self.do("key", key)

    def push_close_button(self, window: str) -> None:
        """Send what a window manager sends for its close button (ICCCM, WM_DELETE_WINDOW)."""
        subprocess.run(
            [sys.executable, "-c", _PUSH_CLOSE_BUTTON, window], env=self.environment, check=True
        )


def until(condition: Callable[[], object]):
    """Wait until `condition` gives something true, and give that."""
    end = time.monotonic() + _PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.03)
    return result


@contextmanager
def x_screen(folder: Path) -> Iterator[XScreen]:
    """Start Xvfb on a free display number; skips the test where it or xdotool is absent."""
    for needed in ("Xvfb", "xdotool"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    reading, writing = os.pipe()
    height, width = SIZE_PX
    server = subprocess.Popen(
        [
            *("Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24"),
            *("-fbdir", str(folder), "-nolisten", "tcp", "-noreset"),
        ],
        pass_fds=(writing,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        yield XScreen(f":{number}", folder / "Xvfb_screen0")
    finally:
        server.terminate()
        server.wait()
