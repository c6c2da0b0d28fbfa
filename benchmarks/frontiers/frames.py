"""What generators do with the frames of a camera, larger than the pictures they were trained on.

A retouching generator looks at a small copy and changes the frame itself; the teacher's picture is
resized up. Both happen in the graph, as `p2p-export --frame-size` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.conditions.environment import environment, load_average
from benchmarks.frontiers.latency import (
    WARM_UP,
    Timing,
    stamps_of,
    timed_turn,
    told_machine,
    told_times,
)
from benchmarks.frontiers.rows import FP32, INT8, Job, Measuring, export_through_gate
from benchmarks.rounds.measure import OnProgress
from benchmarks.timing import Distribution, rotated
from export.checkpoints import open_checkpoint
from export.ui import Say
from runtime.engines import open_engine
from runtime.engines.threads import threads_each
from runtime.errors import UserError
from runtime.files import write_text
from runtime.translator import Translator
from trainer.data import open_pairs
from trainer.generators.retouch import RetouchingGenerator
from trainer.metrics import quality_of

Size = tuple[int, int]
"""Height, width."""
FILE = "frames.json"
LEAST_FPS = {(1080, 1920): 15.0, (2160, 3840): 4.0}
"""What is asked of a retouching generator, by the size of the frame."""
_PICTURES = 8
"""That the picture of a large frame is compared on with that of the small one."""
_FORMS = {"fp32": FP32, "int8": INT8}


@dataclass
class FrameRow:
    """One generator at one size of frames; JSON for the next start."""

    name: str
    frame_size_px: Size
    network_size_px: Size
    retouching: bool
    sha256: str
    min_psnr_db: float
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    own_ssim: dict[str, float] = field(default_factory=dict)
    """By form: of its picture of an enlarged frame, brought down again, with its picture of the
    frame itself; the mean of some held-out frames."""
    samples_ms: dict[str, list[list[float]]] = field(default_factory=dict)
    """By form: rounds of random frames."""
    files: dict[str, list[int]] = field(default_factory=dict)
    """That were timed: size and time of change."""

    @property
    def told_size(self) -> str:
        return f"{self.frame_size_px[1]}x{self.frame_size_px[0]}"


@dataclass(frozen=True)
class Frames:
    """All rows of one set of pairs."""

    rows: Sequence[FrameRow] = ()
    environment: dict[str, Any] | None = None
    """None: not timed."""
    threads: int = 0


def folder_of(job: Job, size: Size) -> Path:
    """Where the export for that size lies."""
    return job.folder / f"export_{size[0]}x{size[1]}"


def exported_frames(
    job: Job, sizes: Sequence[Size], teacher: str, how: Measuring, say: Say
) -> None:
    """Export a generator for each size, and compare the pictures; unless that was done.

    Those that neither retouch nor are the teacher are left out: they would be resized as it is.
    """
    checkpoint = open_checkpoint(job.run)
    retouching = isinstance(checkpoint.generator, RetouchingGenerator)
    if not retouching and job.name != teacher:
        return
    for size in sizes:
        out = folder_of(job, size)
        before = None if how.again else _row_in(out)
        asked = checkpoint.sha256, how.min_psnr_db
        is_whole = before is not None and before.gate.keys() >= _FORMS.keys()
        if before and is_whole and (before.sha256, before.min_psnr_db) == asked:
            continue
        say(f"{job.source.name}/{job.name}: exporting for frames of {size[0]}x{size[1]}")
        more = ("--frame-size", f"{size[0]}x{size[1]}")
        gate, notes = export_through_gate(job, how, checkpoint, out, more)
        side = checkpoint.size_px
        row = FrameRow(
            job.name, size, (side, side), retouching, checkpoint.sha256, how.min_psnr_db
        )
        row.gate, row.notes = gate, notes
        for form, file in _FORMS.items():
            if (out / file).is_file() and (job.export / file).is_file():
                row.own_ssim[form] = _own_ssim(job, job.export / file, out / file, side)
        write_text(out / FILE, json.dumps(asdict(row)) + "\n")


def _own_ssim(job: Job, small_file: Path, large_file: Path, side_px: int) -> float:
    pairs = open_pairs(job.source.held_out, job.source.direction)
    chosen = np.linspace(0, len(pairs) - 1, min(_PICTURES, len(pairs))).round().astype(int)
    found = []
    with Translator.load(small_file) as small, Translator.load(large_file) as large:
        height, width = large.meta.frame_size_px
        for index in chosen:
            frame = pairs.pair(int(index), side_px)[0]
            enlarged = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
            drawn = cv2.resize(large(enlarged), (side_px, side_px), interpolation=cv2.INTER_AREA)
            found.append(quality_of(drawn, small(frame)).ssim)
    return float(np.mean(found))


def time_frames(
    jobs: Sequence[Job],
    sizes: Sequence[Size],
    folder: Path,
    timing: Timing,
    on_progress: OnProgress,
) -> Frames:
    """Time both forms of all that was exported, on random frames; keep it in `folder`.

    One size after the other, for the memory's sake; of a size all stay open and have their turns.

    Raises:
        UserError: nothing was exported for these sizes.
    """
    rows = _rows(jobs, sizes)
    if not any((out / file).is_file() for out, _ in rows for file in _FORMS.values()):
        told = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(
            f"nothing exported for frames of {told}",
            "a retouching generator or the teacher, through the gate",
            "run it without --latency-only",
        )
    around = environment()
    threads = threads_each(timing.threads, 1)
    for number, size in enumerate(sizes):
        own = [(out, row) for out, row in rows if row.frame_size_px == size]
        before = number * timing.rounds

        def one_more(done: int, _of: int, before: int = before) -> None:
            on_progress(before + done, len(sizes) * timing.rounds)

        _time_one_size(own, timing, one_more)
    around["load_average_1m_after"] = load_average()
    for out, row in rows:
        write_text(out / FILE, json.dumps(asdict(row)) + "\n")
    write_text(folder / FILE, json.dumps({"environment": around, "threads": threads}) + "\n")
    return Frames([row for _, row in rows], around, threads)


def _time_one_size(
    rows: Sequence[tuple[Path, FrameRow]], timing: Timing, on_progress: OnProgress
) -> None:
    chance = np.random.default_rng(0)
    with ExitStack() as opened:
        turns: list[tuple[FrameRow, str, Callable[[], object]]] = []
        for out, row in rows:
            row.samples_ms, row.files = {}, stamps_of(out / file for file in _FORMS.values())
            frame = chance.integers(0, 256, (1, *row.frame_size_px, 3), np.uint8)
            for form, file in _FORMS.items():
                if (out / file).is_file():
                    engine = open_engine(out / file, "onnxruntime", timing.threads)
                    opened.callback(engine.close)
                    turns.append((row, form, partial(engine.infer, frame)))
        for done in range(-WARM_UP, timing.rounds):
            for row, form, once in rotated(turns, done + WARM_UP) if turns else ():
                spent = timed_turn(once, timing.frames)
                if done >= 0:
                    row.samples_ms.setdefault(form, []).append(spent)
            if done >= 0:
                on_progress(done + 1, timing.rounds)


def frames_in(jobs: Sequence[Job], sizes: Sequence[Size], folder: Path) -> Frames:
    """What was exported and measured before; times of files that are no longer these are left
    out."""
    rows = []
    for out, row in _rows(jobs, sizes):
        if row.files != stamps_of(out / file for file in _FORMS.values()):
            row.samples_ms = {}
        rows.append(row)
    told = _read(folder / FILE)
    return Frames(rows, told["environment"], told["threads"]) if told else Frames(rows)


def _rows(jobs: Sequence[Job], sizes: Sequence[Size]) -> list[tuple[Path, FrameRow]]:
    found = []
    for size in sizes:
        for job in jobs:
            row = _row_in(folder_of(job, size))
            if row is not None:
                found.append((folder_of(job, size), row))
    return found


def _row_in(out: Path) -> FrameRow | None:
    told = _read(out / FILE)
    if told is None:
        return None
    for name in ("frame_size_px", "network_size_px"):  # JSON has no tuples
        told[name] = tuple(told[name])
    return FrameRow(**told)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", "what this wrote", "remove it") from error
    return told


# ------------------------------------------------------------------------------------- in words


def lines(frames: Frames) -> Iterator[str]:
    """A table of Markdown."""
    timed = "" if frames.environment is None else ", ONNX Runtime on random frames, p50 (p90, p99)"
    yield f"Frames of a camera{timed}. SSIM: of its picture of an enlarged frame, brought down"
    yield "again, with its picture of the small frame."
    if frames.environment is not None:
        yield f"{told_machine(frames.environment, frames.threads)}."
    yield ""
    yield "| generator | frame | network | | ms | frames/s | SSIM to its own | asked |"
    yield "|---|---:|---:|---|---:|---:|---:|---|"
    notes = []
    for row in frames.rows:
        for form in _FORMS:
            first = "| | "
            if form == "fp32":
                network = f"{row.network_size_px[1]}x{row.network_size_px[0]}"
                how = "looks at" if row.retouching else "resized to"
                first = f"`{row.name}` | {row.told_size} | {how} {network}"
            yield f"| {first} | {form.upper()} | {_cells(row, form)} |"
        notes += [f"`{row.name}`, {row.told_size}: {note}" for note in row.notes]
    if notes:
        yield ""
        yield "; ".join(notes) + "."


def _cells(row: FrameRow, form: str) -> str:
    ssim = f"{row.own_ssim[form]:.3f}" if form in row.own_ssim else "–"
    rounds = row.samples_ms.get(form)
    least = LEAST_FPS.get(row.frame_size_px) if row.retouching and form == "int8" else None
    asked = f"at least {least:g} frames/s" if least else ""
    if not rounds:
        return f"– | – | {ssim} | {asked}"
    times = Distribution.of([ms for part in rounds for ms in part])
    per_s = 1000 / times.p50
    if least:
        asked = f"{'✓' if per_s >= least else '✗'} {asked}"
    return f"{told_times(times)} | {per_s:.1f} | {ssim} | {asked}"
