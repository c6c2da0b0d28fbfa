"""The training loop: step after step, with a look at the held-out pairs after each epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trainer.batches import StepSampler, batches
from trainer.checkpoint import (
    GENERATOR_FILE,
    TRAINING_FILE,
    GeneratorInfo,
    save_generator,
    save_training,
)
from trainer.config import UNET_LEVELS, TrainConfig
from trainer.data import DataSplit, Pairs, ScenePairs
from trainer.errors import TrainerError
from trainer.journal import Journal, sample_grid
from trainer.metrics import Quality, mean_quality, quality_of
from trainer.norm_stats import own_statistics
from trainer.progress import Progress
from trainer.training import Training

GRID_ROWS = 4
JUDGED_BOTH_WAYS = 24
WATCHED = 64
"""Held-out pictures that tell whether the generator has collapsed."""
FIRST_LOOK = 16
MOST_SCENES = 10_000
"""Drawn scenes have no end: the first look is taken among so many."""
WORTH_TELLING = 0.95


def fit(
    training: Training,
    split: DataSplit,
    out: Path,
    *,
    workers: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[Progress]:
    """Train to `training.total_steps`, saving into `out` at each epoch, at the end and on `stop`.

    Yields after every step. Of several processes only the first measures and writes.

    Raises:
        TrainerError: the data are damaged or others than before, a loss is no number, the disk is
            full. What was saved before stays.
    """
    config, team = training.config, training.team
    samples = epoch_samples(config, split.train)
    if training.samples is not None and training.samples != samples:
        raise TrainerError(
            f"{samples} pairs to train on",
            f"the {training.samples} that the run was started with, which decide the order",
            "put the data back as they were, or start a new run",
        )
    training.samples = samples
    sampler = StepSampler(
        samples,
        config.batch_size,
        config.seed,
        training.step,
        training.total_steps,
        rank=team.rank,
        world=team.world,
        accumulate=config.accumulate,
    )
    epoch_steps = sampler.steps_per_epoch
    if config.fixed_stats and training.step == 0 and config.init is None:
        training.fix_statistics(_first_look(split.train, config.crop_size))
    if team.is_first:
        for left_over in out.glob(".*.part*"):  # of a run that was killed while it wrote
            left_over.unlink()
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(out, training.step)) if team.is_first else None
        loaded = batches(split.train, config, sampler, samples, workers)
        for step_batches in _by_step(loaded, config.accumulate):
            started = time.perf_counter()
            losses = training.train_step(step_batches)
            step_s = time.perf_counter() - started
            epoch = (training.step - 1) // epoch_steps + 1
            remarks = training.watch.step(training.step, losses.g_gan, losses.d_loss)
            stopped = bool(team.agreed(float(bool(stop and stop.is_set()))))
            is_last = training.step == training.total_steps or stopped
            quality = None
            if training.step % epoch_steps == 0 or is_last:
                if journal:
                    quality, remark = _end_epoch(training, split.held_out, out, journal, epoch)
                    remarks += remark
                    if is_last:
                        remarks += other_statistics(training, split.held_out)
                if _has_lost_patience(training) and not is_last:
                    is_last = True
                    remarks.append(
                        f"no better for {config.patience} epochs: stopped at step "
                        f"{training.step} of {training.total_steps}"
                    )
            if journal:
                journal.write(training.step, epoch, losses, quality, step_s)
            yield Progress(
                training.step,
                training.total_steps,
                epoch,
                -(-training.total_steps // epoch_steps),
                losses,
                quality,
                step_s,
                tuple(remarks),
            )
            if is_last:
                return


def _first_look(pairs: Pairs, size_px: int) -> Tensor:
    """A few pairs, evenly over all of them: uint8 [N, 6, size, size], RGB."""
    count = min(len(pairs), FIRST_LOOK)
    indices = np.linspace(0, min(len(pairs), MOST_SCENES) - 1, count, dtype=int)
    shown = [np.concatenate(pairs.pair(int(i), size_px), axis=2) for i in indices]
    rgb = np.stack(shown)[..., [2, 1, 0, 5, 4, 3]]
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2)))


def _by_step(loaded: DataLoader[Tensor], accumulate: int) -> Iterator[list[Tensor]]:
    """The batches of each step."""
    batches_of_step: list[Tensor] = []
    for batch in loaded:
        batches_of_step.append(batch)
        if len(batches_of_step) == accumulate:
            yield batches_of_step
            batches_of_step = []


def _has_lost_patience(training: Training) -> bool:
    """Whether all processes stop here; the first one knows."""
    patience = training.config.patience
    if patience is None:
        return False
    return bool(training.team.agreed(float(training.patience.stale_epochs >= patience)))


def epoch_samples(config: TrainConfig, pairs: Pairs) -> int:
    """How many pairs make an epoch: all of a folder, `epoch_scenes` of the endless scenes."""
    return config.epoch_scenes if isinstance(pairs, ScenePairs) else len(pairs)


def total_steps_of(config: TrainConfig, pairs: Pairs, world: int = 1) -> int:
    """`steps` of the config, or what its `epochs` come to with `world` processes."""
    if config.steps is not None:
        return config.steps
    samples = epoch_samples(config, pairs)
    sampler = StepSampler(
        samples, config.batch_size, config.seed, 0, 0, world=world, accumulate=config.accumulate
    )
    return config.epochs * sampler.steps_per_epoch


def other_statistics(training: Training, held_out: Pairs) -> list[str]:
    """Says so when each picture's own statistics would draw better than BatchNorm's running ones.

    The running ones fold into the convolutions on export, the others cost time at inference.
    """
    multiple, size_px = training.config.generator.size_multiple, training.config.crop_size
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in training.average.modules())
    is_one_pixel = size_px == multiple and training.config.generator.name not in UNET_LEVELS
    if not has_batch_norm or is_one_pixel:
        return []  # one pixel has no statistics; the U-Nets have no norm where they come to one
    indices = np.linspace(0, len(held_out) - 1, min(JUDGED_BOTH_WAYS, len(held_out)), dtype=int)
    judged = [held_out.pair(int(index), size_px) for index in indices]
    running = mean_quality(quality_of(training.draw(s), t) for s, t in judged).l1
    with own_statistics(training.average):
        own = mean_quality(quality_of(training.draw(s), t) for s, t in judged).l1
    if own >= WORTH_TELLING * running:
        return []
    return [
        f"each picture's own BatchNorm statistics would draw better: L1 {own:.1f} instead of "
        f"{running:.1f}; train longer or with a larger --batch-size, or export with "
        "--norm-stats batch, which is slower"
    ]


def _end_epoch(
    training: Training, held_out: Pairs, out: Path, journal: Journal, epoch: int
) -> tuple[Quality, list[str]]:
    """Measure on held-out pairs, save the weights, draw the sample grid; what is remarkable."""
    config = training.config
    size_px = config.crop_size
    qualities: list[Quality] = []
    drawn: list[NDArray[np.uint8]] = []
    targets: list[NDArray[np.uint8]] = []
    rows: list[tuple[NDArray[np.uint8], ...]] = []
    shown, watched = (
        set(np.linspace(0, len(held_out) - 1, count, dtype=int).tolist())
        for count in (GRID_ROWS, WATCHED)
    )
    for index in range(len(held_out)):
        source, target = held_out.pair(index, size_px)
        picture = training.draw(source)
        qualities.append(quality_of(picture, target))
        if index in shown:
            rows.append((source, picture, target))
        if index in watched:
            drawn.append(picture)
            targets.append(target)
    quality = mean_quality(qualities)
    remarks = training.watch.epoch(training.step, drawn, targets)
    training.patience.told(quality.l1)
    save_generator(
        out / GENERATOR_FILE,
        training.average.state_dict(),
        GeneratorInfo(
            config=config.generator,
            step=training.step,
            data=config.data,
            direction=config.direction,
            size_px=size_px,
            quality=quality.to_dict(),
            task=config.task,
            teacher=config.teacher,
            init=config.init,
        ),
    )
    save_training(out / TRAINING_FILE, training.state())
    journal.picture(training.step, epoch, sample_grid(rows))
    return quality, remarks
