"""A generator that sees every frame at the same exposure."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

_LEAST_SPREAD = 0.05
"""Of a channel, in units of -1 to 1: a frame that shows nothing is not blown up to noise."""
_SPREAD = 0.5
"""Of a channel after it: about that of a photo, which the initial weights are made for."""


class NormalisedInput(nn.Module):
    """A generator that sees each frame `normalised`.

    What the camera's exposure and white balance did is then gone, so that the generator does not
    have to learn all of their combinations. It costs two sums over the frame; all that comes
    behind folds and quantises as before.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same."""
        return self.generator(normalised(x))  # type: ignore[no-any-return]


def normalised(x: Tensor) -> Tensor:
    """float [N, C, H, W] with each channel of each frame brought to mean 0 and deviation 1/2."""
    return _SPREAD * functional.instance_norm(x, eps=_LEAST_SPREAD**2)


def exposure(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that make `normalised(x)` of float [N, C, H, W]: each float [N, C, 1, 1]."""
    mean = x.mean((2, 3), keepdim=True)
    spread = (x - mean).square().mean((2, 3), keepdim=True)
    scale = _SPREAD / (spread + _LEAST_SPREAD**2).sqrt()
    return scale, -scale * mean
