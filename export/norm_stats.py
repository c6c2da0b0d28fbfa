"""BatchNorm at inference: the statistics of training, or those of the frame itself.

pytorch-CycleGAN-and-pix2pix draws in training mode unless `--eval` is given, so that BatchNorm
takes the statistics of the one picture at hand: instance norm in all but name. Which of the two
draws better depends on how the generator was trained; with pairs at hand it is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.verify import Draw, Image

RUNNING, BATCH = "running", "batch"
MODES = (RUNNING, BATCH)
_TOLD = {
    RUNNING: "running statistics, folded into the convolutions",
    BATCH: "each frame's own statistics (batch at size 1 = instance norm)",
}
FOLDING_IS_WORTH = 0.02
"""Running statistics fold into the convolutions and cost nothing: the frame's own must be better
by more than this share of the error to be chosen."""


@dataclass(frozen=True)
class NormChoice:
    """Which statistics BatchNorm uses in the export, and why."""

    stats: str | None
    """`running`, `batch`, or None: the generator has no BatchNorm."""
    why: str
    """One line for people; empty where there was nothing to choose and nothing asked."""


def choose_norm_stats(
    generator: nn.Module,
    asked: str | None,
    *,
    foreign: bool,
    pairs: Sequence[tuple[Image, Image]],
    draws: Callable[[nn.Module], Draw],
) -> NormChoice:
    """Decide between running and batch statistics.

    Args:
        generator: in evaluation mode.
        asked: what the user wants; None: the one that is better.
        foreign: whether another project trained it.
        pairs: (input, target), uint8 [H, W, 3] BGR; may be empty.
        draws: makes a function that draws with a generator.
    """
    if not has_batch_norm(generator):
        idle = f"--norm-stats {asked} changes nothing: this generator has no BatchNorm"
        return NormChoice(None, idle if asked else "")
    if asked is not None:
        return NormChoice(asked, f"BatchNorm: {_TOLD[asked]}, as asked with --norm-stats")
    if not pairs:
        stats = BATCH if foreign else RUNNING
        as_trained = (
            "as its own test.py draws without --eval" if foreign else "as p2p-train measured it"
        )
        return NormChoice(stats, f"BatchNorm: {_TOLD[stats]}, {as_trained}")
    errors = {
        RUNNING: _l1(draws(generator), pairs),
        BATCH: _l1(draws(with_batch_statistics(generator)), pairs),
    }
    better = BATCH if errors[BATCH] < errors[RUNNING] * (1 - FOLDING_IS_WORTH) else RUNNING
    other = BATCH if better == RUNNING else RUNNING
    return NormChoice(
        better,
        f"BatchNorm: {_TOLD[better]}: L1 {errors[better]:.1f} grey levels against "
        f"{errors[other]:.1f} with {other} statistics, on {len(pairs)} pairs",
    )


def has_batch_norm(generator: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in generator.modules())


def with_batch_statistics(generator: nn.Module) -> nn.Module:
    """A copy that normalises each picture with its own statistics: BatchNorm at batch size 1."""
    generator = copy.deepcopy(generator).eval()
    for module in generator.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _as_instance_norm(child))
    return generator


def _as_instance_norm(norm: nn.BatchNorm2d) -> nn.InstanceNorm2d:
    own = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        own.weight, own.bias = norm.weight, norm.bias
    return own.eval()


def _l1(draw: Draw, pairs: Sequence[tuple[Image, Image]]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.mean([np.abs(_signed(draw(a)) - _signed(b)).mean() for a, b in pairs]))


def _signed(image: Image) -> NDArray[np.int16]:
    return image.astype(np.int16)
