"""A live source that stalls, breaks, comes back: what its capture does about it.

Cameras are scripted here: no machine has one whose cable a test can pull.
"""

import threading
import time

import numpy as np
import pytest

from runtime import capture
from runtime.capture import Capture, Feed, Rhythm
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.mailbox import Ended, Inbox
from runtime.stats import Statistics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A camera is given up after a fifth of a second, and tried again soon."""
    monkeypatch.setattr(capture, "STALLED_AFTER_S", 0.2)
    monkeypatch.setattr(capture, "_PAUSES_S", (0.01, 0.02, 0.04))


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("p2p-")] == []


class Camera:
    """A scripted live source: gives `frames` frames, then does what it is told.

    Args:
        then: `stall` (until interrupted), `break` (SourceError), `end`, or `go on`.
    """

    description = "a scripted camera"
    live = True
    fps = 100.0
    frame_count = None
    warning = ""

    def __init__(self, frames=10**9, then="go on", size_px=(8, 12), shape=None):
        self.frames, self.then = frames, then
        self.size_px = size_px
        self.shape = shape or (*size_px, 3)
        self.given = 0
        self.closed = 0
        self.interrupted = threading.Event()

    def read(self):
        if self.given < self.frames:
            self.interrupted.wait(0.005)
            self.given += 1
            return Frame(np.zeros(self.shape, np.uint8), self.given - 1)
        if self.then == "stall":
            assert self.interrupted.wait(20)
            raise SourceError("interrupted", "", "")
        if self.then == "break":
            raise SourceError("the cable was pulled", "a cable", "plug it in")
        return None

    def interrupt(self):
        self.interrupted.set()

    def close(self):
        self.closed += 1


class Cable:
    """Opens one scripted camera after the other; what is no camera is an error to raise."""

    def __init__(self, *cameras):
        self.cameras = list(cameras)
        self.opened_at_s = []

    def __call__(self):
        self.opened_at_s.append(time.monotonic())
        camera = self.cameras.pop(0)
        if isinstance(camera, Exception):
            raise camera
        return camera


def no_camera():
    return SourceError("there is no camera", "a camera", "connect one")


class Run:
    """A capture that is looked after, as the pipeline does it."""

    def __init__(self, *cameras, reopen=True, max_frames=None):
        first, *later = cameras
        self.cable = Cable(*later)
        self.stats = Statistics()
        self.inbox = Inbox(newest=True)
        feed = Feed(first, "front", self.cable if reopen else None)
        self.capture = Capture(feed, self.inbox, 0, self.stats, max_frames)

    def __enter__(self):
        self.capture.start()
        return self

    def __exit__(self, *_):
        self.capture.stop()
        self.inbox.close()
        self.capture.join()

    def until(self, wanted):
        """Take frames until one of them, or the capture, is as wanted."""
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            self.capture.look_after()
            for _, frame in self.inbox.take(0.02):
                if wanted(frame):
                    return frame
            if wanted(None):
                return None
        raise AssertionError("it never came")


def sized(height):
    return lambda frame: frame is not None and frame.image.shape[0] == height


def test_a_camera_that_stalls_is_interrupted_closed_and_opened_again():
    stalls, back = Camera(5, "stall"), Camera(size_px=(16, 12))
    with Run(stalls, back) as run:
        run.until(sized(16))
        assert (run.stats.lost, run.stats.reopened) == (1, 1)
        assert stalls.interrupted.is_set()
        assert "gave no frame" in run.capture.reason
    assert (stalls.closed, back.closed) == (1, 1)


def test_a_camera_that_breaks_is_tried_until_it_is_there():
    with Run(Camera(3, "break"), no_camera(), no_camera(), Camera(size_px=(16, 12))) as run:
        run.until(sized(16))
        assert (run.stats.lost, run.stats.reopened) == (1, 1)
        assert run.capture.note == ""


def test_while_it_is_lost_the_note_says_so_and_names_it():
    absent = [no_camera() for _ in range(1000)]
    with Run(Camera(3, "break"), *absent) as run:
        run.until(lambda frame: frame is None and run.capture.note)
        assert run.capture.note.startswith("front: no picture for 0 s")
        run.until(lambda frame: frame is None and run.capture.reason == "there is no camera")


def test_the_pauses_between_attempts_grow_and_then_stay():
    with Run(Camera(3, "break"), *[no_camera() for _ in range(5)], Camera()) as run:
        run.until(lambda frame: run.stats.reopened == 1)
    gaps = np.diff(run.cable.opened_at_s)
    assert gaps[0] >= 0.02
    assert all(gap >= 0.04 for gap in gaps[1:])


def test_a_camera_that_breaks_at_once_each_time_is_not_opened_in_a_frenzy():
    flapping = [Camera(1, "break") for _ in range(6)]
    with Run(*flapping, Camera(size_px=(16, 12))) as run:
        run.until(sized(16))
    assert all(gap >= 0.04 for gap in np.diff(run.cable.opened_at_s)[2:])
    assert run.stats.lost == run.stats.reopened == 6


def test_the_indices_go_on_where_they_stopped():
    with Run(Camera(5, "break"), Camera(size_px=(16, 12))) as run:
        assert run.until(sized(16)).index >= 5


def test_a_camera_that_ends_by_itself_ends_the_stream():
    with Run(Camera(3, "end")) as run:
        with pytest.raises(Ended):
            run.until(lambda frame: False)
        assert run.stats.frames_in == 3
        assert run.stats.lost == 0


def test_a_source_that_cannot_be_opened_again_ends_with_its_error():
    with Run(Camera(3, "break"), reopen=False) as run, pytest.raises(SourceError, match="pulled"):
        run.until(lambda frame: False)


def test_a_slow_camera_is_not_taken_for_a_lost_one():
    slow = Camera()
    slow.fps = 2.0  # three intervals are 1.5 s
    slow.read = lambda: (slow.interrupted.wait(0.4), Frame(np.zeros((8, 12, 3), np.uint8), 0))[1]
    with Run(slow, Camera()) as run:
        for _ in range(2):
            run.until(lambda frame: frame is not None)
        assert run.stats.lost == 0


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (8, 12, 4)])
def test_a_stream_that_turns_grey_or_four_channel_is_brought_to_bgr_and_told(shape):
    with Run(Camera(shape=shape)) as run:
        frame = run.until(lambda frame: frame is not None)
        assert frame.image.shape == (8, 12, 3)
        assert str(list(shape)) in run.capture.warning


def test_a_stream_that_turns_into_nonsense_is_lost_not_shown():
    with Run(Camera(shape=(8, 12, 5)), Camera(size_px=(16, 12))) as run:
        run.until(sized(16))
        assert run.stats.lost == 1


def test_it_reads_no_more_frames_than_asked():
    with Run(Camera(), max_frames=4) as run:
        with pytest.raises(Ended):
            run.until(lambda frame: False)
        assert run.stats.frames_in == 4


def test_stopping_gets_a_read_that_waits_back():
    stalls = Camera(1, "stall")
    with Run(stalls, reopen=False) as run:
        run.until(lambda frame: frame is not None)
    assert stalls.closed == 1


def test_stopping_ends_the_attempts_to_open_it():
    absent = [no_camera() for _ in range(1000)]
    with Run(Camera(3, "break"), *absent) as run:
        run.until(lambda frame: run.capture.note)
    assert len(run.cable.cameras) > 900


class Clock:
    """Stands for the clock: the rhythm of a camera is a matter of exact times."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(capture.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def rhythm(monkeypatch):
    clock = Clock(monkeypatch)
    rhythm = Rhythm()
    rhythm.clock = clock
    for _ in range(12):
        rhythm.arrived()
        clock.now_s += 0.032
    clock.now_s -= 0.032
    return rhythm


@pytest.mark.parametrize("waited_s", [0.0, 0.004, 0.008])
def test_a_fresh_frame_is_taken_at_once(rhythm, waited_s):
    rhythm.clock.now_s += waited_s
    assert rhythm.worth_waiting_s() == 0.0


@pytest.mark.parametrize("waited_s", [0.009, 0.016, 0.03])
def test_an_older_one_is_passed_over_for_the_next_which_is_due(rhythm, waited_s):
    rhythm.clock.now_s += waited_s
    wait_s = rhythm.worth_waiting_s()
    assert 0.032 - waited_s < wait_s < 0.045 - waited_s


def test_nobody_waits_for_a_camera_that_is_late(rhythm):
    rhythm.clock.now_s += 0.05
    assert rhythm.worth_waiting_s() == 0.0


def test_before_the_rhythm_is_known_nobody_waits():
    rhythm = Rhythm()
    for _ in range(4):
        rhythm.arrived()
    assert rhythm.worth_waiting_s() == 0.0
