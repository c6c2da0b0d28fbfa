"""What a frame costs with each generator, engine and precision: all in turn, in one run."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.conditions.environment import environment, load_average
from benchmarks.frontiers.rows import FP32, INT8, STOCK, Job
from benchmarks.peers import PeerRow, peers_of
from benchmarks.rounds.measure import OnProgress
from benchmarks.rounds.rows import NotRun
from benchmarks.timing import Distribution, percentile, rotated
from export.checkpoints import open_checkpoint
from runtime.artifact import meta_of_onnx
from runtime.engines import open_engine
from runtime.engines.threads import threads_each, told_threads
from runtime.errors import EngineError, UserError
from runtime.files import write_text
from runtime.frame import Image
from trainer.data import open_pairs

FILE = "latency.json"
WAYS = {
    "torch": "PyTorch, eager",
    "compile": "torch.compile",
    "ort_stock": "ONNX Runtime FP32, as torch exports it",
    "ort_fp32": "ONNX Runtime FP32, ours",
    "ort_int8": "ONNX Runtime INT8, ours",
    "openvino_stock": "OpenVINO, as torch exports it",
    "openvino_fp32": "OpenVINO, ours FP32",
}
"""In which a generator is run. Ours take and give uint8 frames. The others (`benchmarks.peers`,
which says how each is set up) take what is made of a frame beforehand, float tensors most of
them: what that costs is not in their figures."""
WARM_UP = 3
"""Rounds that are not measured."""
_REST_S = 0.02
"""Before each turn: threads of the library that ran before stop to spin."""
_RESAMPLES = 2000
_Once = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How it is measured."""

    rounds: int
    frames: int
    """That each way draws in a round, after one that is not measured."""
    threads: int | None
    """Of one inference; None: the physical cores, ours as `open_engine` has it."""
    compile: bool = False
    """Also torch.compile, which takes minutes to start."""


@dataclass(frozen=True)
class Latencies:
    """The samples of one set of pairs."""

    samples_ms: dict[str, dict[str, list[list[float]]]]
    """By generator, by way: rounds of frames."""
    notes: list[str]
    environment: dict[str, Any]
    threads: int

    def distribution(self, name: str, way: str) -> Distribution | None:
        """Of all frames; None: not measured."""
        rounds = self.samples_ms.get(name, {}).get(way)
        return Distribution.of([ms for part in rounds for ms in part]) if rounds else None

    def p50(self, name: str, way: str) -> float | None:
        """Milliseconds."""
        told = self.distribution(name, way)
        return told.p50 if told else None

    def ratio(self, slow: tuple[str, str], fast: tuple[str, str]) -> Ratio | None:
        """How many times as long the one (generator, way) takes; None: one was not measured."""
        pair = [self.samples_ms.get(name, {}).get(way) for name, way in (slow, fast)]
        if not pair[0] or not pair[1]:
            return None
        ratios = [median(one) / median(other) for one, other in zip(*pair, strict=True)]  # type: ignore[arg-type]
        return Ratio.of(ratios)


@dataclass(frozen=True)
class Ratio:
    """Of two times in the same round: the median of the rounds, and how sure that is."""

    value: float
    low: float
    high: float
    """95 % of the medians of rounds drawn again with replacement (Efron 1979, the bootstrap)."""

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """Of at least one round."""
        chance = random.Random(0)
        medians = [median(chance.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES)]
        return cls(median(ratios), percentile(medians, 2.5), percentile(medians, 97.5))

    def __str__(self) -> str:
        return f"{told_digits(self.value)} ({told_digits(self.low)} to {told_digits(self.high)})"


