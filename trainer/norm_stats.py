"""Whose statistics a BatchNorm takes, and whether it learns them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def _momentum(network: nn.Module, momentum: float) -> Iterator[list[_BatchNorm]]:
    """Forward passes in which running statistics move by `momentum` to those of the batch."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = momentum
        yield norms
    finally:
        for norm, value in zip(norms, before, strict=True):
            norm.momentum = value


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Forward passes that leave the running statistics as they are."""
    with _momentum(network, 0.0) as norms:
        yield norms


@contextmanager
def own_statistics(network: nn.Module) -> Iterator[None]:
    """Forward passes with each batch's own statistics, of a network in evaluation mode."""
    with still_statistics(network) as norms:
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            network.eval()


@torch.no_grad()
def measure_statistics(network: nn.Module, pictures: Tensor) -> None:
    """Make BatchNorm's running statistics those of `pictures`, float [N, C, H, W], layer by layer.

    Each layer sees what the layers before it, normalised so, make of them.
    """
    was_training = network.training
    network.train()
    with _momentum(network, 1.0):
        network(pictures)
    network.train(was_training)


def fix_statistics(network: nn.Module) -> None:
    """Let a network in training mode normalise by its running statistics, and leave them."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
