"""The training loop: each step is one update of the discriminator and one of the generator."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.batches import StepSampler, batches, to_unit_range
from trainer.checkpoint import (
    GENERATOR_FILE,
    TRAINING_FILE,
    GeneratorInfo,
    TrainingState,
    save_generator,
    save_training,
)
from trainer.config import TrainConfig
from trainer.data import DataSplit, Pairs, ScenePairs
from trainer.discriminators import PatchDiscriminator
from trainer.errors import TrainerError
from trainer.generators import build_generator
from trainer.journal import Journal, sample_grid
from trainer.losses import discriminator_loss, gan_loss
from trainer.metrics import Quality, mean_quality, quality_of

GRID_ROWS = 4


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step."""

    g_gan: float
    """The generator's adversarial loss."""
    g_l1: float
    """Mean absolute difference to the target, in grey levels of 0 to 255."""
    d_loss: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    losses: StepLosses
    quality: Quality | None
    """Of the averaged weights on held-out pairs, as exported; at the end of an epoch only."""
    step_s: float


class Training:
    """The two networks, their optimisers, and how far they have come."""

    def __init__(self, config: TrainConfig, total_steps: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        shape = config.generator
        self.config = config
        self.device = device
        self.total_steps = total_steps
        self.step = 0
        self.generator = build_generator(shape).to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = PatchDiscriminator(
            shape.input_channels, shape.output_channels, config.ndf
        ).to(device)
        self.generator_optimiser = _adam(self.generator, config)
        self.discriminator_optimiser = _adam(self.discriminator, config)

    @classmethod
    def resumed(cls, state: TrainingState, total_steps: int, device: torch.device) -> Training:
        """Go on where `state` was saved, to `total_steps` in all."""
        self = cls(state.config, total_steps, device)
        self.generator.load_state_dict(state.generator)
        self.average.load_state_dict(state.average)
        self.discriminator.load_state_dict(state.discriminator)
        self.generator_optimiser.load_state_dict(state.generator_optimiser)
        self.discriminator_optimiser.load_state_dict(state.discriminator_optimiser)
        self.step = state.step
        torch.set_rng_state(state.random)
        return self

    def state(self) -> TrainingState:
        """What `resumed` needs."""
        return TrainingState(
            config=self.config,
            step=self.step,
            total_steps=self.total_steps,
            generator=self.generator.state_dict(),
            average=self.average.state_dict(),
            discriminator=self.discriminator.state_dict(),
            generator_optimiser=self.generator_optimiser.state_dict(),
            discriminator_optimiser=self.discriminator_optimiser.state_dict(),
            random=torch.get_rng_state(),
        )

    def train_step(self, batch: Tensor) -> StepLosses:
        """One update of each network.

        Args:
            batch: uint8 [N, 6, H, W], input and target, RGB.

        Raises:
            TrainerError: a loss is no longer a number.
        """
        config = self.config
        source, target = to_unit_range(batch, self.device)
        self._set_learning_rate()
        self.generator.train()
        drawn = self.generator(source)

        self.discriminator.requires_grad_(True)
        real_logits = self.discriminator(source, target)
        fake_logits = self.discriminator(source, drawn.detach())
        d_loss = discriminator_loss(real_logits, fake_logits, config.gan_mode)
        _update(self.discriminator_optimiser, d_loss)

        self.discriminator.requires_grad_(False)
        g_gan = gan_loss(self.discriminator(source, drawn), True, config.gan_mode)
        g_l1 = functional.l1_loss(drawn, target)
        _update(self.generator_optimiser, g_gan + config.lambda_l1 * g_l1)

        self.step += 1
        self._update_average()
        losses = StepLosses(g_gan.item(), g_l1.item() * 127.5, d_loss.item())
        if not np.isfinite((losses.g_gan, losses.g_l1, losses.d_loss)).all():
            raise TrainerError(
                f"the losses of step {self.step} are {losses}",
                "finite numbers",
                "resume from the last checkpoint, or train with a lower --lr",
            )
        return losses

    @torch.inference_mode()
    def draw(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate one picture as the exported generator will: averaged weights, no dropout.

        Args:
            source: uint8 [H, W, 3], BGR.

        Returns:
            uint8 [H, W, 3], BGR.
        """
        rgb = torch.from_numpy(np.ascontiguousarray(source[..., ::-1].transpose(2, 0, 1)))
        x = rgb[None].to(self.device).float() / 127.5 - 1.0
        levels = (self.average(x)[0] * 127.5 + 127.5).clamp(0, 255).round()
        drawn: NDArray[np.uint8] = levels.byte().permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(drawn[..., ::-1])

    def _set_learning_rate(self) -> None:
        """Constant for the first half, then linearly down to zero (Isola et al. 2017, code)."""
        left = (self.total_steps - self.step) / max(1, self.total_steps - self.total_steps // 2)
        for optimiser in (self.generator_optimiser, self.discriminator_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = self.config.lr * min(1.0, left)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average would hold on to the random first weights: so it grows old slowly.
        keep = min(self.config.ema_decay, self.step / (10 + self.step))
        current = self.generator.state_dict()
        for name, average in self.average.state_dict().items():
            if average.dtype.is_floating_point:
                average.lerp_(current[name], 1 - keep)
            else:
                average.copy_(current[name])


def fit(
    training: Training,
    split: DataSplit,
    out: Path,
    *,
    workers: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[Progress]:
    """Train to `training.total_steps`, saving into `out` at each epoch, at the end and on `stop`.

    Yields after every step.

    Raises:
        TrainerError: the data are damaged, a loss is no number, the disk is full. What was saved
            before stays.
    """
    config = training.config
    samples = epoch_samples(config, split.train)
    sampler = StepSampler(
        samples, config.batch_size, config.seed, training.step, training.total_steps
    )
    epoch_steps = sampler.steps_per_epoch
    with Journal(out, training.step) as journal:
        for batch in batches(split.train, config, sampler, samples, workers):
            started = time.perf_counter()
            losses = training.train_step(batch)
            step_s = time.perf_counter() - started
            is_last = training.step == training.total_steps or bool(stop and stop.is_set())
            quality = None
            if training.step % epoch_steps == 0 or is_last:
                quality = _end_epoch(training, split.held_out, out, journal, epoch_steps)
            epoch = (training.step - 1) // epoch_steps + 1
            journal.write(training.step, epoch, losses, quality, step_s)
            yield Progress(
                training.step,
                training.total_steps,
                epoch,
                -(-training.total_steps // epoch_steps),
                losses,
                quality,
                step_s,
            )
            if is_last:
                return


def epoch_samples(config: TrainConfig, pairs: Pairs) -> int:
    """How many pairs make an epoch: all of a folder, `epoch_scenes` of the endless scenes."""
    return config.epoch_scenes if isinstance(pairs, ScenePairs) else len(pairs)


def total_steps_of(config: TrainConfig, pairs: Pairs) -> int:
    """`steps` of the config, or what its `epochs` come to."""
    if config.steps is not None:
        return config.steps
    samples = epoch_samples(config, pairs)
    return config.epochs * (samples // min(config.batch_size, samples))


def _end_epoch(
    training: Training, held_out: Pairs, out: Path, journal: Journal, epoch_steps: int
) -> Quality:
    """Measure on held-out pairs, save the weights, draw the sample grid."""
    config = training.config
    size_px = config.crop_size
    qualities: list[Quality] = []
    rows: list[tuple[NDArray[np.uint8], ...]] = []
    shown = set(np.linspace(0, len(held_out) - 1, GRID_ROWS, dtype=int).tolist())
    for index in range(len(held_out)):
        source, target = held_out.pair(index, size_px)
        drawn = training.draw(source)
        qualities.append(quality_of(drawn, target))
        if index in shown:
            rows.append((source, drawn, target))
    quality = mean_quality(qualities)
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
        ),
    )
    save_training(out / TRAINING_FILE, training.state())
    epoch = -(-training.step // epoch_steps)
    journal.picture(training.step, epoch, sample_grid(rows))
    return quality


def _adam(network: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(), lr=config.lr, betas=(config.beta1, 0.999), fused=True
    )


def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
