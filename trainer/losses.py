"""The objectives, each with its source."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gan_loss(logits: Tensor, is_real: bool, mode: str) -> Tensor:
    """How far the discriminator's logits are from saying `is_real`.

    `vanilla`: binary cross-entropy, the non-saturating form of Goodfellow et al. 2014 (the
    generator maximises log D instead of minimising log(1 - D)). `lsgan`: mean squared distance to
    1 or 0, Mao et al. 2017, equation 9 with a = 0, b = c = 1.
    """
    target = torch.full_like(logits, 1.0 if is_real else 0.0)
    if mode == "lsgan":
        return functional.mse_loss(logits, target)
    return functional.binary_cross_entropy_with_logits(logits, target)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, mode: str) -> Tensor:
    """Half the sum over real and generated pairs.

    The half slows the discriminator down: Isola et al. 2017, section 3.3.
    """
    return 0.5 * (gan_loss(real_logits, True, mode) + gan_loss(fake_logits, False, mode))
