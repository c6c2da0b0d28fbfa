"""Standard input as a source: real pipes, a real ffmpeg, a real child process."""

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_clip

from runtime.errors import SourceError
from runtime.sources import standard_input
from runtime.sources.raw_video import Yuv4MpegVideo
from runtime.sources.standard_input import StandardInput
from runtime.sources.synthetic import index_in

ROOT = Path(__file__).parent.parent

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture
def pipe():
    """The two ends of a pipe, in a list; who closes one takes it out."""
    ends = list(os.pipe())
    yield ends
    for descriptor in ends:
        os.close(descriptor)


def sent(pipe, data, close=True):
    """Write in a thread, because a pipe holds less than a video; the reading end."""
    writing = pipe.pop() if close else os.dup(pipe[1])

    def write():
        # A reader that has seen enough closes its end.
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return pipe[0]


def frames_of(source):
    frames = []
    try:
        while (frame := source.read()) is not None:
            frames.append(frame)
    finally:
        source.close()
    return frames


def y4m(header, *frames):
    return b"YUV4MPEG2 " + header + b"\n" + b"".join(b"FRAME\n" + frame for frame in frames)


_REPORT = """
import sys
from runtime.sources import open_source
from runtime.sources.synthetic import index_in
source = open_source(sys.argv[1])
print(source.description, source.live)
while (frame := source.read()) is not None:
    print(index_in(frame.image))
print("warning:", source.warning)
"""


def report(arguments, uri, **feed):
    """What a program says that reads its standard input from ffmpeg, or from `feed`."""
    ffmpeg = subprocess.Popen(arguments, stdout=subprocess.PIPE) if arguments else None
    if ffmpeg is not None:
        feed["stdin"] = ffmpeg.stdout
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, uri],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **feed,
    )
    if ffmpeg is not None:
        ffmpeg.stdout.close()
        ffmpeg.wait(10)
    return done


@needs_ffmpeg
@pytest.mark.parametrize(
    ("uri", "output", "told"),
    [
        ("-", "-f yuv4mpegpipe", "yuv4mpeg 420, 208x96, 12.5 fps"),
        ("-", "-pix_fmt yuv444p -f yuv4mpegpipe", "yuv4mpeg 444, 208x96, 12.5 fps"),
        ("-?size=208x96&fps=12.5", "-pix_fmt bgr24 -f rawvideo", "bgr24, 208x96, 12.5 fps"),
        ("-?size=208x96&format=rgb24", "-pix_fmt rgb24 -f rawvideo", "rgb24, 208x96, rate unk"),
        ("-?size=208x96&format=gray", "-pix_fmt gray -f rawvideo", "gray, 208x96, rate unknown"),
        ("-?size=208x96&format=bgra", "-pix_fmt bgra -f rawvideo", "bgra, 208x96, rate unknown"),
    ],
)
def test_what_ffmpeg_pipes_arrives_whole_and_in_order(clip, uri, output, told):
    ffmpeg = ["ffmpeg", "-v", "error", "-i", str(clip), *output.split(), "-"]
    done = report(ffmpeg, uri)
    assert done.stderr == ""
    first, *indices, warning = done.stdout.splitlines()
    assert told in first
    assert first.endswith("False")
    assert indices == [str(index) for index in range(30)]
    assert warning == "warning: "


