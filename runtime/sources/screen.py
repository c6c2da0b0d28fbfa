"""What is on this machine's screen."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np

from runtime.buffers import FrameBuffers
from runtime.errors import SourceError
from runtime.frame import Frame, as_bgr
from runtime.sources.base import told_fps

_FPS = 30.0


class ScreenSource:
    """Pictures of a screen, or of a part of it, at an even rate.

    Args:
        number: which screen, from 1; 0: all of them as one picture.
        region: (left, top, width, height) on it in pixels; None: all of it.
        fps: how many pictures a second; None: 30.

    Raises:
        SourceError: no screen, no such screen, or a region that leaves it.
    """

    live = True
    frame_count: int | None = None
    warning = ""

    def __init__(
        self,
        number: int = 1,
        region: tuple[int, int, int, int] | None = None,
        fps: float | None = None,
    ) -> None:
        try:
            import mss
        except ImportError as error:
            raise SourceError(
                "screen:// needs the package mss, which is not installed",
                "mss 10.2 or later",
                "run: pip install 'pix2pix-edge[screen]'",
            ) from error
        self._failure: type[Exception] = mss.ScreenShotError
        try:
            self._grabber = mss.MSS()
            monitors = self._grabber.monitors
        except self._failure as error:
            raise SourceError(
                f"no screen can be read ({_line(error)})",
                "a desktop session (X11), and DISPLAY naming it",
                "start it from the desktop, or set DISPLAY=:0",
            ) from error
        try:
            self._area = _area(monitors, number, region)
        except SourceError:
            self._grabber.close()
            raise
        self.fps: float | None = fps or _FPS
        width, height = self._area["width"], self._area["height"]
        self.size_px: tuple[int, int] | None = (height, width)
        self.description = f"screen {number}, {width}x{height}, {told_fps(self.fps)}"
        self._buffers = FrameBuffers()
        self._next_index = 0
        self._due_s = time.monotonic()
        self._ended = threading.Event()
        self._closed = False

    def read(self) -> Frame | None:
        """The next picture, when its time has come; None after `interrupt`."""
        started_ns = time.perf_counter_ns()
        assert self.fps is not None
        assert self.size_px is not None
        now_s = time.monotonic()
        if self._ended.wait(max(0.0, self._due_s - now_s)):
            return None
        # Whoever was late begins a new rhythm: pictures are not made up for.
        self._due_s = max(self._due_s + 1 / self.fps, now_s)
        now_ns = time.perf_counter_ns()
        try:
            shot = self._grabber.grab(self._area)
        # Of a server that has gone away mss finds an answer of None, and asserts against it.
        except (self._failure, AssertionError) as error:
            raise SourceError(
                f"the screen cannot be read any more ({_line(error) or 'its server is gone'})",
                "a desktop session that goes on, of the same size",
                "start again",
            ) from error
        pixels = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        image = as_bgr(pixels, self._buffers.take((shot.height, shot.width)))
        took_ms = (time.perf_counter_ns() - started_ns) / 1e6
        frame = Frame(image, self._next_index, now_ns, took_ms)
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """A `read` that waits for its time returns None."""
        self._ended.set()

    def close(self) -> None:
        """Let go of the screen."""
        self._ended.set()
        if not self._closed:
            self._closed = True
            with contextlib.suppress(self._failure):  # a server that has gone is let go of too
                self._grabber.close()


def _area(
    monitors: list[dict[str, Any]], number: int, region: tuple[int, int, int, int] | None
) -> dict[str, int]:
    """What to grab, in the coordinates of all screens together."""
    if number >= len(monitors):
        there = ", ".join(
            f"{index} ({monitor['width']}x{monitor['height']})"
            for index, monitor in enumerate(monitors)
            if index > 0
        )
        raise SourceError(
            f"there is no screen {number}", f"one of {there}, or 0 for all", "name one of them"
        )
    screen = monitors[number]
    left, top, width, height = region or (0, 0, screen["width"], screen["height"])
    if left + width > screen["width"] or top + height > screen["height"]:
        raise SourceError(
            f"the region {left},{top},{width}x{height} leaves the screen",
            f"a part of its {screen['width']}x{screen['height']} pixels",
            "write region=LEFT,TOP,WIDTHxHEIGHT",
        )
    return {
        "left": screen["left"] + left,
        "top": screen["top"] + top,
        "width": width,
        "height": height,
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
