"""The pipeline: what arrives, what is dropped, how it stops, and how it fails."""

import threading
from contextlib import closing

import numpy as np
import pytest

from runtime import Translator, pipeline, stream
from runtime.artifact import ArtifactMeta
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.pipeline import Pipeline
from runtime.sinks import NoSink, open_sink
from runtime.sources import open_source
from runtime.sources.synthetic import SyntheticSource, index_in

SIZE_PX = (48, 104)


class ScriptedEngine:
    """An engine whose `infer` does what a test says: no real network waits or fails on cue."""

    meta = ArtifactMeta("unknown", "fp32", SIZE_PX, SIZE_PX, 18, "test", "")
    description = "scripted"

    def __init__(self, on_infer=lambda: None):
        self.on_infer = on_infer

    def infer(self, frames):
        self.on_infer()
        return 255 - frames

    def close(self):
        pass


class ScriptedSource:
    """A source whose `read` does what a test says: no real camera stalls or fails on cue."""

    description = "scripted"
    fps = 30.0
    size_px = SIZE_PX
    frame_count = None
    warning = ""

    def __init__(self, read, live=True):
        self._read = read
        self.live = live
        self.closed = 0
        self.count = 0

    def read(self):
        self._read(self.count)
        image = np.full((*SIZE_PX, 3), self.count % 256, np.uint8)
        self.count += 1
        return Frame(image, self.count - 1)

    def close(self):
        self.closed += 1


class ListSink(NoSink):
    """Keeps what it gets, and how it was closed."""

    def __init__(self, on_write=lambda frame: None):
        self.frames = []
        self.kept = None
        self.on_write = on_write

    def write(self, frame):
        self.on_write(frame)
        self.frames.append(frame)

    def close(self, keep=True):
        self.kept = keep


@pytest.fixture
def negative(negative_onnx):
    with Translator.load(negative_onnx) as translator:
        yield translator


@pytest.fixture(autouse=True)
def no_thread_outlives_the_run():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("p2p-")] == []


def ends_after(frames):
    def read(count):
        if count == frames:
            raise StopReadingError

    return read


class StopReadingError(Exception):
    pass


@pytest.mark.parametrize("mode", [None, "throughput", "latency"])
def test_every_frame_of_a_file_arrives_translated_and_in_order(negative, clip, mode):
    sink = ListSink()
    stats = Pipeline(open_source(str(clip)), negative, sink, mode=mode).run()
    assert [frame.index for frame in sink.frames] == list(range(30))
    assert [index_in(frame.image) for frame in sink.frames] == list(range(30))
    assert all(frame.image[2, 4].max() < 60 for frame in sink.frames)  # white became black
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (30, 30, 0)
    assert sink.kept is True


def test_side_by_side_shows_the_original_on_the_left(negative, clip):
    sink = ListSink()
    Pipeline(open_source(str(clip)), negative, sink, view="side-by-side", max_frames=1).run()
    image = sink.frames[0].image
    assert image.shape == (96, 416, 3)
    assert np.array_equal(image[:, :208], sink.frames[0].original)
    assert np.abs(image[40:, 208:] + image[40:, :208].astype(int) - 255).mean() < 20


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_a_file_stops_after_the_frames_that_were_asked_for_and_reads_no_more(negative, mode):
    source = SyntheticSource(SIZE_PX)
    stats = Pipeline(source, negative, NoSink(), mode=mode, max_frames=7).run()
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (7, 7, 0)


def test_a_live_source_is_shown_its_newest_frame_and_drops_are_counted():
    """The worker is held in its first frame until the source has given all ten."""
    all_given = threading.Event()

    def read(count):
        if count == 10:
            all_given.set()
            raise StopReadingError

    sink = ListSink()
    translator = Translator(ScriptedEngine(on_infer=lambda: all_given.wait(10)))
    with pytest.raises(StopReadingError):
        Pipeline(ScriptedSource(read), translator, sink).run()
    shown = [frame.index for frame in sink.frames]
    assert shown[-1] == 9
    assert len(shown) <= 2
    assert all(np.all(frame.image == 255 - frame.index) for frame in sink.frames)


