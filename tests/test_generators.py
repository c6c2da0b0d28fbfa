"""The networks are those of the paper."""

from __future__ import annotations

import pytest
import reference_generators as reference
import torch
from made_runs import pictures, side_of
from torch import nn
from torch.nn import functional

from trainer.config import (
    NORMS,
    UPSAMPLINGS,
    GeneratorConfig,
    ObjectiveConfig,
    TrainConfig,
)
from trainer.errors import ConfigError
from trainer.generators import build_generator
from trainer.generators.layers import (
    ResizeConv2d,
    SubpixelConv2d,
    initialise_weights,
    norm_layer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("unet_128", "encoder_decoder", "resnet_6blocks", "dense_unet", "mobilenet_unet")
"""One of each; the others differ in depth alone."""


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


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_of_a_fresh_generator_gets_a_gradient_that_adam_can_use(name, norm):
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig(name, 8, norm=norm, dropout=0.0))
    seen = pictures(2, side_of(GeneratorConfig(name)))
    (generator(seen) - seen.flip(0)).abs().mean().backward()
    for name, values in generator.named_parameters():
        if name.endswith("conv.weight"):
            # Adam divides by the gradient's size + 1e-8: smaller ones move nothing.
            assert values.grad.square().mean().sqrt() > 5e-8, name


@pytest.mark.parametrize("name", FAMILIES)
def test_without_norms_a_fresh_generator_draws_neither_plain_grey_nor_black_and_white(name):
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig(name, 8, norm="none")).eval()
    with torch.no_grad():
        drawn = generator(pictures(2, side_of(GeneratorConfig(name))))
    assert drawn.std() > 0.002
    assert (drawn.abs() > 0.99).float().mean() < 0.05


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("upsample", UPSAMPLINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_combination_trains_on_one_picture_of_the_smallest_size(name, upsample, norm):
    config = GeneratorConfig(name, 2, norm=norm, upsample=upsample)
    side = config.size_multiple * (2 if name.startswith("resnet") else 1)
    generator = build_generator(config)
    drawn = generator(torch.rand(1, 3, side, side) * 2 - 1)
    assert drawn.shape == (1, 3, side, side)
    drawn.abs().mean().backward()
    assert all(values.grad.isfinite().all() for values in generator.parameters())
    assert all(values.isfinite().all() for values in generator.state_dict().values())
    assert drawn.abs().max() <= 1


@pytest.mark.parametrize("upsample", UPSAMPLINGS)
@pytest.mark.parametrize("name", ["dense_unet", "mobilenet_unet"])
def test_generators_of_five_halvings_take_any_multiple_of_32(name, upsample):
    config = GeneratorConfig(name, 2, upsample=upsample)
    assert config.size_multiple == 32
    assert build_generator(config).eval()(torch.zeros(2, 3, 32, 96)).shape == (2, 3, 32, 96)


def test_the_encoder_decoder_is_the_unet_without_its_skips():
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig("encoder_decoder", ngf=2)).eval()
    widths = [2, 4, 8, 16, 16, 16, 16, 16]
    assert [block.conv.out_channels for block in generator.down] == widths
    assert [block.conv.in_channels for block in generator.up] == widths[::-1]
    x = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        before = generator(x)
        for level in range(8):  # all that it draws comes through the one deepest pixel
            handle = generator.down[level].register_forward_hook(lambda _m, _i, out: out * 0 + 1)
            drawn = generator(x)
            assert not torch.equal(drawn, before)
            assert torch.equal(drawn, generator(-x)), f"something goes around level {level}"
            handle.remove()


def test_the_nodes_of_the_dense_unet_are_joined_as_in_unet_plus_plus():
    generator = build_generator(GeneratorConfig("dense_unet", ngf=2, norm="none")).eval()
    widths = [2, 4, 8, 16, 16]
    assert [len(column) for column in generator.joints] == [4, 3, 2, 1]
    for number, column in enumerate(generator.joints, start=1):
        for row, joint in enumerate(column):
            # Zhou et al. 2018, equation 1: j nodes of the row, and the one below, doubled.
            assert joint.conv.in_channels == (number + 1) * widths[row]
            assert joint.up.conv.in_channels == widths[row + 1]
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = generator(x)
        for block in [
            *generator.down,
            *(joint for column in generator.joints for joint in column),
        ]:
            handle = block.register_forward_hook(lambda _m, _i, out: out + 1)
            assert not torch.equal(generator(x), before)
            handle.remove()


def test_the_encoder_of_the_mobilenet_has_the_parameters_of_the_paper():
    # Table 2 of Sandler et al. 2018: expansion, channels, repeats. Each convolution has a norm
    # with a scale and a shift.
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    expected, inputs = 3 * 32 * 9 + 2 * 32, 32
    for expansion, outputs, repeats in table:
        for _ in range(repeats):
            wide = expansion * inputs
            if expansion > 1:
                expected += inputs * wide + 2 * wide
            expected += 9 * wide + 2 * wide + wide * outputs + 2 * outputs
            inputs = outputs
    encoder = build_generator(GeneratorConfig("mobilenet_unet")).encoder
    assert parameters(encoder) == expected
    # The published network without its classifier has one more layer, 320 to 1280 channels.
    assert expected + 320 * 1280 + 2 * 1280 == 2_223_872


