"""The PatchGAN of Isola et al. 2017, section 3.2.2: each of its outputs judges one patch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.generators.layers import initialise_weights, norm_layer


class PatchDiscriminator(nn.Module):
    """C64-C128-C256-C512 and one map of logits: a receptive field of 70x70 pixels.

    It sees the condition and the picture together, so that it judges whether the picture belongs
    to the condition.
    """

    receptive_field_px = 70

    def __init__(self, condition_channels: int, image_channels: int, ndf: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = condition_channels + image_channels
        for number, (outputs, stride) in enumerate(
            ((ndf, 2), (ndf * 2, 2), (ndf * 4, 2), (ndf * 8, 1))
        ):
            has_norm = number > 0
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride, padding=1, bias=not has_norm),
                norm_layer("batch" if has_norm else "none", outputs),
                nn.LeakyReLU(0.2),
            ]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, padding=1))
        initialise_weights(self)

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """float [N, C, H, W] each, -1 to 1; logits [N, 1, h, w], one for each patch."""
        return self.layers(torch.cat([condition, image], dim=1))  # type: ignore[no-any-return]
