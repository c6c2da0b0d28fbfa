"""What goes wrong in one thread of a run: the others end, cameras come back, files are kept."""

import threading
import time

import pytest
from conftest import decoded
from scripted_streams import (
    SIZE_PX,
    BrokenOnce,
    ListSink,
    NamedSink,
    ScriptedEngine,
    ScriptedSource,
    SlowSink,
    p2p_threads,
    within,
)

from runtime import Translator, capture, opening, stages, stream
from runtime.capture import Feed
from runtime.delivery import Target
from runtime.errors import SourceError, UserError
from runtime.pipeline import Pipeline
from runtime.sinks import NoSink, open_sink
from runtime.sources.synthetic import SyntheticSource


@pytest.fixture(autouse=True)
def no_thread_outlives_the_run():
    before = threading.enumerate()
    yield
    assert p2p_threads(before) == []


@pytest.fixture
def negative():
    return Translator(ScriptedEngine())


@pytest.fixture
def impatient(monkeypatch):
    """A camera is given up after less than a third of a second, and tried again soon."""
    monkeypatch.setattr(capture, "STALLED_AFTER_S", 0.3)
    monkeypatch.setattr(capture, "_PAUSES_S", (0.02,))


class Waiting(ScriptedSource):
    """A camera that gives some frames and then none, until it is interrupted."""

    def __init__(self, frames, error=None):
        super().__init__(self.wait)
        self.frames, self.error = frames, error
        self.interrupted = threading.Event()

    def wait(self, count):
        if count == self.frames:
            assert self.interrupted.wait(20)
            if self.error is not None:
                raise self.error

    def read(self):
        frame = super().read()
        return None if self.interrupted.is_set() else frame

    def interrupt(self):
        self.interrupted.set()


class EveryOtherIsSlow(ScriptedEngine):
    """Four inferences at once; while a slow one runs, a quick one that began later is done."""

    streams = 4

    def infer(self, frames):
        if frames.flat[0] % 2 == 0:
            time.sleep(0.025)
        return 255 - frames


def test_a_worker_whose_turn_passed_while_it_waited_for_a_frame_goes_on(monkeypatch):
    """The pauses of the source are longer than a worker's patience, and end before the slow
    inference does: workers that took nothing wait beside one that did, and may come after it."""
    monkeypatch.setattr(stages, "_LOOK_UP_EVERY_S", 0.01)
    source = ScriptedSource(lambda count: time.sleep(0.015 if count % 2 else 0.025), live=False)
    sink = ListSink()
    translator = Translator(EveryOtherIsSlow())
    running = Pipeline(source, translator, sink, mode="throughput", max_frames=100)
    within(20, running.run)
    assert [frame.index for frame in sink.frames] == list(range(100))


@pytest.mark.parametrize("live", [True, False])
def test_a_source_that_does_not_close_ends_the_run_with_its_error(negative, live):
    class Unclosable(SyntheticSource):
        def close(self):
            super().close()
            raise OSError("close failed")

    source = Unclosable(SIZE_PX, frames=5, fps=100 if live else None)
    with pytest.raises(OSError, match="close failed"):
        within(10, Pipeline(source, negative, NoSink()).run)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_camera_that_breaks_because_it_is_interrupted_at_the_end_is_no_error(negative, mode):
    class SlowToInterrupt(Waiting):
        """The read is back before `interrupt` is, as when a program is told to end."""

        def interrupt(self):
            super().interrupt()
            time.sleep(0.05)

    stop, sink = threading.Event(), ListSink()
    source = SlowToInterrupt(5, SourceError("interrupted", "", ""))

    def after_five(stats):
        if stats.frames_in == 5:
            stop.set()

    feed = Feed(source, "", lambda: pytest.fail("opened again"))
    stats = Pipeline(feed, negative, sink, mode=mode).run(stop, after_five)
    assert (stats.lost, sink.kept, source.closed) == (0, True, 1)


