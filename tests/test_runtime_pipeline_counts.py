"""Whatever runs at once, each frame arrives where it belongs and is counted once."""

import random
import threading
import time

import numpy as np
import pytest
from conftest import decoded
from scripted_streams import (
    SIZE_PX,
    ListSink,
    NamedSink,
    ScriptedEngine,
    ScriptedSource,
    SlowSink,
    feeds_of,
    p2p_threads,
    within,
)

from runtime import Translator
from runtime.artifact import ArtifactMeta
from runtime.capture import Feed
from runtime.delivery import Target
from runtime.frame import Frame, Translated
from runtime.grid import Grid
from runtime.hud import Hud
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


def two_targets(left, right):
    return [Target(left, "left"), Target(right, "right")]


def test_the_frames_of_each_source_are_counted_at_its_own_sink(negative):
    feeds = feeds_of(
        left=SyntheticSource(SIZE_PX, frames=5), right=SyntheticSource(SIZE_PX, frames=7)
    )
    stats = Pipeline(feeds, negative, two_targets(NamedSink(), ListSink())).run()
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (12, 12, 0)
    assert [of.frames_out for of in stats.by_source.values()] == [5, 7]


def test_two_sinks_of_one_description_are_counted_apart(negative):
    sinks = [Target(NoSink()), Target(NoSink())]
    stats = Pipeline(SyntheticSource(SIZE_PX, frames=5), negative, sinks).run()
    assert [of["frames"] for of in stats.by_sink_summary().values()] == [5, 5]


def test_the_frames_of_a_file_that_were_asked_for_reach_the_slowest_sink(negative):
    quick, slow = NamedSink(), SlowSink(0.03)
    targets = [Target(quick), Target(slow)]
    Pipeline(SyntheticSource(SIZE_PX), negative, targets, max_frames=10).run()
    assert (len(quick.frames), len(slow.frames), slow.kept) == (10, 10, True)


def test_as_many_frames_of_a_camera_as_were_asked_for_reach_each_sink(negative):
    quick, slow = NamedSink(), SlowSink(0.05)
    targets = [Target(quick), Target(slow)]
    Pipeline(SyntheticSource(SIZE_PX, fps=100), negative, targets, max_frames=5).run()
    assert (len(quick.frames), len(slow.frames)) == (5, 5)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_the_frames_of_two_files_that_were_asked_for_reach_the_sink_of_each(negative, mode):
    left, right = NamedSink(), SlowSink(0.03)
    feeds = feeds_of(left=SyntheticSource(SIZE_PX), right=SyntheticSource(SIZE_PX))
    Pipeline(feeds, negative, two_targets(left, right), max_frames=7, mode=mode).run()
    for sink in (left, right):
        assert [frame.index for frame in sink.frames] == list(range(7))


class TwoInABatch(ScriptedEngine):
    meta = ArtifactMeta("unknown", "fp32", SIZE_PX, SIZE_PX, 18, "test", "", batch=2)


@pytest.mark.parametrize("grid", [None, Grid(["left", "right"])])
def test_two_cameras_in_one_batch_both_reach_a_sink_that_is_slower_than_they_are(grid):
    feeds = feeds_of(
        left=SyntheticSource(SIZE_PX, fps=100, frames=80),
        right=SyntheticSource(SIZE_PX, fps=100, frames=80),
    )
    translator = Translator(TwoInABatch(lambda: time.sleep(0.01)))
    stats = Pipeline(feeds, translator, SlowSink(0.02), grid=grid).run()
    fewest, most = sorted(of.frames_out for of in stats.by_source.values())
    assert most > 8
    assert fewest > most / 2


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_grey_frames_of_a_file_go_through_in_both_modes(negative, mode):
    source, sink = ScriptedSource(lambda count: None, live=False), ListSink()
    left = [Frame(np.full(SIZE_PX, 10 * index, np.uint8), index) for index in range(3)]
    source.read = lambda: left.pop(0) if left else None
    Pipeline(source, negative, sink, mode=mode).run()
    assert [int(frame.image[0, 0, 0]) for frame in sink.frames] == [255, 245, 235]


