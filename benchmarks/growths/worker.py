"""One point of `benchmarks/scaling.py` in a process of its own, so that its memory is its own.

Reads JSON lines from standard input and answers each with one on standard output. The first says
what to open (the fields of `Opening`); those that follow ask for a turn: `{"frames": N}` or, with
cameras, `{"seconds": S}`. It ends with its input.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.capture import Feed
from runtime.delivery import Target
from runtime.errors import UserError
from runtime.frame import Frame, Image, Translated
from runtime.machine import read_text
from runtime.pipeline import Pipeline
from runtime.sinks.base import BaseSink
from runtime.sources.synthetic import SyntheticSource
from runtime.translator import Translator

SETTLED_S = 0.5
"""Of a run with cameras the first half second is left out: their rhythm has to be known."""
_REST_S = 0.02
"""Before each turn: threads of the process that ran before stop to spin."""
_STUCK = 3


@dataclass(frozen=True)
class Opening:
    """What a process is to open."""

    model: str
    engine: str
    threads: int | None
    size_px: tuple[int, int]
    """(height, width) of the frames that come."""
    batch: int
    warm_up: int
    cameras: int
    """0: single frames or batches, without a pipeline."""
    camera_fps: float


class AgeSink(BaseSink):
    """Notes of each frame when it was captured and when it arrived."""

    description = "ages"

    def __init__(self) -> None:
        self.stamps_ns: dict[str, list[tuple[int, int]]] = {}

    def write(self, frame: Frame) -> None:
        """Note the frame, which names its camera."""
        now_ns = time.perf_counter_ns()
        source = frame.source if isinstance(frame, Translated) else ""
        self.stamps_ns.setdefault(source, []).append((frame.captured_at_ns, now_ns))

    def close(self, keep: bool = True) -> None:
        """Nothing to finish."""


class Subject:
    """A model that is open, and what is sent through it."""

    def __init__(self, opening: Opening) -> None:
        started_ns = time.perf_counter_ns()
        self.translator = Translator.load(
            opening.model, engine=opening.engine, threads=opening.threads
        )
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        self._opening = opening
        self._pictures = _pictures(opening.size_px, opening.batch)
        for _ in range(opening.warm_up):
            self.translator.translate(self._pictures)

    def frames(self, count: int) -> dict[str, Any]:
        """Translate the batch `count` times, after once that is not measured."""
        self.translator.translate(self._pictures)
        taken_ms, infer_ms = [], []
        for _ in range(count):
            started_ns = time.perf_counter_ns()
            translation = self.translator.translate(self._pictures)
            taken_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
            infer_ms.append(translation.infer_ms)
        return {"taken_ms": taken_ms, "infer_ms": infer_ms}

    def live(self, seconds: float) -> dict[str, Any]:
        """Let the cameras run: by camera, when each frame was captured and arrived."""
        opening = self._opening
        feeds = [
            Feed(SyntheticSource(opening.size_px, fps=opening.camera_fps), f"camera-{number}")
            for number in range(1, opening.cameras + 1)
        ]
        sink, stop = AgeSink(), threading.Event()
        timer = threading.Timer(SETTLED_S + seconds, stop.set)
        timer.start()
        began_ns = time.perf_counter_ns()
        try:
            stats = Pipeline(feeds, self.translator, Target(sink)).run(stop)
        finally:
            timer.cancel()
        settled_ns = began_ns + int(SETTLED_S * 1e9)
        stamps_ns = {
            feed.name: [at for at in sink.stamps_ns.get(feed.name, ()) if at[1] >= settled_ns]
            for feed in feeds
        }
        return {
            "stamps_ns": stamps_ns,
            "from_ns": settled_ns,
            "until_ns": time.perf_counter_ns(),
            "dropped": stats.dropped,
        }


def peak_bytes() -> int | None:
    """The most that this process had in memory; None where the system does not tell.

    Of `/proc`, not of `getrusage`, which on Linux starts with what the parent had.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", read_text("/proc/self/status"))
    return int(found[1]) * 1024 if found else None


def serve(asked: TextIO, answered: TextIO) -> int:
    """Answer until nothing more is asked; what the user can mend is told as `error`."""

    def answer(**values: Any) -> None:
        answered.write(json.dumps({**values, "peak_bytes": peak_bytes()}) + "\n")
        answered.flush()

    told = json.loads(asked.readline())
    opening = Opening(**{**told, "size_px": tuple(told["size_px"])})
    before_bytes = peak_bytes()
    try:
        subject = Subject(opening)
        with subject.translator as translator:
            answer(
                engine=translator.description,
                load_ms=subject.load_ms,
                before_bytes=before_bytes,
                frames_per_inference=min(max(1, opening.cameras), translator.meta.batch),
            )
            for line in asked:
                turn = json.loads(line)
                time.sleep(_REST_S)
                if opening.cameras:
                    answer(**subject.live(turn["seconds"]))
                else:
                    answer(**subject.frames(turn["frames"]))
    except UserError as error:
        answer(error=str(error))
        return _STUCK
    return 0


def _pictures(size_px: tuple[int, int], count: int) -> list[Image]:
    with_frames = SyntheticSource(size_px, frames=count)
    pictures = []
    while (frame := with_frames.read()) is not None:
        pictures.append(frame.image.copy())
    return pictures


def _first_to_go() -> None:
    """Where memory ends after all, Linux is to take this process and no other."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return  # not Linux: the system decides by itself


def main() -> int:
    """Serve on the standard streams; what a library prints goes to stderr."""
    _first_to_go()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answered:
        os.dup2(2, 1)
        return serve(sys.stdin, answered)


if __name__ == "__main__":
    sys.exit(main())
