"""A trained generator with fewer channels: in each layer the most important ones stay.

Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (the L1 norm of a filter);
Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (the
scale of the BatchNorm behind it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainer.config import GeneratorConfig
from trainer.errors import ConfigError
from trainer.generators import build_generator
from trainer.prune_channels import Axis, Coupling, couplings_of


def pruned(
    generator: nn.Module, config: GeneratorConfig, ngf: int
) -> tuple[nn.Module, GeneratorConfig]:
    """The same architecture with a smaller `ngf`, in evaluation mode, and its config.

    Args:
        generator: trained; it stays as it is.
        config: its config.
        ngf: channels of the first layer that are left.

    Raises:
        ConfigError: `ngf` makes no layer narrower.
    """
    smaller = replace(config, ngf=ngf)
    if ngf >= config.ngf:
        raise ConfigError(
            f"--ngf {ngf} for a generator of ngf {config.ngf}",
            f"less than {config.ngf}",
            f"use --ngf {max(1, config.ngf // 2)}",
        )
    narrow = build_generator(smaller).eval()
    weights = generator.state_dict()
    shapes = {name: values.shape for name, values in narrow.state_dict().items()}
    if all(values.shape == shapes[name] for name, values in weights.items()):
        raise ConfigError(
            f"--ngf {ngf}, at which {config.name} is as wide as at {config.ngf}",
            "an ngf that makes a layer narrower; widths are rounded to eights",
            f"use --ngf {max(1, ngf // 2)}",
        )
    for axis, indices in kept_places(generator, config, smaller).items():
        weights[axis.tensor] = weights[axis.tensor].index_select(axis.dim, torch.tensor(indices))
    narrow.load_state_dict(weights)
    return narrow, smaller


def kept_places(
    generator: nn.Module, config: GeneratorConfig, smaller: GeneratorConfig
) -> dict[Axis, list[int]]:
    """What stays of each stored tensor, along each dimension that gets narrower.

    Args:
        generator: whose filters are judged.
        config: its config.
        smaller: the config that decides how many channels of each layer stay.
    """
    wide, narrow = couplings_of(config, smaller)
    if wide.families.keys() != narrow.families.keys():
        raise ConfigError(
            f"--ngf {smaller.ngf}, at which {config.name} has other sums than at {config.ngf}",
            "an ngf whose rounded widths leave the layers joined as they were",
            f"use an --ngf between {smaller.ngf} and {config.ngf}",
        )
    scores = importance(generator, wide)
    kept = {
        family: _most_important(scores[family], len(groups))
        for family, groups in narrow.families.items()
    }
    places: dict[Axis, list[int]] = {}
    for axis, of_narrow in narrow.places.items():
        # A group may have several places, such as the phases of a channel: they keep their order.
        spots: dict[tuple[frozenset[str], int], list[int]] = {}
        for place, group in enumerate(wide.places[axis]):
            spots.setdefault(group, []).append(place)
        taken: dict[tuple[frozenset[str], int], int] = {}
        places[axis] = []
        for group in of_narrow:
            family, number = group
            nth = taken.get(group, 0)
            places[axis].append(spots[family, kept[family][number]][nth])
            taken[group] = nth + 1
    return places


def importance(generator: nn.Module, coupling: Coupling) -> dict[frozenset[str], Tensor]:
    """For each family of `coupling` the importance of its groups, float64 [groups].

    That of a filter is its L1 norm times the factor that BatchNorm multiplies its sums with, which
    is the L1 norm of the filter as exported; of each convolution the mean is 1, so that none of
    those that a group lies in outvotes the others. That of a group is the sum over its filters.
    """
    modules = dict(generator.named_modules())
    convolutions = sorted(set().union(*coupling.families))
    scores = {
        name: _of_filters(modules, name, coupling.scales.get(name)).tolist()
        for name in convolutions
        if name in modules
    }
    return {
        family: torch.tensor(
            [sum(scores[name][at] for name, at in group if name in scores) for group in groups],
            dtype=torch.float64,
        )
        for family, groups in coupling.families.items()
    }


def _of_filters(
    modules: Mapping[str, nn.Module], name: str, scales: Sequence[tuple[str, int]] | None
) -> Tensor:
    """float64 [filters], with a mean of 1 unless all are zero."""
    convolution = modules[name]
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
    weight = convolution.weight.detach().double()
    if isinstance(convolution, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    norms = weight.abs().flatten(1).sum(1)
    if scales is not None:
        norm = modules[scales[0][0]]
        assert isinstance(norm, nn.BatchNorm2d)
        channels = torch.tensor([channel for _, channel in scales])
        norms = norms * _factor(norm)[channels]
    return norms / norms.mean().clamp_min(torch.finfo(torch.float64).tiny)


def _factor(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.weight.detach().double().abs() / (norm.running_var.double() + norm.eps).sqrt()


def _most_important(scores: Tensor, count: int) -> list[int]:
    """Indices of the `count` highest, in their order; of equals the first ones."""
    order = torch.argsort(scores, descending=True, stable=True)
    return sorted(order[:count].tolist())
