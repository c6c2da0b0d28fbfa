"""GStreamer as a source: real pipelines in a real gst-launch-1.0."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.sources import open_source
from runtime.sources.gstreamer import of_csi

ROOT = Path(__file__).parent.parent
LIVE = "videotestsrc is-live=true"

needs_gst = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="needs gstreamer1.0-tools"
)


def frames_of(source):
    frames = []
    try:
        while (frame := source.read()) is not None:
            frames.append(frame)
    finally:
        source.close()
    return frames


def is_gone(pid):
    """Ended, though perhaps nobody has asked for its exit code yet."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@needs_gst
@pytest.mark.parametrize(("width", "height"), [(320, 240), (33, 21)])
def test_a_pipeline_gives_its_pixels_its_size_and_its_rate_and_ends(width, height):
    source = open_source(
        f"gst://{LIVE} num-buffers=12 pattern=solid-color foreground-color=0xff2050c0 "
        f"! video/x-raw,format=BGR,width={width},height={height},framerate=30000/1001"
    )
    assert source.live
    assert source.size_px == (height, width)
    assert source.fps == pytest.approx(29.97, abs=0.001)
    assert f"{width}x{height}, 29.97 fps" in source.description
    frames = frames_of(source)
    assert 5 < len(frames) <= 12
    assert [frame.index for frame in frames] == list(range(len(frames)))
    for frame in frames:
        assert frame.image.shape == (height, width, 3)
        assert frame.image.flags.c_contiguous
        assert (frame.image == (0xC0, 0x50, 0x20)).all()


@needs_gst
def test_a_change_of_size_in_mid_stream_tears_no_frame():
    part = (
        LIVE + " num-buffers=10 pattern=solid-color foreground-color=0xff{colour} "
        "! video/x-raw,format=BGR,width={width},height=64,framerate=30/1 ! all. "
    )
    source = open_source(
        "gst://"
        + part.format(colour="ff0000", width=96)
        + part.format(colour="00ff00", width=50)
        + part.format(colour="0000ff", width=96)
        + "concat name=all"
    )
    seen = []
    for frame in frames_of(source):
        colours = {tuple(colour) for colour in frame.image.reshape(-1, 3).tolist()}
        assert len(colours) == 1
        state = (frame.image.shape[1], *colours)
        if not seen or seen[-1] != state:
            seen.append(state)
    assert seen == [(96, (0, 0, 255)), (50, (0, 255, 0)), (96, (255, 0, 0))]


@needs_gst
def test_a_reader_that_was_late_gets_the_newest_frames_and_not_all_that_came():
    source = open_source(f"gst://{LIVE} num-buffers=60 ! video/x-raw,width=640,framerate=60/1")
    time.sleep(0.8)
    assert len(frames_of(source)) < 30


@needs_gst
def test_the_memory_of_a_frame_is_used_again_but_not_while_someone_holds_it():
    source = open_source(f"gst://{LIVE} pattern=snow ! video/x-raw,width=64,height=48")
    held = source.read().image
    before = held.copy()
    addresses = {source.read().image.ctypes.data for _ in range(8)}
    assert len(addresses) <= 2
    assert np.array_equal(held, before)
    source.close()


@needs_gst
def test_an_appsink_at_the_end_as_opencv_wants_it_is_left_out():
    source = open_source(f"gst://{LIVE} num-buffers=3 ! videoconvert ! appsink drop=true")
    assert frames_of(source)


@needs_gst
@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("nosuchelement ! videoconvert", 'no element "nosuchelement"'),
        ("v4l2src device=/dev/video97", "Cannot identify device '/dev/video97'"),
        ("filesrc location=/nothing/there ! decodebin", "Resource not found"),
        ("audiotestsrc", "could not link"),
        ("videotestsrc !", "gst-launch-1.0"),
        ("videotestsrc num-buffers=0", "gave no frame"),
        ("filesrc location='/nothing", "quotation"),
        ("", "without a pipeline"),
    ],
)
def test_what_gstreamer_says_of_a_failure_is_told_in_one_line(pipeline, told, capfd):
    with pytest.raises(SourceError) as error:
        open_source(f"gst://{pipeline}")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


