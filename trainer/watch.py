"""Watches a run for the ways in which adversarial training goes wrong, and says what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import GAN_MODES
from trainer.errors import ConfigError

_BLOCK_STEPS = 50
"""Losses of single steps say little: their means over so many steps are judged."""
_RECENT = 4
"""Blocks, 200 steps, over which a discriminator must have won."""
_KEPT = 20
"""Blocks, 1000 steps, over which a discriminator must have taught nothing."""
_UNDECIDED = {"vanilla": math.log(2), "lsgan": 0.25, "hinge": 2.0, "wgangp": 0.0}
"""The discriminator's loss, as `trainer.losses` has it, at its best when it cannot tell real from
generated: the same logit for every patch."""
_WON = {"vanilla": 0.05, "lsgan": 0.01, "hinge": 0.1}
"""The discriminator's loss when it is sure of nearly every patch. `vanilla`: it gives 95 % to the
truth; `lsgan`: it is 0.1 off the truth; `hinge`: 1 patch in 20 still lies at the border. There is
none for `wgangp`: there a better critic gives better gradients (Gulrajani et al. 2017)."""
_NEAR_UNDECIDED = 0.98
_LARGEST_LOSS = {"vanilla": 50.0, "lsgan": 50.0, "hinge": 50.0, "wgangp": 1000.0}
"""Beyond this a loss has exploded. `vanilla`: the discriminator gives a patch e^-50. `wgangp`: a
critic with a gradient of 1 tells two pictures apart by their distance at most, and 256x256 RGB
pictures from -1 to 1 are no further than 887 from each other."""
_LARGEST_GROWTH = 10.0
"""Times the median of the blocks before; only for `wgangp`, whose pictures may be larger."""
_COLLAPSED = 0.05
"""Part of the targets' diversity."""
_FRESH_STEPS = 200
"""A generator younger than this draws grey for every input: that is no collapse yet."""
_LEAST_DIVERSITY = 1.0
"""In grey levels; targets more alike than this say nothing about the generator."""


