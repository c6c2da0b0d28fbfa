"""Which generator a stranger's state dict holds, by its names and shapes alone.

The layouts are those of pytorch-CycleGAN-and-pix2pix (U-Net of Isola et al. 2017, ResNet of
Johnson et al. 2016) and of pix2pixHD (Wang et al. 2018). Every one of them is a list of
convolutions, most with a norm behind, and every convolution has its place in a generator of
`trainer.generators`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.generators.pix2pixhd import LocalEnhancer
from trainer.generators.resnet import ResNetGenerator
from trainer.generators.unet import UNet

Weights = Mapping[str, Tensor]

JY = "pytorch-CycleGAN-and-pix2pix"
_SCALE = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")
_COUNT = "num_batches_tracked"


class MisfitError(Exception):
    """What keeps a state dict from being the generator that its names promise, in a few words."""


@dataclass(frozen=True)
class Layer:
    """One convolution: its name and its norm's in the state dict, and its block in our module."""

    conv: str
    norm: str | None
    block: str


@dataclass(frozen=True)
class Layout:
    """A generator that a state dict's names promise; `generator_from` finds out if it holds."""

    name: str
    family: str
    """For people: the kind of network and where it comes from."""
    layers: tuple[Layer, ...]
    """The last one gives the picture and has no norm."""
    ngf: int
    input_channels: int
    output_channels: int
    dropout: bool | None
    """None: this kind of network keeps no trace of it."""
    size_multiple: int
    size_px: int
    build: Callable[[str], nn.Module]
    """The norm to our module, with fresh weights."""


def layout_of(weights: Weights) -> Layout | None:
    """The layout that the names promise, or None for something else than a generator.

    Raises:
        MisfitError: a generator of a kind that is not supported.
    """
    if _is_conv(weights, "model.model.0"):
        return _unet_layout(weights)
    if _is_conv(weights, "model.1") and _blocks(weights, "model", 4 + 3 * _halvings(weights)):
        if _is_conv(weights, "model1_1.1"):
            return _local_layout(weights)
        return _resnet_layout(weights)
    return None


def is_discriminator(weights: Weights) -> bool:
    """Whether these are a discriminator of one of the projects: PatchGAN, pixel, multiscale."""
    first = weights.get("model.0.weight")
    patch = first is not None and tuple(first.shape[2:]) == (4, 4)
    pixel = _is_conv(weights, "net.0") and _is_conv(weights, "net.2")
    return patch or pixel or any(re.match(r"(scale\d+_)?layer\d+\.\d+\.", key) for key in weights)


def norm_of(weights: Weights, layout: Layout) -> str:
    """`batch`, `instance` or `none`.

    InstanceNorm without learned scale leaves nothing, or in PyTorch before 0.4 running statistics
    that nobody used; then the convolutions' biases tell it from `none`, which has them nowhere but
    in the last layer.

    Raises:
        MisfitError: neither of the three everywhere.
    """
    norms = [layer.norm for layer in layout.layers if layer.norm is not None]
    scales = {f"{norm}.{part}" in weights for norm in norms for part in _SCALE}
    statistics = {f"{norm}.{part}" in weights for norm in norms for part in _STATISTICS}
    if len(scales) == 2 or len(statistics) == 2:
        raise MisfitError("some of its norm layers have entries that the others do not have")
    if scales == {True}:
        if statistics == {False}:
            raise MisfitError(
                "its norm layers have a learned scale and no running statistics, as an affine "
                "InstanceNorm has"
            )
        return "batch"
    return "instance" if statistics == {True} or _has_biases(weights, layout) else "none"


