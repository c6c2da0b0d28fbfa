"""The points of `benchmarks/scaling.py`: each in a process of its own, all in turn in each round.

The processes stay, so that a model is opened once; where memory does not hold them all, the
largest that waits is ended and started again when its turn comes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.growths.memory import MARGIN, Seen, expected_bytes, free_bytes, told_bytes
from benchmarks.growths.worker import Opening
from benchmarks.timing import balanced
from runtime.errors import UserError

_WORKER = Path(__file__).with_name("worker.py")
_END_S = 10.0


@dataclass(frozen=True)
class Point:
    """What is timed at one point, whichever of the questions it helps to answer."""

    family: str
    file: Path
    size_px: tuple[int, int]
    """(height, width) of the frames."""
    batch: int = 1
    threads: int | None = None
    cameras: int = 0

    @property
    def pixels(self) -> int:
        """Of all frames of one inference; of cameras, if each gives one."""
        return math.prod(self.size_px) * max(self.batch, self.cameras, 1)


@dataclass
class Taken:
    """What a point gave: a list for each round."""

    engine: str
    load_ms: float
    frames_per_inference: int
    taken_ms: list[list[float]] = field(default_factory=list)
    """Of each call: a frame's whole way, or a batch's."""
    infer_ms: list[list[float]] = field(default_factory=list)
    live: list[dict[str, Any]] = field(default_factory=list)
    """With cameras: `stamps_ns` by camera (captured, arrived), `from_ns`, `until_ns`,
    `dropped`."""
    before_bytes: int | None = None
    peak_bytes: int | None = None
    starts: int = 0
    """How often its process was started: more than once where memory is short."""


@dataclass(frozen=True)
class Skipped:
    """A point without figures."""

    why: str


Outcome = Taken | Skipped


@dataclass(frozen=True)
class Timing:
    """How all points are measured."""

    engine: str
    rounds: int
    frames: int
    """Of each point in each round, after one that is not measured."""
    seconds: float
    """Of each run with cameras in each round."""
    warm_up: int
    camera_fps: float
    cache: Path | None = None
    """Where scratch models keep their optimised form; None: the user's own cache."""