def test_frames_in_are_frames_out_and_dropped(negative):
    source = SyntheticSource(SIZE_PX, fps=500, frames=40)
    stats = Pipeline(source, negative, NoSink(), mode="latency").run()
    assert stats.frames_in == 40
    assert stats.frames_out + stats.dropped == 40
    assert stats.frames_out >= 1


def test_each_frame_that_is_taken_from_a_live_source_is_the_newest_at_that_moment():
    """While one frame is translated, the source gives exactly five; the last of them is next."""
    go, given = threading.Semaphore(0), threading.Semaphore(0)

    def five_for_each_inference(count):
        if count % 5 == 1:
            if count > 1:
                given.release()
            if count == 21:
                given.release()
                raise StopReadingError
            go.acquire(timeout=10)

    def on_infer():
        go.release()
        given.acquire(timeout=10)

    sink = ListSink()
    source = ScriptedSource(five_for_each_inference)
    stats_seen = []
    with pytest.raises(StopReadingError):
        Pipeline(source, Translator(ScriptedEngine(on_infer)), sink).run(None, stats_seen.append)
    assert [frame.index for frame in sink.frames] == [0, 5, 10, 15, 20]
    assert stats_seen[-1].dropped == 16


def test_a_live_source_may_also_give_every_frame(negative):
    source = SyntheticSource(SIZE_PX, fps=200, frames=20)
    stats = Pipeline(source, negative, NoSink(), mode="throughput").run()
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (20, 20, 0)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("stage", ["source", "engine", "sink"])
def test_an_error_in_any_stage_ends_the_run_and_is_raised_there(stage, mode, live):
    def fail(*_):
        raise ZeroDivisionError(stage)

    def fail_at_three(count):
        if count == 3:
            fail()

    source = ScriptedSource(
        fail_at_three if stage == "source" else (lambda count: None), live=live
    )
    translator = Translator(ScriptedEngine(*[fail] * (stage == "engine")))
    sink = ListSink(*[fail] * (stage == "sink"))
    with pytest.raises(ZeroDivisionError, match=stage):
        Pipeline(source, translator, sink, mode=mode).run()
    assert source.closed == 1
    # What a camera gave cannot be had again; a result of a file is whole or not there.
    assert sink.kept is live


def test_frames_before_an_error_of_a_file_source_do_arrive(negative):
    sink = ListSink()
    source = ScriptedSource(ends_after(5), live=False)
    with pytest.raises(StopReadingError):
        Pipeline(source, negative, sink).run()
    assert [frame.index for frame in sink.frames] == [0, 1, 2, 3, 4]


def test_a_frame_of_the_wrong_shape_ends_the_run_with_its_line(negative):
    source = ScriptedSource(lambda count: None)
    source.read = lambda: Frame(np.zeros((4, 4), np.uint8), 0)
    with pytest.raises(Exception, match=r"\[4, 4\]"):
        Pipeline(source, negative, NoSink()).run()


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_the_stop_event_ends_an_endless_run_and_keeps_its_frames(negative, mode):
    stop = threading.Event()
    sink = ListSink(on_write=lambda frame: stop.set() if frame.index >= 3 else None)
    source = SyntheticSource(SIZE_PX, fps=200)
    stats = Pipeline(source, negative, sink, mode=mode).run(stop)
    assert stats.frames_out == len(sink.frames) >= 1
    assert stats.frames_in == stats.frames_out + stats.dropped
    assert sink.kept is True


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_sink_that_wants_no_more_ends_the_run(negative, mode):
    sink = ListSink()
    sink.wants_more = lambda: len(sink.frames) < 4
    Pipeline(SyntheticSource(SIZE_PX), negative, sink, mode=mode).run()
    assert len(sink.frames) == 4


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_source_that_stalls_does_not_keep_the_run_from_stopping(negative, monkeypatch, mode):
    monkeypatch.setattr(pipeline, "_JOIN_SOURCE_S", 0.05)
    stop, comes_back = threading.Event(), threading.Event()

    def stalls_at_two(count):
        if count == 2:
            comes_back.wait(30)
            raise SourceError("came back too late", "", "")

    source, sink = ScriptedSource(stalls_at_two), ListSink()

    def on_progress(stats):
        if stats.frames_in == 2 and source.count == 2:
            stop.set()

    Pipeline(source, negative, sink, mode=mode).run(stop, on_progress)
    assert sink.kept is True
    assert source.closed == 0, "a source must not be closed under a thread that reads it"
    left = [thread for thread in threading.enumerate() if thread.name == "p2p-capture"]
    assert all(thread.daemon for thread in left)
    comes_back.set()
    for thread in left:
        thread.join(10)


