"""The watch tells what went wrong, once, and keeps silent about a run that goes well."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from trainer.config import GAN_MODES
from trainer.errors import ConfigError
from trainer.losses import discriminator_loss, generator_loss
from trainer.watch import Watch, diversity

pytestmark = pytest.mark.usefixtures("one_thread")

UNDECIDED = {"vanilla": math.log(2), "lsgan": 0.25, "hinge": 2.0, "wgangp": 0.0}
HEALTHY = {  # g_gan and d_loss, as real runs show them
    "vanilla": (1.4, 0.44),
    "lsgan": (0.6, 0.15),
    "hinge": (0.5, 1.2),
    "wgangp": (-3.0, -4.0),
}
SURE = {"vanilla": (5.0, 0.01), "lsgan": (1.0, 0.002), "hinge": (2.0, 0.02)}


def fed(watch, losses, first_step=1):
    """All warnings, with the steps at which they came."""
    return [
        (step, warning)
        for step, (g_gan, d_loss) in enumerate(losses, first_step)
        for warning in watch.step(step, g_gan, d_loss)
    ]


def noisy(level, steps, seed=0, spread=0.1):
    random = np.random.default_rng(seed)
    scale = spread * np.maximum(0.1, np.abs(level))
    return (np.array(level) + random.normal(size=(steps, 2)) * scale).tolist()


@pytest.mark.parametrize("mode", HEALTHY)
def test_a_healthy_run_brings_no_warning(mode):
    assert fed(Watch(mode), noisy(HEALTHY[mode], 5000)) == []


def test_a_start_as_it_was_recorded_brings_no_warning():
    # Means over 50 steps of a real run with a ResNet, whose discriminator was ahead for a while.
    d = [0.424, 0.132, 0.15, 0.22, 0.042, 0.133, 0.405, 0.413, 0.36, 0.328, 0.303, 0.35]
    g = [1.79, 3.5, 3.72, 3.71, 4.12, 3.94, 2.51, 1.9, 2.1, 1.99, 2.17, 2.17]
    losses = [pair for level in zip(g, d, strict=True) for pair in noisy(level, 50)]
    assert fed(Watch("vanilla"), losses) == []


@pytest.mark.parametrize("mode", SURE)
def test_a_discriminator_that_has_won_is_told_once_and_what_to_change(mode):
    losses = noisy(HEALTHY[mode], 400) + noisy(SURE[mode], 2000)
    ((step, warning),) = fed(Watch(mode), losses)
    assert 400 < step <= 400 + 250
    assert warning.startswith(f"step {step}: the discriminator has won")
    assert "--ndf" in warning


def test_sure_discriminator_with_a_generator_that_catches_up_has_not_won():
    losses = [(8.0 * 0.9985**step, 0.03) for step in range(1000)]
    assert fed(Watch("vanilla"), losses) == []


def test_won_is_told_again_after_it_was_gone():
    watch = Watch("vanilla")
    sure, healthy = noisy(SURE["vanilla"], 600), noisy(HEALTHY["vanilla"], 400)
    steps = [step for step, _ in fed(watch, [*healthy, *sure, *healthy, *sure])]
    assert len(steps) == 2
    assert steps[0] <= 1000 < 1400 < steps[1]


def test_a_better_critic_is_no_fault():
    losses = [(-0.05 * step, -0.05 * step) for step in range(3000)]
    assert fed(Watch("wgangp"), losses) == []


@pytest.mark.parametrize("mode", UNDECIDED)
def test_a_discriminator_that_teaches_nothing_is_told_once(mode):
    level = (generator_loss(torch.zeros(1), mode).item(), UNDECIDED[mode] + 0.002)
    ((step, warning),) = fed(Watch(mode), noisy(level, 3000, spread=0.002))
    assert step == 1000
    assert "teaches nothing" in warning
    assert "--gan-mode" in warning


def test_a_discriminator_that_learns_late_has_not_lost():
    undecided, learns = (0.7, math.log(2)), (0.8, 0.62)
    losses = noisy(undecided, 900, spread=0.01) + noisy(learns, 100) + noisy(undecided, 900)
    assert fed(Watch("vanilla"), losses) == []


@pytest.mark.parametrize("mode", HEALTHY)
def test_exploding_losses_are_told_within_fifty_steps(mode):
    growing = [(-10 * 1.1**step, 10 * 1.1**step) for step in range(200)]
    told = fed(Watch(mode), noisy(HEALTHY[mode], 400) + growing)
    assert len(told) == 1
    assert "the losses explode" in told[0][1]
    assert "--lr" in told[0][1]
    assert 400 < told[0][0] <= 500


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_told_at_once_and_leaves_a_json_state(broken):
    watch = Watch("vanilla")
    ((step, warning),) = fed(watch, [(1.4, 0.4), (1.4, broken), (broken, 0.4)])
    assert step == 2
    assert "not finite" in warning
    json.dumps(watch.state(), allow_nan=False)


def test_large_distances_of_a_critic_on_large_pictures_are_no_explosion():
    assert fed(Watch("wgangp"), noisy((2000.0, -900.0), 2000)) == []
    assert fed(Watch("wgangp"), noisy((2000.0, -1500.0), 2000))[1:] == []


@pytest.mark.parametrize(
    ("mode", "lr", "steps", "expected"),
    [
        ("vanilla", 0.05, 600, "has won"),
        ("lsgan", 0.05, 600, "has won"),
        ("hinge", 0.05, 600, "has won"),
        ("vanilla", 0.0, 1000, "teaches nothing"),
        ("lsgan", 0.0, 1000, "teaches nothing"),
        ("hinge", 0.0, 1000, "teaches nothing"),
        ("lsgan", 0.2, 100, "explode"),  # past 2 / curvature, where descent diverges
    ],
)
def test_real_discriminators_are_told_as_what_they_are(mode, lr, steps, expected):
    """A linear one against a generator that never learns: it learns, learns not, or diverges."""
    torch.manual_seed(0)
    weights = torch.zeros(5)
    weights[4] = 0.5 if mode == "lsgan" else 0.0  # undecided
    weights.requires_grad_(True)
    watch, told = Watch(mode), []
    for step in range(1, steps + 1):
        real, fake = (torch.randn(8, 4) * 0.1 + middle for middle in (2, -2))
        real_logits, fake_logits = (x @ weights[:4] + weights[4] for x in (real, fake))
        loss = discriminator_loss(real_logits, fake_logits, mode)
        told += watch.step(step, generator_loss(fake_logits, mode).item(), loss.item())
        if lr:
            (slope,) = torch.autograd.grad(loss, weights)
            weights.data -= lr * slope
    assert len(told) == 1
    assert expected in told[0]


# ------------------------------------------------------------------------------- pictures


def pictures(count=6, contrast=60.0, common=0, size=(12, 16, 3)):
    random = np.random.default_rng(common)
    base = random.uniform(60, 190, size)
    single = np.random.default_rng(99).normal(size=(count, *size)) * contrast
    return list((base + single).clip(0, 255).astype(np.uint8))


def test_diversity_is_the_mean_over_the_pixels_of_the_standard_deviation():
    images = pictures()
    assert diversity(images) == pytest.approx(np.stack(images).astype(float).std(0).mean())


def test_equal_pictures_have_no_diversity():
    assert diversity([pictures()[0]] * 7) == 0


def test_a_generator_that_draws_one_picture_for_every_input_is_told_once():
    watch = Watch("vanilla")
    targets, same = pictures(), pictures(contrast=1.0)
    (warning,) = watch.epoch(400, same, targets)
    assert warning.startswith("step 400: the generator has collapsed")
    assert "6 held-out inputs" in warning
    assert "--lr" in warning
    assert watch.epoch(800, same, targets) == []


def test_collapse_is_told_again_after_the_pictures_differed():
    watch = Watch("none")
    targets, same = pictures(), pictures(contrast=1.0)
    told = [watch.epoch(1000, drawn, targets) for drawn in (same, targets, same)]
    assert [len(warnings) for warnings in told] == [1, 0, 1]


def test_pictures_that_differ_less_than_the_targets_are_no_collapse():
    # Blurred pictures, as L1 alone makes them, differ less; a tenth is still no collapse.
    assert Watch("vanilla").epoch(1000, pictures(contrast=6.0), pictures()) == []


def test_what_says_nothing_about_the_generator_is_not_judged():
    same = pictures(contrast=1.0)
    assert Watch("vanilla").epoch(100, same, pictures()) == []  # it has hardly begun
    assert Watch("vanilla").epoch(1000, same[:1], pictures()[:1]) == []
    assert Watch("vanilla").epoch(1000, same, [same[0]] * 6) == []


# ---------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("cut", [1, 37, 400, 649, 650, 651, 1300])
def test_a_resumed_watch_tells_what_an_uncut_one_tells(cut):
    losses = (
        noisy(HEALTHY["vanilla"], 400)
        + noisy(SURE["vanilla"], 500)
        + noisy(HEALTHY["vanilla"], 300)
        + noisy(SURE["vanilla"], 500)
        + noisy((70.0, 70.0), 100)
    )
    whole = Watch("vanilla")
    expected = fed(whole, losses)
    assert len(expected) == 3
    first = Watch("vanilla")
    told = fed(first, losses[:cut])
    second = Watch.from_state(json.loads(json.dumps(first.state())))
    told += fed(second, losses[cut:], first_step=cut + 1)
    assert told == expected
    assert second.state() == whole.state()


def test_a_state_is_not_changed_by_later_steps():
    watch = Watch("vanilla")
    fed(watch, noisy(HEALTHY["vanilla"], 100))
    state = watch.state()
    kept = json.dumps(state)
    fed(watch, noisy(SURE["vanilla"], 900))
    assert json.dumps(state) == kept


def test_every_gan_mode_has_a_watch_and_no_other_has():
    for mode in GAN_MODES:
        assert Watch.from_state(Watch(mode).state()).state()["gan_mode"] == mode
    with pytest.raises(ConfigError, match="--gan-mode wasserstein"):
        Watch("wasserstein")


def test_without_a_discriminator_its_losses_are_not_judged():
    assert fed(Watch("none"), [(0.0, 0.0)] * 2000) == []