def generator_from(weights: Weights, layout: Layout, norm: str) -> nn.Module:
    """Our module with these weights in FP32, on the CPU, in evaluation mode.

    Args:
        weights: every entry of the state dict.
        layout: what `layout_of` found.
        norm: what `norm_of` found.

    A convolution's bias in front of a BatchNorm, which ours does not have, moves into the running
    mean: norm(conv + bias) with mean m is norm(conv) with mean m - bias, and with the statistics
    of a batch the bias makes no difference at all. A bias that ours has and theirs does not is 0.

    Raises:
        MisfitError: an entry is missing, left over, or of another shape.
    """
    has_biases = _has_biases(weights, layout)
    with torch.device("meta"):
        generator = layout.build(norm)
    wanted = generator.state_dict()
    ours: dict[str, Tensor] = {}
    used: set[str] = set()

    def take(name: str, target: str) -> Tensor:
        if name not in weights:
            raise MisfitError(f"{name} is missing")
        tensor = weights[name]
        if tensor.shape != wanted[target].shape:
            raise MisfitError(
                f"{name} is {shape_told(tensor)} and not {shape_told(wanted[target])}"
            )
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise MisfitError(f"{name} is {tensor.dtype}, {tensor.layout}, and not floats")
        if not tensor.isfinite().all():
            raise MisfitError(
                f"{name} has values that are not finite: an earlier epoch may be sound"
            )
        used.add(name)
        return tensor.float().contiguous()

    for layer in layout.layers:
        conv, block_norm = f"{layer.block}.conv", f"{layer.block}.norm"
        ours[f"{conv}.weight"] = take(f"{layer.conv}.weight", f"{conv}.weight")
        is_last = layer is layout.layers[-1]
        bias = None
        if has_biases or is_last:
            bias = take(f"{layer.conv}.bias", _bias_target(wanted, layer))
        if f"{conv}.bias" in wanted:
            ours[f"{conv}.bias"] = (
                torch.zeros(wanted[f"{conv}.bias"].shape) if bias is None else bias
            )
        if layer.norm is None:
            continue
        if norm == "batch":
            for part in (*_SCALE, *_STATISTICS):
                ours[f"{block_norm}.{part}"] = take(f"{layer.norm}.{part}", f"{block_norm}.{part}")
            ours[f"{block_norm}.{_COUNT}"] = torch.zeros((), dtype=torch.long)
            if bias is not None:
                mean = ours[f"{block_norm}.running_mean"]
                ours[f"{block_norm}.running_mean"] = mean - bias
        used.update(f"{layer.norm}.{part}" for part in (*_STATISTICS, _COUNT))

    left_over = [name for name in weights if name not in used]
    if left_over:
        raise MisfitError(f"{_some(left_over)} has no place in it")
    generator.load_state_dict(ours, strict=True, assign=True)
    return generator.eval()


def shape_told(tensor: Tensor) -> str:
    """`64x3x4x4`, or `scalar`."""
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _is_conv(weights: Weights, name: str) -> bool:
    return f"{name}.weight" in weights and weights[f"{name}.weight"].ndim == 4


def _has_biases(weights: Weights, layout: Layout) -> bool:
    """Whether the convolutions but the last have biases.

    Raises:
        MisfitError: some have.
    """
    found = {f"{layer.conv}.bias" in weights for layer in layout.layers[:-1]}
    if len(found) == 2:
        raise MisfitError("some of its convolutions have biases and some have none")
    return True in found


def _bias_target(wanted: Weights, layer: Layer) -> str:
    """Ours of the shape of this layer's bias, which may be the norm's alone."""
    bias = f"{layer.block}.conv.bias"
    return bias if bias in wanted else f"{layer.block}.norm.bias"


def _unet_layout(weights: Weights) -> Layout:
    at = "model.model"
    down = [Layer(f"{at}.0", None, "down.0")]
    up: list[tuple[str, str | None]] = [(f"{at}.3", None)]
    at += ".1.model"
    while _is_conv(weights, f"{at}.3.model.1"):
        down.append(Layer(f"{at}.1", f"{at}.2", f"down.{len(down)}"))
        up.append((f"{at}.5", f"{at}.6"))
        at += ".3.model"
    down.append(Layer(f"{at}.1", None, f"down.{len(down)}"))
    up.append((f"{at}.3", f"{at}.4"))
    levels = len(down)
    layers = (
        *down,
        *(Layer(conv, norm, f"up.{block}") for block, (conv, norm) in enumerate(reversed(up))),
    )
    ngf, input_channels = _channels(weights, "model.model.0")
    _, output_channels = _channels(weights, "model.model.3")
    return Layout(
        name=f"unet_{2**levels}",
        family=f"U-Net of {JY}",
        layers=layers,
        ngf=ngf,
        input_channels=input_channels,
        output_channels=output_channels,
        dropout=None,
        size_multiple=2**levels,
        size_px=2**levels,
        build=lambda norm: UNet(levels, ngf, input_channels, output_channels, norm, 0.0),
    )


def _resnet_layout(weights: Weights) -> Layout:
    halvings = _halvings(weights)
    blocks = _blocks(weights, "model", 4 + 3 * halvings)
    head = f"model.{4 + 6 * halvings + blocks + 1}"
    layers = (*_features(weights, halvings, blocks, ""), Layer(head, None, "head"))
    ngf, input_channels = _channels(weights, "model.1")
    output_channels, _ = _channels(weights, head)
    # Two halvings are what the one always has; a bias in front of a BatchNorm, the other alone.
    is_hd = halvings != 2 or ("model.1.bias" in weights and "model.2.weight" in weights)
    return Layout(
        name="pix2pixhd_global" if is_hd else f"resnet_{blocks}blocks",
        family=f"global generator of pix2pixHD, {blocks} blocks, {halvings} halvings"
        if is_hd
        else f"ResNet of {JY}, {blocks} blocks",
        layers=layers,
        ngf=ngf,
        input_channels=input_channels,
        output_channels=output_channels,
        dropout=_dropout(weights, f"model.{4 + 3 * halvings}"),
        size_multiple=2**halvings,
        size_px=512 if is_hd else 256,
        build=lambda norm: ResNetGenerator(
            blocks, ngf, input_channels, output_channels, norm, 0.0, halvings
        ),
    )