@pytest.mark.parametrize(
    ("ngf", "widths"),
    [(64, [16, 24, 32, 96, 320]), (32, [8, 16, 16, 48, 160]), (2, [8] * 4 + [16])],
)
def test_the_width_of_the_mobilenet_follows_ngf_in_eights(ngf, widths):
    generator = build_generator(GeneratorConfig("mobilenet_unet", ngf)).eval()
    sizes = generator.encoder(torch.zeros(1, 3, 64, 64))
    assert [size.shape[1] for size in sizes] == widths
    assert [size.shape[2] for size in sizes] == [32, 16, 8, 4, 2]


def test_every_skip_of_the_mobilenet_reaches_the_decoder():
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig("mobilenet_unet", 4)).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = generator(x)
        for size in range(5):

            def blank(_module, _inputs, sizes, at=size):
                return [s * 0 + 1 if number == at else s for number, s in enumerate(sizes)]

            handle = generator.encoder.register_forward_hook(blank)
            assert not torch.equal(generator(x), before), f"size {size} changes nothing"
            handle.remove()


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("encoder_decoder", [f"up.{n}" for n in range(3)]),
        ("dense_unet", ["joints.0.3", "joints.1.2", "joints.2.1"]),
        ("mobilenet_unet", [f"up.{n}" for n in range(3)]),
    ],
)
def test_the_noise_z_is_dropout_in_the_first_three_blocks_on_the_way_up(name, blocks):
    generator = build_generator(GeneratorConfig(name, 2))
    found = [at for at, module in generator.named_modules() if isinstance(module, nn.Dropout)]
    assert found == [f"{block}.dropout" for block in blocks]
    without = build_generator(GeneratorConfig(name, 2, dropout=0.0))
    assert not any(isinstance(module, nn.Dropout) for module in without.modules())


def test_transposed_keeps_the_names_and_shapes_of_checkpoints_from_before_there_was_a_choice():
    named = {
        name: tuple(values.shape)
        for name, values in build_generator(GeneratorConfig("unet_128", 2)).state_dict().items()
    }
    assert named["up.0.conv.weight"] == (16, 16, 4, 4)
    assert named["up.6.conv.weight"] == (4, 3, 4, 4)
    assert {name.split(".")[0] for name in named} == {"down", "up"}
    resnet = build_generator(GeneratorConfig("resnet_6blocks", 2)).state_dict()
    assert tuple(resnet["up.0.conv.weight"].shape) == (8, 4, 3, 3)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("upsample", UPSAMPLINGS)
def test_every_doubling_is_of_the_kind_that_was_asked(upsample, name):
    modules = [*build_generator(GeneratorConfig(name, 2, upsample=upsample)).modules()]
    kinds = {
        "transposed": nn.ConvTranspose2d,
        "resize": ResizeConv2d,
        "subpixel": SubpixelConv2d,
    }
    doublings = {"unet_128": 7, "encoder_decoder": 8, "resnet_6blocks": 2, "dense_unet": 11}
    for kind, module in kinds.items():
        count = sum(isinstance(m, module) for m in modules)
        assert count == (doublings.get(name, 5) if kind == upsample else 0)


def test_a_resize_repeats_pixels_and_convolves():
    layer = ResizeConv2d(3, 2, bias=True)
    x = torch.randn(1, 3, 4, 5)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = functional.conv2d(doubled, layer.weight, layer.bias, padding=1)
    assert torch.equal(layer(x), expected)


def test_a_fresh_subpixel_doubling_repeats_each_pixel_and_can_learn_not_to():
    layer = SubpixelConv2d(3, 2, bias=True)
    initialise_weights(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
    x = torch.randn(1, 3, 4, 5)
    drawn = layer(x)
    small = functional.conv2d(x, layer.weight[::4], padding=1)
    assert (drawn - functional.interpolate(small, scale_factor=2)).abs().max() < 1e-6
    with torch.no_grad():
        layer.weight[3] += 1  # the last phase of the first channel: odd rows and columns
    changed = (layer(x) - drawn).abs() > 1e-3
    assert changed[0, 0, 1::2, 1::2].all()
    assert changed.sum() == 4 * 5


@pytest.mark.parametrize("name", FAMILIES)
def test_all_phases_of_a_fresh_subpixel_generator_are_equal(name):
    torch.manual_seed(0)
    config = GeneratorConfig(name, 4, upsample="subpixel", norm="batch")
    generator = build_generator(config).eval()
    heads = [m for m in generator.modules() if isinstance(m, SubpixelConv2d)]
    for head in heads:
        phases = head.weight.unflatten(0, (-1, 4))
        assert torch.equal(phases, phases[:, :1].expand_as(phases))


@pytest.mark.parametrize(("norm", "is_kept"), [("batch", False), ("instance", True)])
def test_a_norm_over_a_single_value_lets_it_pass(norm, is_kept):
    layer = norm_layer(norm, 3).train()
    x = torch.tensor([3.0, -5.0, 0.5]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        if norm == "batch":
            layer.running_mean.fill_(1.0)
            layer.running_var.fill_(4.0)
        passed = layer(x)
        spread = layer(torch.randn(1, 3, 8, 8) * 9 + 4)
    assert torch.allclose(passed, x if is_kept else (x - 1) / 2, atol=1e-4)
    assert spread.mean().abs() < 1e-5
    assert spread.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop_size": 250}, "--crop-size 250"),
        ({"load_size": 200}, "--load-size 200"),
        ({"direction": "BtoC"}, "--direction BtoC"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"lr": -1.0}, "--lr -1"),
        ({"steps": 0}, "--steps 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_the_name_of_their_flag(settings, told):
    with pytest.raises(ConfigError, match=told):
        TrainConfig(**settings)


def test_an_objective_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="--gan-mode wgan"):
        ObjectiveConfig(gan_mode="wgan")
