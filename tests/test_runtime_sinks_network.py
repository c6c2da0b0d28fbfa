"""Streams into the network: what arrives there, and what a dead or hanging encoder does."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from network_streams import needs_rtsp_server, rtsp_server

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks import network, open_sink
from runtime.sinks.child import FedProcess
from runtime.sinks.network import NetworkSink
from runtime.sources import open_source
from runtime.sources.network import NetworkSource
from runtime.sources.synthetic import SyntheticSource, index_in

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
needs_gst = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no gst-launch-1.0")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="pipes and /proc of Linux")
PROGRAMS = [pytest.param("ffmpeg", marks=needs_ffmpeg), pytest.param("gst", marks=needs_gst)]


@pytest.fixture
def chosen(request, monkeypatch, tmp_path):
    """The PATH has ffmpeg alone, or GStreamer alone."""
    for name in (
        ("ffmpeg",) if request.param == "ffmpeg" else ("gst-launch-1.0", "gst-inspect-1.0")
    ):
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    network._encoder.cache_clear()
    yield request.param
    network._encoder.cache_clear()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sending:
    """Writes numbered pictures to a sink in a thread, 30 a second, as long as the block runs."""

    def __init__(self, sink, size_px=(240, 320)):
        self.size_px = size_px
        self.sent_at = {}
        self._sink = sink
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        index = 0
        started = time.monotonic()
        drawn = SyntheticSource(self.size_px)
        while not self._stop.wait(max(0.0, started + index / 30 - time.monotonic())):
            if drawn.size_px != self.size_px:
                drawn = SyntheticSource(self.size_px)
            self.sent_at[index] = time.monotonic()
            try:
                self._sink.write(Frame(drawn._draw(index), index))
            except SinkError as error:
                self._error = error
                return
            index += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._sink.close(keep=False)
        if self._error is not None:
            raise self._error


def children():
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()
            and f"PPid:\t{os.getpid()}\n" in status_of(path)}  # fmt: skip


def status_of(process):
    try:
        return (process / "status").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("chosen", PROGRAMS, indirect=True)
def test_a_udp_receiver_reads_the_numbers_soon_after_they_were_sent(chosen):
    uri = f"udp://127.0.0.1:{free_port()}"
    sink = NetworkSink(uri, 30)
    assert chosen in sink.description
    with Sending(sink) as sending:
        source = NetworkSource(uri)
        ages = []
        for _ in range(30):
            frame = source.read()
            sent = sending.sent_at.get(index_in(frame.image))
            assert sent is not None, "a number that was not sent"
            ages.append(frame.captured_at_ns / 1e9 - sent)
        source.close()
    assert np.median(ages) < 0.5


@needs_ffmpeg
def test_a_udp_stream_goes_on_when_the_frames_change_their_size():
    uri = f"udp://127.0.0.1:{free_port()}"
    with Sending(NetworkSink(uri, 30)) as sending:
        first = NetworkSource(uri)
        assert first.size_px == (240, 320)
        first.close()
        sending.size_px = (121, 209)  # odd sides are made even
        time.sleep(0.5)
        second = NetworkSource(uri)
        assert second.size_px == (122, 210)
        second.close()


@needs_rtsp_server
@pytest.mark.parametrize("chosen", PROGRAMS, indirect=True)
def test_a_stream_is_published_to_an_rtsp_server(chosen):
    with rtsp_server("--record") as server, Sending(NetworkSink(server.uri, 30)):
        seen = [server.stdout.readline().split() for _ in range(20)]
    assert {tuple(line[:2]) for line in seen} == {("recorded", "320x240")}
    numbers = [int(line[2]) for line in seen]
    assert numbers == sorted(numbers)
    assert 10 < numbers[-1] < 300


@needs_ffmpeg
def test_a_server_that_is_not_there_is_told_without_the_password():
    sink = NetworkSink("rtsp://me:hunter2@127.0.0.1:1/x", 30)
    with pytest.raises(SinkError) as caught, Sending(sink):
        time.sleep(1.5)
    assert "Connection refused" in str(caught.value)
    assert "hunter2" not in str(caught.value) + sink.description


@needs_ffmpeg
def test_a_short_stream_that_nobody_took_is_told_at_the_end():
    sink = NetworkSink("rtsp://127.0.0.1:1/x", 30)
    sink.write(Frame(np.zeros((64, 64, 3), np.uint8), 0))
    with pytest.raises(SinkError, match="Connection refused"):
        sink.close()
    sink.close()


@needs_linux
def test_a_program_that_hangs_is_given_up_and_killed():
    image = np.zeros((1000, 1000, 3), np.uint8)
    before = children()
    child = FedProcess(["sleep", "60"], str)
    child._started_s -= 60  # it has had its time to start
    started = time.monotonic()
    with pytest.raises(SinkError, match="took no frame for 2 s"):
        child.write(image)
    assert 1.5 < time.monotonic() - started < 4
    error = child.finish()
    assert "was killed" in str(error)
    assert time.monotonic() - started < 8
    assert children() == before, "no zombie"


@needs_linux
def test_a_program_that_dies_tells_its_last_line():
    child = FedProcess(["sh", "-c", "echo '[x] first' >&2; echo 'pw secret' >&2; exit 3"],
                       lambda line: line.replace("secret", "***"))  # fmt: skip
    time.sleep(0.5)
    with pytest.raises(SinkError, match=r"ended with code 3 \(pw \*\*\*\)"):
        child.write(np.zeros((1000, 1000, 3), np.uint8))
    assert child.finish() is not None


@needs_linux
@needs_ffmpeg
def test_a_killed_encoder_is_an_error_and_leaves_no_zombie():
    before = children()
    sink = NetworkSink(f"udp://127.0.0.1:{free_port()}", 30)
    image = np.zeros((1000, 1000, 3), np.uint8)
    sink.write(Frame(image, 0))
    (encoder,) = children() - before
    os.kill(encoder, signal.SIGKILL)
    with pytest.raises(SinkError, match="ended with code -9"):
        sink.write(Frame(image, 1))
    sink.close(keep=False)
    assert children() == before


@needs_ffmpeg
def test_a_file_is_sent_at_its_own_speed():
    sink = NetworkSink(f"udp://127.0.0.1:{free_port()}", 20, live=False)
    started = time.monotonic()
    for index in range(11):
        sink.write(Frame(np.zeros((64, 64, 3), np.uint8), index))
    assert time.monotonic() - started > 0.45
    sink.close()


def test_with_no_program_to_send_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    network._encoder.cache_clear()
    with pytest.raises(SinkError, match="sudo apt install ffmpeg"):
        NetworkSink("udp://127.0.0.1:5000")
    network._encoder.cache_clear()


@pytest.mark.parametrize(
    "uri", ["udp://h", "udp://@:5000", "rtsp://", "udp://h:x", "rtmp://h/x", "rtsp://u:pw@"]
)
def test_what_is_no_address_to_send_to_is_refused(uri):
    with pytest.raises(SinkError, match="no address to send to") as caught:
        NetworkSink(uri)
    assert ":pw@" not in str(caught.value)


@needs_ffmpeg
@pytest.mark.parametrize("written", ["udp://@:{port}", "udp://:{port}", "UDP://@:{port}"])
def test_a_receiver_may_listen_for_whoever_sends(written):
    port = free_port()
    with Sending(NetworkSink(f"UDP://127.0.0.1:{port}", 30)):
        source = open_source(written.format(port=port))
        assert source.read().image.shape == (240, 320, 3)
        source.close()


@needs_ffmpeg
def test_the_last_picture_is_sent_again_while_no_frame_comes():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.05)
        sink = NetworkSink(f"udp://127.0.0.1:{receiver.getsockname()[1]}", 25)
        assert sink.shows_notes, "the line that counts the seconds of a lost camera"
        picture = np.full((64, 96, 3), 90, np.uint8)
        for index in range(25):
            sink.write(Frame(picture, index))
            time.sleep(0.04)
        picture[:] = 0  # a frame is the sink's no longer than its write takes
        until = time.monotonic() + 4
        came = []
        while time.monotonic() < until:
            assert sink.wants_more()
            try:
                receiver.recv(65536)
                came.append(until - time.monotonic())
            except TimeoutError:
                continue
        assert {int(left) for left in came} == {0, 1, 2, 3}, "in each second"
        assert (sink._last == 90).all()
        sink.close()


@needs_ffmpeg
def test_rtsps_speaks_tls():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        sink = open_sink(f"rtsps://127.0.0.1:{server.getsockname()[1]}/x", fps=25, live=True)
        for index in range(50):  # ffmpeg looks at some before it connects
            sink.write(Frame(np.zeros((64, 64, 3), np.uint8), index))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(2) == b"\x16\x03", "a TLS handshake"
    sink.close(keep=False)
