"""The random numbers of a run: seeded for each process, put aside and taken up again."""

from __future__ import annotations

import torch
from torch import Tensor

RandomState = tuple[Tensor, Tensor | None]
"""Of torch's generators: the CPU's, and that of the GPU where the run is on one."""


def noise_seed(seed: int, rank: int) -> int:
    """Of what process `rank` draws while training: dropout, the gradient penalty's places."""
    return seed + 1 + 1_000_003 * rank


def random_state(device: torch.device) -> RandomState:
    """How far the random numbers of a run on `device` have come."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Draw on from `state`, which `random_state` gave for the same device."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