@needs_ffmpeg
@pytest.mark.parametrize("size", ["64x48", "63x47"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "gray"])
def test_the_colours_of_yuv4mpeg_are_those_that_ffmpeg_itself_gives(tmp_path, size, pixels):
    smooth = np.zeros((48, 64, 3), np.float32)
    smooth[:] = np.random.default_rng(1).uniform(30, 225, (1, 1, 3))
    smooth[..., 0] += np.linspace(-25, 25, 64)
    smooth[..., 2] += np.linspace(-25, 25, 48)[:, None]
    cv2.imwrite(str(tmp_path / "in.png"), smooth.round().astype(np.uint8))
    make = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "in.png"), "-s", size]
    stream = tmp_path / "out.y4m"
    make += ["-pix_fmt", pixels, "-color_range", "pc" if pixels == "yuvj420p" else "tv"]
    subprocess.run([*make, "-strict", "-1", "-f", "yuv4mpegpipe", str(stream)], check=True)
    read = ["ffmpeg", "-v", "error", "-i", str(stream), "-pix_fmt", "bgr24", "-f", "rawvideo", "-"]
    expected = subprocess.run(read, check=True, capture_output=True).stdout
    with stream.open("rb") as file:
        (frame,) = frames_of(StandardInput(descriptor=file.fileno()))
    expected = np.frombuffer(expected, np.uint8).reshape(frame.image.shape)
    difference = np.abs(frame.image.astype(int) - expected)
    assert difference.mean() < 1.5
    assert difference.max() <= 8


def test_limited_range_is_spread_to_the_full_one():
    for header in (b"C420", b"C422", b"C444"):
        video = Yuv4MpegVideo(b"YUV4MPEG2 W2 H2 F25:1 " + header)
        for level, grey in ((16, 0), (235, 255)):
            raw = np.full(video.frame_bytes, 128, np.uint8)
            raw[:4] = level
            into = np.full((2, 2, 3), 77, np.uint8)
            video.to_bgr(raw, into)
            assert (into == grey).all()


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"", "ended before its first byte"),
        (b"\x00\x00\x00 ftypisom" + bytes(50), "ftyp"),
        (b"YUV4MPEG2 H48 F25:1\n", "header that cannot be read"),
        (b"YUV4MPEG2 W0 H48 F25:1\n", "header that cannot be read"),
        (b"YUV4MPEG2 W64 H48 F25:1 C420p10\n", "420p10"),
        (b"YUV4MPEG2 W64 H48 F25:1 C411\n", "411"),
        (b"YUV4MPEG2 " + b"X" * 3000, "standard input"),
    ],
)
def test_what_is_no_such_stream_is_refused_in_one_line(pipe, start, told):
    with pytest.raises(SourceError, match=told) as error:
        StandardInput(descriptor=sent(pipe, start))
    assert "\n" not in str(error.value)
    assert "ffmpeg" in str(error.value)


def test_a_stray_line_between_two_frames_is_told(pipe):
    data = y4m(b"W4 H4 F25:1 Cmono", bytes(16)) + b"hello, I am a log line\n"
    source = StandardInput(descriptor=sent(pipe, data))
    assert source.read() is not None
    with pytest.raises(SourceError, match="hello"):
        source.read()
    source.close()


@pytest.mark.parametrize("kind", ["y4m", "raw"])
@pytest.mark.parametrize("extra", [0, 1, 20])
def test_a_frame_that_is_cut_off_is_thrown_away_and_told(pipe, kind, extra):
    size_px = (4, 4) if kind == "raw" else None
    frame = bytes(48) if kind == "raw" else b"FRAME\n" + bytes(24)
    start = b"" if kind == "raw" else b"YUV4MPEG2 W4 H4 F25:1\n"
    source = StandardInput(size_px, descriptor=sent(pipe, start + 2 * frame + frame[:extra]))
    assert len(frames_of(source)) == 2
    if extra:
        assert "in the middle of frame 2" in source.warning
    else:
        assert source.warning == ""


def test_frames_of_a_pipe_are_their_takers_own_and_their_memory_is_used_again(pipe):
    data = b"".join(bytes([value]) * 48 for value in range(20))
    source = StandardInput((4, 4), descriptor=sent(pipe, data))
    held = source.read().image
    addresses = {source.read().image.ctypes.data for _ in range(15)}
    assert len(addresses) <= 2
    assert (held == 0).all()
    source.close()


