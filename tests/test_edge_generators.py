"""Generators for real time: they keep a share of the frame, fold, and have no pattern at first."""

from __future__ import annotations

import pytest
import torch
from made_runs import pictures
from torch import nn
from torch.nn import functional

from export.to_onnx import folded
from trainer.catalogue import catalogue
from trainer.config import EDGE_GENERATORS, NORMS, GeneratorConfig
from trainer.errors import ConfigError
from trainer.generators import build_generator
from trainer.generators.edge_unet import EdgeTrunk
from trainer.generators.exposure import normalised
from trainer.generators.pyramid import Pyramid
from trainer.generators.relight import Relight, _softened

pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return build_generator(GeneratorConfig(name, 8, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_every_weight_of_a_fresh_one_gets_a_gradient_that_adam_can_use(name, norm):
    generator = fresh(name, norm=norm, dropout=0.0)
    seen = pictures(2, 64)
    (generator(seen) - seen.flip(0)).abs().mean().backward()
    for label, values in generator.named_parameters():
        if values.ndim == 4:
            # Adam divides by the gradient's size + 1e-8: smaller ones move nothing.
            assert values.grad.square().mean().sqrt() > 5e-8, label


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_it_takes_any_multiple_of_32_and_trains_on_one_picture_of_the_smallest_size(name):
    generator = fresh(name)
    assert generator.eval()(torch.zeros(2, 3, 32, 96)).shape == (2, 3, 32, 96)
    drawn = generator.train()(pictures(1, 32))
    drawn.abs().mean().backward()
    assert all(values.grad.isfinite().all() for values in generator.parameters())


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_all_norms_fold_into_convolutions_and_nothing_is_drawn_otherwise(name):
    generator = fresh(name)
    with torch.no_grad():
        for _ in range(3):
            generator.train()(pictures(4, 64))
    generator.eval()
    plain = folded(generator)
    assert any(isinstance(m, nn.BatchNorm2d) for m in generator.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    seen = pictures(2, 64)
    with torch.no_grad():
        assert (plain(seen) - generator(seen)).abs().max() < 1e-4


def gain_and_offset(retouch, size_px):
    """Both in full, from the maps and the colours of their channels."""

    def in_full(layer):
        large = functional.interpolate(layer.values, size_px, mode="bilinear")
        return (
            large if layer.colours is None else torch.einsum("nkhw,ck->nchw", large, layer.colours)
        )

    return in_full(retouch.gain), sum(in_full(layer) for layer in retouch.offsets)


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_what_it_draws_is_gain_times_frame_plus_offset_in_the_frames_shape(name):
    generator = fresh(name).eval()
    seen = pictures(2, 64)
    with torch.no_grad():
        gain, offset = gain_and_offset(generator.retouch(seen), (64, 64))
        assert gain.shape == offset.shape == seen.shape
        assert generator(seen) - (gain * seen + offset) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("reduction", [2, 4])
@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_with_a_reduction_it_looks_at_a_smaller_copy_and_changes_the_picture_itself(
    name, reduction
):
    generator = fresh(name, reduction=reduction).eval()
    copies = pictures(2, 32)
    detail = 0.2 * (torch.arange(32 * reduction) % 2 * 2 - 1.0)  # the averages do not hold it
    seen = functional.interpolate(copies, scale_factor=float(reduction)) + detail
    with torch.no_grad():
        gain, offset = gain_and_offset(generator.retouch(copies), seen.shape[2:])
        drawn = generator(seen)
        assert (drawn - (gain * seen + offset)).abs().max() < 1e-5
        assert (drawn - generator(seen - detail) - gain * detail).abs().max() < 1e-5


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_a_fresh_one_repeats_pixels_where_it_doubles_so_no_checkerboard_is_there_to_unlearn(name):
    generator = fresh(name)
    trunk = generator.trunk
    assert isinstance(trunk, EdgeTrunk)
    for block in trunk.up:
        phases = block.conv.weight.unflatten(0, (-1, 4))
        assert torch.equal(phases, phases[:, :1].expand_as(phases))


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_with_input_norm_the_network_sees_one_exposure_and_the_frame_itself_is_changed(name):
    seen = pictures(1, 64)
    darker = 0.7 * seen - 0.3
    moved = {}
    with torch.no_grad():
        for input_norm in (False, True):
            generator = fresh(name, input_norm=input_norm).eval()
            # The gain comes from the network alone.
            gains = [generator.retouch(frame).gain.values for frame in (seen, darker)]
            moved[input_norm] = (gains[0] - gains[1]).abs().mean()
        assert moved[True] < 0.2 * moved[False]
        assert (generator(seen) - generator(darker)).abs().max() > 0.05


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_with_frame_norm_the_picture_does_not_depend_on_the_exposure(name, reduction):
    seen = pictures(1, 64)
    tint = torch.tensor([0.6, 0.7, 0.8]).reshape(1, 3, 1, 1)
    darker = tint * seen - 0.2
    generator = fresh(name, input_norm=True, frame_norm=True, reduction=reduction).eval()
    moved = {}
    with torch.no_grad():
        for frame_norm in (True, False):
            generator.frame_norm = frame_norm
            moved[frame_norm] = (generator(seen) - generator(darker)).abs().mean()
    assert moved[True] < 0.2 * moved[False]


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_with_frame_norm_it_draws_what_it_draws_of_the_normalised_frame(name):
    generator = fresh(name, input_norm=True, frame_norm=True).eval()
    seen = pictures(2, 64)
    with torch.no_grad():
        drawn = generator(seen)
        generator.frame_norm = False
        of_normalised = generator(normalised(seen))
        # A frame at that exposure already is brought to it once more, which is not quite nothing.
        assert (drawn - of_normalised).abs().max() < 0.02


def test_the_smallest_has_a_twentieth_of_a_resnets_parameters_and_less_than_a_tenth_of_its_work():
    rows = {row.name: row for row in catalogue()}
    teacher = rows["resnet_9blocks"]
    for name in ("edge_unet_s", "relight_s"):
        assert rows[name].parameters * 20 < teacher.parameters
        assert rows[name].macs * 100 < teacher.macs
    sizes = [rows[f"edge_unet_{size}"] for size in "sml"]
    assert [row.macs for row in sizes] == sorted(row.macs for row in sizes)


def test_relight_is_the_colour_transform_shade_and_lamps_of_its_formula():
    relight = fresh("relight", norm="none").eval()
    assert isinstance(relight, Relight)
    seen = pictures(1, 64)
    with torch.no_grad():
        for head in (relight.colour, relight.shade, relight.light):
            head.weight.zero_()
            assert head.bias is not None
            head.bias.zero_()
        matrix = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.3, 0.1], [0.1, 0.0, 0.4]])
        assert relight.colour.bias is not None
        assert relight.light.bias is not None
        relight.colour.bias[:9] = matrix.flatten()
        relight.colour.bias[9:] = torch.tensor([0.02, 0.01, 0.0])
        relight.light.bias[16:] = 0.25  # the second lamp, everywhere
        drawn = (relight(seen) + 1) / 2
        # A frame without detail finer than 4x4 pixels gets the transform exactly.
        flat = functional.interpolate(functional.avg_pool2d(seen, 16), scale_factor=16)
        inner = (slice(None), slice(None), slice(6, 10), slice(6, 10))
        level = (flat[inner] + 1) / 2
        expected = 0.5 * (torch.einsum("ij,njhw->nihw", matrix, level)) + 0.5 * torch.tensor(
            [0.02, 0.01, 0.0]
        ).reshape(1, 3, 1, 1)
        lamp = 0.25 * relight.lamps.weight[:, 1].reshape(1, 3, 1, 1)
        assert ((relight(flat) + 1) / 2)[inner] - (expected + lamp) == pytest.approx(0, abs=1e-5)
        assert drawn.shape == seen.shape


