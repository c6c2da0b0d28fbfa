"""Generators that do not draw a frame anew but change the one that they are given."""

from __future__ import annotations

from torch import Tensor, nn


class RetouchingGenerator(nn.Module):
    """What it draws is `gain * frame + offset`, both smooth enough to be found on a small copy.

    So the network may look at a copy of a fixed size, and its result be resized to the frame's own
    size and applied there: the frame keeps its detail. `export` does so for frames that are larger
    than the network (`FrameInFrameOut`). In the spirit of Gharbi et al., "Deep Bilateral Learning
    for Real-Time Image Enhancement" (HDRNet), SIGGRAPH 2017.
    """

    def retouch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float [N, 3, H, W], -1 to 1, to the gain and the offset, both of that shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """float [N, 3, H, W], -1 to 1, to the same; a little beyond where it is clipped later."""
        gain, offset = self.retouch(x)
        return gain * x + offset