def test_interrupt_wakes_a_read_that_waits_for_ever(pipe):
    sent(pipe, y4m(b"W4 H4 F25:1", bytes(24)) + b"FRA", close=False)
    source = StandardInput(descriptor=pipe[0])
    assert source.read() is not None
    threading.Timer(0.2, source.interrupt).start()
    started = time.monotonic()
    assert source.read() is None
    assert 0.1 < time.monotonic() - started < 5
    assert source.warning == ""
    source.close()
    source.close()


def test_a_live_stream_that_stalls_in_mid_frame_goes_on_when_it_is_opened_again(pipe):
    pictures = [bytes([value]) * 16 for value in (50, 100, 200)]
    data = y4m(b"W4 H4 F25:1 Cmono XCOLORRANGE=FULL", *pictures)
    cut = len(data) - 20
    os.write(pipe[1], data[:cut])
    source = StandardInput(live=True, descriptor=pipe[0])
    assert [source.read().image[0, 0, 0] for _ in range(2)] == [50, 100]
    with pytest.raises(SourceError, match="nothing came on standard input for 2 s"):
        source.read()
    source.interrupt()
    source.close()
    os.write(pipe[1], data[cut:])
    os.close(pipe.pop())
    again = StandardInput(live=True, descriptor=pipe[0])
    assert again.size_px == (4, 4)
    assert [frame.image[0, 0, 0] for frame in frames_of(again)] == [200]


def test_a_terminal_is_refused_with_the_line_to_write():
    leader, terminal = pty.openpty()
    done = report(None, "-", stdin=terminal)
    os.close(terminal)
    os.close(leader)
    assert done.stderr.splitlines()[-1].startswith("runtime.errors.SourceError: standard input is")
    assert "| p2p-live MODEL --source -" in done.stderr


def test_a_file_on_standard_input_is_a_stream_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    path = tmp_path / "frames.bgr"
    path.write_bytes(image.tobytes() * 3)
    with path.open("rb") as file:
        frames = frames_of(StandardInput((6, 5), 10, descriptor=file.fileno()))
    assert len(frames) == 3
    assert all(np.array_equal(frame.image, image) for frame in frames)


@needs_ffmpeg
def test_p2p_live_translates_what_ffmpeg_pipes(tmp_path, negative_onnx):
    clip = write_clip(tmp_path / "clip.avi", 12, 25, "MJPG")
    ffmpeg = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-i", str(clip), "-f", "yuv4mpegpipe", "-"],
        stdout=subprocess.PIPE,
    )
    out = tmp_path / "out"
    live = [sys.executable, "-c", "from runtime.cli import live; live()", str(negative_onnx)]
    done = subprocess.run(
        [*live, "--source", "-", "--sink", f"{out}/"],
        cwd=ROOT,
        stdin=ffmpeg.stdout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ffmpeg.stdout.close()
    assert ffmpeg.wait(10) == 0
    assert done.returncode == 0, done.stderr
    pictures = sorted(out.iterdir())
    assert [index_in(cv2.imread(str(picture))) for picture in pictures] == list(range(12))


@pytest.mark.parametrize(
    "header", [b"W1000000 H1000000 F30:1", b"W16385 H2 F30:1", b"W64 H48 F1000000:1"]
)
def test_a_header_with_an_absurd_size_or_rate_is_one_line(header):
    with pytest.raises(SourceError, match="header that cannot be read") as caught:
        Yuv4MpegVideo(b"YUV4MPEG2 " + header)
    assert "\n" not in str(caught.value)


def test_a_pipe_that_was_closed_is_forgotten():
    for _ in range(3):
        reading, writing = os.pipe()
        os.write(writing, bytes(4 * 2 * 3))
        source = StandardInput((2, 4), descriptor=reading)
        assert source.read() is not None
        source.close()
        os.close(reading)
        os.close(writing)
    reading, writing = os.pipe()
    last = StandardInput((2, 4), descriptor=reading)
    assert list(standard_input._streams) == [last._key]
    last.close()
    os.close(reading)
    os.close(writing)