class Watch:
    """Is told a run's losses and held-out pictures, and returns warnings.

    A warning comes once, and again only after its cause was gone for a while. Each says what to
    change. The discriminator's loss is judged as `trainer.losses.discriminator_loss` defines it.
    """

    def __init__(self, gan_mode: str) -> None:
        """Watch a run from its first step.

        Args:
            gan_mode: of `trainer.config.GAN_MODES`; with `none`, only the pictures are judged.

        Raises:
            ConfigError: no such mode.
        """
        if gan_mode not in GAN_MODES:
            raise ConfigError(
                f"--gan-mode {gan_mode}", f"one of {', '.join(GAN_MODES)}", "change --gan-mode"
            )
        self._gan_mode = gan_mode
        self._block_steps = 0
        self._g_sum = 0.0
        self._d_sum = 0.0
        self._g_means: list[float] = []
        self._d_means: list[float] = []
        self._warned: set[str] = set()

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs, as JSON values."""
        return {
            "gan_mode": self._gan_mode,
            "block_steps": self._block_steps,
            "g_sum": self._g_sum,
            "d_sum": self._d_sum,
            "g_means": list(self._g_means),
            "d_means": list(self._d_means),
            "warned": sorted(self._warned),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Watch:
        """Go on where `state` was taken: the same warnings come at the same steps.

        Raises:
            ConfigError: a mode that this version does not know.
        """
        self = cls(state["gan_mode"])
        self._block_steps = state["block_steps"]
        self._g_sum = state["g_sum"]
        self._d_sum = state["d_sum"]
        self._g_means = list(state["g_means"])
        self._d_means = list(state["d_means"])
        self._warned = set(state["warned"])
        return self

    def step(self, step: int, g_gan: float, d_loss: float) -> list[str]:
        """Judge the losses of a step.

        Args:
            step: its number, told in the warnings.
            g_gan: the generator's adversarial loss, before its weight.
            d_loss: the discriminator's loss.

        Returns:
            The warnings that are new.
        """
        if self._gan_mode == "none":
            return []
        if not (math.isfinite(g_gan) and math.isfinite(d_loss)):
            said = f"g_gan {g_gan:g}, d_loss {d_loss:g}: not finite"
            return self._told("exploding", True, False, self._exploding(step, said))
        self._g_sum += g_gan
        self._d_sum += d_loss
        self._block_steps += 1
        if self._block_steps < _BLOCK_STEPS:
            return []
        self._g_means = [*self._g_means, self._g_sum / _BLOCK_STEPS][-_KEPT:]
        self._d_means = [*self._d_means, self._d_sum / _BLOCK_STEPS][-_KEPT:]
        self._block_steps, self._g_sum, self._d_sum = 0, 0.0, 0.0
        return self._judge(step)

    def epoch(
        self, step: int, drawn: Sequence[NDArray[np.uint8]], targets: Sequence[NDArray[np.uint8]]
    ) -> list[str]:
        """Judge what the generator drew of the held-out inputs.

        Args:
            step: the last one before, told in the warnings.
            drawn: uint8 [H, W, 3], all of one size.
            targets: uint8 [H, W, 3], what should have been drawn, in the same order.

        Returns:
            The warnings that are new; none below two pictures, and none for targets that hardly
            differ themselves.
        """
        if step < _FRESH_STEPS or len(drawn) < 2:
            return []
        wanted = diversity(targets)
        if wanted < _LEAST_DIVERSITY:
            return []
        part = diversity(drawn) / wanted
        return self._told(
            "collapsed",
            part < _COLLAPSED,
            part > 2 * _COLLAPSED,
            f"step {step}: the generator has collapsed: what it draws of {len(drawn)} held-out "
            f"inputs differs by {part:.1%} of what the targets differ; check that inputs and "
            "targets belong together, then go back to an earlier checkpoint with a lower --lr or "
            "a higher --lambda-l1, or use --gan-mode lsgan",
        )

    def _judge(self, step: int) -> list[str]:
        """The warnings after a full block."""
        g, d = self._g_means[-1], self._d_means[-1]
        # The Wasserstein critic may add any constant to its logits: g alone says nothing.
        size = abs(d) if self._gan_mode == "wgangp" else max(abs(g), abs(d))
        limit = _LARGEST_LOSS[self._gan_mode]
        if self._gan_mode == "wgangp" and len(self._d_means) > 1:
            limit = max(limit, _LARGEST_GROWTH * median(map(abs, self._d_means[:-1])))
        exploded = size > limit
        said = f"over {_BLOCK_STEPS} steps g_gan was {g:.3g} and d_loss {d:.3g}"
        warnings = self._told("exploding", exploded, size < limit / 2, self._exploding(step, said))
        if not exploded:
            warnings += self._judge_winner(step)
        return warnings

    def _judge_winner(self, step: int) -> list[str]:
        undecided = _UNDECIDED[self._gan_mode]
        warnings = []
        if self._gan_mode in _WON and len(self._d_means) >= 2 * _RECENT:
            won_at = _WON[self._gan_mode]
            d = fmean(self._d_means[-_RECENT:])
            g = fmean(self._g_means[-_RECENT:])
            g_before = fmean(self._g_means[-2 * _RECENT : -_RECENT])
            # A generator whose loss falls is catching up: then nobody has won yet.
            warnings += self._told(
                "won",
                d < won_at and g > 0.95 * g_before,
                d > 2 * won_at,
                f"step {step}: the discriminator has won: over {_RECENT * _BLOCK_STEPS} steps its "
                f"loss was {d:.3g}, where {undecided:.2g} is undecided, and the generator's does "
                f"not fall ({g_before:.3g}, then {g:.3g}); make the discriminator weaker with a "
                "smaller --ndf or --patch, or give it more pairs to tell apart",
            )
        lost_from = _NEAR_UNDECIDED * undecided
        d_long = fmean(self._d_means)
        if len(self._d_means) == _KEPT:
            warnings += self._told(
                "lost",
                min(self._d_means) >= lost_from,
                fmean(self._d_means[-_RECENT:]) < lost_from,
                f"step {step}: the discriminator teaches nothing: over {_KEPT * _BLOCK_STEPS} "
                f"steps its loss was {d_long:.3g}, where {undecided:.2g} is undecided; "
                "make it stronger with a larger --ndf or --patch 70, or change --norm-d or "
                "--gan-mode",
            )
        return warnings

    def _exploding(self, step: int, said: str) -> str:
        mend = "with a lower --lr, or --gan-mode lsgan"
        if self._gan_mode == "lsgan":
            mend = "with a lower --lr, or --gan-mode hinge"
        if self._gan_mode == "wgangp":
            mend = "with a lower --lr, or a higher --lambda-gp"
        return f"step {step}: the losses explode: {said}; go back to an earlier checkpoint, {mend}"

    def _told(self, cause: str, is_there: bool, is_gone: bool, warning: str) -> list[str]:
        """The warning when its cause is new. Between there and gone nothing changes."""
        if is_there and cause not in self._warned:
            self._warned.add(cause)
            return [warning]
        if is_gone:
            self._warned.discard(cause)
        return []


def diversity(images: Sequence[NDArray[np.uint8]]) -> float:
    """How much pictures differ: their standard deviation at each pixel, then its mean.

    Args:
        images: uint8 [H, W, C] each, all of one size, at least one.

    Returns:
        In grey levels of 0 to 255: 0 for equal pictures.
    """
    # Sums of whole numbers are exact, so that equal pictures give exactly 0.
    total = np.zeros(images[0].shape, np.int64)
    squares = np.zeros(images[0].shape, np.int64)
    for image in images:
        levels = image.astype(np.int64)
        total += levels
        squares += levels * levels
    count = len(images)
    variance = (count * squares - total * total) / count**2
    return float(np.sqrt(variance).mean())
