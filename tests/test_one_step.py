"""A training step is what the paper says: same weights, same pairs, written out a second time.

The second computation is in float64 and shares no code with the trainer: the networks layer by
layer from their weights, the losses by their formulas, Adam by its equations. Source: Isola et al.
2017, sections 3.3 and 6; Kingma & Ba, "Adam", 2015, algorithm 1.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.config import DiscriminatorConfig, GeneratorConfig, ObjectiveConfig, TrainConfig
from trainer.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

LR, BETA1, BETA2, EPS = 2e-4, 0.5, 0.999, 1e-8
LAMBDA_L1 = 100.0
SIZE_PX = 128
LEVELS = 7
STEPS = 3
BATCH_NORM_EPS, BATCH_NORM_MOMENTUM = 1e-5, 0.1
STRIDES = (2, 2, 2, 1)
TOLERANCE = 1e-9  # the two differ by 3e-15 at most where this was written


def training(mode: str) -> Training:
    """A tiny run in float64 whose weights are far from their first values."""
    config = TrainConfig(
        generator=GeneratorConfig("unet_128", ngf=2, dropout=0.0),
        discriminator=DiscriminatorConfig(ndf=2),
        objective=ObjectiveConfig(gan_mode=mode, lambda_l1=LAMBDA_L1),
        lr=LR,
        beta1=BETA1,
        crop_size=SIZE_PX,
        load_size=SIZE_PX,
        ema_decay=0.999,
        seed=3,
    )
    made = Training(config, 100, torch.device("cpu"))
    random = torch.Generator().manual_seed(4)
    for network in (made.generator, made.discriminator):
        for weights in network.double().parameters():
            weights.data += 0.1 * torch.randn(weights.shape, generator=random)
    made.average.double().load_state_dict(made.generator.state_dict())
    return made


def made_pairs(batches: int) -> list[list[torch.Tensor]]:
    """For each step its batches, uint8 [2, 6, H, W]: smooth pictures, not noise."""
    random = np.random.default_rng(5)
    coarse = torch.from_numpy(random.uniform(0, 255, (STEPS * batches * 2, 6, 8, 8)))
    smooth = functional.interpolate(coarse, SIZE_PX, mode="bilinear").round().byte()
    parts = list(smooth.split(2))
    return [parts[step * batches : (step + 1) * batches] for step in range(STEPS)]


def unit_range(levels):
    """0 to 255 to -1 to 1, in float32 as the trainer has it; all that follows is in float64."""
    exact = levels.numpy().astype(np.float32) / np.float32(127.5) - np.float32(1)
    return torch.from_numpy(exact.astype(np.float64))


def leaky_relu(x):
    return torch.where(x > 0, x, 0.2 * x)


def batch_norm(x, weights, name, statistics=None):
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    if statistics is not None:
        count = x.numel() // x.shape[1]
        now = {"mean": mean.flatten(), "var": variance.flatten() * count / (count - 1)}
        for kind, value in now.items():
            running = statistics[f"{name}.running_{kind}"]
            running += BATCH_NORM_MOMENTUM * (value.detach() - running)
    normal = (x - mean) / (variance + BATCH_NORM_EPS) ** 0.5
    scale, shift = (weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return normal * scale + shift


def unet(x, weights, statistics):
    """7 halvings, 7 doublings, skips; no norm in the first, the deepest and the last layer."""
    encoded = []
    for level in range(LEVELS):
        name = f"down.{level}"
        x = leaky_relu(x) if level else x
        bias = weights.get(f"{name}.conv.bias")
        x = functional.conv2d(x, weights[f"{name}.conv.weight"], bias, stride=2, padding=1)
        if 0 < level < LEVELS - 1:
            x = batch_norm(x, weights, f"{name}.norm", statistics)
        encoded.append(x)
    for block in range(LEVELS):
        name = f"up.{block}"
        x = x if block == 0 else torch.cat([encoded[LEVELS - 1 - block], x], dim=1)
        bias = weights.get(f"{name}.conv.bias")
        x = functional.conv_transpose2d(
            x.clamp(min=0), weights[f"{name}.conv.weight"], bias, stride=2, padding=1
        )
        if block < LEVELS - 1:
            x = batch_norm(x, weights, f"{name}.norm", statistics)
    return torch.tanh(x)


def patch_gan(source, image, weights):
    """C64-C128-C256-C512 and the logits; no norm in the first layer."""
    x = torch.cat([source, image], dim=1)
    for number, stride in enumerate(STRIDES):
        name = f"blocks.{number}"
        bias = weights.get(f"{name}.conv.bias")
        x = functional.conv2d(x, weights[f"{name}.conv.weight"], bias, stride, padding=1)
        x = leaky_relu(batch_norm(x, weights, f"{name}.norm") if number else x)
    return functional.conv2d(x, weights["logits.weight"], weights["logits.bias"], padding=1)


def d_loss_of(real, fake, mode):
    if mode == "lsgan":
        return (((real - 1) ** 2).mean() + (fake**2).mean()) / 2
    real, fake = (1 / (1 + torch.exp(-logits)) for logits in (real, fake))
    return -(torch.log(real).mean() + torch.log(1 - fake).mean()) / 2


def g_gan_of(fake, mode):
    if mode == "lsgan":
        return ((fake - 1) ** 2).mean()
    return -torch.log(1 / (1 + torch.exp(-fake))).mean()


class WrittenOut:
    """The weights, moments and average of a run, and its step, as equations."""

    def __init__(self, generator, discriminator) -> None:
        self.generator = {name: p.detach().clone() for name, p in generator.named_parameters()}
        self.judge = {name: p.detach().clone() for name, p in discriminator.named_parameters()}
        self.statistics = {
            name: value.clone() for name, value in generator.named_buffers() if "running" in name
        }
        self.average = {
            name: value.clone() for name, value in {**self.generator, **self.statistics}.items()
        }
        self.moments = {
            id(weights): dict.fromkeys(weights, (0.0, 0.0))
            for weights in (self.generator, self.judge)
        }
        self.count = 0

    def step(self, batches, mode):
        """One update of the discriminator, then one of the generator against the new one."""
        self.count += 1
        pairs = [(unit_range(batch[:, :3]), unit_range(batch[:, 3:])) for batch in batches]
        for weights in (*self.generator.values(), *self.judge.values()):
            weights.requires_grad_(True)
        drawn = [unet(source, self.generator, self.statistics) for source, _ in pairs]
        d_loss = sum(
            d_loss_of(
                patch_gan(source, target, self.judge),
                patch_gan(source, picture.detach(), self.judge),
                mode,
            )
            for (source, target), picture in zip(pairs, drawn, strict=True)
        ) / len(pairs)
        self.adam(self.judge, d_loss)
        g_gan = sum(
            g_gan_of(patch_gan(source, picture, self.judge), mode)
            for (source, _), picture in zip(pairs, drawn, strict=True)
        ) / len(pairs)
        l1 = sum(
            (picture - target).abs().mean()
            for (_, target), picture in zip(pairs, drawn, strict=True)
        ) / len(pairs)
        self.adam(self.generator, g_gan + LAMBDA_L1 * l1)
        keep = min(0.999, self.count / (10 + self.count))
        for name, value in {**self.generator, **self.statistics}.items():
            self.average[name] = keep * self.average[name] + (1 - keep) * value.detach()
        return {"d_loss": d_loss.item(), "g_gan": g_gan.item(), "g_l1": l1.item() * 127.5}

    def adam(self, weights, loss):
        slopes = torch.autograd.grad(loss, list(weights.values()))
        moments = self.moments[id(weights)]
        for (name, value), slope in zip(list(weights.items()), slopes, strict=True):
            first, second = moments[name]
            first = BETA1 * first + (1 - BETA1) * slope
            second = BETA2 * second + (1 - BETA2) * slope**2
            moments[name] = first, second
            unbiased = first / (1 - BETA1**self.count), second / (1 - BETA2**self.count)
            new = value.detach() - LR * unbiased[0] / (unbiased[1] ** 0.5 + EPS)
            weights[name] = new.requires_grad_(True)


def worst(ours, expected):
    """The largest difference of any number."""
    return max((ours[name] - value).abs().max().item() for name, value in expected.items())


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("mode", ["vanilla", "lsgan"])
def test_losses_weights_and_average_are_those_of_the_equations(mode, batches):
    run = training(mode)
    reference = WrittenOut(run.generator, run.discriminator)
    first = {name: value.clone() for name, value in run.generator.state_dict().items()}
    for step, parts in enumerate(made_pairs(batches), 1):
        expected = reference.step(parts, mode)
        losses = run.train_step(parts)
        for name, value in expected.items():
            assert getattr(losses, name) == pytest.approx(value, rel=TOLERANCE), (step, name)
        assert worst(run.generator.state_dict(), reference.generator) < TOLERANCE
        assert worst(run.generator.state_dict(), reference.statistics) < TOLERANCE
        assert worst(run.discriminator.state_dict(), reference.judge) < TOLERANCE
        assert worst(run.average.state_dict(), reference.average) < TOLERANCE
    # Each layer has moved by far more than the difference that is allowed.
    now = run.generator.state_dict()
    assert min((now[name] - first[name]).abs().max() for name in reference.generator) > 1e-4
