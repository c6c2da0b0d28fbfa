"""The window on a real X server: what is on the screen after which key, and how it ends."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import decoded
from x_screen import until, x_screen

from runtime.errors import SinkError
from runtime.sinks.window import DisplaySink
from runtime.sinks.window_marks import HELP, WindowMarks

PROGRAM = Path(__file__).with_name("window_program.py")
BLUE, GREEN, RED = (200, 0, 0), (0, 200, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    with x_screen(tmp_path_factory.mktemp("screen")) as screen:
        yield screen


class Shown:
    """A running `window_program.py`, its window at the upper left of the screen, 320x240."""

    def __init__(self, screen, folder, *words):
        self.screen = screen
        self.folder = folder
        self.words = words
        (folder / "told").unlink(missing_ok=True)
        for _ in range(4):
            if self._started():
                break
            self.stop()
        until(lambda: self.count() > 2)
        until(self.has_focus)

    def _started(self):
        """Start it; False if its window stays black.

        On a screen without a window manager Qt now and then loses the first request to paint a
        window (a few of a hundred starts, whatever the program does before or after it).
        """
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "240", "320", *self.words],
            cwd=self.folder,
            env={**self.screen.environment, "PYTHONPATH": str(PROGRAM.parents[1])},
            stderr=(self.folder / "told").open("a"),  # of all attempts: the first may tell more
        )
        self.window = self.screen.window()
        self.screen.do("mousemove", "--window", self.window, "200", "120")
        until(lambda: self.is_at(60, 160, GREEN) or self._is_black_after(5))
        return self.is_at(60, 160, GREEN)

    def _is_black_after(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.is_at(60, 160, (0, 0, 0)):
                return False
            time.sleep(0.05)
        return True

    def has_focus(self):
        """Give it the keyboard, as a window manager does: keys before that go nowhere."""
        self.screen.do("windowfocus", self.window)
        return self.screen.do("getwindowfocus") == self.window

    def is_at(self, row, column, colour):
        return bool((self.screen.picture()[row, column] == colour).all())

    def count(self):
        """The frame that is on the screen, modulo 256."""
        return int(self.screen.picture()[236, 280, 0])

    def ended(self):
        """Wait for its end; the exit code, what it told, and how many frames it had shown."""
        self.process.wait(timeout=20)
        return self.process.returncode, self.told(), int((self.folder / "out").read_text())

    def told(self):
        return (self.folder / "told").read_text()

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def shown(screen, tmp_path):
    programs = []

    def start(*words):
        programs.append(Shown(screen, tmp_path, *words))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


def test_views_mouse_pause_screenshot_and_recording_by_keys(shown):
    window = shown("overlay")
    press = window.screen.press

    until(lambda: window.is_at(5, 5, RED))
    press("h")
    until(lambda: window.is_at(5, 5, GREEN))
    press("v")
    until(lambda: window.is_at(60, 300, BLUE) and window.is_at(60, 340, GREEN))  # twice as wide
    press("v")
    until(lambda: window.is_at(60, 150, BLUE) and window.is_at(60, 170, GREEN))
    window.screen.do("mousemove", "--window", window.window, "80", "120")
    until(lambda: window.is_at(60, 70, BLUE) and window.is_at(60, 90, GREEN))

    press("r")
    until(lambda: (window.screen.picture()[12, 308] == (40, 40, 230)).all())  # the dot
    (recording,) = until(lambda: list(window.folder.glob(".p2p-*.part.mkv")))
    press("space")
    until(lambda: window.is_at(12, 286, (255, 255, 255)))  # the bars
    stopped_at = window.count()
    assert window.is_at(60, 70, BLUE)
    window.screen.do("mousemove", "--window", window.window, "240", "120")
    until(lambda: window.is_at(60, 230, BLUE))
    press("s")
    (screenshot,) = until(lambda: list(window.folder.glob("p2p-*.png")))
    assert window.count() == stopped_at
    picture = cv2.imread(str(screenshot))
    assert picture.shape == (240, 320, 3)
    assert (picture[:230, :236] == BLUE).all(), "without dot, bars and message"
    assert (picture[:230, 245:] == GREEN).all()
    assert (picture[-1, 300] == stopped_at).all()
    press("space")
    until(lambda: window.count() > stopped_at + 3)  # the newest, not the next
    press("r")
    (video,) = until(lambda: list(window.folder.glob("p2p-*.mp4")))
    press("q")
    code, told, frames = window.ended()

    assert code == 0
    assert f"saved {screenshot.name}\n" in told
    assert f"recording {video.name}\n" in told
    assert f"saved {video.name}\n" in told
    assert not recording.exists()
    recorded = decoded(video)
    assert len(recorded) > 3
    assert {image.shape for image in recorded} == {(240, 320, 3)}
    reddest = max(int(image[:24, 296:, 2].max()) for image in recorded)
    assert reddest < 100, "no dot in the recording"
    numbers = [int(image[235, 280, 0]) for image in recorded]
    assert numbers == sorted(numbers)
    assert numbers[-1] < frames + 3, "repeated where the machine was slow, never another's"


def test_a_window_answers_while_no_frame_comes_and_its_close_button_ends_it(shown):
    window = shown()
    (window.folder / "stall").touch()
    window.screen.press("question")
    until(lambda: not window.is_at(60, 30, GREEN))  # the help's strip
    window.screen.press("F1")
    until(lambda: window.is_at(60, 30, GREEN))
    window.screen.press("v")
    until(lambda: window.is_at(60, 300, BLUE))
    window.screen.push_close_button(window.window)
    code, told, _ = window.ended()
    assert code == 0
    assert "Traceback" not in told


def test_escape_ends_it(shown):
    window = shown()
    window.screen.press("f")
    until(lambda: window.screen.press("Escape") or window.process.poll() is not None)
    code, told, _ = window.ended()
    assert code == 0
    assert told == ""


def test_cursor_and_function_keys_and_their_like_do_nothing(shown):
    """What X11 calls them ends in the code of a letter: Left in that of `q`."""
    window = shown()
    for key in ("Left", "Up", "Right", "Down", "Home", "Page_Down", "F5", "KP_Left", "Delete"):
        window.screen.press(key)
    before = window.count()
    until(lambda: window.count() != before)
    window.screen.press("Q")
    code, told, _ = window.ended()
    assert code == 0
    assert told == "", "no screenshot, no recording"
    assert list(window.folder.glob("*p2p-*")) == []


def test_a_recording_of_a_killed_window_is_brought_back_when_the_next_opens(shown):
    window = shown()
    window.screen.press("r")
    (part,) = until(lambda: list(window.folder.glob(".p2p-*.part.mkv")))
    first_second = b"\x1f\x43\xb6\x75"  # a cluster, as Matroska calls it
    until(lambda: first_second in part.read_bytes())
    window.stop()
    again = shown()
    (video,) = window.folder.glob("p2p-*-recovered-1.mp4")
    assert video.name in again.told()
    assert len(decoded(video)) > 0
    assert not part.exists()


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_two_windows_take_different_names_in_one_second(tmp_path, suffix):
    code = (
        "from pathlib import Path; from runtime.sinks.snapshots import new_file;"
        f"print(new_file(Path(), {suffix!r}), flush=True); input();"
        f"print(new_file(Path(), {suffix!r}))"
    )
    windows = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for window in windows:
        window.stdout.readline()  # both are up
    for window in windows:
        window.stdin.write("\n")
        window.stdin.flush()
    names = [window.communicate()[0].strip() for window in windows]
    assert names[0] != names[1]
    assert all(re.fullmatch(rf"p2p-\d{{8}}-\d{{6}}-\d+\{suffix}", name) for name in names)


def test_a_recording_that_fails_is_told_and_the_stream_goes_on(shown):
    window = shown()
    limit = subprocess.run(
        ["prlimit", "--pid", str(window.process.pid), "--fsize=2000"], check=False
    )
    if limit.returncode != 0:
        pytest.skip("prlimit is not installed")
    window.screen.press("r")
    until(lambda: re.search("recording failed.*disk", window.told()))
    before = window.count()
    until(lambda: window.count() != before)
    window.screen.press("q")
    assert window.process.wait(timeout=20) == 0
    assert list(window.folder.glob("p2p-*.mp4")) == []


@pytest.mark.parametrize("size_px", [(240, 320), (480, 640), (1080, 1920)])
def test_the_help_stands_whole_on_the_picture(size_px):
    marks = WindowMarks()
    marks.help_on_or_off()
    picture = np.full((*size_px, 3), 128, np.uint8)
    marked = marks.drawn_on(picture)
    assert (picture == 128).all()
    lit = np.argwhere((marked > 180).all(axis=2))
    rows = np.unique(lit[:, 0])
    lines = 1 + int((np.diff(rows) > 1).sum())
    assert lines >= len(HELP)
    assert lit[:, 0].max() < size_px[0] - 1
    assert lit[:, 1].max() < size_px[1] - 1
    strip = np.argwhere((marked < 60).all(axis=2))
    assert lit[:, 1].max() < strip[:, 1].max(), "the strip is behind all of it"


def test_no_marks_no_copy():
    picture = np.zeros((20, 30, 3), np.uint8)
    assert WindowMarks().drawn_on(picture) is picture


def test_a_window_without_a_screen_is_an_error_and_not_the_end_of_the_process(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match="--sink"):
        DisplaySink()


def test_a_screen_that_does_not_answer_is_an_error_and_not_the_end_of_the_process(monkeypatch):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":977")
    with pytest.raises(SinkError, match="--sink"):
        DisplaySink()
