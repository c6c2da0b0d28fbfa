"""The generators, one file a family, and the function that builds one from its config."""

from __future__ import annotations

from torch import nn

from trainer.config import RESNET_BLOCKS, RESNET_DOWNSAMPLINGS, UNET_LEVELS, GeneratorConfig
from trainer.generators.resnet import ResNetGenerator
from trainer.generators.unet import UNet


def build_generator(config: GeneratorConfig) -> nn.Module:
    """A generator with fresh weights, N(0, 0.02).

    Its `forward` maps float [N, C, H, W], RGB, -1 to 1, to the same; H and W are multiples of
    `config.size_multiple`.
    """
    if config.name in RESNET_BLOCKS:
        return ResNetGenerator(
            blocks=RESNET_BLOCKS[config.name],
            ngf=config.ngf,
            input_channels=config.input_channels,
            output_channels=config.output_channels,
            norm=config.norm,
            dropout=config.dropout,
            downsamplings=RESNET_DOWNSAMPLINGS,
        )
    return UNet(
        levels=UNET_LEVELS[config.name],
        ngf=config.ngf,
        input_channels=config.input_channels,
        output_channels=config.output_channels,
        norm=config.norm,
        dropout=config.dropout,
    )
