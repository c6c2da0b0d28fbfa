"""Starts of models, each a fresh process, in turn, with cold and with warm caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2

from benchmarks.starts.page_cache import Dropped, can_drop, drop
from benchmarks.timing import rotated
from runtime.errors import EngineError, ModelError, UserError
from runtime.machine import reason_of
from runtime.sources.synthetic import SyntheticSource

COLD, WARM = STATES = ("cold", "warm")
STAGES = ("interpreter", "imports", "loading", "first_frame", "second_frame")
TO_FIRST_FRAME = STAGES[:-1]
HOW = {
    "ours": "what p2p-live imports, Translator.load, then two frames of 640x480",
    "torch": "import torch, open the checkpoint, generator(x) in torch.inference_mode(), FP32",
    "onnxruntime": "InferenceSession with its default options, resizing and scaling by hand",
}
_REPOSITORY = Path(__file__).resolve().parents[2]
_LONGEST_S = 600.0
_CHILD = "from benchmarks.starts.child import main; main()"
_COMMAND = "from runtime.cli import live; live()"


@dataclass(frozen=True)
class Subject:
    """What is started."""

    name: str
    kind: str
    """A key of `HOW`."""
    path: Path
    engine: str = "auto"


@dataclass
class Starts:
    """All starts of one subject in one state of the caches."""

    subject: Subject
    state: str
    stages_ms: dict[str, list[float]] = field(
        default_factory=lambda: {stage: [] for stage in STAGES}
    )
    to_first_frame_ms: list[float] = field(default_factory=list)
    command_ms: list[float] = field(default_factory=list)
    """Of the real command: from its start to the first byte of the first frame in a pipe."""
    memory_mb: list[dict[str, dict[str, float]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    error: UserError | None = None


OnProgress = Callable[[int, int], None]


def measure_starts(
    subjects: Sequence[Subject],
    *,
    runs: int,
    threads: int | None = None,
    states: Sequence[str] = STATES,
    on_progress: OnProgress = lambda _done, _of: None,
) -> list[Starts]:
    """Start each subject `runs` times in each state.

    The caches are a folder of the run's own, gone at the end; so is Python's bytecode, which is
    there for all starts, as after an installation. One start of each subject before fills the
    warm cache and tells which files it reads. In each round a subject starts cold and right
    after it warm, so that no other subject has put its files out of memory.

    Args:
        subjects: any number.
        runs: rounds.
        threads: CPU threads of one inference; None: as each chooses.
        states: which of `STATES`.
        on_progress: called after each round.

    Returns:
        For each subject each state, in their order. A subject that does not start has its error.
    """
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(TemporaryDirectory(prefix="p2p-startup-")))
        starter = _Starter(scratch, threads)
        results = {
            number: [Starts(subject, state) for state in states]
            for number, subject in enumerate(subjects)
        }
        files: dict[int, list[Path]] = {}
        for number, subject in enumerate(subjects):
            try:
                files[number] = starter.first(subject)
            except UserError as error:
                for starts in results[number]:
                    starts.error = error
        if can_drop():
            os.sync()  # bytecode that is not yet on the disk would stay in memory
        for done in range(runs):
            for number in rotated([*files], done):
                for starts in results[number]:
                    if starts.error is None:
                        _once(starts, starter, files[number])
            on_progress(done + 1, runs)
    return [starts for told in results.values() for starts in told]


def _once(starts: Starts, starter: _Starter, files: Sequence[Path]) -> None:
    try:
        dropped, told = starter.start(starts.subject, starts.state, files)
        if starts.subject.kind == "ours":
            starts.command_ms.append(starter.command(starts.subject, starts.state, files))
    except UserError as error:
        starts.error = error
        return
    for stage, took_ms in told["stages_ms"].items():
        starts.stages_ms[stage].append(took_ms)
    starts.to_first_frame_ms.append(sum(told["stages_ms"][stage] for stage in TO_FIRST_FRAME))
    starts.memory_mb.append(told["memory_mb"])
    if dropped is not None:
        starts.dropped.append(dropped)


class _Starter:
    """Starts processes with caches of their own.

    Args:
        scratch: an empty folder.
        threads: CPU threads of one inference.
    """

    def __init__(self, scratch: Path, threads: int | None) -> None:
        self._scratch = scratch
        self._threads = threads
        self._picture = scratch / "picture.png"
        frame = SyntheticSource((480, 640), frames=1).read()
        assert frame is not None
        cv2.imwrite(str(self._picture), frame.image)

    def first(self, subject: Subject) -> list[Path]:
        """One start that is not measured; the files that it read.

        Raises:
            UserError: it does not start.
        """
        told = self._child(subject, self._scratch / "warm", tell_files=True)
        if subject.kind == "ours":
            self._command(subject, self._scratch / "warm")  # its bytecode
        read = [subject.path.resolve(), *map(Path, told["files"])]
        own = self._scratch.resolve()
        kept = [path for path in read if own / "warm" not in path.parents]
        return [path for path in dict.fromkeys(kept) if path.is_file()]

    def start(
        self, subject: Subject, state: str, files: Sequence[Path]
    ) -> tuple[Dropped | None, dict[str, Any]]:
        """One start; what was dropped before it, and what it told."""
        with ExitStack() as opened:
            cache, dropped = self._prepared(state, files, opened)
            return dropped, self._child(subject, cache)

    def command(self, subject: Subject, state: str, files: Sequence[Path]) -> float:
        """Milliseconds that `p2p-live` takes to its first frame."""
        with ExitStack() as opened:
            cache, _ = self._prepared(state, files, opened)
            return self._command(subject, cache)

    def _prepared(
        self, state: str, files: Sequence[Path], opened: ExitStack
    ) -> tuple[Path, Dropped | None]:
        if state == WARM:
            return self._scratch / "warm", None
        empty = TemporaryDirectory(prefix="cold-", dir=self._scratch)
        return Path(opened.enter_context(empty)), drop(files) if can_drop() else None

    def _child(self, subject: Subject, cache: Path, *, tell_files: bool = False) -> dict[str, Any]:
        asked = {
            "kind": subject.kind,
            "model": str(subject.path.resolve()),
            "engine": subject.engine,
            "threads": self._threads,
            "picture": str(self._picture),
            "tell_files": tell_files,
        }
        asked["spawned_at_ns"] = time.perf_counter_ns()
        try:
            ran = subprocess.run(
                [sys.executable, "-c", _CHILD, json.dumps(asked)],
                capture_output=True,
                text=True,
                errors="replace",
                cwd=self._scratch,  # a file beside the user is not a library
                env=self._environment(cache),
                timeout=_LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _too_long(subject) from error
        return _told(subject, ran.returncode, ran.stdout, ran.stderr)

    def _command(self, subject: Subject, cache: Path) -> float:
        arguments = [str(subject.path.resolve()), "--engine", subject.engine]
        arguments += ["--source", str(self._picture), "--sink", "-?format=bgr24"]
        if self._threads is not None:
            arguments += ["--threads", str(self._threads)]
        with (self._scratch / "stderr").open("w+", encoding="utf-8", errors="replace") as said:
            spawned_at_ns = time.perf_counter_ns()
            with subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=self._scratch,
                env=self._environment(cache),
            ) as process:
                assert process.stdout is not None
                came = process.stdout.read(1)
                took_ms = (time.perf_counter_ns() - spawned_at_ns) / 1e6
                process.stdout.read()
            if not came or process.returncode != 0:
                said.seek(0)
                raise _did_not_start(subject, said.read(), process.returncode)
        return took_ms

    def _environment(self, cache: Path) -> dict[str, str]:
        around = {**os.environ, "P2P_CACHE": str(cache)}
        around.pop("PYTHONDONTWRITEBYTECODE", None)
        around["PYTHONPYCACHEPREFIX"] = str(self._scratch / "bytecode")
        paths = [str(_REPOSITORY), around.get("PYTHONPATH", "")]
        around["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return around


def _told(subject: Subject, code: int, stdout: str, stderr: str) -> dict[str, Any]:
    """What a child said.

    Raises:
        UserError: it did not start.
    """
    line = stdout.strip().rpartition("\n")[2]
    told: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
    if "error" in told:
        received, expected, mend = [*told["error"].split("; ", 2), "", ""][:3]
        raise ModelError(received, expected.removeprefix("expected "), mend)
    if code != 0 or not told:
        raise _did_not_start(subject, stderr, code)
    return told


def _did_not_start(subject: Subject, stderr: str, code: int) -> EngineError:
    why = reason_of(stderr) or f"its process ended with exit code {code}"
    return EngineError(
        f"{subject.name} did not start: {why}",
        "a first frame",
        "see what is missing with: p2p-doctor",
    )


def _too_long(subject: Subject) -> EngineError:
    return EngineError(
        f"{subject.name} gave no frame within {_LONGEST_S:.0f} s",
        "a start that ends",
        "try it alone with: p2p-live MODEL --frames 1",
    )
