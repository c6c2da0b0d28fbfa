"""A model, whatever its form, opened and measured: on held-out pairs here, beside trivial ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.checkpoints import Checkpoint, open_checkpoint
from export.eval_report import (
    Evaluation,
    Example,
    PairsRow,
    best_median_worst,
    pair_example,
)
from export.evaluate_video import evaluate_video, is_video, open_video
from export.gate_images import spread
from export.norm_stats import BATCH, RUNNING, choose_norm_stats, with_batch_statistics
from export.subjects import torch_draws
from export.ui import Ui
from export.verify import Draw, Image, Size
from runtime.errors import ModelError, SourceError
from runtime.translator import Translator
from trainer.data import Pairs, open_pairs
from trainer.distributions import ENOUGH_PICTURES, Inception, SeenByInception
from trainer.errors import DataError
from trainer.metrics import Quality, gradient_energy, mean_quality, ms_ssim_of, quality_of
from trainer.perceptual_distance import PerceptualDistance
from trainer.some_pairs import some_of
from trainer.wasserstein import COARSEST_PX, sliced_wasserstein

KEPT_BYTES = 512 << 20
"""Of each set of pictures that is compared as a whole; beyond it, a part spread over all."""
COMPARED_MODES = 24
"""Pairs on which the two statistics of BatchNorm are compared."""
WORTH_TELLING = 0.05
"""Share of the L1 by which the statistics that are not taken draw better."""


@dataclass(frozen=True)
class EvalSettings:
    """What is measured, and how."""

    direction: str | None = None
    """`AtoB` or `BtoA`; None: as the checkpoint was trained, else AtoB."""
    task: str | None = None
    """What the inputs are, see `TrainConfig.task`; None: as trained, else pairs."""
    count: int | None = None
    """At most so many pairs, evenly over all, or so many first frames; None: all pairs, or as
    many frames as `evaluate_video` takes."""
    norm_stats: str | None = None
    """`running` or `batch`, of BatchNorm; None: as it would be exported."""
    lpips_weights: Path | None = None
    """AlexNet of torchvision, for LPIPS; None: no LPIPS."""
    inception: Path | None = None
    """Inception in TorchScript, for FID and the Inception Score; None: neither."""


def evaluate_model(model: Path, data: str, settings: EvalSettings, ui: Ui) -> Evaluation:
    """Measure a model, at the size that it works at.

    Args:
        model: a run, a checkpoint, an ONNX file or an engine.
        data: a folder of pairs, `scenes`, or a video file.
        settings: what is measured.
        ui: is told what was opened, and how far it is.

    Raises:
        ModelError, CheckpointError, DataError, SourceError: what was named is not there, damaged,
            or does not go with the rest.
    """
    with ExitStack() as stack:
        if is_video(data):
            _refuse_for_video(data, settings)
            video = stack.enter_context(closing(open_video(Path(data))))
            opened = _open(model, settings, stack, ui)
            return evaluate_video(
                video,
                Path(data),
                name=opened.name,
                draw=opened.draw,
                size_px=opened.size_px,
                count=settings.count,
                ui=ui,
            )
        return _evaluate_pairs(_open(model, settings, stack, ui), data, settings, ui)


def _refuse_for_video(data: str, settings: EvalSettings) -> None:
    for flag, value in (
        ("--direction", settings.direction),
        ("--task", settings.task),
        ("--lpips-weights", settings.lpips_weights),
        ("--inception", settings.inception),
    ):
        if value is not None:
            raise SourceError(
                f"{flag} with {data}, which is a video",
                "pairs, which have a target to compare with",
                f"leave {flag} out, or name a folder of pairs",
            )


# ------------------------------------------------------------------------------------ the model


@dataclass(frozen=True)
class _Opened:
    """Something that draws."""

    name: str
    draw: Draw
    size_px: Size
    direction: str = "AtoB"
    task: str = "pairs"
    stats: str | None = None
    """Of BatchNorm; None: it has none, or they are fixed."""
    draw_other: Draw | None = None
    """With the other statistics."""


def _open(model: Path, settings: EvalSettings, stack: ExitStack, ui: Ui) -> _Opened:
    if model.suffix.lower() in (".onnx", ".engine"):
        if settings.norm_stats is not None:
            raise ModelError(
                f"--norm-stats for {model}, which is exported already",
                "a checkpoint, where it can still be chosen",
                "leave --norm-stats out, or name the checkpoint",
            )
        translator = stack.enter_context(Translator.load(model))
        ui.say(f"{model}: {translator.description}")
        name = f"{model}: {translator.description}"
        return _Opened(name, translator.__call__, translator.meta.frame_size_px)
    checkpoint = open_checkpoint(model)
    ui.say(f"{checkpoint.path}: {checkpoint.description}; PyTorch, FP32")
    choice = choose_norm_stats(
        checkpoint.generator,
        settings.norm_stats,
        foreign=checkpoint.foreign,
        pairs=[],
        draws=lambda generator: torch_draws(checkpoint, generator),
    )
    if choice.why:
        ui.say(choice.why)
    draw, other = _by_statistics(checkpoint, choice.stats)
    return _Opened(
        name=f"{checkpoint.path}: {checkpoint.description}",
        draw=draw,
        size_px=(checkpoint.size_px, checkpoint.size_px),
        direction=checkpoint.direction,
        task=checkpoint.trained_on.task if checkpoint.trained_on else "pairs",
        stats=choice.stats,
        draw_other=other,
    )


def _by_statistics(checkpoint: Checkpoint, stats: str | None) -> tuple[Draw, Draw | None]:
    """Draw with the chosen statistics, and with the others where there are others."""
    running = torch_draws(checkpoint, checkpoint.generator)
    if stats is None:
        return running, None
    batch = torch_draws(checkpoint, with_batch_statistics(checkpoint.generator))
    return (batch, running) if stats == BATCH else (running, batch)


# ------------------------------------------------------------------------------------ on pairs


class _Tally:
    """Gathers what one row is made of."""

    def __init__(self) -> None:
        self.qualities: list[Quality] = []
        self._ms_ssim: list[float | None] = []
        self._energy = 0.0
        self._target_energy = 0.0
        self._lpips: list[float] = []

    def add(self, picture: Image, target: Image, perceptual: PerceptualDistance | None) -> None:
        self.qualities.append(quality_of(picture, target))
        self._ms_ssim.append(ms_ssim_of(picture, target))
        self._energy += gradient_energy(picture)
        self._target_energy += gradient_energy(target)
        if perceptual is not None:
            self._lpips.append(perceptual.between(picture, target))

    def row(
        self, kept: NDArray[np.uint8], targets: NDArray[np.uint8], seen: SeenByInception | None
    ) -> PairsRow:
        """With what is measured on the whole set: `kept`, uint8 [N, H, W, 3]."""
        quality = mean_quality(self.qualities)
        small = min(kept.shape[1:3]) < COARSEST_PX
        distance = None if small else sliced_wasserstein(kept, targets)
        scales = [value for value in self._ms_ssim if value is not None]
        fid, score = seen.compare(kept) if seen else (None, None)
        return PairsRow(
            l1=quality.l1,
            psnr=quality.psnr,
            ssim=quality.ssim,
            ms_ssim=float(np.mean(scales)) if scales else None,
            gradient_energy=self._energy / self._target_energy if self._target_energy else None,
            swd=distance.mean if distance else None,
            swd_levels={str(px): v for px, v in distance.levels.items()} if distance else {},
            lpips=float(np.mean(self._lpips)) if self._lpips else None,
            fid=fid,
            inception_score=score,
        )


def _evaluate_pairs(opened: _Opened, data: str, settings: EvalSettings, ui: Ui) -> Evaluation:
    size_px = _square(opened)
    perceptual = PerceptualDistance(settings.lpips_weights) if settings.lpips_weights else None
    inception = Inception(settings.inception) if settings.inception else None
    task = settings.task or opened.task
    pairs = some_of(open_pairs(data, settings.direction or opened.direction, task), settings.count)
    total = len(pairs)
    if inception is not None and total < 2:
        raise DataError(
            f"--inception with {total} pair of {data}",
            "2 pairs or more: FID compares distributions",
            "leave --inception out, or evaluate more pairs",
        )
    ui.say(f"{total} pairs of {pairs.description}, {size_px}x{size_px}")
    mean_target = _mean(pairs, total, size_px)
    kept = spread(total, max(2, KEPT_BYTES // mean_target.nbytes))
    place = {index: number for number, index in enumerate(kept)}
    shape = (len(kept), *mean_target.shape)
    sources, drawings, targets = (np.empty(shape, np.uint8) for _ in range(3))
    tallies = {name: _Tally() for name in ("model", "identity", "mean_target")}
    for index in ui.track(range(total), "drawing and comparing"):
        source, target = pairs.pair(index, size_px)
        drawn = opened.draw(source)
        for name, picture in (
            ("model", drawn),
            ("identity", source),
            ("mean_target", mean_target),
        ):
            tallies[name].add(picture, target, perceptual)
        if index in place:
            sources[place[index]], drawings[place[index]] = source, drawn
            targets[place[index]] = target
    seen = SeenByInception(inception, targets) if inception else None
    sets = {
        "model": drawings,
        "identity": sources,
        "mean_target": np.broadcast_to(mean_target, shape),
    }
    rows = {
        name: tallies[name].row(sets[name], targets, seen)
        for name in ui.track(list(sets), "comparing texture")
    }
    l1 = [quality.l1 for quality in tallies["model"].qualities]
    notes = _notes(rows["model"], len(kept), total)
    if told := _better_statistics(opened, pairs, size_px, l1):
        notes.append(told)
    return Evaluation(
        opened.name,
        f"{total} pairs of {pairs.description}, {size_px}x{size_px}",
        rows,
        notes,
        _pair_examples(opened.draw, pairs, size_px, l1),
    )


def _square(opened: _Opened) -> int:
    height, width = opened.size_px
    if height != width:
        raise ModelError(
            f"{opened.name.partition(':')[0]} works at {height}x{width}",
            "a square size, since pairs are resized to a square",
            "evaluate the checkpoint, or export it without --imgsz",
        )
    return height


def _mean(pairs: Pairs, total: int, size_px: int) -> Image:
    summed = np.zeros((size_px, size_px, 3), np.float64)
    for index in range(total):
        summed += pairs.pair(index, size_px)[1]
    return np.rint(summed / total).astype(np.uint8)


def _notes(row: PairsRow, kept: int, total: int) -> list[str]:
    notes = []
    if row.ms_ssim is None:
        notes.append("MS-SSIM is left out: its five scales need pictures of 176 pixels or more.")
    if kept < total:
        notes.append(f"SWD, FID and the Inception Score are those of {kept} pairs, evenly spread.")
    if row.fid is not None and kept < ENOUGH_PICTURES:
        notes.append(
            f"FID over {kept} pictures, fewer than {ENOUGH_PICTURES:,}, is biased upwards, the "
            "Inception Score downwards: compare them only with figures of the same pairs."
        )
    return notes


def _better_statistics(
    opened: _Opened, pairs: Pairs, size_px: int, l1: Sequence[float]
) -> str | None:
    """One line where BatchNorm's other statistics draw clearly better."""
    if opened.draw_other is None:
        return None
    chosen = spread(len(l1), COMPARED_MODES)
    taken = float(np.mean([l1[index] for index in chosen]))
    found = []
    for index in chosen:
        source, target = pairs.pair(index, size_px)
        drawn = opened.draw_other(source)
        found.append(np.abs(drawn.astype(np.int16) - target).mean())
    other = float(np.mean(found))
    if other >= taken * (1 - WORTH_TELLING):
        return None
    better = RUNNING if opened.stats == BATCH else BATCH
    return (
        f"BatchNorm draws better with {better} statistics: L1 {other:.1f} grey levels against "
        f"{taken:.1f} with {opened.stats} statistics, on {len(chosen)} pairs; "
        f"use --norm-stats {better}, here and with p2p-export"
    )


def _pair_examples(draw: Draw, pairs: Pairs, size_px: int, l1: Sequence[float]) -> list[Example]:
    examples = []
    for word, index in best_median_worst(l1):
        source, target = pairs.pair(index, size_px)
        title = f"{word}: {pairs.name(index)}, L1 {l1[index]:.2f} grey levels"
        examples.append(pair_example(title, source, draw(source), target))
    return examples
