"""Whose statistics a BatchNorm takes, and whether it learns them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
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


class _PictureNorm(nn.Module):
    """BatchNorm by each picture's own statistics, whatever the size of the batch."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W] to the same."""
        norm = self.norm
        if x.shape[2] * x.shape[3] == 1:
            # One value has no spread: the running statistics stand in.
            return norm(x)  # type: ignore[no-any-return]
        return functional.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether there are statistics to choose."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def normalise_each_picture(network: nn.Module) -> None:
    """Let each BatchNorm take the statistics of each picture alone, as at batch size 1."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _PictureNorm(child))
