"""The networks are those of the paper."""

from __future__ import annotations

import pytest
import reference_generators as reference
import torch
from torch import nn

from trainer.config import GeneratorConfig, TrainConfig
from trainer.discriminators import PatchDiscriminator
from trainer.errors import ConfigError
from trainer.generators import build_generator

pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_unet_256_has_the_parameters_of_the_reference_implementation():
    # pytorch-CycleGAN-and-pix2pix prints 54.414 M; its first and its deepest layer, which have no
    # norm, have no bias either: ours do.
    reference = 54_413_955
    assert parameters(build_generator(GeneratorConfig("unet_256"))) == reference + 64 + 512


def test_unet_halves_the_picture_eight_times_down_to_one_pixel():
    generator = build_generator(GeneratorConfig("unet_256", ngf=2)).eval()
    sizes = []
    for block in generator.down:
        block.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[2:])))
    generator(torch.zeros(1, 3, 256, 256))
    assert sizes == [(2**k, 2**k) for k in range(7, -1, -1)]


def test_output_has_the_size_of_the_input_for_any_multiple():
    generator = build_generator(GeneratorConfig("unet_128", ngf=2)).eval()
    assert generator(torch.zeros(1, 3, 128, 384)).shape == (1, 3, 128, 384)


def test_dropout_is_in_the_first_three_decoder_blocks_alone():
    generator = build_generator(GeneratorConfig("unet_256", ngf=2))
    has_dropout = [isinstance(block.dropout, nn.Dropout) for block in generator.up]
    assert has_dropout == [True] * 3 + [False] * 5


def test_first_deepest_and_last_layers_have_no_norm():
    generator = build_generator(GeneratorConfig("unet_256", ngf=2))
    assert [isinstance(b.norm, nn.BatchNorm2d) for b in generator.down] == (
        [False] + [True] * 6 + [False]
    )
    assert [isinstance(b.norm, nn.BatchNorm2d) for b in generator.up] == [True] * 7 + [False]


@pytest.mark.parametrize(
    ("name", "norm", "millions"),
    [
        ("resnet_9blocks", "instance", 11.378),  # as pytorch-CycleGAN-and-pix2pix prints them
        ("resnet_9blocks", "batch", 11.383),
        ("resnet_6blocks", "instance", 7.838),
        ("resnet_6blocks", "batch", 7.841),
    ],
)
def test_resnets_have_the_parameters_of_the_reference_implementation(name, norm, millions):
    ours = parameters(build_generator(GeneratorConfig(name, norm=norm)))
    assert ours == parameters(reference.resnet(int(name[7]), 64, norm))
    assert ours / 1e6 == pytest.approx(millions, abs=0.0006)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("blocks", [6, 9])
def test_resnets_draw_what_an_independent_definition_draws(blocks, norm):
    x = torch.rand(1, 3, 16, 24) * 2 - 1
    theirs = reference.lively(reference.resnet(blocks, 4, norm, dropout=True), x)
    ours = build_generator(GeneratorConfig(f"resnet_{blocks}blocks", ngf=4, norm=norm))
    names, values = ours.state_dict(), theirs.state_dict()
    if norm == "none":  # a convolution before no norm has a bias in ours alone
        for name, value in names.items():
            if name.endswith("conv.bias") and name != "head.conv.bias":
                value.zero_()
        names = [n for n in names if not n.endswith("conv.bias") or n == "head.conv.bias"]
    ours.load_state_dict(dict(zip(names, values.values(), strict=True)), strict=norm != "none")
    with torch.no_grad():
        drawn, expected = ours.eval()(x), theirs(x)
    assert expected.std() > 0.1, "a plain picture would prove nothing"
    assert (drawn - expected).abs().max() < 1e-5


def test_a_resnet_takes_any_multiple_of_four():
    generator = build_generator(GeneratorConfig("resnet_6blocks", ngf=2)).eval()
    assert GeneratorConfig("resnet_6blocks").size_multiple == 4
    for height, width in ((8, 8), (36, 60)):
        assert generator(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize(("dropout", "expected"), [(0.5, 6), (0.0, 0)])
def test_dropout_of_a_resnet_is_in_each_residual_block(dropout, expected):
    generator = build_generator(GeneratorConfig("resnet_6blocks", ngf=2, dropout=dropout))
    assert sum(isinstance(m, nn.Dropout) for m in generator.modules()) == expected
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(generator.eval()(x), generator(x))
        assert torch.equal(generator.train()(x), generator(x)) is (expected == 0)


@pytest.mark.parametrize("name", ["unet_128", "resnet_9blocks"])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 3), (3, 1)])
def test_grey_goes_in_and_out(name, inputs, outputs):
    config = GeneratorConfig(name, 2, input_channels=inputs, output_channels=outputs)
    drawn = build_generator(config).eval()(torch.zeros(1, inputs, 128, 128))
    assert drawn.shape == (1, outputs, 128, 128)


def test_every_skip_reaches_the_decoder():
    generator = build_generator(GeneratorConfig("unet_256", ngf=2, norm="none")).eval()
    x = torch.randn(1, 3, 256, 256)
    before = generator(x)
    for level in range(8):
        handle = generator.down[level].register_forward_hook(lambda _m, _i, out: out * 0 + 1)
        assert not torch.equal(generator(x), before), f"level {level} changes nothing"
        handle.remove()


def test_weights_are_drawn_from_a_normal_distribution_of_two_hundredths():
    generator = build_generator(GeneratorConfig("unet_256", ngf=16))
    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(module.weight.mean().item()) < 0.002
        if isinstance(module, nn.BatchNorm2d) and module.num_features > 100:
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.01)


def test_discriminator_has_the_parameters_of_the_reference_implementation():
    assert parameters(PatchDiscriminator(3, 3, ndf=64)) == 2_768_705


def test_one_output_of_the_discriminator_sees_seventy_pixels():
    # Without norm: BatchNorm's statistics would let every output see the whole picture.
    discriminator = PatchDiscriminator(3, 3, ndf=4).eval()
    picture = torch.randn(1, 3, 256, 256, requires_grad=True)
    logits = discriminator(torch.randn(1, 3, 256, 256), picture)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    rows = picture.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    columns = picture.grad.abs().sum(dim=(0, 1, 2)).nonzero()
    assert len(rows) == len(columns) == PatchDiscriminator.receptive_field_px == 70


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop_size": 250}, "--crop-size 250"),
        ({"load_size": 200}, "--load-size 200"),
        ({"direction": "BtoC"}, "--direction BtoC"),
        ({"gan_mode": "wgan"}, "--gan-mode wgan"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"lr": -1.0}, "--lr -1"),
        ({"steps": 0}, "--steps 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_the_name_of_their_flag(settings, told):
    with pytest.raises(ConfigError, match=told):
        TrainConfig(**settings)