@needs_gst
def test_no_error_tells_a_password():
    uri = "gst://rtspsrc location=rtsp://anna:geheim@127.0.0.1:1/x user-pw=geheim ! decodebin"
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert "geheim" not in str(error.value)


@needs_gst
def test_a_pipeline_that_is_killed_is_an_error_and_its_half_frame_is_thrown_away():
    source = open_source(f"gst://{LIVE} pattern=white ! video/x-raw,width=1280,height=720")
    threading.Timer(0.3, lambda: os.kill(source._process.pid, signal.SIGKILL)).start()
    darkest = []

    def read_all():
        while (frame := source.read()) is not None:
            darkest.append(frame.image.min())

    with pytest.raises(SourceError, match="SIGKILL"):
        read_all()
    assert len(darkest) > 1
    assert min(darkest) > 200
    source.close()
    source.close()


@needs_gst
def test_a_pipeline_that_stalls_is_an_error_after_two_seconds():
    source = open_source(
        f"gst://{LIVE} num-buffers=5 ! video/x-raw,framerate=30/1 ! all. "
        f"{LIVE} ! video/x-raw,framerate=30/1 ! valve drop=true ! all. concat name=all"
    )
    started = time.monotonic()
    with pytest.raises(SourceError, match="no frame for 2 s"):
        frames_of(source)
    assert 1.5 < time.monotonic() - started < 8
    assert is_gone(source._process.pid)


@needs_gst
def test_interrupt_gets_a_waiting_read_back_and_ends_the_process():
    source = open_source(f"gst://{LIVE} ! video/x-raw,framerate=1/1")
    threading.Timer(0.2, source.interrupt).start()
    started = time.monotonic()
    while source.read() is not None:
        pass
    assert time.monotonic() - started < 1.5
    wait_until(lambda: is_gone(source._process.pid))
    source.close()