def told_digits(value: float) -> str:
    """A ratio, or milliseconds, with three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# ------------------------------------------------------------------------------------ measuring


def measure(
    jobs: Sequence[Job], folder: Path, timing: Timing, on_progress: OnProgress
) -> Latencies:
    """Time every way of every job on a held-out frame, and keep it in `folder`.

    All stay open; in each round every way has its turn, and nobody is always the first.

    Raises:
        UserError: there is nothing to time.
    """
    threads = threads_each(timing.threads, 1)
    around = environment()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    notes: list[str] = []
    samples: dict[str, dict[str, list[list[float]]]] = {}
    try:
        with ExitStack() as opened:
            turns = [
                (job.name, way, once)
                for job in jobs
                for way, once in _ways(job, timing, threads, opened, notes).items()
            ]
            if not turns:
                raise UserError("nothing to time", "a generator", "run it without --latency-only")
            for done in range(-WARM_UP, timing.rounds):
                for name, way, once in rotated(turns, done + WARM_UP):
                    spent = timed_turn(once, timing.frames)
                    if done >= 0:
                        samples.setdefault(name, {}).setdefault(way, []).append(spent)
                if done >= 0:
                    on_progress(done + 1, timing.rounds)
    finally:
        torch.set_num_threads(before)
    around["load_average_1m_after"] = load_average()
    found = Latencies(samples, notes, around, threads)
    _write(folder, found, jobs)
    return found


def timed_turn(once: Callable[[], object], frames: int) -> list[float]:
    """Milliseconds of `frames` calls in a row, after one that is not measured."""
    time.sleep(_REST_S)
    once()
    spent = []
    for _ in range(frames):
        started_ns = time.perf_counter_ns()
        once()
        spent.append((time.perf_counter_ns() - started_ns) / 1e6)
    return spent


def _ways(
    job: Job, timing: Timing, threads: int, opened: ExitStack, notes: list[str]
) -> dict[str, _Once]:
    checkpoint = open_checkpoint(job.run)
    frame = open_pairs(job.source.held_out, job.source.direction).pair(0, checkpoint.size_px)[0]
    ways = _peer_ways(job, timing, threads, frame, opened, notes)
    for way, path, library in (
        ("ort_fp32", job.export / FP32, "onnxruntime"),
        ("ort_int8", job.export / INT8, "onnxruntime"),
        ("openvino_fp32", job.export / FP32, "openvino"),
    ):
        if not path.is_file():
            notes.append(f"{job.name}: no {path.name}, which did not pass the gate")
            continue
        try:
            engine = open_engine(path, library, timing.threads)
        except EngineError as error:
            notes.append(str(error))
            continue
        if f"CPU, {told_threads(threads, 1)}" not in engine.description:
            notes.append(f"{job.name}, {path.name}: {engine.description}")
        opened.callback(engine.close)
        ways[way] = partial(engine.infer, frame[None])
    notes[:] = dict.fromkeys(notes)
    return ways


def _peer_ways(
    job: Job,
    timing: Timing,
    threads: int,
    frame: Image,
    opened: ExitStack,
    notes: list[str],
) -> dict[str, _Once]:
    """The peers as `benchmarks.peers` opens them, on a frame that they have prepared."""
    stock = job.folder / STOCK
    wanted = {"torch": "torch"}
    if timing.compile:
        wanted["torch_compile"] = "compile"
    if stock.is_file():
        wanted |= {"onnxruntime_stock": "ort_stock", "openvino": "openvino_stock"}
    export = job.export / FP32
    ways: dict[str, _Once] = {}
    for row in peers_of(
        job.run,
        list(wanted),
        threads=threads,
        folder=job.folder,
        like=meta_of_onnx(export) if export.is_file() else None,
        device="cpu",
        stock=stock if stock.is_file() else None,
    ):
        if isinstance(row, NotRun):
            notes.append(row.why)
        elif isinstance(row, PeerRow):
            opened.callback(row.close)
            ways[wanted[row.peer]] = partial(row.infer, row.prepare(frame))
    return ways


# -------------------------------------------------------------------------------------- on disk


def _stamps(job: Job) -> dict[str, list[int]]:
    return stamps_of((job.export / FP32, job.export / INT8, job.folder / STOCK))


def stamps_of(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Size and time of change of the files that are there, by name."""
    found = {path.name: path.stat() for path in paths if path.is_file()}
    return {name: [at.st_size, at.st_mtime_ns] for name, at in found.items()}


def _write(folder: Path, found: Latencies, jobs: Sequence[Job]) -> None:
    values = {
        "samples_ms": found.samples_ms,
        "notes": found.notes,
        "environment": found.environment,
        "threads": found.threads,
        "files": {job.name: _stamps(job) for job in jobs},
    }
    write_text(folder / FILE, json.dumps(values) + "\n")


def latencies_in(folder: Path, jobs: Sequence[Job]) -> Latencies | None:
    """What was measured before, of those jobs whose files are still the same; None: nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        files, samples = told["files"], told["samples_ms"]
        same = [job.name for job in jobs if files.get(job.name) == _stamps(job)]
        kept = {name: samples[name] for name in same if name in samples}
        notes = list(told["notes"])
        for job in jobs:
            if job.name not in kept:
                notes.append(f"{job.name}: not timed as it is now; run it with --latency-only")
        return Latencies(kept, notes, told["environment"], told["threads"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}", "what this wrote", "remove it") from error


def told_times(told: Distribution) -> str:
    """`p50 (p90, p99)`, in milliseconds."""
    return f"{told_digits(told.p50)} ({told_digits(told.p90)}, {told_digits(told.p99)})"


def told_machine(around: Mapping[str, Any], threads: int) -> str:
    """One line of what the figures depend on."""
    versions = around["libraries"]
    libraries = [
        f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions
    ]
    load = around["load_average_1m"]
    busy = load is not None and load > (os.cpu_count() or 1) / 2
    parts = [around["cpu"], f"{threads} threads", *libraries]
    if busy:
        parts.append(f"load {load:.1f} in the minute before: noisy if programs went on")
    return ", ".join(part for part in parts if part)
