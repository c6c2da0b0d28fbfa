"""What the generator minimises: the terms of `ObjectiveConfig`, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import ObjectiveConfig
from trainer.discriminators import PatchDiscriminator
from trainer.distill import Distillation
from trainer.losses import feature_matching, generator_loss
from trainer.norm_stats import still_statistics
from trainer.perceptual import Perceptual
from trainer.texture_loss import sliced_wasserstein_loss


class Drawn(NamedTuple):
    """What the generator made of a batch."""

    picture: Tensor
    """float [N, C, H, W], -1 to 1."""
    features: list[Tensor]
    """Adapted to the teacher's, one for each layer; empty where none are compared."""


class GeneratorObjective:
    """The terms that one run has; a weight of 0 leaves a term out."""

    def __init__(
        self,
        config: ObjectiveConfig,
        device: torch.device,
        discriminator: PatchDiscriminator | None,
        distillation: Distillation | None,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """`autocast` makes the context in which the networks compute."""
        self._config = config
        self._discriminator = discriminator
        self._distillation = distillation
        self._autocast = autocast
        self._perceptual: Perceptual | None = None
        if config.lambda_vgg and config.vgg_weights:
            self._perceptual = Perceptual(Path(config.vgg_weights)).to(device)
        self.weights = self._present()
        """Name of each term to its weight, in one order for every process."""

    def _present(self) -> dict[str, float]:
        config = self._config
        weights = {"g_l1": config.lambda_l1}
        if self._discriminator is not None:
            weights["g_gan"] = config.lambda_gan
        for name in ("l2", "feat", "vgg", "swd"):
            if weight := getattr(config, f"lambda_{name}"):
                weights[f"g_{name}"] = weight
        if self._distillation is not None:
            weights["g_distill"] = config.lambda_distill
            if config.lambda_distill_feat:
                weights["g_distill_feat"] = config.lambda_distill_feat
        return weights

    def terms(self, source: Tensor, target: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """Each term before its weight, scalars.

        Args:
            source: float [N, C, H, W], -1 to 1.
            target: float [N, C, H, W], -1 to 1.
            drawn: what the generator made of `source`.
        """
        config, picture = self._config, drawn.picture
        losses = {"g_l1": functional.l1_loss(picture, target)}
        if config.lambda_l2:
            losses["g_l2"] = functional.mse_loss(picture, target)
        if self._perceptual:
            losses["g_vgg"] = self._perceptual(picture, target)
        if config.lambda_swd:
            losses["g_swd"] = sliced_wasserstein_loss(picture, target)
        if self._discriminator is not None:
            losses |= self._adversarial(self._discriminator, source, target, picture)
        if self._distillation is not None:
            with self._autocast():
                taught = self._distillation.look(source)
            losses |= self._distillation.losses(picture, drawn.features, taught)
        return losses

    def _adversarial(
        self, discriminator: PatchDiscriminator, source: Tensor, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        with self._autocast():
            fake = discriminator(source, picture, with_features=True)
        losses = {"g_gan": generator_loss(fake[-1].to(source.dtype), self._config.gan_mode)}
        if self._config.lambda_feat:
            with torch.no_grad(), still_statistics(discriminator), self._autocast():
                real = discriminator(source, target, with_features=True)
            losses["g_feat"] = feature_matching(real, fake)
        return losses