@needs_gst
def test_a_pipeline_whose_pixels_nobody_reads_can_be_closed_and_leaves_nothing_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        source = open_source(f"gst://{LIVE} ! video/x-raw,width=1920,height=1080,framerate=60/1")
        time.sleep(0.2)
        source.close()
        assert is_gone(source._process.pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_gst
@pytest.mark.parametrize("how", ["it ends", "it is killed"])
def test_the_pipeline_does_not_outlive_the_program(how):
    code = (
        "from runtime.sources import open_source\n"
        f"source = open_source('gst://{LIVE} ! video/x-raw,framerate=30/1')\n"
        "print(source._process.pid, flush=True)\n"
        f"while {how == 'it is killed'} and source.read(): pass\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pid = int(program.stdout.readline())
    if how == "it is killed":
        program.kill()
    program.communicate(timeout=10)
    wait_until(lambda: is_gone(pid))


@needs_gst
@pytest.mark.skipif(Path("/etc/nv_tegra_release").exists(), reason="a Jetson has the element")
def test_a_csi_camera_off_a_jetson_names_what_is_missing():
    with pytest.raises(SourceError, match="nvarguscamerasrc") as error:
        open_source("csi://0?size=1280x720&fps=30&flip=2")
    assert "Jetson" in str(error.value)


def test_a_csi_camera_asks_the_camera_service_for_size_rate_and_flip(tmp_path, monkeypatch):
    """No Jetson's sensor is here: a program of the name gst-launch-1.0 writes down how it was
    called, gives one frame as gst-launch would, and ends."""
    tool = tmp_path / "gst-launch-1.0"
    tool.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"open({str(tmp_path / 'called')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        "print('GST_ARGUS: Creating output stream')\n"
        "at = '/GstPipeline:pipeline0/GstIdentity:p2pframes'\n"
        "print(at + '.GstPad:src: caps = video/x-raw, width=(int)4, height=(int)2, "
        "framerate=(fraction)15/1, format=(string)BGR')\n"
        "print(at + ': last-message = chain   ******* (p2pframes:sink) (24 bytes, dts: none)')\n"
        "sys.stdout.flush()\n"
        "os.write(int(sys.argv[-1].removeprefix('fd=')), bytes(range(24)))\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = open_source("csi://1?size=1920x1080&fps=59.94&flip=2")
    assert (source.size_px, source.fps, source.live) == ((2, 4), 15.0, True)
    (frame,) = frames_of(source)
    assert frame.image.tobytes() == bytes(range(24))
    called = (tmp_path / "called").read_text()
    assert called.startswith(
        "-v nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1920,"
        "height=1080,framerate=59940/1000 ! nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! "
    )


def test_without_gstreamer_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"apt install gstreamer1\.0-tools"):
        of_csi(0)


@needs_gst
@pytest.mark.parametrize("size", [(64, 48), (320, 240), (1280, 720)])
def test_after_a_pause_of_the_reader_the_newest_frame_comes(size):
    source = open_source(
        f"gst://{LIVE} num-buffers=30 pattern=solid-color foreground-color=0xff0000ff "
        f"! video/x-raw,width={size[0]},height={size[1]},framerate=20/1 ! all. "
        f"{LIVE} pattern=solid-color foreground-color=0xffff0000 "
        f"! video/x-raw,width={size[0]},height={size[1]},framerate=20/1 ! all. concat name=all"
    )
    try:
        for _ in range(5):
            frame = source.read()
        assert frame.image[0, 0, 0] > 200, "blue at first"
        time.sleep(4.5)
        frame = source.read()
        assert frame.image[0, 0, 2] > 200, "red since three seconds"
    finally:
        source.close()


def test_a_pipeline_that_dies_in_the_middle_of_its_newest_frame_gives_the_one_before(
    tmp_path, monkeypatch
):
    """A program of our own in gst-launch's place, since nobody can say when a real one is cut off.

    It tells three buffers of 8x4 pixels, writes two and a half, and ends before anyone reads.
    """
    program = tmp_path / "gst-launch-1.0"
    program.write_text(
        f"""#!{sys.executable}
import os, sys
fd = int(sys.argv[-1].removeprefix("fd="))
caps = "video/x-raw, format=(string)BGR, width=(int)8, height=(int)4, framerate=(fraction)30/1"
told = [f"/GstPipeline:pipeline0/GstIdentity:p2pframes.GstPad:src: caps = {{caps}}"]
told += ["/GstPipeline:pipeline0/GstIdentity:p2pframes: last-message = chain "
         "******* (p2pframes:sink) (96 bytes, dts: none)"] * 3
os.write(1, "".join(line + chr(10) for line in told).encode())
os.write(fd, bytes([1]) * 96 + bytes([2]) * 96 + bytes([3]) * 48)
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    frames = frames_of(open_source("gst://videotestsrc"))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [2]


@needs_gst
@pytest.mark.parametrize("lost", ["GstPad:src: caps", "last-message = event"])
def test_the_size_is_known_whichever_of_its_two_lines_gstreamer_loses(lost, tmp_path, monkeypatch):
    """On a busy machine it does so now and then; here a filter behind the real program does."""
    program = tmp_path / "gst-launch-1.0"
    real = shutil.which("gst-launch-1.0")
    program.write_text(f"#!/bin/sh\n{real} \"$@\" | grep --line-buffered -v '{lost}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    source = open_source(
        f"gst://{LIVE} num-buffers=3 ! video/x-raw,width=64,height=48,framerate=30000/1001"
    )
    assert (source.size_px, source.fps) == ((48, 64), pytest.approx(30000 / 1001))
    assert frames_of(source)
