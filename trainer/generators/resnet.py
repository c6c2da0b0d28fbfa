"""The residual generator of Johnson et al., "Perceptual Losses for Real-Time Style Transfer and
Super-Resolution", ECCV 2016, as pytorch-CycleGAN-and-pix2pix and pix2pixHD build it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.generators.layers import (
    doubling,
    initialise_weights,
    norm_layer,
    scale_weights,
)


class ConvBlock(nn.Module):
    """Convolution over a picture mirrored at its border, norm, ReLU.

    `stride` 2 halves the picture, with zeros around it, as both reference projects do.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            bias=norm != "batch",
            padding_mode="reflect" if stride == 1 else "zeros",
        )
        self.norm = norm_layer(norm, outputs)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """Double the picture: transposed convolution with stride 2 (or `upsample`), norm, dropout,
    ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: str,
        upsample: str = "transposed",
        kernel: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = doubling(upsample, inputs, outputs, kernel, norm)
        self.norm = norm_layer(norm, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dropout(self.norm(self.conv(x))))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), both convolutions 3x3.

    The dropout is the noise z.
    """

    def __init__(self, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.second = ConvBlock(channels, channels, 3, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.dropout(self.first(x)))  # type: ignore[no-any-return]


class ResNetFeatures(nn.Module):
    """All of a `ResNetGenerator` but its head: 7x7 stem, halvings, residual blocks, doublings.

    What is built on it draws the initial weights.
    """

    def __init__(
        self,
        blocks: int,
        ngf: int,
        input_channels: int,
        norm: str,
        dropout: float,
        downsamplings: int,
        upsample: str = "transposed",
    ) -> None:
        super().__init__()
        widths = [ngf * 2**level for level in range(downsamplings + 1)]
        self.stem = ConvBlock(input_channels, ngf, 7, norm)
        self.down = nn.ModuleList(
            ConvBlock(wide, wider, 3, norm, stride=2) for wide, wider in pairwise(widths)
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(widths[-1], norm, dropout) for _ in range(blocks)
        )
        self.up = nn.ModuleList(
            UpBlock(wider, wide, norm, upsample)
            for wide, wider in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to float [N, ngf, H, W]."""
        x = self.stem(x)
        for block in (*self.down, *self.blocks, *self.up):
            x = block(x)
        return x


class ResNetGenerator(ResNetFeatures):
    """7x7 stem, `downsamplings` halvings, residual blocks, as many doublings, 7x7 head, tanh.

    pytorch-CycleGAN-and-pix2pix: two halvings, 6 or 9 blocks. pix2pixHD's global generator:
    four halvings, 9 blocks. Height and width of the input are multiples of 2 ** downsamplings,
    and so large that its smallest form can be mirrored: at least 2 pixels a side there.
    """

    def __init__(
        self,
        blocks: int,
        ngf: int,
        input_channels: int,
        output_channels: int,
        norm: str,
        dropout: float,
        downsamplings: int = 2,
        upsample: str = "transposed",
    ) -> None:
        super().__init__(blocks, ngf, input_channels, norm, dropout, downsamplings, upsample)
        self.head = ConvBlock(ngf, output_channels, 7, "none", relu=False)
        initialise_weights(self, norm, head=self.head.conv)
        if norm == "none":
            tame_residual_sums(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same."""
        return torch.tanh(self.head(super().forward(x)))


def tame_residual_sums(blocks: nn.ModuleList) -> None:
    """Keep the sum over fresh residual blocks without norms as small as one of them.

    The last convolution of each shrinks by sqrt(blocks): else every sum adds the spread of what
    it joins, and nine of them saturate tanh. Source: Zhang et al. 2019, "Fixup Initialization",
    section 2, on why; the factor is that of a sum of independent values.
    """
    for block in blocks:
        if isinstance(block, ResidualBlock):
            scale_weights(block.second.conv, len(blocks) ** -0.5)