def test_a_camera_that_was_given_up_cannot_end_the_run(negative, impatient):
    """Drivers that are interrupted answer with all kinds of errors."""
    hangs = Waiting(3, OSError("bad file descriptor"))
    feed = Feed(hangs, "", lambda: SyntheticSource(SIZE_PX, fps=100, frames=20))
    sink = ListSink()
    stats = within(15, Pipeline(feed, negative, sink).run)
    assert (stats.lost, stats.reopened, hangs.closed) == (1, 1, 1)
    assert sink.frames[-1].index == 22


def test_a_camera_whose_frames_wait_for_a_slow_sink_is_not_lost(negative, impatient):
    feed = Feed(
        SyntheticSource(SIZE_PX, fps=50), "", lambda: SyntheticSource(SIZE_PX, fps=50, frames=5)
    )
    running = Pipeline(feed, negative, SlowSink(0.5), mode="throughput", max_frames=3)
    stats = running.run()
    assert (stats.lost, stats.reopened, stats.frames_out) == (0, 0, 3)


def test_a_loop_that_pauses_does_not_lose_its_camera(negative, impatient, monkeypatch):
    opened = []

    def open_source(uri):
        opened.append(uri)
        return SyntheticSource(SIZE_PX, fps=50, frames=10)

    monkeypatch.setattr("runtime.streaming.open_source", open_source)
    indices = []
    for frame in stream("a camera", negative, mode="throughput"):
        indices.append(frame.index)
        if frame.index == 2:
            time.sleep(0.6)
    assert opened == ["a camera"]
    assert indices == list(range(10))


def test_a_camera_that_opens_and_gives_nothing_stays_lost(negative, impatient):
    stop, opened, told = threading.Event(), [], []

    def opens_in_vain():
        opened.append(Waiting(0))
        return opened[-1]

    running = Pipeline(Feed(BrokenOnce(SIZE_PX, 5), "door", opens_in_vain), negative, NoSink())

    def look(stats):
        if stats.lost:
            told.append("door" in running.lost)
        if len(opened) == 3:
            stop.set()

    stats = running.run(stop, look)
    assert (stats.lost, stats.reopened) == (1, 0)
    assert told
    assert all(told)
    assert all(source.closed == 1 for source in opened)


def test_a_camera_that_opens_after_the_end_is_closed_and_not_counted_as_back(
    negative, monkeypatch
):
    monkeypatch.setattr(stages, "_JOIN_CAPTURES_S", 0.05)
    stop, opening_now, may_open = threading.Event(), threading.Event(), threading.Event()
    late = ScriptedSource(lambda count: None)

    def opens_late():
        opening_now.set()
        assert may_open.wait(20)
        return late

    def look(stats):
        if opening_now.is_set():
            stop.set()

    feed = Feed(BrokenOnce(SIZE_PX, 3), "", opens_late)
    stats = Pipeline(feed, negative, NoSink()).run(stop, look)
    left = [thread for thread in threading.enumerate() if thread.name == "p2p-capture"]
    assert all(thread.daemon for thread in left)
    may_open.set()
    for thread in left:
        thread.join(10)
    assert (stats.lost, stats.reopened, late.closed) == (1, 0, 1)


def test_a_camera_that_cannot_be_interrupted_does_not_keep_the_others_running(negative):
    class Uninterruptible(SyntheticSource):
        def interrupt(self):
            raise OSError("not connected")

    stop = threading.Event()
    feeds = [
        Feed(Uninterruptible(SIZE_PX, fps=50), "a"),
        Feed(SyntheticSource(SIZE_PX, fps=0.1), "b"),
    ]

    def after_five(stats):
        if stats.frames_in > 5:
            stop.set()

    with pytest.raises(OSError, match="not connected"):
        Pipeline(feeds, negative, NoSink()).run(stop, after_five)


def test_the_main_thread_rests_while_a_sink_takes_its_time_to_close(negative):
    class SlowToClose(NamedSink):
        def close(self, keep=True):
            time.sleep(0.5)
            super().close(keep)

    sinks, looks = [Target(ListSink()), Target(SlowToClose())], []
    Pipeline(SyntheticSource(SIZE_PX, frames=3), negative, sinks).run(on_progress=looks.append)
    assert len(looks) < 100