def measure(
    points: Iterable[Point],
    scratch_families: Iterable[str],
    timing: Timing,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[Point, Outcome]:
    """Time every point, and tell of those that could not be timed why.

    Args:
        points: each once, in any order.
        scratch_families: names of those whose models are made for this run alone.
        timing: how.
        on_progress: called after each round.
    """
    ordered = sorted(dict.fromkeys(points), key=lambda point: point.pixels)
    outcomes: dict[Point, Outcome] = {}
    with _Crew(timing, frozenset(scratch_families)) as crew:
        # Small ones first: what they take tells what the large ones will.
        for point in ordered:
            try:
                crew.member(point)
            except UserError as error:
                outcomes[point] = Skipped(str(error))
        for done in range(timing.rounds):
            for point in balanced(ordered, done):
                if point in outcomes:
                    continue
                try:
                    crew.turn(point)
                except UserError as error:
                    crew.end(point)
                    outcomes[point] = Skipped(str(error))
            on_progress(done + 1, timing.rounds)
        return {point: outcomes.get(point) or crew.taken[point] for point in ordered}


class _Crew:
    """The processes that live."""

    def __init__(self, timing: Timing, scratch_families: frozenset[str]) -> None:
        self.taken: dict[Point, Taken] = {}
        self._timing = timing
        self._scratch = scratch_families
        self._alive: dict[Point, _Process] = {}
        self._seen: dict[str, dict[int, Seen]] = {}

    def member(self, point: Point) -> _Process:
        """The process of a point, started if need be.

        Raises:
            UserError: it does not fit into memory, or the model does not open.
        """
        if point not in self._alive:
            self._make_room(point)
            environment = dict(os.environ)
            if self._timing.cache is not None and point.family in self._scratch:
                environment["P2P_CACHE"] = str(self._timing.cache)
            process = self._alive[point] = _Process(environment)
            try:
                self._opened(point, process.ask(**asdict(self._opening(point))))
            except UserError:
                self.end(point)
                raise
        return self._alive[point]

    def turn(self, point: Point) -> None:
        """One round of a point.

        Raises:
            UserError: its process could not do it.
        """
        timing = self._timing
        process = self.member(point)
        live = point.cameras > 0
        told = process.ask(**({"seconds": timing.seconds} if live else {"frames": timing.frames}))
        taken = self.taken[point]
        if live:
            keys = ("stamps_ns", "from_ns", "until_ns", "dropped")
            taken.live.append({key: told[key] for key in keys})
        else:
            taken.taken_ms.append(told["taken_ms"])
            taken.infer_ms.append(told["infer_ms"])
        self._remember(point, told["peak_bytes"])

    def end(self, point: Point) -> None:
        """End the process of a point, if it has one."""
        process = self._alive.pop(point, None)
        if process is not None:
            process.close()

    def _opening(self, point: Point) -> Opening:
        return Opening(
            model=str(point.file.resolve()),
            engine=self._timing.engine,
            threads=point.threads,
            size_px=point.size_px,
            batch=point.batch,
            warm_up=self._timing.warm_up,
            cameras=point.cameras,
            camera_fps=self._timing.camera_fps,
        )

    def _opened(self, point: Point, told: dict[str, Any]) -> None:
        taken = self.taken.setdefault(
            point, Taken(told["engine"], told["load_ms"], told["frames_per_inference"])
        )
        taken.starts += 1
        taken.before_bytes = told["before_bytes"]
        self._remember(point, told["peak_bytes"])

    def _remember(self, point: Point, peak_bytes: int | None) -> None:
        taken = self.taken[point]
        if peak_bytes is None or taken.before_bytes is None:
            return
        taken.peak_bytes = max(peak_bytes, taken.peak_bytes or 0)
        seen = self._seen.setdefault(point.family, {})
        before = seen.get(point.pixels)
        most = max(taken.peak_bytes, before.peak_bytes if before else 0)
        seen[point.pixels] = Seen(point.pixels, taken.before_bytes, most)

    def _make_room(self, point: Point) -> None:
        """End processes that wait until this one fits.

        Raises:
            UserError: it does not fit without any of them.
        """
        seen = self._seen.get(point.family, {})
        expected = expected_bytes(point.pixels, point.file.stat().st_size, seen)
        while (free := free_bytes()) is not None and free < MARGIN * expected:
            if not self._alive:
                height, width = point.size_px
                raise UserError(
                    f"{height}x{width} in batches of {max(point.batch, point.cameras)} would take "
                    f"about {told_bytes(expected)} of memory",
                    f"no more than the {told_bytes(free)} that are free, less a margin",
                    "end other programs, or leave this point out",
                )
            self.end(max(self._alive, key=lambda waits: self.taken[waits].peak_bytes or 0))

    def __enter__(self) -> _Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for point in list(self._alive):
            self.end(point)


class _Process:
    """A `worker.py` that runs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    def ask(self, **values: Any) -> dict[str, Any]:
        """Send a line, and wait for the answer.

        Raises:
            UserError: the answer is an error, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._ended()
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise _ToldError(told["error"])
        return told

    def close(self) -> None:
        """End it; kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it ended before: nothing is left to tell it
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _ended(self) -> UserError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1].strip() if lines else f"exit code {code}"
        killed = code < 0
        return UserError(
            f"the process of this point was killed by signal {-code}"
            if killed
            else f"the process of this point ended: {reason}",
            "one that lives until it is told to end",
            "free some memory: that is the usual cause" if killed else "run it again alone",
        )


class _ToldError(UserError):
    """An error of the other process, which is one line already."""

    def __init__(self, line: str) -> None:
        Exception.__init__(self, line)
        self.received, self.expected, self.mend = line, "", ""
