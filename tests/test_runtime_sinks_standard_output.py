"""The standard output as a sink, of a process of its own: what a reader behind it gets."""

import os
import pty
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from runtime.errors import SinkError
from runtime.sinks.standard_output import StandardOutputSink
from runtime.sources.synthetic import SyntheticSource, index_in

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="pipes and /proc of Linux")

WRITER = """
import sys
from runtime.frame import Frame
from runtime.sinks.standard_output import StandardOutputSink
from runtime.sources.synthetic import SyntheticSource
sink = StandardOutputSink(12.5, **eval(sys.argv[1]))
print("a line of a library")
count = 0
for height, width in eval(sys.argv[2]):
    frame = SyntheticSource((height, width))._draw(count)
    if not sink.wants_more():
        break
    sink.write(Frame(frame, count))
    count += 1
print("written", count, file=sys.stderr)
sink.close()
"""


def writer(asked, sizes, **streams):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, repr(asked), sizes], stderr=subprocess.PIPE, **streams
    )


@pytest.mark.parametrize("size_px", [(96, 208), (97, 209)])
@needs_ffmpeg
def test_a_player_reads_the_standard_output(size_px, tmp_path):
    height, width = size_px
    with (tmp_path / "out.y4m").open("wb") as file:
        sending = writer({}, f"[{size_px}] * 5", stdout=subprocess.PIPE)
        file.write(sending.communicate(timeout=60)[0])
    frame_bytes = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
    data = (tmp_path / "out.y4m").read_bytes()
    header = f"YUV4MPEG2 W{width} H{height} F25:2 Ip A1:1 C420jpeg\n".encode()
    assert data.startswith(header + b"FRAME\n")
    assert len(data) == len(header) + 5 * (frame_bytes + 6)
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(tmp_path / "out.y4m"), "-f", "rawvideo",
         "-pix_fmt", "bgr24", "-"], capture_output=True, check=True,
    ).stdout  # fmt: skip
    images = np.frombuffer(raw, np.uint8).reshape(5, height, width, 3)
    assert [index_in(image) for image in images] == list(range(5))
    drawn = SyntheticSource(size_px)._draw(4)
    assert cv2.PSNR(np.ascontiguousarray(images[4]), drawn) > 26, "the colours are kept"


def test_the_bare_bytes_are_the_pictures_and_other_output_goes_elsewhere():
    sending = writer({"pixels": "bgr24"}, "[(60, 104)] * 3", stdout=subprocess.PIPE)
    out, err = sending.communicate(timeout=60)
    drawn = SyntheticSource((60, 104))
    assert out == b"".join(drawn._draw(index).tobytes() for index in range(3))
    assert b"a line of a library" in err


def test_a_reader_that_goes_ends_the_run_without_a_word():
    sending = writer({}, "[(96, 208)] * 10_000_000", stdout=subprocess.PIPE)
    sending.stdout.read(100_000)
    sending.stdout.close()
    error = sending.stderr.read().decode()
    assert sending.wait(30) == 0
    assert "written" in error
    assert "Traceback" not in error
    assert "Broken" not in error


@needs_linux
def test_a_write_that_waits_for_its_reader_ends_with_close():
    code = (
        "import threading, time, numpy, os\n"
        "from runtime.frame import Frame\n"
        "from runtime.sinks.standard_output import StandardOutputSink\n"
        "sink = StandardOutputSink(30)\n"
        "threading.Timer(0.5, sink.close).start()\n"
        "sink.write(Frame(numpy.zeros((2000, 2000, 3), numpy.uint8), 0))\n"
        "os.write(2, b'came back')\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert run.wait(30) == 0
    assert run.stderr.read() == b"came back"
    run.stdout.close()
    run.stderr.close()


def test_a_change_of_size_is_refused_on_the_standard_output():
    out, err = writer({}, "[(96, 208), (48, 104)]", stdout=subprocess.PIPE).communicate(timeout=60)
    assert "SinkError: a frame of 104x48 came" in err.decode()
    assert out.count(b"FRAME\n") == 1


def test_a_terminal_is_refused():
    ours, theirs = pty.openpty()
    sending = writer({}, "[(96, 208)]", stdout=theirs)
    error = sending.communicate(timeout=60)[1].decode()
    os.close(ours)
    os.close(theirs)
    assert "the standard output is a terminal" in error


def test_an_unknown_format_is_refused():
    with pytest.raises(SinkError, match="yuv4mpeg or bgr24"):
        StandardOutputSink(25, pixels="rgb")
