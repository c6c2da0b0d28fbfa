"""Pairs as batches of tensors, cropped and mirrored alike, in an order that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.config import TrainConfig
from trainer.data import Pairs, ScenePairs


class AugmentedPairs(Dataset[Tensor]):
    """Pairs cropped and mirrored at random, the same for both halves.

    The place and the mirroring of a sample depend on (seed, epoch, index) alone, so that a resumed
    run sees what an uncut one would have seen. An item is uint8 [6, crop, crop]: input and target,
    RGB.
    """

    def __init__(self, pairs: Pairs, config: TrainConfig, epoch_samples: int) -> None:
        self._pairs = pairs
        self._config = config
        self._epoch_samples = epoch_samples

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        epoch, index = key
        config = self._config
        crop = config.crop_size
        if isinstance(self._pairs, ScenePairs):  # endless: each sample is a new drawing
            source, target = self._pairs.pair(epoch * self._epoch_samples + index, crop)
        else:
            random = np.random.default_rng((config.seed, epoch, index))
            source, target = self._pairs.pair(index, config.load_size)
            top, left = random.integers(0, config.load_size - crop + 1, 2)
            window = np.s_[top : top + crop, left : left + crop]
            source, target = source[window], target[window]
            if config.flip and random.random() < 0.5:
                source, target = source[:, ::-1], target[:, ::-1]
        both = np.concatenate([source[..., ::-1], target[..., ::-1]], axis=2)
        return torch.from_numpy(np.ascontiguousarray(both.transpose(2, 0, 1)))


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) keys of every batch from `first_step` to `last_step`.

    Each epoch is a permutation that depends on (seed, epoch) alone; what does not fill a batch is
    left out of that epoch.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, first_step: int, last_step: int
    ) -> None:
        self._samples = samples
        self._batch_size = min(batch_size, samples)
        self._seed = seed
        self._steps = range(first_step, last_step)
        self.steps_per_epoch = samples // self._batch_size

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled, order = -1, np.arange(0)
        for step in self._steps:
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != shuffled:
                order = np.random.default_rng((self._seed, epoch)).permutation(self._samples)
                shuffled = epoch
            first = batch * self._batch_size
            yield [(epoch, int(index)) for index in order[first : first + self._batch_size]]


def batches(
    pairs: Pairs, config: TrainConfig, sampler: StepSampler, epoch_samples: int, workers: int
) -> DataLoader[Tensor]:
    """Batches uint8 [N, 6, crop, crop], in the sampler's order."""
    return DataLoader(
        AugmentedPairs(pairs, config, epoch_samples),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own random numbers: the default would draw from those of the dropout at each start.
        generator=torch.Generator().manual_seed(config.seed),
    )


def to_unit_range(batch: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 [N, 6, H, W] to (input, target), float [N, 3, H, W], RGB, -1 to 1."""
    both = batch.to(device, non_blocking=True).float() / 127.5 - 1.0
    return both[:, :3], both[:, 3:]
