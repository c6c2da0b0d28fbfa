"""One generator of the frontier: trained or taken, exported through the gate, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frontiers.recipes import SCENES, Source, root_of
from benchmarks.peers.stock import export_stock
from export.checkpoints import Checkpoint, open_checkpoint
from export.evaluate import EvalSettings, evaluate_model
from export.job import ONNX_NAMES
from export.ui import Say, Ui
from runtime.artifact import meta_of_onnx
from runtime.errors import ModelError, UserError
from runtime.files import write_text
from trainer.catalogue import macs_of_generator
from trainer.checkpoint import TRAINING_FILE, load_training

MEASURED = "measured.json"
STOCK = "stock.onnx"
FP32, INT8 = ONNX_NAMES["fp32"], ONNX_NAMES["int8.cpu"]
_STAGES = {"fp32": FP32, "int8": INT8}


@dataclass(frozen=True)
class Job:
    """A generator that is to be measured on a set of pairs."""

    source: Source
    name: str
    folder: Path
    """Where all of it lies: `run/`, `export/`, the stock export, the figures."""
    options: tuple[str, ...] = ()
    """Of `p2p-train`."""
    given: Path | None = None
    """A run that is there already; None: it is trained."""

    @property
    def run(self) -> Path:
        return self.given or self.folder / "run"

    @property
    def export(self) -> Path:
        return self.folder / "export"


@dataclass(frozen=True)
class Measuring:
    """How rows are measured."""

    min_psnr_db: float
    """Of INT8 against its own FP32, as `p2p-export --min-psnr` takes it."""
    count: int | None = None
    """At most so many pairs; None: all."""
    other_data: bool = False
    """Take runs of other data sets, too."""
    again: bool = False
    """Also what was measured before: the exporter has changed."""


@dataclass(frozen=True)
class Row:
    """What is known of one generator; JSON for the next start."""

    data: str
    name: str
    sha256: str
    """Of the weights."""
    training: str
    """In words."""
    images_seen: int | None
    """None: the run does not say."""
    size_px: int
    parameters: int
    macs: int
    """Multiply-accumulates of all convolutions, for one picture of `size_px`."""
    settings: dict[str, Any]
    """What the figures depend on, beside the weights."""
    gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`fp32`, `int8`: what the export's report says; empty where it did not come so far."""
    held_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`fp32`, `int8`, `identity`, `mean_target`: measures as `p2p-eval` has them."""
    unseen: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same on cameras that training did not see."""
    notes: list[str] = field(default_factory=list)

    def passed(self, form: str) -> bool:
        """Whether `fp32` or `int8` came through the gate."""
        return self.gate.get(form, {}).get("passed") is True


# ------------------------------------------------------------------------------------- training


def train(job: Job, threads: int, say: Say) -> None:
    """Train, or go on with, the run of a job, unless it is given or done.

    Raises:
        UserError: the folder holds a run with other options, or p2p-train failed.
    """
    if job.given is not None:
        return
    options, done = [job.source.data, *job.options], job.folder / "trained.json"
    told = json.dumps({"options": options}, indent=1) + "\n"
    started = job.folder / "options.json"
    if started.exists() and started.read_text(encoding="utf-8") != told:
        before = " ".join(json.loads(started.read_text(encoding="utf-8"))["options"])
        raise UserError(
            f"{job.folder} was trained with other options: {before}",
            " ".join(options),
            "name another --out, or remove that folder",
        )
    if done.exists():
        return
    write_text(started, told)
    if not _is_complete(job.run):
        resumes = (job.run / TRAINING_FILE).exists()
        arguments = ["--resume", str(job.run)] if resumes else [*options, "--out", str(job.run)]
        say(f"{job.source.name}/{job.name}: training; its log is {job.folder / 'train.log'}")
        if ended := _run("p2p-train", arguments, job, threads, job.folder / "train.log"):
            raise UserError(f"p2p-train for {job.name}: {ended[1]}", "a run that ends", "mend it")
    if not _is_complete(job.run):  # Ctrl-C reaches it, too, and it ends as if all were well
        raise UserError(
            f"the training of {job.name} was stopped", "all of its steps", "run it again to go on"
        )
    write_text(done, told)


