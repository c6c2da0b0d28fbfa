"""BatchNorm at inference: which statistics, why, and that the frame's own are those of train()."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_runs import lively_generator
from pairs import picture
from torch import nn

from export.norm_stats import choose_norm_stats, has_batch_norm, with_batch_statistics
from trainer.config import GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def small_network(affine=True):
    """A convolution and a BatchNorm whose running statistics are not those of a picture."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, eps=1e-3, affine=affine)
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(2.0)
    if affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), norm, nn.Tanh()).eval()


def draws(generator):
    """uint8 [H, W, 3] to the same."""

    def draw(frame):
        x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            drawn = generator(x)[0].permute(1, 2, 0).numpy()
        return np.clip(np.rint(drawn * 127.5 + 127.5), 0, 255).astype(np.uint8)

    return draw


def pairs_drawn_by(generator, count=3):
    frames = [picture(seed, 32, 32) for seed in range(count)]
    return [(frame, draws(generator)(frame)) for frame in frames]


def choice(generator, asked=None, foreign=True, pairs=()):
    found = choose_norm_stats(generator, asked, foreign=foreign, pairs=pairs, draws=draws)
    assert "\n" not in found.why
    return found


@pytest.mark.parametrize("affine", [True, False])
def test_the_frames_own_statistics_are_those_of_training_mode_at_batch_size_one(affine):
    network = small_network(affine)
    x = torch.rand(1, 3, 16, 24) * 2 - 1
    own = with_batch_statistics(network)
    with torch.no_grad():
        drawn, folding = own(x), network(x)
        expected = network.train()(x)
    assert (drawn - expected).abs().max() < 1e-5
    assert (drawn - folding).abs().max() > 0.1, "the two would be the same"
    assert not own.training
    assert not has_batch_norm(own)


def test_each_picture_of_a_batch_has_its_own_statistics():
    own = with_batch_statistics(small_network())
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        together, alone = own(x), torch.cat([own(one[None]) for one in x])
    assert (together - alone).abs().max() < 1e-6


def test_the_generator_itself_is_left_as_it_was():
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        with_batch_statistics(network)(torch.rand(1, 3, 8, 8))
    assert has_batch_norm(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_norms_of_a_generator_of_ours_are_found_however_deep():
    generator = lively_generator(GeneratorConfig("resnet_6blocks", 2))
    assert has_batch_norm(generator)
    own = with_batch_statistics(generator)
    assert not has_batch_norm(own)
    assert sum(isinstance(m, nn.InstanceNorm2d) for m in own.modules()) == 3 + 2 * 6 + 2


@pytest.mark.parametrize("best", ["running", "batch"])
@pytest.mark.parametrize("foreign", [True, False])
def test_pairs_decide_whoever_trained_it(best, foreign):
    network = small_network()
    better = network if best == "running" else with_batch_statistics(network)
    found = choice(network, foreign=foreign, pairs=pairs_drawn_by(better))
    assert found.stats == best
    other = "batch" if best == "running" else "running"
    assert "L1 0.0 grey levels against " in found.why
    assert f"with {other} statistics, on 3 pairs" in found.why


def test_statistics_that_fold_win_where_the_others_are_hardly_better():
    network = small_network()
    own = draws(with_batch_statistics(network))
    folding = draws(network)
    frame = picture(1, 32, 32)
    # A target half of which is one picture and half the other, but for a few pixels.
    target = folding(frame)
    target[:, ::2] = own(frame)[:, ::2]
    target[:10, 1] = own(frame)[:10, 1]
    errors = [np.abs(draw(frame).astype(int) - target).mean() for draw in (folding, own)]
    assert 0.98 < errors[1] / errors[0] < 1
    assert choice(network, pairs=[(frame, target)]).stats == "running"


@pytest.mark.parametrize(
    ("foreign", "stats", "told"),
    [(True, "batch", "its own test.py draws without --eval"), (False, "running", "p2p-train")],
)
def test_without_pairs_it_draws_as_its_own_project_draws(foreign, stats, told):
    found = choice(small_network(), foreign=foreign)
    assert found.stats == stats
    assert told in found.why


@pytest.mark.parametrize("asked", ["running", "batch"])
def test_what_is_asked_for_wins_over_pairs(asked):
    network = small_network()
    better = network if asked == "batch" else with_batch_statistics(network)
    found = choice(network, asked, pairs=pairs_drawn_by(better))
    assert found.stats == asked
    assert "as asked with --norm-stats" in found.why


@pytest.mark.parametrize(("asked", "told"), [(None, ""), ("batch", "--norm-stats batch changes")])
def test_without_batch_norm_there_is_nothing_to_choose(asked, told):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3))
    found = choice(network, asked, pairs=pairs_drawn_by(network))
    assert found.stats is None
    assert found.why.startswith(told)
    assert bool(found.why) == bool(told)
