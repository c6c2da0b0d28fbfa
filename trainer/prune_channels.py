"""Which channels of a generator can only be dropped together, found by watching it draw.

A convolution makes new channels. From there on each operator says what becomes of them: a sum
couples the channels of its terms, depth-to-space couples the phases of a channel, a concatenation
sets them side by side, a depthwise convolution hands each on. The operators are those that torch
runs, not the modules, so that no generator needs code of its own.

Source of the idea: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config import GeneratorConfig
from trainer.errors import ConfigError
from trainer.generators import build_generator

_SIDE_PX = 512
"""Every generator takes it; nothing is computed, so that it costs nothing."""
_CHANNEL_BY_CHANNEL = frozenset(
    (
        "avg_pool2d",
        "clone",
        "constant_pad_nd",
        "hardtanh",
        "leaky_relu",
        "max_pool2d_with_indices",
        "reflection_pad2d",
        "relu",
        "replication_pad2d",
        "tanh",
        "upsample_bilinear2d",
        "upsample_nearest2d",
    )
)
"""Operators that make of each channel one channel, and of zeros zeros."""


class Filter(NamedTuple):
    """One filter of a convolution: what makes one channel."""

    convolution: str
    """Name of the module."""
    number: int


class Axis(NamedTuple):
    """One dimension of a stored tensor that has a place for each channel."""

    tensor: str
    dim: int


@dataclass(frozen=True)
class Coupling:
    """What a generator's channels are to each other.

    Filters that must be dropped together are a group. Groups that lie in the same convolutions
    are interchangeable: a family, of which any may stay.
    """

    families: Mapping[frozenset[str], Sequence[Sequence[Filter]]]
    """By the names of the convolutions: the groups, in the order of their first filters."""
    places: Mapping[Axis, Sequence[tuple[frozenset[str], int]]]
    """By stored tensor: the family and the group in it that each place belongs to."""
    scales: Mapping[str, Sequence[tuple[str, int]]]
    """By convolution that a BatchNorm follows at once: the norm's name and its channel, for each
    filter."""


@dataclass
class _Channels:
    """The channels of one activation, dimension 1."""

    nodes: list[int]
    """For each channel a filter that it stands or falls with."""
    filters: list[list[int]] | None
    """For each channel the filters whose sums it is, while nothing was done to them."""


def couplings_of(wide: GeneratorConfig, narrow: GeneratorConfig) -> tuple[Coupling, Coupling]:
    """How the channels of two generators hang together that differ in `ngf` alone.

    Channels that are as many in both are never dropped, and are in no family.

    Raises:
        ConfigError: an operator on other channels of which it is not known what it does to them.
    """
    networks = without_values(wide), without_values(narrow)
    one, other = (
        {
            name: layer.out_channels
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        }
        for network in networks
    )
    unchanged = {name for name, channels in one.items() if channels == other[name]}
    watches = [_Watch(network, unchanged, wide.name) for network in networks]
    picture = torch.empty(1, wide.input_channels, _SIDE_PX, _SIDE_PX, device="meta")
    for network, watch in zip(networks, watches, strict=True):
        with torch.no_grad(), watch:
            network(picture)
    return watches[0].coupling(), watches[1].coupling()


def without_values(config: GeneratorConfig) -> nn.Module:
    """The generator on torch's meta device, which knows the shapes alone."""
    with torch.device("meta"):
        return build_generator(config).eval()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the channels through one forward pass."""

    def __init__(self, network: nn.Module, unchanged: set[str], name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._unchanged = unchanged
        stored = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self._names = {id(tensor): name for name, tensor in stored.items()}
        self._channels: dict[int, _Channels] = {}
        """By identity of an activation. One that is not in it has no channels to drop."""
        self._alive: list[Tensor] = []
        """All of them, so that no identity comes twice."""
        self._filters: list[Filter] = []
        self._leaders: list[int] = []
        """For each filter another of its group; its own where it leads."""
        self._kept_parts = 0
        self._places: dict[Axis, list[int]] = {}
        self._scales: dict[str, list[tuple[str, int]]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket.__name__
        handlers: dict[str, Callable[[tuple[Any, ...], Tensor], _Channels | None]] = {
            "convolution": self._convolved,
            "cat": self._joined,
            "add": self._added,
            "pixel_shuffle": self._shuffled,
            "pixel_unshuffle": self._unshuffled,
            "view": self._viewed,
        }
        output = result[0] if isinstance(result, tuple | list) else result
        channels = None
        if kind in handlers:
            channels = handlers[kind](args, output)
        elif any(id(value) in self._channels for value in args if isinstance(value, Tensor)):
            if "batch_norm" in kind:
                channels = self._normalised(args)
            elif kind in _CHANNEL_BY_CHANNEL:
                channels = _Channels(self._channels[id(args[0])].nodes, None)
            else:
                raise self._unknown(kind)
        if channels is not None:
            self._channels[id(output)] = channels
            self._alive.append(output)
        return result

    def coupling(self) -> Coupling:
        """What was found."""
        members: dict[int, list[Filter]] = {}
        for node, member in enumerate(self._filters):
            members.setdefault(self._leader(node), []).append(member)
        families: dict[frozenset[str], list[list[Filter]]] = {}
        where: dict[int, tuple[frozenset[str], int]] = {}
        for leader, group in members.items():
            family = frozenset(member.convolution for member in group)
            groups = families.setdefault(family, [])
            where[leader] = (family, len(groups))
            groups.append(group)
        places = {
            axis: [where[self._leader(node)] for node in nodes]
            for axis, nodes in self._places.items()
        }
        return Coupling(families, places, self._scales)

    # ------------------------------------------------------------------ what operators do

    def _convolved(self, args: tuple[Any, ...], _output: Tensor) -> _Channels | None:
        source, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
        name = self._names[id(weight)].removesuffix(".weight")
        seen = self._channels.get(id(source))
        is_depthwise = groups > 1 and groups == source.shape[1] and weight.shape[1] == 1
        if groups > 1 and not (is_depthwise and not transposed):
            raise self._unknown(f"a convolution of {groups} groups")
        if seen is not None and not is_depthwise:
            self._place(f"{name}.weight", 0 if transposed else 1, seen.nodes)
        if name in self._unchanged:
            return None
        made = self._new(name, weight.shape[1 if transposed else 0])
        self._place(f"{name}.weight", 1 if transposed else 0, made)
        if bias is not None:
            self._place(f"{name}.bias", 0, made)
        if is_depthwise and seen is not None:
            self._couple(seen.nodes, made)
        return _Channels(made, [[node] for node in made])

    def _normalised(self, args: tuple[Any, ...]) -> _Channels:
        seen = self._channels[id(args[0])]
        stored = [self._names[id(values)] for values in args[1:5] if values is not None]
        for name in stored:
            self._place(name, 0, seen.nodes)
        if args[1] is not None and seen.filters is not None:
            norm = self._names[id(args[1])].removesuffix(".weight")
            for channel, nodes in enumerate(seen.filters):
                for node in nodes:
                    found = self._scales.setdefault(self._filters[node].convolution, [])
                    found.append((norm, channel))
        return _Channels(seen.nodes, None)

    def _joined(self, args: tuple[Any, ...], output: Tensor) -> _Channels | None:
        parts = [(part, self._channels.get(id(part))) for part in args[0]]
        if not any(channels for _, channels in parts):
            return None
        if len(args) < 2 or args[1] not in (1, 1 - output.ndim):
            raise self._unknown("a concatenation of other dimensions than the channels")
        nodes: list[int] = []
        for part, channels in parts:
            nodes += channels.nodes if channels else self._kept(part.shape[1])
        return _Channels(nodes, None)

    def _added(self, args: tuple[Any, ...], _output: Tensor) -> _Channels | None:
        terms = [self._channels.get(id(term)) for term in args[:2]]
        if terms == [None, None]:
            return None
        if not isinstance(args[1], Tensor) or args[0].shape != args[1].shape:
            raise self._unknown("a sum of different shapes")
        nodes, others = (
            channels.nodes if channels else self._kept(args[0].shape[1]) for channels in terms
        )
        self._couple(nodes, others)
        return _Channels(nodes, None)

    def _shuffled(self, args: tuple[Any, ...], _output: Tensor) -> _Channels | None:
        seen = self._channels.get(id(args[0]))
        if seen is None:
            return None
        phases = args[1] ** 2
        first = seen.nodes[::phases]
        for phase in range(1, phases):
            self._couple(first, seen.nodes[phase::phases])
        if seen.filters is None:
            return _Channels(first, None)
        spans = range(0, len(seen.nodes), phases)
        joined = [list(chain.from_iterable(seen.filters[at : at + phases])) for at in spans]
        return _Channels(first, joined)

    def _unshuffled(self, args: tuple[Any, ...], _output: Tensor) -> _Channels | None:
        seen = self._channels.get(id(args[0]))
        if seen is None:
            return None
        return _Channels([node for node in seen.nodes for _ in range(args[1] ** 2)], None)

    def _viewed(self, args: tuple[Any, ...], output: Tensor) -> _Channels | None:
        """Of one picture: InstanceNorm views a batch's channels as those of one picture."""
        seen = self._channels.get(id(args[0]))
        if seen is not None and output.shape != args[0].shape:
            raise self._unknown("a change of shape")
        return seen

    # ------------------------------------------------------------------------- the groups

    def _new(self, name: str, count: int) -> list[int]:
        first = len(self._filters)
        self._filters += [Filter(name, number) for number in range(count)]
        self._leaders += range(first, first + count)
        return list(range(first, first + count))

    def _kept(self, count: int) -> list[int]:
        """For channels that are never dropped, which still have their places behind."""
        self._kept_parts += 1
        return self._new(f"kept {self._kept_parts}", count)

    def _couple(self, ones: Sequence[int], others: Sequence[int]) -> None:
        for one, other in zip(ones, others, strict=True):
            first, second = sorted((self._leader(one), self._leader(other)))
            self._leaders[second] = first

    def _leader(self, node: int) -> int:
        while self._leaders[node] != node:
            self._leaders[node] = self._leaders[self._leaders[node]]
            node = self._leaders[node]
        return node

    def _place(self, tensor: str, dim: int, nodes: list[int]) -> None:
        axis = Axis(tensor, dim)
        if axis in self._places:
            raise self._unknown("weights that are used twice")
        self._places[axis] = nodes

    def _unknown(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self._name}, whose channels go through {what}",
            "operators of which it is known what they do to each channel",
            "train a narrower one with --ngf and --teacher",
        )