def test_light_is_added_and_never_taken_away():
    relight = fresh("relight", norm="none").eval()
    assert isinstance(relight, Relight)
    seen = pictures(1, 64)
    with torch.no_grad():
        relight.lamps.weight.abs_()
        lit = relight(seen)
        assert relight.light.bias is not None
        relight.light.bias.fill_(-1e4)
        dark = relight(seen)
    assert (lit - dark).min() >= 0
    assert (lit - dark).max() > 0


def test_a_pattern_of_depth_to_space_does_not_come_through_as_light():
    phases = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    softened = _softened(phases.tile(4, 6))
    assert softened.shape == (1, 1, 16, 24)
    inner = softened[..., 2:-2, 2:-2]
    assert inner == pytest.approx(float(phases.mean()), abs=1e-6)
    assert _softened(torch.ones(1, 1, 16, 24)) == pytest.approx(1, abs=1e-6)


def test_a_pyramid_of_gain_one_that_hands_back_the_low_band_hands_back_the_frame():
    pyramid = fresh("pyramid", norm="none").eval()
    assert isinstance(pyramid, Pyramid)
    seen = pictures(1, 64)
    with torch.no_grad():
        pyramid.gain.weight.zero_()
        assert pyramid.gain.bias is not None
        pyramid.gain.bias.fill_(1.0)
        low = torch.tanh(pyramid.low(pyramid.trunk(seen)[1]))
        high = seen - functional.interpolate(
            functional.avg_pool2d(seen, 4), scale_factor=4.0, mode="bilinear"
        )
        drawn_low = functional.interpolate(low, scale_factor=4.0, mode="bilinear")
        assert (pyramid(seen) - (drawn_low + high)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("relight", {"frame_norm": True}, "--frame-norm without --input-norm"),
        ("unet_256", {"frame_norm": True, "input_norm": True}, "which draws every pixel"),
        ("edge_unet_s", {"upsample": "resize"}, "--upsample resize with --netG edge_unet_s"),
        ("pyramid", {"output_channels": 1}, "--netG pyramid from 3 channels to 1"),
        ("relight", {"input_channels": 1, "output_channels": 1}, "from 1 channels to 1"),
    ],
)
def test_what_it_cannot_be_is_refused(name, settings, told):
    with pytest.raises(ConfigError, match=told):
        GeneratorConfig(name, **settings)