def _local_layout(weights: Weights) -> Layout:
    halvings = _halvings(weights)
    blocks = _blocks(weights, "model", 4 + 3 * halvings)
    layers = [*_features(weights, halvings, blocks, "coarse.")]
    local_blocks = _blocks(weights, "model1_2", 0)
    enhancers = 0
    while _is_conv(weights, f"model{enhancers + 1}_1.1"):
        into, out = f"model{enhancers + 1}_1", f"model{enhancers + 1}_2"
        block = f"enhancers.{enhancers}"
        if _blocks(weights, out, 0) != local_blocks:
            raise MisfitError("its enhancers have different numbers of residual blocks")
        layers.append(Layer(f"{into}.1", f"{into}.2", f"{block}.stem"))
        layers.append(Layer(f"{into}.4", f"{into}.5", f"{block}.down"))
        layers += _residual(weights, out, 0, local_blocks, f"{block}.blocks")
        layers.append(Layer(f"{out}.{local_blocks}", f"{out}.{local_blocks + 1}", f"{block}.up"))
        enhancers += 1
    head = f"model{enhancers}_2.{local_blocks + 4}"
    layers.append(Layer(head, None, "head"))
    ngf, input_channels = _channels(weights, f"model{enhancers}_1.1")
    output_channels, _ = _channels(weights, head)
    return Layout(
        name="pix2pixhd_local",
        family=f"local enhancer of pix2pixHD, {enhancers} x {local_blocks} blocks on a global "
        f"generator of {blocks} blocks, {halvings} halvings",
        layers=tuple(layers),
        ngf=ngf,
        input_channels=input_channels,
        output_channels=output_channels,
        dropout=_dropout(weights, f"model.{4 + 3 * halvings}"),
        size_multiple=2 ** (halvings + enhancers),
        size_px=512,
        build=lambda norm: LocalEnhancer(
            enhancers,
            local_blocks,
            blocks,
            ngf,
            input_channels,
            output_channels,
            norm,
            0.0,
            halvings,
        ),
    )


def _features(weights: Weights, halvings: int, blocks: int, ours: str) -> Iterator[Layer]:
    """A ResNet's layers but its head; `ours` is put before the names of our blocks."""
    yield Layer("model.1", "model.2", f"{ours}stem")
    for number in range(halvings):
        at = 4 + 3 * number
        yield Layer(f"model.{at}", f"model.{at + 1}", f"{ours}down.{number}")
    start = 4 + 3 * halvings
    yield from _residual(weights, "model", start, blocks, f"{ours}blocks")
    for number in range(halvings):
        at = start + blocks + 3 * number
        yield Layer(f"model.{at}", f"model.{at + 1}", f"{ours}up.{number}")


def _residual(weights: Weights, prefix: str, start: int, count: int, ours: str) -> Iterator[Layer]:
    for number in range(count):
        at = f"{prefix}.{start + number}.conv_block"
        if _is_conv(weights, f"{at}.0"):
            raise MisfitError("its residual blocks are padded with zeros, not with reflections")
        second = 6 if _dropout(weights, f"{prefix}.{start + number}") else 5
        yield Layer(f"{at}.1", f"{at}.2", f"{ours}.{number}.first")
        yield Layer(f"{at}.{second}", f"{at}.{second + 1}", f"{ours}.{number}.second")


def _dropout(weights: Weights, block: str) -> bool:
    return not _is_conv(weights, f"{block}.conv_block.5")


def _halvings(weights: Weights) -> int:
    halvings = 0
    while _is_conv(weights, f"model.{4 + 3 * halvings}"):
        halvings += 1
    return halvings


def _blocks(weights: Weights, prefix: str, start: int) -> int:
    count = 0
    while any(name.startswith(f"{prefix}.{start + count}.conv_block.") for name in weights):
        count += 1
    return count


def _channels(weights: Weights, conv: str) -> tuple[int, int]:
    """The first two sizes of a convolution's weights: outputs and inputs, or the other way round
    where it is transposed.

    Raises:
        MisfitError: there is no such convolution.
    """
    if not _is_conv(weights, conv):
        raise MisfitError(f"{conv}.weight is missing")
    first, second = weights[f"{conv}.weight"].shape[:2]
    return int(first), int(second)