def test_a_picture_that_is_drawn_again_is_no_frame_in_the_rate_of_the_hud():
    """A window draws its picture again at every key and while a camera is lost."""
    now_ns = 0
    hud = Hud(clock_ns=lambda: now_ns)
    image = np.zeros((240, 320, 3), np.uint8)
    frame = Translated(image, 0, 0)
    for _ in range(100):
        now_ns += 10_000_000
        hud(image, frame)
    assert hud.fps < 2


def test_a_video_catches_up_over_several_frames_with_a_camera_that_was_gone(tmp_path):
    """Each write repeats a second at most, so that no thread is busy with one for minutes."""
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), fps=30, live=True)
    image = np.zeros((*SIZE_PX, 3), np.uint8)
    lengths = []
    for index, captured_at_s in enumerate([0.0, 3.0, 3.1, 3.2, 3.3]):
        sink.write(Frame(image, index, int(captured_at_s * 1e9)))
        lengths.append(sink._written)
    sink.close()
    assert lengths == [1, 31, 61, 91, 100]
    assert len(decoded(path)) == 100


class Jittery(ScriptedEngine):
    """Two inferences at once, each of another duration."""

    streams = 2

    def __init__(self, rng):
        super().__init__(lambda: time.sleep(rng.random() * 0.01))
        self.meta = rng.choice([ScriptedEngine, TwoInABatch]).meta


class ClosedOnce(SyntheticSource):
    closed = 0

    def close(self):
        self.closed += 1
        super().close()


class Keeper(NoSink):
    """Keeps the source and the index of each frame, also in a grid; and how it was closed."""

    def __init__(self, number, seconds):
        self.description = f"sink {number}"
        self.seconds = seconds
        self.came = []
        self.closes = []

    def write(self, frame):
        time.sleep(self.seconds)
        self.came += [(one.source, one.index) for one in (*frame.others, frame)]

    def close(self, keep=True):
        self.closes.append(keep)

    def indices(self, source=None):
        return [index for name, index in self.came if source in (None, name)]


@pytest.mark.parametrize("seed", range(24))
def test_any_run_that_is_stopped_at_any_moment_keeps_order_and_counts(seed):
    rng = random.Random(seed)
    live, mode = rng.random() < 0.5, rng.choice(["latency", "throughput"])
    names = [f"source {number}" for number in range(rng.randint(1, 3))]
    grid = Grid(names) if len(names) > 1 and rng.random() < 0.5 else None
    fps = [rng.choice([50, 300]) if live else None for _ in names]
    frames = [rng.choice([None, 20]) for _ in names]
    feeds = [
        Feed(ClosedOnce(SIZE_PX, fps=rate, frames=count), name)
        for name, rate, count in zip(names, fps, frames, strict=True)
    ]
    sinks = [Keeper(number, rng.choice([0, 0, 0.01])) for number in range(rng.randint(1, 2))]
    stop = threading.Event()
    timer = threading.Timer(rng.choice([0, 0.01, 0.1, 0.3]), stop.set)

    def each_is_counted_once(stats):
        """At the end what is missing counts as dropped, so a wrong count shows only before."""
        gone = stats.frames_out + stats.dropped
        assert gone <= stats.frames_in

    targets = [Target(sink) for sink in sinks]
    running = Pipeline(feeds, Translator(Jittery(rng)), targets, mode=mode, grid=grid)
    timer.start()
    stats = within(20, lambda: running.run(stop, each_is_counted_once))
    timer.join()

    assert [feed.source.closed for feed in feeds] == [1] * len(feeds)
    assert [sink.closes for sink in sinks] == [[True]] * len(sinks)
    for name in names:
        of = stats.of(name)
        assert of.frames_in == of.frames_out + of.dropped
        assert of.dropped >= 0
        assert of.frames_out == len(sinks[0].indices(name))
    for sink in sinks:
        for name in names if grid is None else [None]:  # a grid has indices of its own
            indices = sink.indices(name)
            assert indices == sorted(set(indices))
            if not live or mode == "throughput":
                assert indices == list(range(len(indices)))
