"""The discriminators are those of the paper; each logit judges one patch of the stated size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config import RECEPTIVE_FIELDS_PX, DiscriminatorConfig
from trainer.discriminators import build_discriminator
from trainer.errors import ConfigError
from trainer.losses import discriminator_loss, gradient_penalty

pytestmark = pytest.mark.usefixtures("one_thread")


def built(seed: int = 0, **settings):
    torch.manual_seed(seed)
    return build_discriminator(DiscriminatorConfig(**{"ndf": 4, **settings}), 3, 3)


def pictures(side_px: int, count: int = 2):
    random = torch.Generator().manual_seed(7)
    return [torch.rand(count, 3, side_px, side_px, generator=random) * 2 - 1 for _ in "ab"]


@pytest.mark.parametrize(
    ("patch_px", "parameters"),
    [
        # Written out by hand, k x k x inputs x outputs and what biases and norms there are:
        (1, (6 * 64 + 64) + (64 * 128 + 2 * 128) + (128 + 1)),
        (16, 16 * (6 * 64 + 64 * 128 + 128) + 64 + 2 * 128 + 1),
        # as pytorch-CycleGAN-and-pix2pix prints it: 2.769 M
        (70, 2_768_705),
        # two more C512, with their norms
        (286, 2_768_705 + 2 * (16 * 512 * 512 + 2 * 512)),
    ],
)
def test_has_the_parameters_of_the_papers_layers(patch_px, parameters):
    network = built(receptive_field_px=patch_px, ndf=64)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("patch_px", RECEPTIVE_FIELDS_PX)
def test_a_logit_depends_on_a_patch_of_the_stated_size_and_on_no_more(patch_px):
    network = built(receptive_field_px=patch_px, ndf=1, norm="none").double()
    for weights in network.parameters():  # positive everywhere, so that nothing cancels out
        nn.init.constant_(weights, 0.01)
    condition, image = (torch.ones(1, 3, 384, 384, dtype=torch.float64) for _ in "ab")
    image.requires_grad_(True)
    logits = network(condition, image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    touched = image.grad[0].abs().sum(0).nonzero()
    box = touched.max(0).values - touched.min(0).values + 1
    assert box.tolist() == [patch_px, patch_px]
    assert len(touched) == patch_px**2
    assert network.receptive_field_px == patch_px


def test_seventy_pixels_judge_a_picture_of_256_in_30_by_30_patches():
    condition, image = pictures(256, count=1)
    assert built(ndf=1)(condition, image).shape == (1, 1, 30, 30)


def test_first_block_and_logits_alone_have_no_norm_and_have_biases():
    network = built()
    assert [isinstance(b.norm, nn.BatchNorm2d) for b in network.blocks] == [False, *[True] * 3]
    assert [b.conv.bias is not None for b in network.blocks] == [True, *[False] * 3]
    assert network.logits.bias is not None


@pytest.mark.parametrize(
    ("norm", "kind"), [("instance", nn.InstanceNorm2d), ("none", nn.Identity)]
)
def test_norm_is_the_one_asked_for(norm, kind):
    network = built(norm=norm)
    assert all(isinstance(block.norm, kind) for block in network.blocks[1:])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_without_a_norm_every_convolution_has_a_bias():
    assert all(block.conv.bias is not None for block in built(norm="none").blocks)


def test_the_condition_counts():
    condition, image = pictures(32)
    network = built()
    assert not torch.equal(network(condition, image), network(condition.flip(0), image))


def test_unconditional_ignores_the_condition():
    condition, image = pictures(32)
    network = built(conditional=False)
    assert network.blocks[0].conv.in_channels == 3
    assert torch.equal(network(condition, image), network(condition.flip(0), image))


@pytest.mark.parametrize(("patch_px", "blocks"), [(1, 2), (16, 2), (70, 4), (286, 6)])
def test_features_are_the_outputs_of_each_block_and_last_the_logits(patch_px, blocks):
    condition, image = pictures(96)
    network = built(receptive_field_px=patch_px).eval()
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda _m, _i, out: seen.append(out))
    features = network.features(condition, image)
    assert len(features) == blocks + 1
    assert all(torch.equal(ours, out) for ours, out in zip(features, seen, strict=False))
    assert torch.equal(features[-1], network(condition, image))
    through_forward = network(condition, image, with_features=True)
    assert all(torch.equal(a, b) for a, b in zip(features, through_forward, strict=True))


def test_spectral_norm_holds_the_largest_singular_value_of_every_convolution_at_one():
    network = built(spectral_norm=True)
    condition, image = pictures(32)
    for _ in range(100):
        network(condition, image)
    network.eval()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 5
    for conv in convolutions:
        largest = torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(1.0, abs=1e-3)


def test_without_spectral_norm_the_weights_are_drawn_from_the_papers_distribution():
    weights = built(ndf=64).blocks[2].conv.weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean().item()) < 1e-4


@pytest.mark.parametrize("spectral", [False, True])
def test_one_seed_gives_one_discriminator(spectral):
    first, again, other = (built(seed, spectral_norm=spectral).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("patch_px", "least_px"), [(1, 1), (16, 6), (70, 24), (286, 96)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_picture_too_small_for_one_logit_is_refused_in_one_line(patch_px, least_px, norm):
    network = built(receptive_field_px=patch_px, norm=norm)
    if patch_px > 1:
        assert network(*pictures(least_px)).shape == (2, 1, 1, 1)
        with pytest.raises(ConfigError, match=f"at least {least_px} pixels a side.*--patch"):
            network(*pictures(least_px - 1))
    assert network.smallest_px == least_px


def test_compiles_into_one_graph():
    network = built().eval()
    condition, image = pictures(32)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(condition, image), network(condition, image))


@pytest.fixture
def process_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("mode", "norm", "spectral"),
    [("vanilla", "batch", False), ("hinge", "none", True), ("wgangp", "instance", False)],
)
def test_in_distributed_data_parallel_it_has_the_same_gradients(
    process_group, mode, norm, spectral
):
    source, target = pictures(32)
    drawn = target.flip(3)
    mix = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)
    gradients = []
    for wrap in (False, True):
        network = built(norm=norm, spectral_norm=spectral)
        judge = DistributedDataParallel(network) if wrap else network
        real, fake = (judge(source, image, with_features=True) for image in (target, drawn))
        loss = discriminator_loss(real[-1], fake[-1], mode)
        if mode == "wgangp":
            loss = loss + 10 * gradient_penalty(judge, source, target, drawn, mix)
        loss.backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(math.isfinite(g.abs().sum()) for g in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0])
