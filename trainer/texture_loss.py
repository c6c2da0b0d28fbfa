"""Texture as an objective: sliced Wasserstein distance of the patches of a Laplacian pyramid.

Heitz et al. 2021, "A Sliced Wasserstein Loss for Neural Texture Synthesis", with the bands and
patches of Karras et al. 2018 instead of VGG's features: nothing to download. A blur has too little
of each band, grain too much or in the wrong colours; neither pays for being a pixel beside.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.wasserstein import PATCH_PX, level_sides

DIRECTIONS = 32
"""Drawn anew at each call: over the steps of a run every direction comes."""
PLACES_PX = 64
"""A band of a greater side is looked at every second, fourth, ... pixel, from a chance start."""
_BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)


def sliced_wasserstein_loss(drawn: Tensor, target: Tensor) -> Tensor:
    """How far the patches of each drawn picture are from those of its target.

    Along each random direction the patches of a picture are put in order and compared with those
    of its target in theirs: where in the picture they lie does not matter. Bands count alike, each
    in the standard deviations of the target's (not less than a grey level).

    Args:
        drawn: float [N, C, H, W], both sides 16 or more.
        target: the same.

    Returns:
        A scalar, in float32 for pictures in half precision; 0 for equal pictures.
    """
    bands = zip(_bands(drawn.float()), _bands(target.float()), strict=True)
    return torch.stack([_distance(ours, theirs) for ours, theirs in bands]).mean()


def _bands(picture: Tensor) -> list[Tensor]:
    """The Laplacian pyramid (Burt and Adelson 1983), finest first, down to 16 pixels."""
    bands = []
    for _ in level_sides(min(picture.shape[2:]))[1:]:
        small = _halved(picture)
        back = functional.interpolate(small, picture.shape[2:], mode="bilinear")
        bands.append(picture - back)
        picture = small
    return [*bands, picture]


def _halved(picture: Tensor) -> Tensor:
    channels = picture.shape[1]
    line = picture.new_tensor(_BLUR) / sum(_BLUR)
    kernel = torch.outer(line, line).expand(channels, 1, -1, -1)
    around = functional.pad(picture, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(around, kernel, stride=2, groups=channels)


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of one band: the mean over pictures and directions."""
    channels, side_px = theirs.shape[1], min(theirs.shape[2:])
    stride = max(1, side_px // PLACES_PX)
    top, left = torch.randint(stride, (2,)).tolist()
    directions = torch.randn(DIRECTIONS, channels, PATCH_PX, PATCH_PX).to(theirs)
    directions = directions / directions.flatten(1).norm(dim=1)[:, None, None, None]
    spread = theirs.std(dim=(0, 2, 3), correction=0).clamp_min(2 / 255)
    directions = directions / spread[:, None, None]

    def in_order(band: Tensor) -> Tensor:
        along = functional.conv2d(band[..., top:, left:], directions, stride=stride)
        return along.flatten(2).sort(dim=2).values

    return (in_order(ours) - in_order(theirs)).abs().mean()
