"""The objectives are what their sources say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.config import GAN_MODES, DiscriminatorConfig
from trainer.discriminators import build_discriminator
from trainer.errors import ConfigError
from trainer.losses import (
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
)

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = [mode for mode in GAN_MODES if mode != "none"]
REAL, FAKE = np.array([2.0, -0.5, 0.25]), np.array([-1.5, 0.75, 0.0])


def logits(values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "vanilla",
            0.5 * (-np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean()),
        ),
        ("lsgan", 0.5 * (((REAL - 1) ** 2).mean() + (FAKE**2).mean())),
        ("hinge", np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean()),
        ("wgangp", FAKE.mean() - REAL.mean()),
    ],
)
def test_discriminator_loss_has_the_value_of_its_formula(mode, expected):
    loss = discriminator_loss(logits(REAL), logits(FAKE), mode)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("vanilla", -np.log(sigmoid(FAKE)).mean()),
        ("lsgan", ((FAKE - 1) ** 2).mean()),
        ("hinge", -FAKE.mean()),
        ("wgangp", -FAKE.mean()),
    ],
)
def test_generator_loss_has_the_value_of_its_formula(mode, expected):
    assert generator_loss(logits(FAKE), mode).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("mode", "undecided"), [("vanilla", math.log(2)), ("lsgan", 0.25), ("hinge", 2.0)]
)
def test_the_best_that_an_undecided_discriminator_can_do(mode, undecided):
    same_for_all = [torch.full((1, 1, 2, 2), x) for x in np.linspace(-2, 2, 401)]
    losses = [discriminator_loss(x, x, mode).item() for x in same_for_all]
    assert min(losses) == pytest.approx(undecided, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_each_loss_pulls_the_logits_the_right_way(mode):
    real, fake, drawn = (torch.zeros(1, 1, 2, 2, requires_grad=True) for _ in "abc")
    discriminator_loss(real, fake, mode).backward()
    generator_loss(drawn, mode).backward()
    assert (real.grad < 0).all()
    assert (fake.grad >= 0).all()
    assert (fake.grad > 0).all() or mode == "lsgan"  # which has its minimum at 0
    assert (drawn.grad < 0).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_logits_give_a_loss_in_float32(mode, kind):
    # 1 + 1e-3 and the mean of 65,536 logits are beyond half precision.
    real, fake = (torch.full((1, 1, 256, 256), x, dtype=kind) for x in (0.5, 0.125))
    in_half = discriminator_loss(real, fake, mode), generator_loss(fake, mode)
    exact = (
        discriminator_loss(real.double(), fake.double(), mode),
        generator_loss(fake.double(), mode),
    )
    for ours, expected in zip(in_half, exact, strict=True):
        assert ours.dtype == torch.float32
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6)


def test_vanilla_stays_finite_for_logits_that_a_sigmoid_rounds_to_one():
    far = torch.full((1, 1, 2, 2), 200.0)
    assert discriminator_loss(-far, far, "vanilla").item() == pytest.approx(200.0)
    assert generator_loss(-far, "vanilla").item() == pytest.approx(200.0)


@pytest.mark.parametrize("mode", ["none", "wasserstein"])
def test_a_mode_without_adversarial_loss_is_refused(mode):
    zeros = torch.zeros(1, 1, 2, 2)
    for loss in (
        lambda: discriminator_loss(zeros, zeros, mode),
        lambda: generator_loss(zeros, mode),
    ):
        with pytest.raises(ConfigError, match=f"--gan-mode {mode}; expected one of vanilla"):
            loss()


# ------------------------------------------------------------------------ gradient penalty


def batch(count: int = 3, side_px: int = 8):
    random = torch.Generator().manual_seed(3)
    shape = (count, 3, side_px, side_px)
    images = [torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1 for _ in "abc"]
    mix = torch.rand(count, 1, 1, 1, generator=random, dtype=torch.float64)
    return *images, mix


def test_gradient_penalty_of_a_linear_critic_is_known_in_closed_form():
    condition, real, fake, mix = batch()
    slope = torch.linspace(-1, 1, 8 * 8, dtype=torch.float64).view(1, 1, 8, 8)

    def critic(condition, image):
        return (slope * image).sum((1, 2, 3)).view(-1, 1, 1, 1)

    norm = math.sqrt(3 * slope.square().sum().item())
    penalty = gradient_penalty(critic, condition, real, fake, mix)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-12)


def test_gradient_penalty_is_taken_at_the_mixed_picture_one_mix_for_each():
    condition, real, fake, mix = batch()

    def critic(condition, image):  # its gradient is the picture itself
        return 0.5 * image.square().sum((1, 2, 3)).view(-1, 1, 1, 1)

    norms = [
        np.linalg.norm(m * r + (1 - m) * f)
        for m, r, f in zip(mix[:, 0, 0, 0].numpy(), real.numpy(), fake.numpy(), strict=True)
    ]
    penalty = gradient_penalty(critic, condition, real, fake, mix)
    assert penalty.item() == pytest.approx(np.mean([(n - 1) ** 2 for n in norms]), rel=1e-12)


def test_gradient_penalty_is_of_the_mean_over_the_patches():
    condition, real, fake, mix = batch()
    assert gradient_penalty(lambda _, x: x[:, :1], condition, real, fake, mix).item() == (
        pytest.approx((1 / math.sqrt(8 * 8) - 1) ** 2, rel=1e-12)  # 64 slopes of 1/64
    )


def test_gradient_penalty_has_the_gradients_of_finite_differences():
    condition, real, fake, mix = batch(side_px=24)
    torch.manual_seed(0)
    critic = build_discriminator(DiscriminatorConfig(ndf=2, norm="instance"), 3, 3).double()
    for weights in critic.parameters():
        weights.data *= 20  # or the slopes of fresh weights are too small to tell
    weights = critic.blocks[1].conv.weight
    gradient_penalty(critic, condition, real, fake, mix).backward()
    at, step = (1, 0, 2, 1), 1e-6
    around = []
    for sign in (1, -1):
        with torch.no_grad():
            weights[at] += sign * step
        around.append(gradient_penalty(critic, condition, real, fake, mix).item())
        with torch.no_grad():
            weights[at] -= sign * step
    slope = (around[0] - around[1]) / (2 * step)
    assert abs(slope) > 1e-3
    assert weights.grad[at].item() == pytest.approx(slope, rel=1e-4)


def test_gradient_penalty_of_a_flat_critic_is_one_and_has_finite_gradients():
    condition, real, fake, mix = batch(side_px=24)
    critic = build_discriminator(DiscriminatorConfig(ndf=2, norm="none"), 3, 3).double()
    torch.nn.init.zeros_(critic.logits.weight)
    penalty = gradient_penalty(critic, condition, real, fake, mix)
    penalty.backward()
    assert penalty.item() == pytest.approx(1.0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


def test_gradient_penalty_reaches_the_critic_and_not_the_generator():
    condition, real, fake, mix = batch(side_px=24)
    critic = build_discriminator(DiscriminatorConfig(ndf=2, norm="instance"), 3, 3).double()
    fake.requires_grad_(True)
    gradient_penalty(critic, condition, real, fake, mix).backward()
    assert critic.blocks[0].conv.weight.grad.abs().sum() > 0
    assert fake.grad is None


# ------------------------------------------------------------------------ feature matching


def features(*seeds):
    random = [np.random.default_rng(seed) for seed in seeds]
    shapes = [(2, 4, 8, 8), (2, 8, 4, 4), (2, 8, 3, 3), (2, 1, 2, 2)]
    return [[torch.from_numpy(r.normal(size=shape)) for shape in shapes] for r in random]


def test_feature_matching_is_four_times_the_mean_over_the_layers_without_the_logits():
    real, fake = features(0, 1)
    by_layer = [np.abs(r.numpy() - f.numpy()).mean() for r, f in zip(real, fake, strict=True)]
    assert feature_matching(real, fake).item() == pytest.approx(4 * np.mean(by_layer[:3]))


def test_feature_matching_of_four_blocks_is_the_sum_of_the_papers_equation():
    real, fake = features(0, 1)
    real, fake = [real[0], *real], [fake[0], *fake]
    by_layer = [np.abs(r.numpy() - f.numpy()).mean() for r, f in zip(real, fake, strict=True)]
    assert feature_matching(real, fake).item() == pytest.approx(sum(by_layer[:4]))


def test_feature_matching_moves_the_generated_picture_alone():
    real, fake = features(0, 1)
    for feature in (*real, *fake):
        feature.requires_grad_(True)
    feature_matching(real, fake).backward()
    assert all(feature.grad is None for feature in real)
    assert [feature.grad is not None for feature in fake] == [True, True, True, False]
