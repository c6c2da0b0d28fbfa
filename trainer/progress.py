"""What a run says of itself after each step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from trainer.metrics import Quality


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step, before their weights; None: not a term of this run."""

    g_gan: float
    """The generator's adversarial loss."""
    g_l1: float
    """Mean absolute difference to the target, in grey levels of 0 to 255."""
    d_loss: float
    g_l2: float | None = None
    """Mean squared difference to the target, in units of -1 to 1."""
    g_feat: float | None = None
    """Feature matching."""
    g_vgg: float | None = None
    """Perceptual distance."""
    g_swd: float | None = None
    """Sliced Wasserstein distance of patches."""
    g_distill: float | None = None
    """Mean absolute difference to what the teacher draws, in grey levels of 0 to 255."""
    g_distill_feat: float | None = None
    """Squared difference to the teacher's features."""

    def to_dict(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Patience:
    """How long a run has been no better on the held-out pairs."""

    best_l1: float = math.inf
    stale_epochs: int = 0

    def told(self, l1: float) -> None:
        """The L1 of an epoch's end."""
        self.stale_epochs = 0 if l1 < self.best_l1 else self.stale_epochs + 1
        self.best_l1 = min(self.best_l1, l1)


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    losses: StepLosses
    quality: Quality | None
    """Of the averaged weights on held-out pairs, as exported; at the end of an epoch only."""
    step_s: float
    remarks: tuple[str, ...] = ()
    """What the user should know now: a network has collapsed, the run ends early, ..."""