def _is_complete(run: Path) -> bool:
    if not (run / TRAINING_FILE).exists():
        return False
    state = load_training(run)
    return state.step >= state.total_steps


def _run(
    command: str, arguments: Sequence[str], job: Job, threads: int | None, log: Path
) -> tuple[int, str] | None:
    """Run one of our commands; its exit code and last line where that is not 0."""
    program = Path(sys.executable).with_name(command)
    around = dict(os.environ)
    if threads:
        around["OMP_NUM_THREADS"] = str(threads)
    job.folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        ended = subprocess.run([program, *arguments], stdout=file, stderr=file, env=around)
    if not ended.returncode:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"exit code {ended.returncode}"
    return ended.returncode, last.removeprefix("error: ")


# ------------------------------------------------------------------------------------ measuring


def measured(job: Job, how: Measuring, say: Say) -> Row:
    """Export and measure a job's run, unless that was done with these weights and settings.

    What could not be exported is tried again.

    Raises:
        UserError: the run is of another data set.
        ModelError, CheckpointError, DataError: a damaged run or set of pairs.
    """
    checkpoint = open_checkpoint(job.run)
    _check_data(job, checkpoint, how)
    settings = {
        "held_out": str(Path(job.source.held_out).resolve()),
        "unseen": job.source.unseen and str(Path(job.source.unseen).resolve()),
        "direction": job.source.direction,
        "count": how.count,
        "min_psnr_db": how.min_psnr_db,
    }
    before = None if how.again else row_in(job)
    is_whole = before is not None and before.gate.keys() >= _STAGES.keys()
    if before and is_whole and (before.sha256, before.settings) == (checkpoint.sha256, settings):
        return before
    say(f"{job.source.name}/{job.name}: exporting, measuring")
    images_seen, init = _past(job.run)
    row = Row(
        data=job.source.name,
        name=job.name,
        sha256=checkpoint.sha256,
        training=checkpoint.training,
        images_seen=images_seen,
        size_px=checkpoint.size_px,
        parameters=sum(values.numel() for values in checkpoint.generator.parameters()),
        macs=macs_of_generator(
            checkpoint.generator, checkpoint.input_channels, checkpoint.size_px
        ),
        settings=settings,
    )
    if not _is_of(job.source, checkpoint):
        row.notes.append(f"trained on other data: {checkpoint.training}")
    if init is not None:
        row.notes.append(
            f"it started with the weights of {Path(init).name} (--init), whose own images are not "
            "among those seen"
        )
    gate, notes = export_through_gate(job, how, checkpoint, job.export)
    row.gate.update(gate)
    row.notes.extend(notes)
    _export_stock(job, checkpoint, row)
    _evaluate(job, how, row)
    write_text(job.folder / MEASURED, json.dumps(asdict(row), indent=1) + "\n")
    return row


