"""What moves the weights: Adam, its learning rate, and the running average of what it finds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def adam(network: nn.Module, lr: float, beta1: float) -> torch.optim.Adam:
    """Adam with beta2 0.999, in PyTorch's fused form."""
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(beta1, 0.999), fused=True)


def set_learning_rate(
    optimisers: Iterable[torch.optim.Optimizer], lr: float, step: int, total_steps: int
) -> None:
    """Constant for the first half, then linearly down to zero (Isola et al. 2017, code)."""
    left = (total_steps - step) / max(1, total_steps - total_steps // 2)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, left)


def lay_out_as_weights(optimiser: torch.optim.Optimizer) -> None:
    """Lay loaded moments out in memory as the weights are: the fused step walks both alike."""
    for weights, slots in optimiser.state.items():
        for name, value in slots.items():
            if value.shape == weights.shape:
                slots[name] = torch.empty_like(weights).copy_(value)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average of a network's weights and statistics towards those of this step.

    Args:
        average: of the same layers as `network`.
        network: as step `step` left it.
        decay: 0 to 1, the part of the average that is kept.
        step: 1 or more, counted from the start.
    """
    # A young average would hold on to the random first weights: so it grows old slowly.
    keep = min(decay, step / (10 + step))
    current = network.state_dict()
    averages, values = [], []
    for name, held in average.state_dict().items():
        if held.dtype.is_floating_point:
            averages.append(held)
            values.append(current[name])
        else:
            held.copy_(current[name])
    torch._foreach_lerp_(averages, values, 1 - keep)
