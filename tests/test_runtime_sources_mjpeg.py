"""Motion JPEG over HTTP, from a real web server that behaves well and badly."""

import selectors
import threading
import time

import cv2
import numpy as np
import pytest
from http_camera import STILL, HttpCamera, by_the_clock, jpegs, raw_server
from network_streams import age_s, opened, why

from runtime.errors import SourceError
from runtime.sources import mjpeg
from runtime.sources.mjpeg import JpegFinder
from runtime.sources.synthetic import index_in


@pytest.mark.parametrize("lengths", [True, False])
def test_each_motion_jpeg_picture_comes_as_soon_as_it_is_whole(lengths):
    sent = jpegs(3)
    taken = [threading.Event() for _ in sent]

    def give():
        for jpeg, seen in zip(sent, taken, strict=True):
            yield jpeg  # the next boundary is sent only when this picture has been seen
            seen.wait(10)
        yield STILL

    with HttpCamera(give, lengths=lengths) as camera, opened(camera.uri, fps=12.5) as source:
        assert (source.live, source.fps, source.size_px) == (True, 12.5, (120, 208))
        for number, seen in enumerate(taken):
            assert index_in(source.read().image) == number
            seen.set()


def test_motion_jpeg_that_piled_up_is_passed_over():
    with HttpCamera(lambda: by_the_clock((480, 640))) as camera, opened(camera.uri) as source:
        assert np.median([age_s(source.read()) for _ in range(15)]) < 0.2
        time.sleep(3)
        after = [age_s(source.read()) for _ in range(10)]
        assert np.median(after) < 0.3
        assert source.skipped > 20


def test_a_camera_that_stalls_ends_the_read_within_two_seconds():
    def give():
        yield from jpegs(1)
        yield STILL

    with HttpCamera(give) as camera, opened(camera.uri) as source:
        source.read()
        started = time.monotonic()
        with pytest.raises(SourceError, match="gave no picture for"):
            source.read()
        assert 1.5 < time.monotonic() - started < 3.5


def test_an_interrupted_read_comes_back_at_once_with_nothing():
    def give():
        yield from jpegs(1)
        yield STILL

    with HttpCamera(give) as camera, opened(camera.uri) as source:
        source.read()
        threading.Timer(0.3, source.interrupt).start()
        started = time.monotonic()
        assert source.read() is None
        assert time.monotonic() - started < 1.5
        assert source.read() is None


def test_a_camera_that_closes_ends_the_stream_with_an_error():
    with HttpCamera(lambda: iter(jpegs(1))) as camera, opened(camera.uri) as source:
        source.read()
        with pytest.raises(SourceError, match="ended after"):
            source.read()


