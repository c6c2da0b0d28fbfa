"""Pruning keeps the important channels, and what depends on each other stays together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from commands import done, refused
from made_runs import lively_generator, pictures, side_of, write_run
from torch import nn

from trainer.catalogue import macs_of
from trainer.checkpoint import load_generator
from trainer.config import GENERATORS, GeneratorConfig
from trainer.errors import ConfigError
from trainer.generators import build_generator
from trainer.prune import kept_places, pruned
from trainer.prune_channels import Axis, couplings_of
from trainer.prune_cli import prune

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = [
    GeneratorConfig("unet_128", ngf=8),
    GeneratorConfig("unet_128", ngf=8, norm="none", upsample="subpixel", input_norm=True),
    GeneratorConfig("encoder_decoder", ngf=8, upsample="resize"),
    GeneratorConfig("resnet_6blocks", ngf=12, input_norm=True),
    GeneratorConfig("resnet_6blocks", ngf=12, norm="instance", upsample="subpixel"),
    GeneratorConfig("dense_unet", ngf=8, upsample="subpixel"),
    GeneratorConfig("mobilenet_unet", ngf=32),
    GeneratorConfig("edge_unet_s", ngf=32, input_norm=True),
    GeneratorConfig("relight_s", ngf=32, input_norm=True),
    GeneratorConfig("pyramid", ngf=16),
]
"""One of each, with every norm and every way to double a picture."""
SMALLER = {"mobilenet_unet": 20}


def learned(generator):
    return sum(values.numel() for values in generator.parameters())


def kill(generator, kept):
    """Make all channels dead but those in `kept`: filters, biases, scales and shifts are 0."""
    with torch.no_grad():
        for name, values in generator.named_parameters():
            module = generator.get_submodule(name.rpartition(".")[0])
            is_transposed = isinstance(module, nn.ConvTranspose2d) and values.ndim == 4
            axis = Axis(name, 1 if is_transposed else 0)
            if axis in kept:
                alive = torch.zeros(values.shape[axis.dim], dtype=values.dtype)
                alive[kept[axis]] = 1
                values.mul_(
                    alive.reshape([-1 if d == axis.dim else 1 for d in range(values.ndim)])
                )


@pytest.mark.parametrize("config", FAMILIES, ids=lambda c: f"{c.name}-{c.norm}-{c.upsample}")
def test_without_its_dead_channels_it_draws_the_same(config):
    generator = lively_generator(config).double()
    smaller = replace(config, ngf=SMALLER.get(config.name, config.ngf // 2))
    kill(generator, kept_places(generator, config, smaller))
    narrow, made = pruned(generator, config, smaller.ngf)
    assert made == smaller
    assert learned(narrow) < learned(generator)
    x = pictures(1, side_of(config)).double()
    with torch.no_grad():
        wide_picture, narrow_picture = generator(x), narrow.double()(x)
    assert wide_picture.std() > 1e-3, "it draws something"
    assert (wide_picture - narrow_picture).abs().max() < 1e-5


def test_every_generator_can_be_made_narrower():
    for name in GENERATORS:
        config, other = GeneratorConfig(name, ngf=32), GeneratorConfig(name, ngf=20)
        wide, narrow = couplings_of(config, other)
        assert wide.families.keys() == narrow.families.keys(), name
        assert wide.places.keys() == narrow.places.keys(), name


def test_a_residual_stream_is_one_and_a_concatenation_couples_nothing():
    config, other = GeneratorConfig("resnet_6blocks", ngf=8), GeneratorConfig("resnet_6blocks", 4)
    stream = frozenset(("down.1.conv", *(f"blocks.{n}.second.conv" for n in range(6))))
    families = couplings_of(config, other)[0].families
    assert stream in families
    assert all(len(family) == 1 for family in families if family != stream)
    config, other = GeneratorConfig("unet_128", ngf=8), GeneratorConfig("unet_128", ngf=4)
    assert all(len(family) == 1 for family in couplings_of(config, other)[0].families)


def test_depth_to_space_couples_the_four_phases_and_the_skip():
    config, other = GeneratorConfig("edge_unet_s", ngf=32), GeneratorConfig("edge_unet_s", ngf=16)
    families = couplings_of(config, other)[0].families
    family = next(f for f in families if "trunk.up.2.conv" in f)
    assert family == {"trunk.up.2.conv", "trunk.stem.conv"}
    for number, group in enumerate(families[family]):
        phases = [f.number for f in group if f.convolution == "trunk.up.2.conv"]
        assert phases == list(range(4 * number, 4 * number + 4))


def test_the_most_important_channels_stay_in_their_order():
    config = GeneratorConfig("resnet_6blocks", ngf=8)
    generator, smaller = lively_generator(config), replace(config, ngf=4)
    chosen = sorted(torch.randperm(32, generator=torch.Generator().manual_seed(5))[:16].tolist())
    modules = dict(generator.named_modules())
    with torch.no_grad():
        # Important by its filter in one layer, by its norm's scale in all others of the stream.
        modules["down.1.conv"].weight[chosen] *= 50
        for block in generator.blocks:
            block.second.norm.weight[chosen] *= -50
    kept = kept_places(generator, config, smaller)
    assert kept[Axis("down.1.conv.weight", 0)] == chosen
    assert kept[Axis("blocks.3.second.norm.running_var", 0)] == chosen
    assert kept[Axis("blocks.2.first.conv.weight", 1)] == chosen
    assert kept[Axis("up.0.conv.weight", 0)] == chosen
    narrow, _ = pruned(generator, config, 4)
    wanted = modules["up.0.conv"].weight[chosen][:, kept[Axis("up.0.conv.weight", 1)]]
    assert torch.equal(narrow.up[0].conv.weight, wanted)


def test_a_filter_is_judged_by_what_batch_norm_makes_of_it():
    config = GeneratorConfig("unet_128", ngf=8)
    generator = lively_generator(config)
    block = generator.down[1]
    with torch.no_grad():
        block.conv.weight[:8] *= 1e-3  # which BatchNorm takes back
        block.norm.running_var[:8] *= 1e-6
        block.norm.eps = 0.0
        block.norm.weight[:8] = 100
        block.norm.weight[8:] = 1
        block.conv.weight[8:] = block.conv.weight[:8] * 1e3
        block.norm.running_var[8:] = block.norm.running_var[:8] * 1e6
    kept = kept_places(generator, config, replace(config, ngf=4))
    assert kept[Axis("down.1.conv.weight", 0)] == list(range(8))


@pytest.mark.parametrize(
    ("config", "ngf", "told"),
    [
        (GeneratorConfig("unet_128", ngf=8), 8, "--ngf 8 for a generator of ngf 8"),
        (GeneratorConfig("edge_unet_s", ngf=32), 31, "as wide as at 32"),
        (GeneratorConfig("mobilenet_unet", ngf=24), 12, "other sums than at 24"),
        (GeneratorConfig("unet_128", ngf=8), 0, "--ngf 0"),
    ],
    ids=["not-smaller", "rounded-to-the-same", "other-sums", "none"],
)
def test_what_cannot_be_done_is_refused(config, ngf, told):
    with pytest.raises(ConfigError, match=told):
        pruned(build_generator(config), config, ngf)


def test_the_command_writes_a_checkpoint_and_tells_what_became_of_it(training_pairs, tmp_path):
    config = GeneratorConfig("edge_unet_s", ngf=32)
    run = write_run(tmp_path / "run", config)
    out = tmp_path / "narrow"
    said = done(prune, run, "--keep", "0.5", "--out", out, "--data", training_pairs)
    narrow, info = load_generator(out)
    wide, before = load_generator(run)
    assert info.config == replace(config, ngf=16)
    assert (info.step, info.data, info.size_px) == (before.step, before.data, before.size_px)
    assert info.quality is not None
    assert f"{learned(wide) / 1e6:.2f} M parameters" in said
    macs = macs_of(config, 64) / macs_of(info.config, 64)
    assert f"{learned(wide) / learned(narrow):.1f} and {macs:.1f} times fewer" in said
    assert f"{info.quality['l1']:.1f} after, 3 pairs" in said
    assert f"--init {out / 'generator.safetensors'} --teacher {run}" in said
    file = tmp_path / "file.safetensors"
    assert "held out" not in done(prune, run, "--ngf", "16", "--out", file)
    again, told = load_generator(file)
    assert told.quality is None
    for name, values in narrow.state_dict().items():
        assert torch.equal(values, again.state_dict()[name])


def test_mistakes_in_the_command_are_one_line(tmp_path):
    run = write_run(tmp_path / "run", GeneratorConfig("edge_unet_s", ngf=16))
    out = tmp_path / "out"
    assert "neither --ngf nor --keep" in refused(prune, run, "--out", out)
    assert "--keep 1.5" in refused(prune, run, "--keep", "1.5", "--out", out)
    both = ("--keep", "0.5", "--ngf", "8")
    assert "--ngf and --keep" in refused(prune, run, *both, "--out", out)
    assert "CHECKPOINT itself" in refused(prune, run, "--ngf", "8", "--out", run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "training.safetensors").touch()
    assert "holds a run" in refused(prune, run, "--ngf", "8", "--out", tmp_path / "other")
    assert "ends in .safetensors" in refused(prune, run, "--ngf", "8", "--out", tmp_path / "a.pth")
    assert "no such checkpoint" in refused(prune, tmp_path / "no", "--ngf", "8", "--out", out)