def test_a_source_that_stalls_and_comes_back_goes_on(negative):
    def stalls_at_two(count):
        if count == 2:
            threading.Event().wait(0.25)
        if count == 4:
            raise StopReadingError

    calls = []
    sink = ListSink()
    with pytest.raises(StopReadingError):
        Pipeline(ScriptedSource(stalls_at_two), negative, sink).run(on_progress=calls.append)
    assert sink.frames[-1].index == 3
    assert len(calls) > len(sink.frames), "progress is told while no frame comes"


def test_ctrl_c_in_an_embedding_program_keeps_the_frames_so_far(negative):
    def interrupt(frame):
        if frame.index == 2:
            raise KeyboardInterrupt

    sink = ListSink(on_write=interrupt)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(SyntheticSource(SIZE_PX), negative, sink).run()
    assert sink.kept is True


def test_a_pipeline_that_never_ran_closes_source_and_sink(negative):
    source, sink = ScriptedSource(lambda count: None), ListSink()
    with Pipeline(source, negative, sink):
        pass
    assert source.closed == 1
    assert sink.kept is False


def test_a_run_closes_its_source_once(negative):
    source = ScriptedSource(lambda count: None)
    with Pipeline(source, negative, NoSink(), max_frames=2) as running:
        running.run()
    assert source.closed == 1


def test_samples_are_one_for_each_frame_in_order(negative, clip):
    running = Pipeline(open_source(str(clip)), negative, NoSink(), keep_samples=True)
    samples = running.run().samples
    assert [sample["index"] for sample in samples] == list(range(30))
    for sample in samples:
        stages_ms = sample["stages_ms"]
        assert set(stages_ms) == {"capture", "in", "infer", "out", "sink", "age"}
        assert stages_ms["age"] >= stages_ms["in"] + stages_ms["infer"] + stages_ms["out"]


@pytest.mark.parametrize("option", [{"mode": "fast"}, {"view": "both"}])
def test_an_unknown_mode_or_view_is_refused(negative, option):
    with pytest.raises(ValueError, match="none of"):
        Pipeline(SyntheticSource(SIZE_PX), negative, NoSink(), **option)


def test_stream_gives_translated_frames_in_a_loop(negative_onnx, clip):
    frames = list(stream(clip, negative_onnx))
    assert [frame.index for frame in frames] == list(range(30))
    assert [index_in(frame.image) for frame in frames] == list(range(30))
    assert index_in(frames[3].original) == 3


def test_leaving_the_loop_of_a_stream_closes_its_source(negative):
    source = ScriptedSource(lambda count: None)
    with closing(stream(source, negative)) as frames:
        for frame in frames:
            assert frame.image.shape == (*SIZE_PX, 3)
            break
    assert source.closed == 1


def test_stream_ends_after_the_frames_that_were_asked_for(negative_onnx):
    assert len(list(stream("synthetic://", negative_onnx, max_frames=3))) == 3


def test_a_file_becomes_a_file_of_as_many_frames_at_the_same_rate(negative, clip, tmp_path):
    source = open_source(str(clip))
    Pipeline(source, negative, open_sink(str(tmp_path / "out.mp4"), fps=source.fps)).run()
    result = open_source(str(tmp_path / "out.mp4"))
    assert (result.frame_count, result.fps) == (30, 12.5)
    result.close()
