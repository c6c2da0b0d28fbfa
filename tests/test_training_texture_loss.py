"""The texture term: what it rewards, by pictures whose texture is known."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.texture_loss import sliced_wasserstein_loss
from trainer.wasserstein import sliced_wasserstein


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def textured(pictures=2, side_px=96, seed=0):
    """Smooth noise with some fine noise on it, -1 to 1."""
    made = torch.Generator().manual_seed(seed)
    coarse = torch.randn(pictures, 3, side_px // 8, side_px // 8, generator=made)
    fine = torch.randn(pictures, 3, side_px, side_px, generator=made)
    picture = functional.interpolate(coarse, (side_px, side_px), mode="bilinear") + 0.3 * fine
    return torch.tanh(0.5 * picture)


def blurred(picture):
    return functional.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)


def test_equal_pictures_cost_nothing_and_mirrored_ones_next_to_nothing():
    picture = textured()
    assert sliced_wasserstein_loss(picture, picture).item() == 0
    blur = sliced_wasserstein_loss(blurred(picture), picture).item()
    mirrored = sliced_wasserstein_loss(picture.flip(3), picture).item()
    assert mirrored < 0.3 * blur, "the same patches elsewhere, and their mirror images"


@pytest.mark.parametrize(
    "spoilt",
    [
        blurred,
        lambda picture: picture + 0.3 * torch.randn_like(picture),
        lambda picture: picture + torch.tensor([0.2, 0.0, -0.2])[:, None, None],
        lambda picture: 0.5 * picture,
    ],
    ids=["blur", "coloured grain", "colour cast", "half the contrast"],
)
def test_what_looks_wrong_costs_more_than_another_picture_of_the_same_kind(spoilt):
    picture, another = textured(), textured(seed=1)
    assert sliced_wasserstein_loss(spoilt(picture), picture) > 1.5 * sliced_wasserstein_loss(
        another, picture
    )


def test_it_ranks_as_the_measure_of_p2p_eval_does():
    picture = textured(4)

    def measured(drawn):
        as_bytes = [
            ((one.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
            for one in (drawn, picture)
        ]
        return sliced_wasserstein(*as_bytes).mean

    noise = torch.randn_like(picture)
    spoilt = [picture + share * noise for share in (0.05, 0.2, 0.5)]
    by_loss = [sliced_wasserstein_loss(one, picture).item() for one in spoilt]
    by_measure = [measured(one) for one in spoilt]
    assert by_loss == sorted(by_loss)
    assert by_measure == sorted(by_measure)


def test_its_gradient_gives_a_blur_its_texture_back():
    target = textured(1, 64)
    drawn = blurred(target).requires_grad_()
    optimizer = torch.optim.Adam([drawn], lr=0.02)
    first = sliced_wasserstein_loss(drawn, target).item()
    for _ in range(60):
        optimizer.zero_grad()
        sliced_wasserstein_loss(drawn, target).backward()
        optimizer.step()
    assert sliced_wasserstein_loss(drawn, target).item() < 0.3 * first


@pytest.mark.parametrize("size_px", [(16, 16), (48, 80), (130, 257)])
def test_any_size_and_half_precision(size_px):
    drawn = torch.rand(2, 1, *size_px, dtype=torch.bfloat16, requires_grad=True)
    loss = sliced_wasserstein_loss(drawn, torch.rand(2, 1, *size_px, dtype=torch.bfloat16))
    loss.backward()
    assert loss.dtype == torch.float32
    assert drawn.grad is not None
    assert torch.isfinite(drawn.grad).all()
    assert drawn.grad.abs().sum() > 0
