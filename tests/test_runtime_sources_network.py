"""RTSP from a real server: what arrives, how old it is, and why something does not arrive."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from breaking_proxy import breaking_proxy
from network_streams import age_s, needs_rtsp_server, opened, rtsp_server, why

from runtime.errors import SourceError
from runtime.sources.synthetic import index_in

PASSWORD = "se:cr@t/7"
WRITTEN = "se%3Acr%40t%2F7"


@needs_rtsp_server
@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_an_rtsp_stream_is_young_and_stays_so_after_a_pause_of_its_reader(codec):
    with rtsp_server("--codec", codec) as server, opened(server.uri) as source:
        assert (source.live, source.size_px, source.frame_count) == (True, (240, 320), None)
        frames = [source.read() for _ in range(30)]
        assert [frame.index for frame in frames] == list(range(30))
        ticks = [index_in(frame.image) for frame in frames]
        assert all(later > earlier for earlier, later in pairwise(ticks))
        assert np.median([age_s(frame) for frame in frames]) < 0.3
        time.sleep(2.5)
        before = source.skipped
        after = [source.read() for _ in range(10)]
        assert max(age_s(frame) for frame in after) < 1.5, "two and a half seconds had piled up"
        assert np.median([age_s(frame) for frame in after]) < 0.3
        assert source.skipped - before > 40, "passed over, not shown one after the other"


@needs_rtsp_server
def test_pictures_of_a_stream_use_their_memory_again_and_are_their_takers_own():
    with rtsp_server() as server, opened(server.uri) as source:
        kept = source.read()
        number = index_in(kept.image)
        places = {source.read().image.ctypes.data for _ in range(20)}
        assert len(places) <= 3
        assert kept.image.ctypes.data not in places
        assert index_in(kept.image) == number


@needs_rtsp_server
def test_a_slow_reader_gets_fewer_pictures_and_no_older_ones():
    with rtsp_server() as server, opened(server.uri) as source:
        ages = []
        for _ in range(25):
            ages.append(age_s(source.read()))
            time.sleep(0.1)
        assert np.median(ages[-10:]) < np.median(ages[5:15]) + 0.3


@needs_rtsp_server
@pytest.mark.parametrize("method", ["basic", "digest"])
def test_rtsp_tells_a_wrong_password_from_a_wrong_path(method):
    options = ("--auth", method, "--user", "viewer", "--password", PASSWORD)
    with rtsp_server(*options) as server:
        place = f"127.0.0.1:{server.port}"
        with opened(f"rtsp://viewer:{WRITTEN}@{place}/camera") as source:
            assert source.read() is not None
            assert PASSWORD not in source.description
            assert WRITTEN not in source.description
            assert f"viewer:***@{place}" in source.description
        wrong = why(f"rtsp://viewer:wr0ng@{place}/camera")
        assert "refuses this user or password" in wrong
        assert "wr0ng" not in wrong
        assert "asks for a user and a password" in why(f"rtsp://{place}/camera")
        assert "no such stream" in why(f"rtsp://viewer:{WRITTEN}@{place}/other")


@needs_rtsp_server
@pytest.mark.parametrize(("breaks", "silently"), [(2, False), (1, True)])
def test_a_stream_that_fails_before_its_first_picture_is_asked_anew(breaks, silently):
    with rtsp_server() as server, breaking_proxy(server.port, breaks, silently) as proxy:
        with opened(f"rtsp://127.0.0.1:{proxy.port}/camera") as source:
            assert age_s(source.read()) < 1.5
        assert proxy.broken == breaks


@needs_rtsp_server
def test_a_stream_that_always_breaks_off_is_told():
    with rtsp_server() as server, breaking_proxy(server.port, breaks=99) as proxy:
        assert "no picture came" in why(f"rtsp://127.0.0.1:{proxy.port}/camera")


@needs_rtsp_server
def test_a_stream_of_sound_alone_is_told(capfd):
    with rtsp_server("--codec", "sound") as server:
        assert "has no video" in why(server.uri)
    assert capfd.readouterr().err == ""


def read_on(source):
    """Read until it breaks; what was on its way still comes."""
    for _ in range(1000):
        source.read()


@needs_rtsp_server
def test_a_killed_server_ends_the_read_and_a_restarted_one_is_read_again():
    with rtsp_server() as server, opened(server.uri) as source:
        source.read()
        os.kill(server.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(SourceError, match="ended after"):
            read_on(source)
        assert time.monotonic() - started < 3
        assert "nobody listens there" in why(server.uri)
        with rtsp_server("--port", server.port) as again, opened(again.uri) as source:
            assert age_s(source.read()) < 1.5


@needs_rtsp_server
def test_a_server_that_hangs_ends_the_read_within_its_two_seconds():
    with rtsp_server() as server, opened(server.uri) as source:
        source.read()
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(SourceError, match="gave no picture for"):
            read_on(source)
        assert time.monotonic() - started < 4


@needs_rtsp_server
def test_nothing_of_the_password_is_in_what_a_failing_run_prints(negative_onnx):
    with rtsp_server("--user", "viewer", "--password", "right") as server:
        address = f"rtsp://viewer:hunter2%40x@127.0.0.1:{server.port}/camera"
        run = subprocess.run(
            [sys.executable, "-c", "from runtime.cli import live; live()", str(negative_onnx),
             "--source", address, "--sink", "none"],
            capture_output=True, check=False, text=True, timeout=60,
        )  # fmt: skip
    assert run.returncode == 2
    assert "hunter2" not in run.stdout + run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert "viewer:***@" in lines[0]
    assert "refuses this user or password" in lines[0]


def test_who_is_not_there_is_told_at_once():
    started = time.monotonic()
    assert "nobody listens there" in why("rtsp://127.0.0.1:1/x")
    assert "nobody listens there" in why("http://127.0.0.1:1/x")
    assert "there is no host" in why("rtsp://no-such-host.invalid/x")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "uri", ["rtsp://", "rtsp:///x", "rtsp://h:port/x", "rtsp://h:99999/x", "ftp://h/x", "cam"]
)
def test_what_is_no_address_of_a_stream_is_refused(uri):
    assert "no address of a stream" in why(uri)


def test_udp_without_a_port_is_refused():
    assert "udp:// a port" in why("udp://@")
