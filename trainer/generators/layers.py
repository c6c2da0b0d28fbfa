"""What several networks share: norms, the ways to double a picture, and initial weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

STD = 0.02
"""Standard deviation of initial weights. Source: Isola et al. 2017, section 6.2."""


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that can train on a single value of each channel.

    One value has no spread. Then the running statistics stand in; torch refuses it instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm that lets a picture of one pixel pass, of which it would leave nothing."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] == 1:
            return x
        return super().forward(x)


def norm_layer(norm: str, channels: int) -> nn.Module:
    """`batch`, `instance` (no learned scale, as in pytorch-CycleGAN-and-pix2pix) or `none`."""
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "instance":
        return InstanceNorm(channels)
    return nn.Identity()


class ResizeConv2d(nn.Conv2d):
    """Double the picture: repeat each pixel 2x2, then a 3x3 convolution with stride 1.

    No output pixel gets more kernel taps than its neighbour, so there is no checkerboard to
    unlearn. A 3x3 kernel is the smallest that sees beyond its own input pixel on every side; at
    the doubled size it costs 9 multiply-accumulates an output pixel and pair of channels, where
    the transposed convolutions cost 4 (4x4) and 2.25 (3x3).

    Source: Odena et al. 2016, "Deconvolution and Checkerboard Artifacts".
    """

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, inputs, H, W] to [N, outputs, 2H, 2W]."""
        return super().forward(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class SubpixelConv2d(nn.Conv2d):
    """Double the picture: a 3x3 convolution to four times the channels, then depth-to-space.

    The four phases of an output channel are four neighbouring channels of the convolution. Each
    sees 3x3 input pixels, 6x6 of the output's; the multiply-accumulates are those of
    `ResizeConv2d`, all done at the small size.

    Source: Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an
    Efficient Sub-Pixel Convolutional Neural Network".
    """

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, 4 * outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, inputs, H, W] to [N, outputs, 2H, 2W]."""
        return functional.pixel_shuffle(super().forward(x), 2)


@torch.no_grad()
def make_phases_equal(convolution: nn.Conv2d, phases: int) -> None:
    """Copy the first phase's kernels to the others: a nearest resize, with no checkerboard.

    Args:
        convolution: in front of a depth-to-space.
        phases: neighbouring channels that become the pixels of one block.

    Source: Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution" (ICNR).
    """
    weight = convolution.weight
    weight.copy_(weight[::phases].repeat_interleave(phases, dim=0))


def doubling(kind: str, inputs: int, outputs: int, kernel: int, norm: str) -> nn.Module:
    """A convolution that doubles height and width, with a bias where no BatchNorm follows.

    Args:
        kind: one of `trainer.config.UPSAMPLINGS`.
        inputs: channels.
        outputs: channels.
        kernel: of the transposed convolution: 3 or 4; the other kinds have 3x3.
        norm: what follows, as `norm_layer` takes it.
    """
    bias = norm != "batch"
    if kind == "resize":
        return ResizeConv2d(inputs, outputs, bias)
    if kind == "subpixel":
        return SubpixelConv2d(inputs, outputs, bias)
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=1, output_padding=kernel % 2, bias=bias
    )


def initialise_weights(
    network: nn.Module, norm: str = "batch", head: nn.Module | None = None
) -> None:
    """Draw every weight from N(0, 0.02), every norm's scale from N(1, 0.02); biases are 0.

    Without norms, N(0, 0.02) lets values and gradients fade from layer to layer: in a fresh U-Net
    256 of ngf 64, the gradients of the innermost weights are 1e-9, which Adam's epsilon of 1e-8
    swallows; with BatchNorm they are 1e-6. Then weights are drawn so that the spread of the
    values stays the same through a convolution and a ReLU: N(0, sqrt(2 / inputs of one output)).
    The head, which gives the picture, keeps N(0, 0.02), so that tanh starts unsaturated.

    Source: Isola et al. 2017, section 6.2; He et al. 2015, "Delving Deep into Rectifiers".
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            std = STD if norm != "none" or module is head else math.sqrt(2 / fan_in(module))
            nn.init.normal_(module.weight, 0.0, std)
            if isinstance(module, SubpixelConv2d):
                make_phases_equal(module, 4)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, STD)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def scale_weights(convolution: nn.Module, factor: float) -> None:
    """Multiply fresh weights, so that values keep their spread where no ReLU or a sum stands."""
    if isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d)):
        convolution.weight.mul_(factor)


def fan_in(convolution: nn.Conv2d | nn.ConvTranspose2d) -> float:
    """Input values that one output value is the sum of, on average."""
    kernel = float(math.prod(convolution.kernel_size))
    if isinstance(convolution, nn.ConvTranspose2d):
        kernel /= math.prod(convolution.stride)
    return kernel * convolution.in_channels / convolution.groups
