"""What each form of an export costs and keeps: bytes, builds, parity, precision, time of a frame.

Measures; prints nothing. Figures that could not be had stay None or empty, and the row says why.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.paths import without_paths
from benchmarks.rounds.measure import OnProgress
from benchmarks.timing import rotated
from export.engine_log import Layer
from export.inspect_model import ModelFacts, inspect_model
from export.job import ONNX_NAMES
from export.to_tensorrt import engine_from_onnx
from runtime.artifact import ArtifactMeta
from runtime.errors import ModelError, UserError
from runtime.translator import Translator

TITLES = {
    "fp32": "FP32",
    "fp16": "FP16",
    "int8": "INT8 for TensorRT",
    "int8.cpu": "INT8 for CPU",
    "naive": "naive INT8",
}
WITH_ENGINE = ("fp32", "fp16", "int8")
REPORT = "parity.json"
BUILDS = 3
WARM_UP = 3
_MADE_BY = {"fp16": "--fp16", "int8": "--int8", "int8.cpu": "--int8"}
_CONVOLUTIONS = ("correlation", "deconv", "CaskConvolution", "CaskDeconvolution")
"""Kinds of layers, in the words of TensorRT-RTX and of TensorRT."""
_ROUNDED = 0.01
"""dB: a file's own metadata keep two decimals of what the report has in full."""


@dataclass(frozen=True)
class Quality:
    """The worst of the pictures that a form was compared on."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class EngineFigures:
    """An engine, built anew several times."""

    library: str
    gpu: str
    size_bytes: int
    builds_s: tuple[float, ...]
    convolutions: dict[str, int]
    """Number of convolution layers by the type of their activations, from the builder's log."""

    @property
    def build_s(self) -> float:
        """The median of the builds."""
        return median(self.builds_s)


@dataclass
class Row:
    """One form of an export."""

    form: str
    file: str
    onnx_bytes: int | None = None
    quality: Quality | None = None
    kept: dict[str, list[str]] | None = None
    """As in the file's contract: what was left in a higher precision, by that precision."""
    higher_macs_share: float | None = None
    """Of the multiply-accumulates, those in a higher precision than the form's; None for FP32."""
    engine: EngineFigures | None = None
    frame_ms: list[float] = field(default_factory=list)
    """One a round."""
    speedups: list[float] = field(default_factory=list)
    """One a round: FP32's time over this form's."""
    lacks: list[str] = field(default_factory=list)
    """Why a figure is missing that an export gives."""
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return TITLES[self.form]

    @property
    def speedup(self) -> float | None:
        """The median of the rounds."""
        return median(self.speedups) if self.speedups else None


@dataclass
class Export:
    """What was found of one folder."""

    name: str
    """The generator's; the folder's own where no file says it."""
    frame_size_px: tuple[int, int] | None = None
    training: str = ""
    pictures: str = ""
    """That the gate compared on, in words."""
    frames_by: str = ""
    """What ran the frames that were timed."""
    rows: list[Row] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not any(row.lacks for row in self.rows)


def export_in(folder: Path) -> tuple[Export, dict[str, Path]]:
    """What the files of a folder say, and those of them that are there, by form."""
    rows = {form: Row(form, file) for form, file in ONNX_NAMES.items()}
    found = Export(folder.resolve().name, rows=list(rows.values()))
    if not folder.is_dir():
        for row in rows.values():
            row.lacks.append(f"no such folder: {found.name}")
        return found, {}
    paths: dict[str, Path] = {}
    described: ArtifactMeta | None = None
    report, why = _report_in(folder)
    found.pictures = without_paths(str(report.get("images_from", "")))
    compared = {entry["file"]: entry for entry in report.get("artifacts", ())}
    for form, row in rows.items():
        path = folder / row.file
        if not path.is_file():
            options = _MADE_BY.get(form, "--no-engine")
            row.lacks.append(f"no {row.file} here: p2p-export RUN {options} makes it")
            continue
        try:
            facts = inspect_model(path)
            if facts.meta is None:
                raise ModelError(f"{row.file} is not ours", "a file of p2p-export", "export it")
        except ModelError as error:
            row.lacks.append(without_paths(str(error), [folder]))
            continue
        paths[form] = path
        described = described or facts.meta
        row.onnx_bytes = path.stat().st_size
        row.kept = facts.meta.kept
        row.higher_macs_share = higher_macs_share(facts, facts.meta.precision)
        lacking = why or _why_not_compared(facts.meta, compared.get(row.file))
        if lacking:
            row.lacks.append(f"no parity: {lacking}")
        else:
            entry = compared[row.file]
            row.quality = Quality(float(entry["psnr_db"]), float(entry["ssim"]))
    if described:
        found.name = described.generator
        found.frame_size_px = described.frame_size_px
        found.training = without_paths(described.training_data)
    return found, paths


