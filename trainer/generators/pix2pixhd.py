"""The coarse-to-fine generator of Wang et al., "High-Resolution Image Synthesis and Semantic
Manipulation with Conditional GANs", CVPR 2018, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.generators.layers import initialise_weights
from trainer.generators.resnet import ConvBlock, ResidualBlock, ResNetFeatures, UpBlock


class Enhancer(nn.Module):
    """7x7 stem, a halving, the coarser features added, residual blocks, a doubling."""

    def __init__(
        self, blocks: int, ngf: int, input_channels: int, norm: str, dropout: float
    ) -> None:
        super().__init__()
        self.stem = ConvBlock(input_channels, ngf, 7, norm)
        self.down = ConvBlock(ngf, 2 * ngf, 3, norm, stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(2 * ngf, norm, dropout) for _ in range(blocks))
        self.up = UpBlock(2 * ngf, ngf, norm)

    def forward(self, x: Tensor, coarser: Tensor) -> Tensor:
        """A picture [N, C, H, W] and features [N, 2 ngf, H/2, W/2] to [N, ngf, H, W]."""
        x = self.down(self.stem(x)) + coarser
        for block in self.blocks:
            x = block(x)
        return self.up(x)  # type: ignore[no-any-return]


class LocalEnhancer(nn.Module):
    """pix2pixHD's local generator: a global one on a small picture, enhancers on larger ones.

    The global generator, without its head, sees the picture halved `enhancers` times; each
    enhancer works at twice the size of the one before, at half its width. Height and width of
    the input are multiples of 2 ** (downsamplings + enhancers), at least two of them a side.
    """

    def __init__(
        self,
        enhancers: int,
        enhancer_blocks: int,
        blocks: int,
        ngf: int,
        input_channels: int,
        output_channels: int,
        norm: str,
        dropout: float,
        downsamplings: int = 4,
    ) -> None:
        super().__init__()
        self.coarse = ResNetFeatures(
            blocks, ngf * 2**enhancers, input_channels, norm, dropout, downsamplings
        )
        self.enhancers = nn.ModuleList(
            Enhancer(enhancer_blocks, ngf * 2**level, input_channels, norm, dropout)
            for level in reversed(range(enhancers))
        )
        self.head = ConvBlock(ngf, output_channels, 7, "none", relu=False)
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        initialise_weights(self, norm, head=self.head.conv)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same."""
        pyramid = [x]
        for _ in self.enhancers:
            pyramid.append(self.halve(pyramid[-1]))
        features = self.coarse(pyramid.pop())
        for enhancer in self.enhancers:
            features = enhancer(pyramid.pop(), features)
        return torch.tanh(self.head(features))