@pytest.mark.parametrize("lengths", [True, False])
def test_a_torn_picture_is_counted_and_not_shown(lengths, capfd):
    one, two, three, four = jpegs(4)
    seen = threading.Event()

    def give():
        yield one
        seen.wait(10)
        yield two[: len(two) // 2]
        yield b"\xff\xd8\xff\xe0 no picture at all"
        yield three
        for _ in range(200):  # what was torn in its header takes a few more with it
            yield four
            time.sleep(0.01)

    with HttpCamera(give, lengths=lengths) as camera, opened(camera.uri) as source:
        assert index_in(source.read().image) == 0
        assert source.warning == ""
        seen.set()
        number = 0
        while number != 3:
            number = index_in(source.read().image)
            assert number in (2, 3)
        assert source.torn >= 2
        assert f"{source.torn} torn pictures" in source.warning
    assert capfd.readouterr().err == ""


def test_a_stream_that_changes_its_size_goes_on():
    seen = threading.Event()

    def give():
        yield from jpegs(1, (120, 208))
        seen.wait(10)
        yield from jpegs(1, (96, 312), first=0)
        yield STILL

    with HttpCamera(give) as camera, opened(camera.uri, size_px=(48, 64)) as source:
        assert "64x48 cannot be asked of it" in source.warning
        assert source.read().image.shape == (120, 208, 3)
        seen.set()
        assert source.read().image.shape == (96, 312, 3)


@pytest.mark.parametrize("challenge", ["basic", "digest"])
def test_motion_jpeg_behind_a_password(challenge):
    def give():
        yield from jpegs(1)
        yield STILL

    with HttpCamera(give, challenge=challenge) as camera:
        place = f"127.0.0.1:{camera.port}"
        with opened(f"http://viewer:se%20cret@{place}/camera") as source:
            assert index_in(source.read().image) == 0
            assert "se%20cret" not in source.description
        assert camera.proofs[0] is None, "a password is sent to a server that asks for it"
        wrong = why(f"http://viewer:wr0ng@{place}/camera")
        assert "refuses this user or password" in wrong
        assert "wr0ng" not in wrong
        assert "asks for a user and a password" in why(f"http://{place}/camera")


def test_a_redirection_is_followed_and_a_missing_page_told():
    def give():
        yield from jpegs(1)
        yield STILL

    with HttpCamera(give) as camera:
        with opened(camera.uri.replace("/camera", "/moved")) as source:
            assert index_in(source.read().image) == 0
        assert "404" in why(camera.uri.replace("/camera", "/nothing"))


def test_a_page_that_shows_the_camera_is_no_stream(capfd):
    page = b"<html><img src=/camera></html>"
    with HttpCamera(lambda: iter([page]), content_type="text/html") as camera:
        assert "no video that FFmpeg can read" in why(camera.uri)
    assert capfd.readouterr().err == ""


def test_the_finder_gives_whole_pictures_however_the_bytes_are_cut():
    preview = jpegs(1, (24, 52))[0]
    plain = jpegs(1)[0]
    with_preview = plain[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    with_preview += plain[2:]
    image = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()
    sent = [plain, with_preview, progressive, restarts]
    stream = b"\xff\xd8--edge\r\n\r\n" + b"\r\n--edge\r\nContent-Length: 7\r\n\r\n".join(sent)
    for step in (1, 7, 1000, len(stream)):
        finder = JpegFinder()
        found = []
        for at in range(0, len(stream), step):
            found += finder.found_in(stream[at : at + step])
        assert found == sent
        assert finder.torn == 0


def test_a_server_that_takes_the_connection_and_says_nothing_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(mjpeg, "_ANSWER_WITHIN_S", 1.0)
    done = threading.Event()
    with raw_server(lambda _connection: done.wait(20)) as port:
        started = time.monotonic()
        assert "within" in why(f"http://127.0.0.1:{port}/x")
        assert time.monotonic() - started < 6
        done.set()


def test_a_server_of_something_else_is_told():
    def smtp(connection):
        connection.sendall(b"220 mail ESMTP\r\n")
        connection.recv(1000)

    with raw_server(smtp) as port:
        assert "does not speak HTTP" in why(f"http://127.0.0.1:{port}/x")


def test_a_long_padding_is_passed_over_quickly_and_an_endless_header_is_torn():
    picture = jpegs(1)[0]
    padded = picture[:2] + b"\xff" * 2_000_000 + picture[3:]
    finder = JpegFinder()
    started = time.process_time()
    assert finder.found_in(padded) == [padded]
    assert time.process_time() - started < 0.2, "not byte by byte"
    for _ in range(100):
        finder.found_in(b"\xff" * 100_000)
    finder.found_in(b"\xff\xd8" + b"\xff" * 5_000_000)
    assert finder.torn == 1
    assert finder.found_in(picture) == [picture]


def test_a_path_with_a_space_and_an_umlaut_is_asked_for_in_quotes():
    asked = []

    def answer(connection):
        asked.append(connection.recv(4000).partition(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer) as port:
        assert "answers 404" in why(f"http://127.0.0.1:{port}/gr\u00f6\u00dfe 1/%20?a=b&c=d")
    assert asked == [b"GET /gr%C3%B6%C3%9Fe%201/%20?a=b&c=d HTTP/1.1"]


def test_what_waits_is_seen_without_poll(monkeypatch):
    monkeypatch.setattr(mjpeg, "_Selector", selectors.SelectSelector)
    with HttpCamera(by_the_clock) as camera, opened(camera.uri) as source:
        assert source.read() is not None
