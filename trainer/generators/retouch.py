"""Generators that do not draw a frame anew but change the one that they are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RetouchingGenerator(nn.Module):
    """What it draws is `gain * frame + offset`, both smooth enough to be found on a small copy.

    So the network may look at a copy of a fixed size, and its result be resized to the frame's own
    size and applied there: the frame keeps its detail. `export` does so for frames that are larger
    than the network (`FrameInFrameOut`). In the spirit of Gharbi et al., "Deep Bilateral Learning
    for Real-Time Image Enhancement" (HDRNet), SIGGRAPH 2017.
    """

    reduction: int = 1
    """How many times smaller than its picture the copy is, in training too: its sides."""
    map_scale: int = 1
    """How many times smaller than the copy gain and offset are."""

    def copy_size_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Of a picture of (height, width) the size of the copy that `retouch` is given."""
        return size_px[0] // self.reduction, size_px[1] // self.reduction

    def map_size_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Of a picture of (height, width) the size of its gain and of its offset."""
        scale = self.reduction * self.map_scale
        return size_px[0] // scale, size_px[1] // scale

    def retouch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset of a copy.

        Args:
            x: float [N, 3, h, w], -1 to 1.

        Returns:
            Twice float [N, 3, h / map_scale, w / map_scale].
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """float [N, 3, H, W], -1 to 1, to the same; a little beyond where it is clipped later."""
        copy = functional.avg_pool2d(x, self.reduction) if self.reduction > 1 else x
        gain, offset = self.retouch(copy)
        if gain.shape != x.shape:
            scale = float(self.reduction * self.map_scale)
            both = torch.cat([gain, offset], dim=1)
            large = functional.interpolate(both, scale_factor=scale, mode="bilinear")
            gain, offset = large.chunk(2, dim=1)
        return gain * x + offset
