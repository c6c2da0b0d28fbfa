"""A Laplacian pyramid whose low band is drawn anew and whose high band is modulated.

After Liang et al., "High-Resolution Photorealistic Image Translation in Real-Time: A Laplacian
Pyramid Translation Network" (LPTN), CVPR 2021, with one low and one high band.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.generators.edge_unet import STEM, EdgeSize, EdgeTrunk
from trainer.generators.layers import initialise_weights
from trainer.generators.retouch import Layer, Retouch, RetouchingGenerator

SIZE = EdgeSize((48, 96, 160, 256), (0, 1, 2, 2))


class Pyramid(RetouchingGenerator):
    """The low band, a quarter of the size, comes from the trunk; so does the high band's gain."""

    def __init__(self, ngf: int, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.trunk = EdgeTrunk(SIZE, ngf, channels, norm, dropout)
        self.low = nn.Conv2d(self.trunk.fine_channels, channels, 3, padding=1)
        self.gain = nn.Conv2d(self.trunk.fine_channels, channels, 3, padding=1)
        initialise_weights(self, "none")
        self.trunk.make_doublings_smooth()

    def found(self, seen: Tensor, copy: Tensor) -> Retouch:
        _, features = self.trunk(seen)
        low = torch.tanh(self.low(features))
        gain = functional.relu(self.gain(features))
        return Retouch(Layer(gain), (Layer(low - gain * functional.avg_pool2d(copy, STEM)),))