def row_in(job: Job) -> Row | None:
    """What was measured before; None: nothing."""
    try:
        return Row(**json.loads((job.folder / MEASURED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{job.folder / MEASURED} is damaged: {error}", "what this command wrote", "remove it"
        ) from error


def _check_data(job: Job, checkpoint: Checkpoint, how: Measuring) -> None:
    if how.other_data or _is_of(job.source, checkpoint):
        return
    source = job.source
    raise UserError(
        f"--run {source.name}/{job.name}: {job.run} was trained on {checkpoint.training}",
        f"a run on {source.data} {source.direction}",
        "name that run's data with --data, or take it all the same with --other-data",
    )


def _is_of(source: Source, checkpoint: Checkpoint) -> bool:
    """Whether a run is of these pairs: of this folder, or of one that is called the same."""
    trained_on = checkpoint.trained_on
    if trained_on is None or trained_on.task != "pairs":
        return False
    if checkpoint.direction != source.direction:
        return False
    if SCENES in (trained_on.data, source.data):
        return trained_on.data == source.data
    found, wanted = root_of(trained_on.data), source.root
    return found == wanted or (not found.is_dir() and found.name == wanted.name)


def _past(run: Path) -> tuple[int | None, str | None]:
    """Images seen in training by one process, each time that one is drawn counted, and the
    checkpoint that it started with; None and None: the run does not say."""
    if not (run / TRAINING_FILE).is_file():
        return None, None
    state = load_training(run)
    return state.step * state.config.batch_size * state.config.accumulate, state.config.init


def export_through_gate(
    job: Job, how: Measuring, checkpoint: Checkpoint, out: Path, more: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Both forms that ship, in `out`.

    Args:
        more: options of `p2p-export`.

    Returns:
        Of `fp32` and `int8` what the report says, where it came so far; and in words what failed.
    """
    for name in (*_STAGES.values(), "parity.json"):
        (out / name).unlink(missing_ok=True)  # of weights that are no longer these
    arguments = [str(job.run), "--int8", "--target", "cpu", "--no-engine", *more]
    arguments += ["--min-psnr", str(how.min_psnr_db), "--out", str(out)]
    arguments += ["--direction", job.source.direction]
    if not _is_of(job.source, checkpoint) and job.source.data != SCENES:
        arguments += ["--images", job.source.held_out, "--calibration", _training_folder(job)]
    ended = _run("p2p-export", arguments, job, None, job.folder / f"{out.name}.log")
    report = out / "parity.json"
    artifacts = (
        json.loads(report.read_text(encoding="utf-8"))["artifacts"] if report.exists() else []
    )
    found = {entry["file"]: entry for entry in artifacts}
    gate = {form: found[file] for form, file in _STAGES.items() if file in found}
    notes = []
    missing = [form.upper() for form in _STAGES if form not in gate]
    if missing:  # the exit code does not tell a failed gate from a crash: both are 1
        why = ended[1] if ended else f"not in {report.name}"
        notes.append(f"{' and '.join(missing)} not exported: {why}")
    for form, entry in gate.items():
        if not entry["passed"]:
            notes.append(
                f"{form.upper()} failed the gate: worst PSNR {entry['psnr_db']:.1f} dB, "
                f"SSIM {entry['ssim']:.4f}"
            )
    return gate, notes


def _training_folder(job: Job) -> str:
    inside = job.source.root / "train"
    return str(inside if inside.is_dir() else job.source.data)


def _export_stock(job: Job, checkpoint: Checkpoint, row: Row) -> None:
    """The generator as `torch.onnx.export` writes it by default: float in, float out."""
    side_px = checkpoint.size_px
    path = job.folder / STOCK
    path.unlink(missing_ok=True)
    try:
        export_stock(checkpoint.generator, checkpoint.input_channels, (side_px, side_px), path)
    except ModelError as error:
        row.notes.append(error.received)


def _evaluate(job: Job, how: Measuring, row: Row) -> None:
    """Both forms, on held-out pairs and on those of unseen cameras."""
    source = job.source
    fp32, int8 = job.export / FP32, job.export / INT8
    meta = meta_of_onnx(fp32) if fp32.exists() else None
    stats = meta.norm_stats if meta else None
    if stats == "batch":
        row.notes.append("BatchNorm with each frame's own statistics, which do not fold")
    for data, rows in ((source.held_out, row.held_out), (source.unseen, row.unseen)):
        if data is None:
            continue
        quiet = Ui(lambda _line: None)
        settings = EvalSettings(source.direction, "pairs", how.count, stats)
        values = evaluate_model(job.run, data, settings, quiet).to_dict()
        rows.update(fp32=values["model"], identity=values["identity"])
        rows.update(mean_target=values["mean_target"])
        if int8.exists():
            settings = EvalSettings(source.direction, "pairs", how.count)
            rows["int8"] = evaluate_model(int8, data, settings, quiet).to_dict()["model"]
