"""A U-Net for small devices: the encoder of Sandler et al., "MobileNetV2: Inverted Residuals and
Linear Bottlenecks", CVPR 2018, table 2, under a decoder with pix2pix's doublings and skips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.generators.layers import (
    doubling,
    initialise_weights,
    norm_layer,
    scale_weights,
)
from trainer.generators.resnet import UpBlock
from trainer.generators.unet import DROPOUT_BLOCKS

FULL_WIDTH_NGF = 64
"""`ngf` at which the encoder has the paper's widths."""
STEM_CHANNELS = 32


@dataclass(frozen=True)
class Stage:
    """One line of the paper's table 2."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class ConvBlock(nn.Module):
    """Convolution over a picture with zeros around it, norm and, unless `linear`, ReLU6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: str,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=norm != "batch"
        )
        self.norm = norm_layer(norm, outputs)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, 3x3 depthwise, 1x1 back, the last linear.

    The input is added where the output has its shape.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, norm: str) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvBlock(inputs, wide, 1, norm) if expansion > 1 else None
        self.depthwise = ConvBlock(wide, wide, 3, norm, stride, groups=wide)
        self.project = ConvBlock(wide, outputs, 1, norm, linear=True)
        self.is_sum = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """float [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        wide = x if self.expand is None else self.expand(x)
        drawn = self.project(self.depthwise(wide))
        return x + drawn if self.is_sum else drawn  # type: ignore[no-any-return]


class MobileNetEncoder(nn.Module):
    """MobileNetV2 up to its last bottleneck: no 1x1 convolution to 1280, no classifier.

    At ngf 64 the paper's width 1.0; at others, widths in proportion, rounded to eights as in the
    paper's own code. Weights are fresh: nothing is downloaded.
    """

    def __init__(self, ngf: int, input_channels: int, norm: str) -> None:
        super().__init__()
        inputs = channels_at(ngf, STEM_CHANNELS)
        self.stem = ConvBlock(input_channels, inputs, 3, norm, stride=2)
        self.stages = nn.ModuleList()
        self.widths: list[int] = []
        """Channels at each size, the halved picture first."""
        for stage in STAGES:
            outputs = channels_at(ngf, stage.channels)
            blocks = nn.ModuleList()
            for number in range(stage.repeats):
                stride = stage.stride if number == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, stage.expansion, stride, norm))
                inputs = outputs
            self.stages.append(blocks)
            if stage.stride == 2 or not self.widths:
                self.widths.append(outputs)
            self.widths[-1] = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """float [N, C, H, W] to five of [N, widths[k], H / 2 ** (k + 1), W / 2 ** (k + 1)].

        Each is the last bottleneck of its size, which is linear.
        """
        x = self.stem(x)
        sizes: list[Tensor] = []
        for stage, blocks in zip(STAGES, self.stages, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            if stage.stride == 2 or not sizes:
                sizes.append(x)
            sizes[-1] = x
        return sizes


class MobileNetUNet(nn.Module):
    """MobileNetV2's encoder, five doublings, and a skip between layers of equal size.

    A doubling is pix2pix's 4x4 transposed convolution (or `upsample`) and norm, with the ReLU
    behind it: bottlenecks are linear because a ReLU on so few channels loses what they hold (the
    paper's section 3.2), so the skips reach the decoder's convolutions as they are. The decoder
    has 4, 2, 1 and 1/2 times `ngf` channels. Dropout, the noise z, is in the first three decoder
    blocks, as in the U-Net. Height and width of the input are multiples of 32.
    """

    def __init__(
        self,
        ngf: int,
        input_channels: int,
        output_channels: int,
        norm: str,
        dropout: float,
        upsample: str = "transposed",
    ) -> None:
        super().__init__()
        self.encoder = MobileNetEncoder(ngf, input_channels, norm)
        skips = self.encoder.widths[-2::-1]
        widths = [4 * ngf, 2 * ngf, ngf, max(ngf // 2, 1)]
        self.up = nn.ModuleList()
        inputs = self.encoder.widths[-1]
        for block, (outputs, skip) in enumerate(zip(widths, skips, strict=True)):
            noise = dropout if block < DROPOUT_BLOCKS else 0.0
            self.up.append(UpBlock(inputs, outputs, norm, upsample, kernel=4, dropout=noise))
            inputs = outputs + skip
        self.head = doubling(upsample, inputs, output_channels, 4, "none")
        initialise_weights(self, norm, head=self.head)
        if norm == "none":
            keep_spread_without_norms(self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same."""
        *skips, x = self.encoder(x)
        for block in self.up:
            x = torch.cat([skips.pop(), block(x)], dim=1)
        return torch.tanh(self.head(x))


def channels_at(ngf: int, channels: int) -> int:
    """The paper's `channels` at another width: a multiple of 8, no more than a tenth too few."""
    wanted = channels * ngf / FULL_WIDTH_NGF
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def keep_spread_without_norms(encoder: MobileNetEncoder) -> None:
    """Adapt weights drawn for ReLUs: what comes into a bottleneck is linear, and ten are sums."""
    blocks = [m for m in encoder.modules() if isinstance(m, InvertedResidual)]
    sums = sum(block.is_sum for block in blocks)
    for block in blocks:
        if block.expand is not None:
            scale_weights(block.expand.conv, 0.5**0.5)
        if block.is_sum:
            scale_weights(block.project.conv, sums**-0.5)
