"""A real RTSP camera through the whole runtime: its picture is young, and it comes back."""

import threading
import time

import numpy as np
import pytest
from network_streams import age_s, needs_rtsp_server, rtsp_server

from runtime import Pipeline, Translator
from runtime.capture import Feed
from runtime.frame import Frame
from runtime.sinks import NoSink
from runtime.sources import open_source

pytestmark = needs_rtsp_server


class Watcher(NoSink):
    """Keeps how old each picture is that reaches the sink, by the clock in its pixels."""

    description = "watcher"
    shows_notes = True

    def __init__(self):
        self.ages_s = []
        self.notes = []

    def write(self, frame):
        if frame.note:
            self.notes.append(frame.note)
            return
        now_ns = time.perf_counter_ns()
        self.ages_s.append(age_s(Frame(frame.original, 0, captured_at_ns=now_ns)))


class Run:
    """A pipeline in a thread, with a stop."""

    def __init__(self, uri, translator):
        self.sink, self.stop = Watcher(), threading.Event()
        feed = Feed(open_source(uri), "yard", lambda: open_source(uri))
        self.pipeline = Pipeline(feed, translator, self.sink)
        self.thread = threading.Thread(target=self.pipeline.run, args=(self.stop,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert [t.name for t in threading.enumerate() if t.name.startswith("p2p-")] == []

    def until(self, happened, within_s=20):
        until_s = time.monotonic() + within_s
        while not happened():
            assert time.monotonic() < until_s, "it never came"
            time.sleep(0.02)


@pytest.fixture
def negative(negative_onnx):
    with Translator.load(negative_onnx) as translator:
        yield translator


def test_a_killed_and_restarted_camera_comes_back_as_young_as_it_was(negative):
    with rtsp_server("--port", 0) as server:
        port = server.port
        run = Run(server.uri, negative)
        run.__enter__()
        run.until(lambda: len(run.sink.ages_s) > 60)
        before = list(run.sink.ages_s)
        server.kill()
        server.wait()
        run.until(lambda: run.sink.notes)
        assert "yard: no picture for" in run.sink.notes[0]
    try:
        with rtsp_server("--port", port):
            back_s = time.monotonic()
            seen = len(run.sink.ages_s)
            run.until(lambda: len(run.sink.ages_s) > seen)
            took_s = time.monotonic() - back_s
            run.until(lambda: len(run.sink.ages_s) > seen + 60)
            assert run.pipeline.stats.reopened == 1
            assert run.pipeline.stats.lost >= 1
            after = run.sink.ages_s[seen + 20 :]
            print(  # noqa: T201 - the figure is for whoever runs this with -s
                f"age {np.median(before):.3f} s; back after {took_s:.2f} s: {np.median(after):.3f}"
            )
            assert took_s < 8
            assert np.median(before) < 0.5
            assert np.median(after) < 0.5
    finally:
        run.__exit__()


def test_a_slow_network_makes_no_older_picture(negative):
    """Ten times slower than the camera: fewer pictures, each still a young one."""
    with rtsp_server("--port", 0) as server:
        infer = negative._engine.infer
        negative._engine.infer = lambda frames: (time.sleep(0.3), infer(frames))[1]
        with Run(server.uri, negative) as run:
            run.until(lambda: len(run.sink.ages_s) > 12)
        assert np.median(run.sink.ages_s[2:]) < 1.2
