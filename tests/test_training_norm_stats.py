"""What training normalises by is what is exported, and each frame is seen at one exposure."""

from __future__ import annotations

import pytest
import torch
from commands import done, refused
from made_runs import lively_generator
from pairs import write_side_by_side
from torch import nn

from trainer.batches import to_unit_range
from trainer.checkpoint import load_generator, load_training
from trainer.cli import train
from trainer.config import GeneratorConfig, TrainConfig
from trainer.generators import build_generator
from trainer.norm_stats import measure_statistics, own_statistics, still_statistics
from trainer.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count, side_px=128):
    torch.manual_seed(3)
    return torch.randint(0, 256, (count, 6, side_px, side_px), dtype=torch.uint8)


def statistics(network):
    return {
        name: value.clone()
        for name, value in network.state_dict().items()
        if "running" in name or "num_batches" in name
    }


def test_measured_statistics_are_those_of_what_each_layer_sees():
    torch.manual_seed(0)
    network = build_generator(GeneratorConfig("unet_128", ngf=4, dropout=0))
    source, _ = to_unit_range(pictures(4), torch.device("cpu"))
    measure_statistics(network, source)
    assert network.training
    seen = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1
            module.register_forward_hook(lambda m, inputs, _out: seen.append((m, inputs[0])))
    network.eval()(source)
    assert len(seen) == 11
    # The deepest layers see few values, which BatchNorm divides by N while it trains, and by
    # N - 1 for its running variance.
    for module, x in seen:
        spread = x.std((0, 2, 3))
        assert ((module.running_mean - x.mean((0, 2, 3))).abs() < 0.1 * spread).all()
        assert ((module.running_var.sqrt() / spread - 1).abs() < 0.1).all()


def test_with_fixed_statistics_training_sees_what_is_exported():
    config = TrainConfig(
        generator=GeneratorConfig("unet_128", ngf=4, dropout=0), crop_size=128, fixed_stats=True
    )
    training = Training(config, 10, torch.device("cpu"))
    training.fix_statistics(pictures(4))
    fixed = statistics(training.generator)
    assert all(torch.equal(v, fixed[k]) for k, v in statistics(training.average).items())
    for _ in range(3):
        training.train_step([pictures(1)])
    assert all(torch.equal(v, fixed[k]) for k, v in statistics(training.generator).items())
    source, _ = to_unit_range(pictures(1), torch.device("cpu"))
    while_training = training.generator(source)
    torch.testing.assert_close(while_training, training.generator.eval()(source))


def test_looking_with_other_statistics_leaves_no_trace():
    network = build_generator(GeneratorConfig("unet_128", ngf=4)).eval()
    before = statistics(network)
    source, _ = to_unit_range(pictures(2), torch.device("cpu"))
    plain = network(source)
    with own_statistics(network):
        assert not torch.allclose(network(source), plain, atol=1e-4)
    torch.testing.assert_close(network(source), plain)
    network.train()
    with still_statistics(network):
        network(source)
    after = statistics(network)
    assert all(torch.equal(v, after[k]) for k, v in before.items() if "running" in k)


@pytest.mark.parametrize("name", ["unet_128", "resnet_6blocks", "mobilenet_unet"])
def test_exposure_and_white_balance_do_not_matter_with_a_normalised_input(name):
    network = lively_generator(GeneratorConfig(name, ngf=8, input_norm=True))
    torch.manual_seed(0)
    frame = torch.rand(1, 3, 128, 128) * 1.2 - 0.6
    gain, offset = torch.tensor([1.4, 0.9, 0.8]), torch.tensor([0.1, -0.2, 0.05])
    other = frame * gain[:, None, None] + offset[:, None, None]
    drawn = network(frame)
    plain = network.generator
    assert (plain(other) - plain(frame)).abs().mean() > 0.15 * drawn.std(), "without it they do"
    assert (network(other) - drawn).abs().mean() < 0.05 * drawn.std()
    black = network(torch.full((1, 3, 128, 128), -1.0))
    assert torch.isfinite(black).all()


@pytest.mark.slow
def test_both_are_options_of_the_command_and_kept_in_the_checkpoint(tmp_path):
    data = write_side_by_side(tmp_path / "pairs", 6, 128, 128)
    out = tmp_path / "run"
    settings = ("--netG", "unet_128", "--ngf", "4", "--ndf", "4", "--crop-size", "128")
    options = ("--input-norm", "--fixed-stats", "--batch-size", "1", "--steps")
    done(train, data, *settings, *options, "2", "--out", out)
    first = load_training(out)
    done(train, "--resume", out, "--steps", "4")
    second = load_training(out)
    for name, value in first.networks["generator"].items():
        if "running" in name:
            assert torch.equal(value, second.networks["generator"][name])
    generator, info = load_generator(out)
    assert info.config.input_norm
    assert generator(torch.zeros(1, 3, 128, 128)).shape == (1, 3, 128, 128)
    line = refused(train, data, "--fixed-stats", "--norm", "none", "--out", tmp_path / "other")
    assert "--fixed-stats with --norm none" in line
