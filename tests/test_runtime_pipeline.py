"""The pipeline: what arrives, what is dropped, how it stops, and how it fails."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
from onnx_models import write_negative
from scripted_streams import (
    SIZE_PX,
    BrokenOnce,
    ListSink,
    NamedSink,
    ScriptedEngine,
    ScriptedSource,
    SlowSink,
    StopReadingError,
    ends_after,
    feeds_of,
    p2p_threads,
)

from runtime import Translator, stages, stream
from runtime.artifact import ArtifactMeta
from runtime.capture import Feed
from runtime.delivery import Target
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.grid import Grid
from runtime.pipeline import Pipeline
from runtime.sinks import NoSink, open_sink
from runtime.sources import open_source
from runtime.sources.synthetic import SyntheticSource, index_in
from runtime.stats import STAGES
from runtime.view import View


@pytest.fixture
def negative(negative_onnx):
    with Translator.load(negative_onnx) as translator:
        yield translator


@pytest.fixture(autouse=True)
def no_thread_outlives_the_run():
    yield
    assert p2p_threads() == []


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
    Pipeline(open_source(str(clip)), negative, sink, view=View("side-by-side"), max_frames=1).run()
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

    source, engine = ScriptedSource(five_for_each_inference), ScriptedEngine(on_infer)
    with pytest.raises(StopReadingError):
        Pipeline(source, Translator(engine), NoSink()).run()
    assert engine.levels == [0, 5, 10, 15, 20]


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
    source.read = lambda: Frame(np.zeros((4, 4, 5), np.uint8), 0)
    with pytest.raises(SourceError, match=r"\[4, 4, 5\]"):
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
    monkeypatch.setattr(stages, "_JOIN_CAPTURES_S", 0.05)
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
        assert set(stages_ms) == set(STAGES)
        parts_ms = [stages_ms[stage] for stage in ("wait", "in", "infer", "out", "sink")]
        assert stages_ms["age"] == pytest.approx(sum(parts_ms), abs=1e-6)


def test_an_unknown_mode_is_refused(negative):
    with pytest.raises(ValueError, match="none of"):
        Pipeline(SyntheticSource(SIZE_PX), negative, NoSink(), mode="fast")


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


def test_a_slow_sink_gets_the_newest_frame_and_holds_up_neither_camera_nor_other_sinks(negative):
    slow, quick = SlowSink(0.4), NamedSink()
    source = SyntheticSource(SIZE_PX, fps=60, frames=90)
    stats = Pipeline(source, negative, [Target(quick), Target(slow)]).run()
    assert stats.frames_out == len(quick.frames) > 3 * len(slow.frames)
    assert 2 <= len(slow.frames) <= 6
    assert slow.frames[-1].index == quick.frames[-1].index
    shares = stats.by_sink_summary()
    assert shares["slow"]["frames"] == len(slow.frames)
    assert shares["slow"]["replaced"] >= len(quick.frames) - len(slow.frames)
    assert shares["slow"]["age_p50_ms"] > 400 > shares["quick"]["age_p50_ms"]


def test_a_file_waits_for_its_slowest_sink_and_none_misses_a_frame(negative):
    slow, quick = SlowSink(0.01), NamedSink()
    source = SyntheticSource(SIZE_PX, frames=30)
    Pipeline(source, negative, [Target(quick), Target(slow)]).run()
    for sink in (slow, quick):
        assert [frame.index for frame in sink.frames] == list(range(30))


def test_a_sink_that_fails_ends_the_run_and_the_others_keep_what_a_camera_gave(negative):
    def fail(frame):
        if frame.index > 3:
            raise ZeroDivisionError

    failing, other = ListSink(fail), NamedSink()
    source = SyntheticSource(SIZE_PX, fps=200)
    with pytest.raises(ZeroDivisionError):
        Pipeline(source, negative, [Target(other), Target(failing)]).run()
    assert other.kept is True


class TwoAtOnce(ScriptedEngine):
    """An engine that runs two inferences at once; the first of each two takes longer."""

    streams = 2

    def __init__(self):
        super().__init__()
        self.running = self.most = 0
        self.lock = threading.Lock()

    def infer(self, frames):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02 if frames.flat[0] % 2 else 0.002)
        with self.lock:
            self.running -= 1
        return 255 - frames


def test_two_inferences_at_once_still_give_the_frames_in_order():
    engine, sink = TwoAtOnce(), ListSink()
    source = ScriptedSource(ends_after(24), live=False)
    with pytest.raises(StopReadingError):
        Pipeline(source, Translator(engine), sink, mode="throughput").run()
    assert engine.most == 2
    assert [frame.index for frame in sink.frames] == list(range(24))
    assert all(np.all(frame.image == 255 - frame.index) for frame in sink.frames)


def test_for_latency_one_inference_runs_at_a_time():
    engine = TwoAtOnce()
    source = SyntheticSource(SIZE_PX, fps=300, frames=30)
    Pipeline(source, Translator(engine), NoSink(), mode="latency").run()
    assert engine.most == 1


def test_several_cameras_share_the_engine_fairly_each_with_its_own_statistics():
    engine = ScriptedEngine(lambda: time.sleep(0.01))
    feeds = feeds_of(
        quick=SyntheticSource(SIZE_PX, fps=200, frames=200),
        slow=SyntheticSource(SIZE_PX, fps=20, frames=20),
    )
    stats = Pipeline(feeds, Translator(engine), NoSink()).run()
    quick, slow = stats.by_source["quick"], stats.by_source["slow"]
    assert (quick.frames_in, slow.frames_in) == (200, 20)
    taken = slow.frames_out / slow.frames_in
    assert taken > 1.5 * quick.frames_out / quick.frames_in, "nobody crowds out a calm camera"
    assert stats.frames_out == quick.frames_out + slow.frames_out
    assert quick.frames_in == quick.frames_out + quick.dropped


def test_cameras_go_through_a_batched_model_in_one_inference(tmp_path):
    meta = ArtifactMeta("unknown", "fp32", SIZE_PX, SIZE_PX, 18, "test", "", batch=2)
    path = write_negative(tmp_path / "two.onnx", SIZE_PX, meta, batch=2)
    shown = ListSink()
    feeds = feeds_of(
        left=SyntheticSource(SIZE_PX, frames=8), right=SyntheticSource(SIZE_PX, frames=8)
    )
    with Translator.load(path) as translator:
        Pipeline(feeds, translator, shown).run()
    for name in ("left", "right"):
        frames = [frame for frame in shown.frames if frame.source == name]
        assert [index_in(frame.image) for frame in frames] == list(range(8))


def test_each_sink_gets_the_frames_of_its_source(negative):
    left, right = NamedSink(), ListSink()
    feeds = feeds_of(
        left=SyntheticSource(SIZE_PX, frames=5), right=SyntheticSource(SIZE_PX, frames=7)
    )
    Pipeline(feeds, negative, [Target(left, "left"), Target(right, "right")]).run()
    assert [frame.source for frame in left.frames] == ["left"] * 5
    assert [frame.source for frame in right.frames] == ["right"] * 7


def test_a_grid_is_one_picture_of_all_sources(negative):
    sink = ListSink()
    feeds = feeds_of(
        left=SyntheticSource(SIZE_PX, frames=5), right=SyntheticSource(SIZE_PX, frames=5)
    )
    Pipeline(feeds, negative, sink, grid=Grid(["left", "right"])).run()
    height, width = sink.frames[-1].image.shape[:2]
    assert height * width >= 2 * SIZE_PX[0] * SIZE_PX[1]
    assert len(sink.frames) == 10


def test_in_a_grid_each_source_keeps_its_own_statistics_and_a_lost_one_is_told(negative):
    def never_again():
        raise SourceError("there is no camera", "a camera", "connect one")

    sink = ListSink()
    sink.shows_notes = True
    feeds = [
        Feed(SyntheticSource(SIZE_PX, fps=50, frames=60), "yard"),
        Feed(BrokenOnce(SIZE_PX, 10), "door", never_again),
    ]
    stop = threading.Event()
    running = Pipeline(feeds, negative, sink, grid=Grid(["yard", "door"]))

    def enough(stats):
        if stats.by_source["yard"].frames_in == 60 and any(f.repeated for f in sink.frames):
            stop.set()

    stats = running.run(stop, enough)
    assert stats.by_source["door"].frames_out <= 10
    assert stats.by_source["yard"].frames_out > 10
    assert stats.frames_out == sum(not frame.repeated for frame in sink.frames)
    assert stats.percentile_ms("age", 99) < 1000


def test_two_sources_of_one_name_are_refused(negative):
    feeds = [Feed(SyntheticSource(SIZE_PX), "a"), Feed(SyntheticSource(SIZE_PX), "a")]
    with pytest.raises(ValueError, match="one name"):
        Pipeline(feeds, negative, NoSink())


def test_a_lost_camera_is_told_on_the_picture_and_comes_back_with_another_size(negative):
    def opens_later():
        if time.monotonic() < back_at_s:
            raise SourceError("there is no camera", "a camera", "connect one")
        return SyntheticSource((96, 208), fps=100, frames=20)

    back_at_s = time.monotonic() + 1.0
    sink = ListSink()
    sink.shows_notes = True
    stats = Pipeline(
        Feed(BrokenOnce(SIZE_PX, 10), "door", opens_later), negative, sink, view=View()
    ).run()
    notes = [frame for frame in sink.frames if frame.repeated]
    assert "door: no picture for" in notes[0].note
    assert not np.array_equal(notes[0].image, notes[0].translated), "the note is drawn"
    assert sink.frames[-1].image.shape == (96, 208, 3)
    assert (stats.lost, stats.reopened) == (1, 1)
    assert stats.frames_out == len(sink.frames) - len(notes)


def test_a_sink_that_keeps_files_gets_no_picture_twice_while_a_camera_is_lost(negative):
    feed = Feed(BrokenOnce(SIZE_PX, 5), "", lambda: SyntheticSource(SIZE_PX, frames=5, fps=100))
    sink = ListSink()
    sink.shows_notes = False
    Pipeline(feed, negative, sink).run()
    indices = [frame.index for frame in sink.frames]
    assert indices == sorted(set(indices))


def test_stream_waits_for_a_camera_that_comes_back(negative, monkeypatch):
    cameras = [BrokenOnce(SIZE_PX, 5), SyntheticSource(SIZE_PX, fps=100, frames=5)]
    monkeypatch.setattr("runtime.streaming.open_source", lambda uri: cameras.pop(0))
    frames = list(stream("a camera", negative))
    assert frames[-1].index == 9
    assert all(frame.note == "" for frame in frames)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_leaving_the_loop_in_the_middle_leaves_no_thread(negative, mode):
    for frame in stream(SyntheticSource(SIZE_PX, fps=500), negative, mode=mode):
        if frame.index >= 10:
            break


def test_a_frame_that_the_loop_keeps_is_not_written_over(negative):
    kept = list(stream(SyntheticSource(SIZE_PX, frames=40), negative))
    assert [index_in(frame.image) for frame in kept] == list(range(40))
    assert [index_in(frame.original) for frame in kept] == list(range(40))
