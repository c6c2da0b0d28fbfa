"""The screen as a source: a real X server, drawn on by a real program."""

import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.sources import open_source

pytest.importorskip("mss", reason="needs the extra screen")

pytestmark = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xsetroot")),
    reason="needs xvfb and x11-xserver-utils",
)


@pytest.fixture(scope="module")
def x_server():
    """An X server of 320x200 pixels on a display number of its own choice."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "320x200x24", "-noreset"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        display = f":{told.readline().strip()}"
    yield display
    server.terminate()
    server.wait(10)


@pytest.fixture
def display(x_server, monkeypatch):
    monkeypatch.setenv("DISPLAY", x_server)
    subprocess.run(["xsetroot", "-solid", "#102030"], check=True)
    return x_server


_WINDOW = """
import sys, tkinter
window = tkinter.Tk()
window.overrideredirect(True)
window.geometry("40x30+100+50")
window.configure(background="#ff8000")
window.update()
print("drawn", flush=True)
sys.stdin.read()
"""


def test_the_screen_is_seen_with_a_window_on_it(display):
    pytest.importorskip("tkinter")
    window = subprocess.Popen(
        [sys.executable, "-c", _WINDOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert window.stdout.readline() == b"drawn\n"
        source = open_source("screen://?fps=50")
        assert (source.live, source.fps, source.size_px) == (True, 50.0, (200, 320))
        expected = np.full((200, 320, 3), (0x30, 0x20, 0x10), np.uint8)
        expected[50:80, 100:140] = (0x00, 0x80, 0xFF)
        until = time.monotonic() + 10
        while not np.array_equal(source.read().image, expected):
            assert time.monotonic() < until
        source.close()
    finally:
        window.communicate(timeout=10)


def test_a_region_shows_that_part_and_follows_what_changes(display):
    source = open_source("screen://1?region=300,190,20x10&fps=100")
    assert source.size_px == (10, 20)
    assert "20x10, 100 fps" in source.description
    assert (source.read().image == (0x30, 0x20, 0x10)).all()
    subprocess.run(["xsetroot", "-solid", "#ff0000"], check=True)
    until = time.monotonic() + 10
    while not (source.read().image == (0, 0, 255)).all():
        assert time.monotonic() < until
    source.close()


def test_pictures_come_at_their_rate_and_late_ones_are_not_made_up_for(display):
    source = open_source("screen://", fps=50)
    stamps = [source.read().captured_at_ns for _ in range(6)]
    assert stamps[-1] - stamps[0] >= 4 * 20_000_000
    time.sleep(0.3)
    stamps = [source.read().captured_at_ns for _ in range(6)]
    assert stamps[-1] - stamps[0] >= 4 * 20_000_000
    source.close()


def test_a_screen_can_be_read_in_a_thread_and_the_read_be_interrupted(display):
    source = open_source("screen://0?fps=0.1")
    got = []
    reader = threading.Thread(target=lambda: got.extend(iter(source.read, None)))
    reader.start()
    time.sleep(0.3)
    source.interrupt()
    reader.join(5)
    assert not reader.is_alive()
    assert len(got) == 1
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("screen://7", "no screen 7"),
        ("screen://1?region=300,0,40x40", "leaves the screen"),
        ("screen://1?region=0,199,10x10", "leaves the screen"),
    ],
)
def test_a_screen_that_is_not_there_is_one_line(display, uri, told):
    with pytest.raises(SourceError, match=told) as error:
        open_source(uri)
    assert "\n" not in str(error.value)


def test_without_a_display_it_is_one_line(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":9876")
    with pytest.raises(SourceError, match="DISPLAY") as error:
        open_source("screen://")
    assert "\n" not in str(error.value)


def test_a_server_that_dies_is_an_error_and_not_the_end_of_the_program(monkeypatch):
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "64x48x24"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        monkeypatch.setenv("DISPLAY", f":{told.readline().strip()}")
    source = open_source("screen://?fps=100")
    assert source.read() is not None
    server.kill()
    server.wait(10)
    with pytest.raises(SourceError, match="cannot be read any more"):
        list(iter(source.read, None))
    source.close()
