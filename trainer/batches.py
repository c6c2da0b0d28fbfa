"""Pairs as batches of tensors, cropped and mirrored alike, in an order that can be resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.config import TrainConfig
from trainer.data import Pairs, PicturePairs, Planes, ScenePairs, planes_of

Key = tuple[int, int]
"""(epoch, index) of a sample."""


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

    def __getitem__(self, key: Key) -> Tensor:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> Tensor:
        """A whole batch, uint8 [N, 6, crop, crop], written where it stays."""
        crop = self._config.crop_size
        batch = np.empty((len(keys), 6, crop, crop), np.uint8)
        for sample, key in zip(batch, keys, strict=True):
            self._write(sample, *key)
        return torch.from_numpy(batch)

    def _write(self, sample: Planes, epoch: int, index: int) -> None:
        config = self._config
        crop = config.crop_size
        if isinstance(self._pairs, ScenePairs):  # endless: each sample is a new drawing
            pair = self._pairs.pair(epoch * self._epoch_samples + index, crop)
            sample[...] = planes_of(pair)
            return
        random = np.random.default_rng((config.seed, epoch, index))
        top, left = random.integers(0, config.load_size - crop + 1, 2)
        if isinstance(self._pairs, PicturePairs):
            planes = self._pairs.planes(index, config.load_size)
        else:
            planes = planes_of(self._pairs.pair(index, config.load_size))
        window = planes[:, top : top + crop, left : left + crop]
        if config.flip and random.random() < 0.5:
            # As one tall picture: OpenCV mirrors rows many times faster than NumPy.
            rows = np.ascontiguousarray(window).reshape(-1, crop)
            cv2.flip(rows, 1, dst=sample.reshape(-1, crop))
        else:
            sample[...] = window


class StepSampler(Sampler[list[Key]]):
    """The (epoch, index) keys of every batch from `first_step` to `last_step`, for one process.

    Each epoch is a permutation that depends on (seed, epoch) alone; what does not fill a step is
    left out of that epoch. A step takes `accumulate` batches one after the other, each of
    `batch_size` pairs in each of `world` processes: those of process 0 come first in the
    permutation, then those of process 1, and so on. So all processes together see what a single
    one with a `world` times larger batch would see, in the same order.

    Args:
        samples: pairs in an epoch, 1 or more.
        batch_size: pairs that a network sees at once; fewer where an epoch has less for a step.
        seed: of the permutations.
        first_step, last_step: as `range` takes them.
        rank: number of this process, 0 to `world` - 1.
        world: processes that train together.
        accumulate: batches whose gradients make one step.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        self._samples = samples
        self._batch_size = min(batch_size, max(1, samples // (world * accumulate)))
        self._seed = seed
        self._steps = range(first_step, last_step)
        self._rank = rank
        self._world = world
        self._accumulate = accumulate
        self._step_samples = self._batch_size * world * accumulate
        self.steps_per_epoch = max(1, samples // self._step_samples)

    def __len__(self) -> int:
        """Batches of this process: `accumulate` for each step."""
        return len(self._steps) * self._accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        shuffled, order = -1, np.arange(0)
        for step in self._steps:
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != shuffled:
                order = np.random.default_rng((self._seed, epoch)).permutation(self._samples)
                # Fewer samples than processes: begin again, since each process needs its batch.
                order = np.resize(order, max(self._samples, self._step_samples))
                shuffled = epoch
            for part in range(self._accumulate):
                batch = (place * self._accumulate + part) * self._world + self._rank
                first = batch * self._batch_size
                yield [(epoch, int(index)) for index in order[first : first + self._batch_size]]


def batches(
    pairs: Pairs, config: TrainConfig, sampler: StepSampler, epoch_samples: int, workers: int
) -> DataLoader[Tensor]:
    """Batches uint8 [N, 6, crop, crop], in the sampler's order; in pinned memory with CUDA.

    Decoded pictures are cached by `pairs`. Workers are forked (on Linux), so they share what is in
    the cache when the first batch is asked for: let `trainer.data.drop_damaged` fill it before.

    Args:
        pairs: what to train on.
        config: sizes, seed and mirroring.
        sampler: which pairs, and when.
        epoch_samples: pairs in an epoch; of drawn scenes, which have no end.
        workers: processes that prepare batches ahead; 0: this one does. Worth it where pictures
            are drawn or do not fit into the cache.
    """
    return DataLoader(
        AugmentedPairs(pairs, config, epoch_samples),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        # Its own random numbers: the default would draw from those of the dropout at each start.
        generator=torch.Generator().manual_seed(config.seed),
    )


def _as_it_is(batch: Any) -> Any:
    """The data set has made a batch of it already."""
    return batch


def _start_worker(_: int) -> None:
    """One thread a worker: OpenCV's own do not survive the fork, and would be waited for."""
    cv2.setNumThreads(0)


def to_unit_range(
    batch: Tensor,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> tuple[Tensor, Tensor]:
    """uint8 [N, 6, H, W] to (input, target), each [N, 3, H, W], RGB, -1 to 1.

    Args:
        batch: input and target.
        device: where they shall be; the copy from pinned memory does not wait.
        dtype: of the result; the arithmetic is in float32.
        channels_last: let the channels of a pixel lie side by side in memory.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    both = batch.to(device, non_blocking=True)

    def half(first: int) -> Tensor:
        # Bytes are moved into their layout, since that is a quarter of the floats' traffic.
        levels = both[:, first : first + 3].contiguous(memory_format=layout)
        return levels.float().div_(127.5).sub_(1.0).to(dtype)

    return half(0), half(3)