def _report_in(folder: Path) -> tuple[dict[str, Any], str]:
    """The export's report, and why there is none."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        for entry in report["artifacts"]:
            entry["file"], entry["psnr_db"], entry["ssim"]
    except OSError as error:
        return {}, f"{REPORT}: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return {}, f"{REPORT} is damaged"
    return report, ""


def _why_not_compared(meta: ArtifactMeta, entry: Mapping[str, Any] | None) -> str:
    """Empty where `entry` is what the gate found of the file that has `meta`."""
    if not meta.verified:
        return "exported with --no-verify"
    if entry is None:
        return f"{REPORT} does not name the file, which is of another export"
    if entry["psnr_db"] is None:
        return without_paths(str(entry.get("engine", "the gate did not run it")))
    noted = (meta.parity or {}).get("psnr_db")
    if noted is None or abs(noted - entry["psnr_db"]) > _ROUNDED:
        return f"{REPORT} is not of this file: it has another PSNR than the file itself"
    return ""


def higher_macs_share(facts: ModelFacts, precision: str) -> float | None:
    """Share of the multiply-accumulates that a file does in a higher precision than its own.

    Counted from the graph. None for FP32, and where a shape is open.
    """
    totals = facts.by_precision()
    every = sum(total["macs"] for total in totals.values())
    unknown = any(total["nodes_of_unknown_macs"] for total in totals.values())
    if precision == "fp32" or unknown or not every:
        return None
    own = totals.get(precision.upper(), {"macs": 0})["macs"]
    return 1 - own / every


def convolution_types(layers: Sequence[Layer]) -> dict[str, int]:
    """Number of convolutions by the type of the activations that they take: Int8, Half, Float."""
    taken = (
        layer.input_types[0] if layer.input_types else "?"
        for layer in layers
        if layer.kind in _CONVOLUTIONS
    )
    return dict(Counter(taken).most_common())


def build_engines(
    rows: Sequence[Row], paths: Mapping[str, Path], folder: Path, on_progress: OnProgress
) -> None:
    """Build the engine of each form several times, in turn, and note it in its row.

    Args:
        rows: all of an export; those without an engine, or without a file, are passed over.
        paths: the ONNX files by form.
        folder: an empty one, for the engines.
        on_progress: called after each round of builds.
    """
    seconds: dict[str, list[float]] = {}
    chosen = [row for row in rows if row.form in WITH_ENGINE and row.form in paths]
    for done in range(BUILDS):
        for row in rotated(chosen, done):
            if row.form in seconds and len(seconds[row.form]) < done:
                continue  # refused before
            spent = seconds.setdefault(row.form, [])
            source = paths[row.form]
            try:
                built = engine_from_onnx(source, folder / f"{source.stem}.engine")
            except UserError as error:
                row.engine = None
                why = without_paths(str(error), [folder, source.parent])
                row.lacks.append(f"no engine: {why}")
                continue
            spent.append(built.build_s)
            row.engine = EngineFigures(
                built.meta.engine_library or "",
                built.meta.gpu or "",
                built.path.stat().st_size,
                tuple(spent),
                convolution_types(built.layers),
            )
        on_progress(done + 1, BUILDS)


def time_frames(
    export: Export,
    paths: Mapping[str, Path],
    rounds: int,
    on_progress: OnProgress,
) -> None:
    """Time a frame of each form in each round, by ONNX Runtime, and note it in its row.

    All forms stay open; in each round every one draws once, and nobody is always the first. The
    pictures are noise: the time does not depend on them.

    Args:
        export: of the folder.
        paths: the ONNX files by form.
        rounds: of frames that are measured, after some to warm up.
        on_progress: called after each round.
    """
    with ExitStack() as opened:
        running: list[tuple[Row, Translator]] = []
        for row in export.rows:
            if row.form not in paths:
                continue
            try:
                translator = opened.enter_context(Translator.load(paths[row.form]))
            except UserError as error:
                why = without_paths(str(error), [paths[row.form].parent])
                row.lacks.append(f"no time: {why}")
                continue
            export.frames_by = export.frames_by or translator.description
            running.append((row, translator))
        batches = {row.form: _noise(translator.meta) for row, translator in running}
        for done in range(-WARM_UP, rounds):
            round_ms: dict[str, float] = {}
            for row, translator in rotated(running, done + WARM_UP):
                batch = batches[row.form]
                started_ns = time.perf_counter_ns()
                translator.infer(batch)
                round_ms[row.form] = (time.perf_counter_ns() - started_ns) / 1e6 / len(batch)
            if done < 0:
                continue
            for row, _ in running:
                row.frame_ms.append(round_ms[row.form])
                if "fp32" in round_ms:
                    row.speedups.append(round_ms["fp32"] / round_ms[row.form])
            on_progress(done + 1, rounds)


def _noise(meta: ArtifactMeta) -> np.ndarray[Any, np.dtype[np.uint8]]:
    count = 1 if meta.dynamic else meta.batch
    shape = (count, *meta.frame_size_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
