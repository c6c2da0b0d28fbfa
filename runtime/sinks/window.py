"""A window on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from runtime.errors import UserError
from runtime.frame import Frame, Image, Translated
from runtime.sinks.base import BaseSink
from runtime.sinks.leftovers import recovered_in
from runtime.sinks.screen import check_screen, give_qt_fonts
from runtime.sinks.snapshots import new_file, save_screenshot
from runtime.sinks.video import VideoSink
from runtime.sinks.window_marks import WindowMarks
from runtime.view import View

_ESCAPE = 27
_F1 = (0xFFBE, 0x700000)
"""What X11 and Windows call it."""
_KEY_BITS = 0xFFFF
"""What is above them says which of Shift, Num Lock and so on are down."""
_LETTERS = 0x100
"""Below are characters; from here on cursor keys and their like, as X11 numbers them."""
_LOOK_AT_KEYS_EVERY_NS = 30_000_000
_MAP_WINDOW_MS = 50
"""Once: a window whose size Qt changes before the screen has shown it may stay black for good."""


class DisplaySink(BaseSink):
    """A window that people work with by keys and mouse. Use it from the main thread.

    It makes its own picture of each frame and so may show another view than the other sinks get.

    Space pauses: the picture stays and goes on answering, the stream goes on behind, and the next
    picture is its newest. `v` goes to the next view; in the split view the line follows the
    mouse. `s` saves the picture as a PNG file, `r` starts and stops recording to an MP4 file,
    both in the working folder, never over another file and without the window's own marks. `h`
    hides and shows the overlays, `f` fills the screen, `?` or F1 lists the keys; q, Escape and
    the close button end the run. What a recording cannot do (a full disk) is told on the picture
    and on stderr, and the stream goes on. Recordings of the working folder that a killed window
    left are brought back when one opens, and told in `notice`.

    Args:
        view: what is shown at first, with its overlays; None: the translation. It belongs to the
            window from then on.
        paced_fps: show no faster than this; None: each frame at once.
        fps: rate of recordings; None: `paced_fps`, else 25.

    Raises:
        SinkError: no screen, or an OpenCV without windows.
    """

    description = "a window (? lists its keys, q or Escape closes it)"
    main_thread = True
    shows_notes = True
    _title = "pix2pix-edge"

    def __init__(
        self, view: View | None = None, paced_fps: float | None = None, fps: float | None = None
    ) -> None:
        check_screen()
        self.notice = recovered_in(Path(), "p2p-*", (".mp4",))
        self._view = view or View()
        self._interval_ns = int(1e9 / paced_fps) if paced_fps else 0
        self._fps = fps or paced_fps
        self._marks = WindowMarks()
        self._due_ns = 0
        self._looked_at_ns = 0
        self._wanted = True
        self._window_open = False
        self._paused = False
        self._full_screen = False
        self._stale = False
        self._newest: Frame | None = None
        self._shown_frame: Frame | None = None
        self._picture: Image | None = None
        self._recording: VideoSink | None = None
        self._keys: dict[int, Callable[[], None]] = {
            ord("q"): self._end,
            _ESCAPE: self._end,
            ord(" "): self._pause_or_resume,
            ord("v"): self._next_view,
            ord("s"): self._save_screenshot,
            ord("r"): self._start_or_stop_recording,
            ord("h"): self._hide_or_show_overlays,
            ord("f"): self._fill_screen_or_not,
            ord("?"): self._marks.help_on_or_off,
            **dict.fromkeys(_F1, self._marks.help_on_or_off),
        }

    def write(self, frame: Frame) -> None:
        """Show the frame, when its time has come."""
        if not self._window_open:
            self._open_window(frame.image)
        while (
            self._wanted and (wait_ms := (self._due_ns - time.perf_counter_ns()) // 1_000_000) > 0
        ):
            self._look_at_keys(wait_ms)
        self._due_ns = max(self._due_ns, time.perf_counter_ns() - self._interval_ns)
        self._due_ns += self._interval_ns
        self._newest = frame
        if not self._paused:
            self._shown_frame = frame
            self._show()
        if self._recording is not None:
            self._record(frame)
        self._look_at_keys(1)

    def wants_more(self) -> bool:
        """False once the user closed it; call it often, or the window freezes."""
        if self._window_open and self._wanted:
            since_ns = time.perf_counter_ns() - self._looked_at_ns
            if since_ns > _LOOK_AT_KEYS_EVERY_NS:
                self._look_at_keys(1)
        return self._wanted

    def close(self, keep: bool = True) -> None:  # noqa: ARG002 - a recording is always kept
        """Close the window and finish a recording."""
        self._wanted = False
        if self._recording is not None:
            self._stop_recording()
        if self._window_open and self._is_visible():
            cv2.destroyWindow(self._title)
        self._window_open = False
        self._newest = self._shown_frame = self._picture = None

    def _open_window(self, image: Image) -> None:
        give_qt_fonts()
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL  # no toolbar
        cv2.namedWindow(self._title, flags)
        cv2.imshow(self._title, image)
        self._act_on(cv2.waitKeyEx(_MAP_WINDOW_MS))
        height, width = image.shape[:2]
        cv2.resizeWindow(self._title, width * (2 if self._is("side-by-side") else 1), height)
        cv2.setMouseCallback(self._title, self._on_mouse)
        self._window_open = True

    def _composed(self, frame: Frame) -> Image:
        return self._view.picture(frame) if isinstance(frame, Translated) else frame.image

    def _show(self) -> None:
        """Make the picture anew and bring it to the screen."""
        assert self._shown_frame is not None
        self._picture = self._composed(self._shown_frame)
        self._stale = False
        cv2.imshow(self._title, self._marks.drawn_on(self._picture))

    def _look_at_keys(self, wait_ms: int) -> None:
        key = cv2.waitKeyEx(wait_ms)
        self._looked_at_ns = time.perf_counter_ns()
        if not self._is_visible():
            self._wanted = False
            return
        self._act_on(key)
        if (self._stale or self._marks.changed) and self._wanted and self._shown_frame is not None:
            self._show()

    def _act_on(self, key: int) -> None:
        """Do what a key stands for; -1 is none."""
        if key < 0:
            return
        plain = key & _KEY_BITS
        if plain < _LETTERS:
            plain = ord(chr(plain).lower())
        action = self._keys.get(key) or self._keys.get(plain)
        if action is not None:
            action()
            self._stale = True

    def _is_visible(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # Qt, after its last window was closed
            return False

    def _on_mouse(self, event: int, x: int, y: int, flags: int, data: object) -> None:  # noqa: ARG002 - as OpenCV calls it
        if event == cv2.EVENT_MOUSEMOVE and self._is("split") and self._picture is not None:
            self._view.split_at = x / max(1, self._picture.shape[1] - 1)
            self._stale = True

    def _is(self, view: str) -> bool:
        return self._view.view == view

    def _end(self) -> None:
        self._wanted = False

    def _pause_or_resume(self) -> None:
        self._paused = not self._paused
        self._marks.paused = self._paused
        if not self._paused:
            self._shown_frame = self._newest

    def _next_view(self) -> None:
        was_wide = self._is("side-by-side")
        self._view.to_next()
        self._marks.say(self._view.view)
        wider = int(self._is("side-by-side")) - int(was_wide)
        if wider and not self._full_screen:  # what is seen keeps its size
            _, _, width, height = cv2.getWindowImageRect(self._title)
            cv2.resizeWindow(self._title, 2 * width if wider > 0 else width // 2, height)

    def _hide_or_show_overlays(self) -> None:
        if self._view.overlays:
            self._view.overlays_shown = not self._view.overlays_shown
        else:
            self._marks.say("no figures to show: start with --hud")

    def _fill_screen_or_not(self) -> None:
        self._full_screen = not self._full_screen
        how = cv2.WINDOW_FULLSCREEN if self._full_screen else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, how)

    def _save_screenshot(self) -> None:
        if self._picture is None:
            return
        try:
            path = save_screenshot(self._picture, Path())
        except UserError as error:
            self._tell(f"no screenshot: {error.received}")
        else:
            self._tell(f"saved {path}")

    def _start_or_stop_recording(self) -> None:
        if self._recording is not None:
            self._stop_recording()
            return
        try:
            path = new_file(Path(), ".mp4")
            self._recording = VideoSink(path, self._fps, live=True)
        except UserError as error:
            self._tell(f"no recording: {error.received}")
            return
        self._marks.recording = True
        self._tell(f"recording {path}")

    def _record(self, frame: Frame) -> None:
        assert self._recording is not None
        picture = self._picture if frame is self._shown_frame else self._composed(frame)
        assert picture is not None
        # A file that is shown at its pace was read earlier: the moment of showing counts.
        shown_ns = time.perf_counter_ns() if self._interval_ns else frame.captured_at_ns
        plain = Frame(picture, frame.index, shown_ns)
        try:
            self._recording.write(plain)
        except UserError as error:
            self._stop_recording(error)

    def _stop_recording(self, error: UserError | None = None) -> None:
        """Finish the file; after an error what is whole in it is kept if that can be."""
        assert self._recording is not None
        recording, self._recording = self._recording, None
        self._marks.recording = False
        try:
            recording.close()
        except UserError as late:
            error = error or late
        if error is not None:
            self._tell(f"recording failed: {error.received}")
            return
        self._tell(f"saved {recording.path}")
        if recording.warning:
            self._tell(f"saved {recording.path}; {recording.warning}")

    def _tell(self, text: str) -> None:
        self._marks.say(text)
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
