"""A generator that does not draw a scene but lights it: day to night on a live camera."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.generators.edge_unet import STEM, EdgeSize, EdgeTrunk
from trainer.generators.layers import initialise_weights, make_phases_equal, scale_weights
from trainer.generators.retouch import Layer, Retouch, RetouchingGenerator

SIZES = {
    "relight": EdgeSize((48, 96, 160, 256), (0, 1, 2, 2)),
    "relight_s": EdgeSize((32, 48, 64, 96), (0, 1, 1, 1)),
}
COLOURS = 3
LAMP_COLOURS = ((1.0, 0.7, 0.4), (0.7, 0.9, 1.0))
"""What the light layer's two lamps start from, RGB: sodium, and a cold white."""
COARSE = 16
"""Pixels of a side of a cell in which the colour transform is one."""


class Relight(RetouchingGenerator):
    """v = g (A u + b) + l: a colour transform, shade, and a layer of light.

    u is the frame and v the result, 0 to 1. The transform, A (3x3) and b, changes slowly: it has a
    cell for every 16x16 pixels, so that it cannot draw coloured noise. The shade g, 0 to 1, has
    one for every 4x4 pixels and keeps the edges between a dark sky and a lit roof. The light l is
    drawn for each pixel, as the brightness of two lamps whose colours are learned and the same
    everywhere; it is never negative, and too smooth for the grid that an objective which asks for
    detail would make of depth-to-space.
    """

    def __init__(self, size: EdgeSize, ngf: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.trunk = EdgeTrunk(size, ngf, COLOURS, norm, dropout)
        lamps = len(LAMP_COLOURS)
        self.colour = nn.Conv2d(self.trunk.coarse_channels, COLOURS * (COLOURS + 1), 1)
        self.shade = nn.Conv2d(self.trunk.fine_channels, 1, 3, padding=1)
        self.light = nn.Conv2d(self.trunk.fine_channels, lamps * STEM**2, 3, padding=1)
        # Never called: its weights are the colours of a layer, under the name of older runs.
        self.lamps = nn.Conv2d(lamps, COLOURS, 1, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Half of the frame's light, and next to no lamps."""
        initialise_weights(self, "none")
        self.trunk.make_doublings_smooth()
        make_phases_equal(self.light, STEM**2)
        for head in (self.colour, self.shade, self.light):
            scale_weights(head, 0.1)
        assert self.colour.bias is not None
        with torch.no_grad():
            self.colour.bias[: COLOURS**2] = torch.eye(COLOURS).flatten()
            self.lamps.weight.copy_(torch.tensor(LAMP_COLOURS).T[..., None, None])

    def found(self, seen: Tensor, copy: Tensor) -> Retouch:
        coarse, fine = self.trunk(seen)
        colour = self.colour(coarse)
        colour = functional.interpolate(
            colour, scale_factor=float(COARSE // STEM), mode="bilinear"
        )
        matrix, constant = colour[:, : COLOURS**2], colour[:, COLOURS**2 :]
        shade = torch.sigmoid(self.shade(fine))
        # The transform is done on a copy of a quarter of the size. What is finer than that is
        # nearly grey: to the frame itself it is the gain of grey.
        small = functional.avg_pool2d(copy, STEM)
        gain = shade * _row_sums(matrix)
        mixed = _row_sums(matrix * torch.cat([small + 1] * COLOURS, dim=1)) + 2 * constant
        offset = shade * mixed - 1 - gain * small
        light = functional.relu(_softened(functional.pixel_shuffle(self.light(fine), STEM)))
        lamps = 2 * self.lamps.weight.flatten(1)
        return Retouch(Layer(gain), (Layer(offset), Layer(light, lamps)))


def _row_sums(matrix: Tensor) -> Tensor:
    """The sum of each row of the 3x3 matrices of [N, 9, h, w], as [N, 3, h, w]."""
    return torch.unflatten(matrix, 1, (COLOURS, COLOURS)).sum(2)


def _softened(light: Tensor) -> Tensor:
    """The mean over 4x4 pixels, and then over 2x2: of a pattern that repeats every 4 pixels, as
    depth-to-space can make one, nothing stays. At the border the mean is over what is there."""
    blocks = functional.avg_pool2d(light, STEM, 1, padding=STEM // 2, count_include_pad=False)
    return functional.avg_pool2d(blocks, 2, 1)
