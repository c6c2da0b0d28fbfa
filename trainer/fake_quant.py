"""Training that sees the rounding of INT8: every convolution computes with what export stores.

Weights are rounded to seven bits, one scale for each output channel, and what goes into a
convolution to eight: the stricter of the two forms of `export/quantize.py`. A BatchNorm behind it,
whose running statistics are kept, multiplies each output channel by a constant; folding it in
scales the channel's weights and their scale alike, so that rounding before and after folding is
the same. Gradients go straight through the rounding, and are 0 where a value was cut off.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; the straight-through estimator of Bengio et al.,
"Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

LARGEST_WEIGHT = 63
"""Seven bits, as the CPU's form of INT8 has them."""
LARGEST_ACTIVATION = 255
FEWEST_PRODUCTS = 8
"""Of one output value: a convolution with fewer stays in FP32, as `export/quantize.py` says."""
SETTLING_PASSES = 100
"""Forward passes in training mode that may widen the range of a convolution's input."""
_TINY = torch.finfo(torch.float32).tiny


class FakeQuant(nn.Module):
    """INT8's rounding in the convolutions of one generator, and the ranges of what they take.

    The generator's own parameters and the names of its `state_dict` stay as they are: what is
    saved, averaged or exported is FP32. Its `state_dict` here has the ranges, with which a resumed
    run goes on. The range of an input is the least and the largest value of the first
    `SETTLING_PASSES` passes in training mode, 0 among them; then it is kept, as an artifact's is.
    """

    def __init__(self, generator: nn.Module) -> None:
        """Find the convolutions of `generator`; nothing is rounded before `attach`."""
        super().__init__()
        self._convolutions = {
            name: module
            for name, module in generator.named_modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            and _products(module) >= FEWEST_PRODUCTS
        }
        self.inputs = nn.ModuleDict({_key(name): InputRange() for name in self._convolutions})
        """By name of the convolution, with `/` for `.`, which torch keeps for itself."""

    def attach(self) -> None:
        """Let the convolutions round from now on."""
        for name, module in self._convolutions.items():
            seen = self.inputs[_key(name)]
            assert isinstance(seen, InputRange)
            if isinstance(module, nn.ConvTranspose2d):
                module.forward = _transposed(module, seen)  # type: ignore[method-assign]
            else:
                # What is called in `forward` behind any resize: its input is the convolution's.
                module._conv_forward = _plain(module, seen)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Let them compute in FP32 again, with the weights as trained."""
        for module in self._convolutions.values():
            for name in ("forward", "_conv_forward"):
                vars(module).pop(name, None)

    @torch.no_grad()
    def unite(self, world: int) -> None:
        """Give each input the widest range that one of `world` processes has seen."""
        if world == 1:
            return
        ranges = [seen for seen in self.inputs.children() if isinstance(seen, InputRange)]
        ends = torch.stack([torch.stack([-seen.low, seen.high]) for seen in ranges])
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        for seen, (below, above) in zip(ranges, ends, strict=True):
            seen.low.copy_(-below)
            seen.high.copy_(above)


class InputRange(nn.Module):
    """The range of what goes into one convolution, and its rounding to eight bits."""

    low: Tensor
    high: Tensor
    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, learns: bool) -> Tensor:
        """`x` in steps of its range / 255, 0 being one of them; beyond the range it is cut off.

        Args:
            x: of any shape.
            learns: whether `x` may widen the range, while that is not settled.
        """
        if learns:
            self._look_at(x.detach())
        scale = ((self.high - self.low) / LARGEST_ACTIVATION).clamp_min(_TINY)
        zero = (-self.low / scale).round().to(torch.int32)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(
            x.float(), scale, zero, 0, LARGEST_ACTIVATION
        )
        return rounded

    @torch.no_grad()
    def _look_at(self, x: Tensor) -> None:
        # Where it is decided without asking the device, no step waits for it.
        unsettled = self.passes < SETTLING_PASSES
        low, high = torch.aminmax(x.float())
        self.low.copy_(torch.where(unsettled, torch.minimum(self.low, low), self.low))
        self.high.copy_(torch.where(unsettled, torch.maximum(self.high, high), self.high))
        self.passes += unsettled


def _products(convolution: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """Of one output value; for a transposed one, of all phases of its stride."""
    inputs = convolution.in_channels // convolution.groups
    return inputs * math.prod(convolution.kernel_size)


def rounded_weights(convolution: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The weights as INT8 has them, of the same shape, with a gradient to the FP32 ones.

    A transposed convolution is exported as a plain one with an output channel for each phase of
    its stride: the taps of each phase have a scale of their own.
    """
    weight = convolution.weight.float()
    if not isinstance(convolution, nn.ConvTranspose2d):
        return _in_levels(weight)
    rounded = torch.zeros_like(weight)
    for rows in range(convolution.stride[0]):
        for columns in range(convolution.stride[1]):
            taps = (
                ...,
                slice(rows, None, convolution.stride[0]),
                slice(columns, None, convolution.stride[1]),
            )
            phase = weight[taps].transpose(0, 1)
            rounded[taps] = _in_levels(phase).transpose(0, 1)
    return rounded


def _in_levels(weight: Tensor) -> Tensor:
    """One scale for each entry of dimension 0, symmetric."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = (largest / LARGEST_WEIGHT).clamp_min(_TINY)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT
    )


def _plain(convolution: nn.Conv2d, seen: InputRange) -> Callable[..., Tensor]:
    def forward(x: Tensor, _weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.Conv2d._conv_forward(  # type: ignore[no-any-return]
            convolution, seen(x, convolution.training), rounded_weights(convolution), bias
        )

    return forward


def _transposed(convolution: nn.ConvTranspose2d, seen: InputRange) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        return nn.functional.conv_transpose2d(
            seen(x, convolution.training),
            rounded_weights(convolution),
            convolution.bias,
            convolution.stride,  # type: ignore[arg-type]
            convolution.padding,  # type: ignore[arg-type]
            convolution.output_padding,  # type: ignore[arg-type]
            convolution.groups,
            convolution.dilation,  # type: ignore[arg-type]
        )

    return forward


def _key(name: str) -> str:
    return name.replace(".", "/")
