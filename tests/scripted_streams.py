"""Engines, sources and sinks that do what a test says: they wait, fail and vanish on cue.

They stand for what no test machine has: a network of a known duration, a camera whose cable can be
pulled, a disk that is slow when it is asked to be.
"""

import faulthandler
import sys
import threading
import time

import numpy as np
import pytest

from runtime.artifact import ArtifactMeta
from runtime.capture import Feed
from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.sinks import NoSink
from runtime.sources.synthetic import SyntheticSource

SIZE_PX = (48, 104)


class ScriptedEngine:
    """An engine whose `infer` does what a test says: no real network waits or fails on cue."""

    meta = ArtifactMeta("unknown", "fp32", SIZE_PX, SIZE_PX, 18, "test", "")
    description = "scripted"
    choice = "as the test says"
    streams = 1

    def __init__(self, on_infer=lambda: None):
        self.on_infer = on_infer
        self.levels = []

    def infer(self, frames):
        self.levels.append(int(frames.flat[0]))
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

    def interrupt(self):
        pass

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


class SlowSink(ListSink):
    """A disk or a network that needs its time for each frame."""

    description = "slow"

    def __init__(self, seconds):
        super().__init__(lambda frame: time.sleep(seconds))


class NamedSink(ListSink):
    description = "quick"


class BrokenOnce(SyntheticSource):
    """A camera whose cable is pulled after so many frames."""

    def __init__(self, size_px, frames):
        super().__init__(size_px, fps=100)
        self.left = frames

    def read(self):
        self.left -= 1
        if self.left < 0:
            raise SourceError("the cable was pulled", "a cable", "plug it in")
        return super().read()


def ends_after(frames):
    def read(count):
        if count == frames:
            raise StopReadingError

    return read


class StopReadingError(Exception):
    pass


def feeds_of(**sources):
    return [Feed(source, name) for name, source in sources.items()]


def p2p_threads(before=()):
    """Names of the runtime's threads that live, but for those that lived before."""
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [thread.name for thread in new if thread.name.startswith("p2p-")]


def within(seconds, function):
    """What `function` gives or raises; where it hangs the test fails with every thread's stack."""
    values, errors = [], []

    def run():
        try:
            values.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        faulthandler.dump_traceback(sys.__stderr__)
        pytest.fail(f"still running after {seconds} s")
    if errors:
        raise errors[0]
    return values[0]
