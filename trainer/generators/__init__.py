"""The generators, one file a family, and the function that builds one from its config."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from trainer.config import HALVINGS, RESNET_BLOCKS, UNET_LEVELS, GeneratorConfig
from trainer.generators import edge_unet, pyramid, relight
from trainer.generators.dense_unet import DenseUNet
from trainer.generators.exposure import NormalisedInput
from trainer.generators.mobilenet_unet import MobileNetUNet
from trainer.generators.resnet import ResNetGenerator
from trainer.generators.retouch import RetouchingGenerator
from trainer.generators.unet import UNet


def build_generator(config: GeneratorConfig) -> nn.Module:
    """A generator with fresh weights, N(0, 0.02); without norms those of He et al. 2015.

    Its `forward` maps float [N, C, H, W], RGB, -1 to 1, to the same; H and W are multiples of
    `config.size_multiple`, of a ResNet at least two of them.
    """
    retouching = _retouching(config)
    if retouching is not None:
        retouching.reduction = config.reduction
        retouching.input_norm, retouching.frame_norm = config.input_norm, config.frame_norm
        return retouching
    if config.input_norm:
        plain = build_generator(replace(config, input_norm=False))
        return NormalisedInput(plain)
    sizes = (config.ngf, config.input_channels, config.output_channels)
    layers = (config.norm, config.dropout)
    name, upsample = config.name, config.upsample
    if name in UNET_LEVELS:
        skips = name != "encoder_decoder"
        return UNet(UNET_LEVELS[name], *sizes, *layers, upsample, skips)
    if name in RESNET_BLOCKS:
        return ResNetGenerator(RESNET_BLOCKS[name], *sizes, *layers, HALVINGS[name], upsample)
    if name == "dense_unet":
        return DenseUNet(HALVINGS[name], *sizes, *layers, upsample)
    return MobileNetUNet(*sizes, *layers, upsample)


def _retouching(config: GeneratorConfig) -> RetouchingGenerator | None:
    """A generator that keeps the frame; it normalises what its network looks at by itself."""
    channels = config.input_channels
    layers = (config.norm, config.dropout)
    if config.name in edge_unet.SIZES:
        return edge_unet.EdgeUNet(edge_unet.SIZES[config.name], config.ngf, channels, *layers)
    if config.name in relight.SIZES:
        return relight.Relight(relight.SIZES[config.name], config.ngf, *layers)
    if config.name == "pyramid":
        return pyramid.Pyramid(config.ngf, channels, *layers)
    return None
