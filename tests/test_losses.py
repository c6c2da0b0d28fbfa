"""The objectives are what their sources say."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.losses import discriminator_loss, gan_loss


@pytest.mark.parametrize(
    ("mode", "logit", "is_real", "expected"),
    [
        ("vanilla", 0.0, True, math.log(2)),
        ("vanilla", 3.0, True, math.log(1 + math.exp(-3))),
        ("vanilla", 3.0, False, math.log(1 + math.exp(3))),
        ("lsgan", 0.25, True, 0.75**2),
        ("lsgan", 0.25, False, 0.25**2),
    ],
)
def test_gan_loss_has_the_value_of_its_formula(mode, logit, is_real, expected):
    loss = gan_loss(torch.full((2, 1, 3, 3), logit), is_real, mode)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_discriminator_is_slowed_down_by_half():
    zeros = torch.zeros(1, 1, 2, 2)
    assert discriminator_loss(zeros, zeros, "vanilla").item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("mode", ["vanilla", "lsgan"])
def test_a_generated_picture_that_looks_real_pleases_the_generator(mode):
    doubted, believed = torch.full((1, 1, 2, 2), -1.0), torch.full((1, 1, 2, 2), 1.0)
    assert gan_loss(believed, True, mode) < gan_loss(doubted, True, mode)
