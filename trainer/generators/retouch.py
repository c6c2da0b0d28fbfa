"""Generators that do not draw a frame anew but change the one that they are given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Layer:
    """A map at a size of its own, and the colours of its channels.

    What it stands for has the size of the picture and three channels: the map enlarged, bilinear,
    and each of its channels added in its colour.
    """

    values: Tensor
    """float [N, K, h, w]."""
    colours: Tensor | None = None
    """float [3, K], RGB; None: the three channels are red, green and blue."""

    def at(self, size_px: tuple[int, int]) -> Tensor:
        """float [N, 3, H, W] of a picture of (H, W) = `size_px`."""
        large = self.values
        if large.shape[2:] != size_px:
            large = functional.interpolate(large, size=size_px, mode="bilinear")
        if self.colours is None:
            return large
        return functional.conv2d(large, self.colours[..., None, None].to(large.dtype))


@dataclass(frozen=True)
class Retouch:
    """What is done to a frame: `gain * frame`, and the sum of the `offsets`."""

    gain: Layer
    offsets: tuple[Layer, ...]
    """The first has red, green and blue."""

    def applied(self, frame: Tensor) -> Tensor:
        """float [N, 3, H, W], -1 to 1, to the same; a little beyond where it is clipped later."""
        size_px = (frame.shape[2], frame.shape[3])
        drawn = self.gain.at(size_px) * frame
        for offset in self.offsets:
            drawn = drawn + offset.at(size_px)
        return drawn


class RetouchingGenerator(nn.Module):
    """What it draws is `gain * frame + offset`, both smooth enough to be found on a small copy.

    So the network may look at a copy of a fixed size, and its result be resized to the frame's own
    size and applied there: the frame keeps its detail. `export` does so for frames that are larger
    than the network (`RetouchedFrame`). In the spirit of Gharbi et al., "Deep Bilateral Learning
    for Real-Time Image Enhancement" (HDRNet), SIGGRAPH 2017.
    """

    reduction: int = 1
    """How many times smaller than its picture the copy is, in training too: its sides."""

    def copy_size_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Of a picture of (height, width) the size of the copy that `retouch` is given."""
        return size_px[0] // self.reduction, size_px[1] // self.reduction

    def retouch(self, x: Tensor) -> Retouch:
        """What is to be done to a frame, from its copy: float [N, 3, h, w], -1 to 1."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """float [N, 3, H, W], -1 to 1, to the same; a little beyond where it is clipped later."""
        copy = functional.avg_pool2d(x, self.reduction) if self.reduction > 1 else x
        return self.retouch(copy).applied(x)
