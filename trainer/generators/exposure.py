"""A generator that sees every frame at the same exposure."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

_LEAST_SPREAD = 0.05
"""Of a channel, in units of -1 to 1: a frame that shows nothing is not blown up to noise."""
_SPREAD = 0.5
"""Of a channel after it: about that of a photo, which the initial weights are made for."""


class NormalisedInput(nn.Module):
    """Each channel of each frame brought to mean 0 and deviation 1/2 before the generator sees it.

    What the camera's exposure and white balance did is then gone, so that the generator does not
    have to learn all of their combinations. It costs two sums over the frame; all that comes
    behind folds and quantises as before.
    """

    def __init__(self, generator: nn.Module, channels: int) -> None:
        super().__init__()
        self.norm_of_input = nn.InstanceNorm2d(channels, eps=_LEAST_SPREAD**2)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same."""
        return self.generator(_SPREAD * self.norm_of_input(x))  # type: ignore[no-any-return]


def normalised(x: Tensor) -> Tensor:
    """Each channel of each frame brought to mean 0 and deviation 1/2."""
    return _SPREAD * functional.instance_norm(x, eps=_LEAST_SPREAD**2)
