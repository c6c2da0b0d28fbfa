"""The U-Net of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
CVPR 2017, section 6.1.1: an encoder-decoder whose layers of equal size are joined by skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.generators.layers import doubling, initialise_weights, norm_layer

DROPOUT_BLOCKS = 3


class DownBlock(nn.Module):
    """Halve the picture: LeakyReLU(0.2), 4x4 convolution with stride 2, norm."""

    def __init__(self, inputs: int, outputs: int, norm: str, activate: bool) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2) if activate else nn.Identity()
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm != "batch")
        self.norm = norm_layer(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.activation(x)))  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """Double the picture: ReLU, 4x4 transposed convolution with stride 2 (or `upsample`), norm,
    dropout."""

    def __init__(
        self, inputs: int, outputs: int, norm: str, dropout: float, upsample: str
    ) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.conv = doubling(upsample, inputs, outputs, 4, norm)
        self.norm = norm_layer(norm, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(self.activation(x))))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """`levels` halvings, as many doublings, and a skip between layers of equal size.

    Without `skips` it is the encoder-decoder that section 4.2 compares the U-Net with.

    The first and the deepest encoder layer and the output layer have no norm: the first because
    the paper says so, the deepest because a norm over 1x1 pixels would leave nothing. Dropout,
    the noise z, is in the first three decoder blocks.
    """

    def __init__(
        self,
        levels: int,
        ngf: int,
        input_channels: int,
        output_channels: int,
        norm: str,
        dropout: float,
        upsample: str = "transposed",
        skips: bool = True,
    ) -> None:
        super().__init__()
        self.skips = skips
        widths = unet_widths(levels, ngf)
        self.down = down_path(widths, input_channels, norm)
        self.up = nn.ModuleList()
        inputs = widths[-1]
        for block, outputs in enumerate(reversed(widths[:-1])):
            noise = dropout if block < DROPOUT_BLOCKS else 0.0
            self.up.append(UpBlock(inputs, outputs, norm, noise, upsample))
            inputs = 2 * outputs if skips else outputs
        last = UpBlock(inputs, output_channels, "none", 0.0, upsample)
        self.up.append(last)
        initialise_weights(self, norm, head=last.conv)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same; H and W are multiples of 2 ** levels."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(x)
            if self.skips and skips:
                x = torch.cat([skips.pop(), x], dim=1)
        return torch.tanh(x)


def unet_widths(levels: int, ngf: int) -> list[int]:
    """Channels of each encoder layer: doubled up to eight times `ngf`."""
    return [ngf * min(2**level, 8) for level in range(levels)]


def down_path(widths: list[int], input_channels: int, norm: str) -> nn.ModuleList:
    """An encoder of 4x4 convolutions with stride 2; its first and last layer have no norm."""
    blocks = nn.ModuleList()
    inputs = input_channels
    for level, width in enumerate(widths):
        has_norm = 0 < level < len(widths) - 1
        blocks.append(DownBlock(inputs, width, norm if has_norm else "none", activate=level > 0))
        inputs = width
    return blocks