def test_ctrl_c_in_one_sink_keeps_the_file_of_the_other(negative):
    def interrupt(frame):
        if frame.index == 2:
            raise KeyboardInterrupt

    one, other = ListSink(interrupt), NamedSink()
    running = Pipeline(
        SyntheticSource(SIZE_PX), negative, [Target(one), Target(other)], mode="latency"
    )
    with pytest.raises(KeyboardInterrupt):
        running.run()
    assert (one.kept, other.kept) == (True, True)


def test_a_second_run_is_refused_and_leaves_the_file_of_the_first(negative, tmp_path):
    path = tmp_path / "out.mp4"
    running = Pipeline(SyntheticSource(SIZE_PX, frames=10), negative, open_sink(str(path)))
    running.run()
    with pytest.raises(RuntimeError, match="runs once"):
        running.run()
    assert len(decoded(path)) == 10


def test_a_stop_while_a_video_catches_up_keeps_it(negative, tmp_path):
    """The camera was away for ten hours: a million pictures are to be repeated."""
    stop = threading.Event()

    class Away(SyntheticSource):
        def read(self):
            frame = super().read()
            if frame is not None and frame.index >= 10:
                frame.captured_at_ns += 36_000 * 10**9
            return frame

    def soon(stats):
        if stats.frames_in > 20:
            stop.set()

    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), fps=30, live=True)
    running = Pipeline(Away(SIZE_PX, fps=30), negative, sink)
    within(20, lambda: running.run(stop, soon))
    assert running.notices == []
    assert len(decoded(path)) > 20


@pytest.mark.parametrize(
    ("arguments", "error"), [({"max_frames": 0}, None), ({"mode": "fast"}, ValueError)]
)
def test_a_loop_closes_its_source_where_nothing_is_read(negative, arguments, error):
    source = ScriptedSource(lambda count: None, live=False)
    frames = stream(source, negative, **arguments)
    with pytest.raises(error or StopIteration):
        next(frames)
    assert source.closed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whatever_stops_the_opening_of_a_source_the_others_are_closed(monkeypatch, error):
    first = ScriptedSource(lambda count: None)

    def open_source(uri, **_):
        if uri == "b":
            raise error
        return first

    monkeypatch.setattr(opening, "open_source", open_source)
    with pytest.raises(error):
        opening.open_feeds(["x=a", "y=b"])
    assert first.closed == 1


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), UserError("b is full", "room", "free some")]
)
def test_whatever_stops_the_opening_of_a_sink_the_others_are_closed(monkeypatch, error):
    first = ListSink()

    def open_sink(uri, **_):
        if uri == "b":
            raise error
        return first

    monkeypatch.setattr(opening, "open_sink", open_sink)
    feeds = [Feed(ScriptedSource(lambda count: None))]
    with pytest.raises(type(error)):
        opening.open_targets(["a", "b"], feeds, grid=False)
    assert first.kept is False


class SlowToClose(ListSink):
    """A file on a disk that is slow to take its end."""

    description = "slow disk"

    def __init__(self, finishing):
        super().__init__()
        self._finishes = finishing

    def close(self, keep=True):
        self.finishing = self._finishes
        time.sleep(0.6)
        self.finishing = False
        super().close(keep)


@pytest.mark.parametrize("finishing", [True, False])
def test_a_sink_that_finishes_its_file_gets_its_time_and_one_that_is_stuck_does_not(
    monkeypatch, finishing
):
    monkeypatch.setattr("runtime.delivery._PATIENCE_S", 0.05)
    monkeypatch.setattr("runtime.delivery._JOIN_S", 0.1)
    sink, told = SlowToClose(finishing), []
    source = SyntheticSource(SIZE_PX, fps=100)
    running = Pipeline(source, Translator(ScriptedEngine()), sink)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    running.run(stop, lambda stats: told.extend(running.finishing))
    assert (running.left_behind == []) is finishing
    assert ("slow disk" in told) is finishing
    while any(thread.name.startswith("p2p-") for thread in threading.enumerate()):
        time.sleep(0.05)
    assert sink.kept is True
