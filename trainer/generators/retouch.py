"""Generators that do not draw a frame anew but change the one that they are given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from trainer.generators.exposure import exposure, normalised


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
        return (self.colours[..., None, None].to(large.dtype) * large[:, None]).sum(2)


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

    def of_frame(self, scale: Tensor, shift: Tensor) -> Retouch:
        """The same done to a frame of which `scale * frame + shift` was looked at.

        Args:
            scale: float [N, 3, 1, 1], of each colour.
            shift: the same.
        """
        gain = self.gain.at((self.gain.values.shape[2], self.gain.values.shape[3]))
        first, *others = self.offsets
        lift = gain * shift
        if first.values.shape == lift.shape:
            return Retouch(Layer(gain * scale), (Layer(first.values + lift), *others))
        return Retouch(Layer(gain * scale), (Layer(lift), first, *others))


class RetouchingGenerator(nn.Module):
    """What it draws is `gain * frame + offset`, both smooth enough to be found on a small copy.

    So the network may look at a copy of a fixed size, and its result be resized to the frame's own
    size and applied there: the frame keeps its detail. `export` does so for frames that are larger
    than the network (`RetouchedFrame`). In the spirit of Gharbi et al., "Deep Bilateral Learning
    for Real-Time Image Enhancement" (HDRNet), SIGGRAPH 2017.
    """

    reduction: int = 1
    """How many times smaller than its picture the copy is, in training too: its sides."""
    input_norm: bool = False
    """Whether the network looks at the copy at one exposure."""
    frame_norm: bool = False
    """Whether the frame that is changed is at that exposure, too."""

    def copy_size_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Of a picture of (height, width) the size of the copy that `retouch` is given."""
        return size_px[0] // self.reduction, size_px[1] // self.reduction

    def retouch(self, x: Tensor) -> Retouch:
        """What is to be done to a frame, from its copy: float [N, 3, h, w], -1 to 1."""
        if not self.frame_norm:
            return self.found(normalised(x) if self.input_norm else x, x)
        scale, shift = exposure(x)
        seen = scale * x + shift
        return self.found(seen, seen).of_frame(scale, shift)

    def found(self, seen: Tensor, copy: Tensor) -> Retouch:
        """What a network does.

        Args:
            seen: float [N, 3, h, w], what it looks at.
            copy: the same shape, of the frame that is to be changed.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """float [N, 3, H, W], -1 to 1, to the same; a little beyond where it is clipped later."""
        copy = functional.avg_pool2d(x, self.reduction) if self.reduction > 1 else x
        return self.retouch(copy).applied(x)
