"""U-Nets for a frame in real time: dense convolutions, all at a quarter of the size and below.

What a small device is slow at is left out: wide layers at full size (memory), depthwise
convolutions (little arithmetic for each byte), concatenations (copies) and transposed convolutions
(no INT8 kernels). Sources of the parts: pixel-unshuffle in front, sub-pixel convolutions behind,
as in Shi et al., CVPR 2016; residual blocks of He et al., CVPR 2016; skips that are sums, as in
Chaurasia and Culurciello, "LinkNet", VCIP 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.generators.layers import initialise_weights, make_phases_equal, norm_layer
from trainer.generators.retouch import Layer, Retouch, RetouchingGenerator

FULL_WIDTH_NGF = 64
"""`ngf` at which a size has the widths of `SIZES`."""
STEM = 4
"""Blocks of so many pixels squared become the channels of one."""


@dataclass(frozen=True)
class EdgeSize:
    """How wide and deep one of them is."""

    widths: tuple[int, int, int, int]
    """Channels at 1/4, 1/8, 1/16 and 1/32 of the picture's size."""
    blocks: tuple[int, int, int, int]
    """Residual blocks at each of these sizes on the way down."""


SIZES = {
    "edge_unet_s": EdgeSize((32, 48, 64, 96), (0, 1, 1, 1)),
    "edge_unet_m": EdgeSize((48, 96, 160, 256), (0, 1, 2, 2)),
    "edge_unet_l": EdgeSize((64, 128, 224, 320), (1, 2, 3, 3)),
}


class ConvBlock(nn.Module):
    """3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm != "batch")
        self.norm = norm_layer(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to what came in."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, norm)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=norm != "batch")
        self.norm = norm_layer(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.conv(self.first(x))))


class UpBlock(nn.Module):
    """1x1 convolution and depth-to-space to twice the size, the skip added, then a ConvBlock."""

    def __init__(self, inputs: int, outputs: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1, bias=norm != "batch")
        self.norm = norm_layer(norm, 4 * outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.joined = ConvBlock(outputs, outputs, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """float [N, inputs, H, W] and [N, outputs, 2H, 2W] to the latter's shape."""
        pixels = functional.pixel_shuffle(self.norm(self.conv(x)), 2)
        return self.joined(self.dropout(functional.relu(pixels + skip)))  # type: ignore[no-any-return]


class EdgeTrunk(nn.Module):
    """Everything but the heads. Dropout, the noise z, is in the first block of the way up."""

    def __init__(self, size: EdgeSize, ngf: int, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        widths = [scaled(width, ngf) for width in size.widths]
        self.fine_channels = widths[0]
        self.coarse_channels = widths[2]
        self.stem = ConvBlock(channels * STEM**2, widths[0], norm)
        self.down = nn.ModuleList()
        for level, (width, blocks) in enumerate(zip(widths, size.blocks, strict=True)):
            inputs = widths[max(level - 1, 0)]
            halve = [ConvBlock(inputs, width, norm, stride=2)] if level else []
            residual = [ResidualBlock(width, norm) for _ in range(blocks)]
            self.down.append(nn.Sequential(*halve, *residual))
        self.up = nn.ModuleList(
            UpBlock(inputs, outputs, norm, dropout if number == 0 else 0.0)
            for number, (inputs, outputs) in enumerate(
                zip(widths[:0:-1], widths[-2::-1], strict=True)
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a picture, on the way up.

        Args:
            x: float [N, C, H, W], -1 to 1; H and W are multiples of 32.

        Returns:
            float [N, coarse_channels, H/16, W/16] and [N, fine_channels, H/4, W/4].
        """
        x = self.stem(functional.pixel_unshuffle(x, STEM))
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        rising: list[Tensor] = []
        for block in self.up:
            x = block(x, skips.pop())
            rising.append(x)
        return rising[0], rising[-1]

    def make_doublings_smooth(self) -> None:
        """Let every doubling repeat pixels at first, so that there is no pattern to unlearn."""
        for block in self.up:
            assert isinstance(block, UpBlock)
            make_phases_equal(block.conv, 4)


class EdgeUNet(RetouchingGenerator):
    """`EdgeTrunk`, a head that draws every pixel, and a share of the frame itself.

    The share is found for every 4x4 pixels and is the same for all colours: what the picture keeps
    of its input passes beside the network. Where nothing is kept, it is 0.
    """

    def __init__(self, size: EdgeSize, ngf: int, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.trunk = EdgeTrunk(size, ngf, channels, norm, dropout)
        self.head = nn.Conv2d(self.trunk.fine_channels, channels * STEM**2, 3, padding=1)
        self.share = nn.Conv2d(self.trunk.fine_channels, 1, 3, padding=1)
        initialise_weights(self, "none", head=self.head)
        self.trunk.make_doublings_smooth()
        make_phases_equal(self.head, STEM**2)

    def found(self, seen: Tensor, copy: Tensor) -> Retouch:
        _, fine = self.trunk(seen)
        share = torch.sigmoid(self.share(fine))
        offset = functional.pixel_shuffle(self.head(fine), STEM)
        return Retouch(Layer(share, share.new_ones(copy.shape[1], 1)), (Layer(offset),))


def scaled(channels: int, ngf: int) -> int:
    """`channels` at another width: a multiple of 8, as vector units like it."""
    return max(8, round(channels * ngf / FULL_WIDTH_NGF / 8) * 8)
