"""What a generator's decoder knows of a picture: which layers tell it, and how it is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import GeneratorConfig
from trainer.errors import ConfigError
from trainer.generators import build_generator
from trainer.generators.dense_unet import DenseUNet
from trainer.generators.edge_unet import EdgeTrunk
from trainer.generators.exposure import NormalisedInput
from trainer.generators.mobilenet_unet import MobileNetUNet
from trainer.generators.resnet import ResNetFeatures
from trainer.generators.unet import UNet

SCALES = (16, 8, 4, 2)
"""Features are compared at these parts of the picture's size. Full size is left out: it costs the
most, and there the picture itself is compared."""


@dataclass(frozen=True)
class FeatureLayer:
    """One layer of a generator's decoder."""

    block: int
    """Its place in `decoder_blocks`."""
    scale: int
    """The picture's side divided by that of its features."""
    channels: int


def decoder_blocks(generator: nn.Module) -> list[nn.Module]:
    """The layers after which the decoder has one more size of the picture, coarse to fine.

    None of them gives pixels, not even pixels that are still folded into channels.

    Raises:
        ConfigError: a family that this function does not know.
    """
    if isinstance(generator, NormalisedInput):
        generator = generator.generator
    if isinstance(generator, UNet):
        return list(generator.up[:-1])
    if isinstance(generator, DenseUNet):
        # The last node of each column is the one on the way up: no other of its size comes later.
        return [list(column.children())[-1] for column in generator.joints]
    if isinstance(generator, MobileNetUNet):
        return list(generator.up)
    if isinstance(generator, ResNetFeatures):
        return [generator.blocks[-1], *generator.up]
    trunk = getattr(generator, "trunk", None)
    if isinstance(trunk, EdgeTrunk):
        return list(trunk.up)
    raise ConfigError(
        f"distillation of features with a {type(generator).__name__}",
        "a generator whose decoder's layers are known",
        "use --lambda-distill-feat 0",
    )


def feature_layers(config: GeneratorConfig, side_px: int) -> dict[int, FeatureLayer]:
    """Scale to the layer of a generator that has features there: those of `SCALES` that it has.

    Found with torch's meta device, which knows the shapes and computes nothing.

    Args:
        config: which generator.
        side_px: of the square that it is trained at.
    """
    with torch.device("meta"):
        generator = build_generator(config).eval()
        picture = torch.empty(1, config.input_channels, side_px, side_px)
    with torch.no_grad():
        _, features = Tapped(generator, decoder_blocks(generator))(picture)
    layers = {
        side_px // taken.shape[-1]: FeatureLayer(block, side_px // taken.shape[-1], taken.shape[1])
        for block, taken in enumerate(features)
    }
    return {scale: layers[scale] for scale in SCALES if scale in layers}


class Tapped(nn.Module):
    """A network whose forward pass also returns what some of its layers gave.

    The features are outputs like the picture, so that `torch.compile` and DistributedDataParallel
    see them. What was taken is let go at once, so that no graph outlives its step.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[nn.Module],
        adapters: nn.ModuleList | None = None,
    ) -> None:
        """`layers` are parts of `network`, in the order in which they run.

        Each feature goes through the adapter of its place, where there are `adapters`.
        """
        super().__init__()
        self.network = network
        self.adapters = adapters
        self._taken: list[Tensor] = []
        for layer in layers:
            layer.register_forward_hook(self._take)

    def _take(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._taken.append(output)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """float [N, C, H, W] to the picture and, for each layer, float [N, c, h, w]."""
        self._taken.clear()
        drawn: Tensor = self.network(x)
        features = list(self._taken)
        self._taken.clear()
        if self.adapters is not None:
            features = [
                adapter(taken) for adapter, taken in zip(self.adapters, features, strict=True)
            ]
        return drawn, features
