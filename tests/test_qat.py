"""Training with INT8's rounding: it is what export stores, gradients pass, and it helps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from commands import done, refused
from made_runs import lively_generator, pictures, side_of, write_run
from onnx import numpy_helper
from test_export_onnx import meta

from export.calibrate import histograms_of
from export.graph import Graph, drawn_by
from export.half import prepared
from export.quantize import CPU, quantizable, quantized, tensors_to_calibrate
from export.subpixel import PHASE, with_subpixel_upsampling
from export.to_onnx import folded, onnx_from_generator
from trainer.checkpoint import (
    TRAINING_FILE,
    load_generator,
    load_training,
    save_generator,
    save_training,
)
from trainer.cli import train
from trainer.config import GeneratorConfig, ObjectiveConfig, TrainConfig
from trainer.fake_quant import (
    LARGEST_ACTIVATION,
    LARGEST_WEIGHT,
    SETTLING_PASSES,
    FakeQuant,
    InputRange,
    rounded_weights,
)
from trainer.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

CONVOLUTIONS = torch.nn.Conv2d | torch.nn.ConvTranspose2d
SMALL = GeneratorConfig("resnet_6blocks", ngf=4, dropout=0)


def frames_of(source):
    """float [N, 3, H, W] RGB, -1 to 1, to uint8 [N, H, W, 3] BGR."""
    levels = (source * 127.5 + 127.5).round().byte()
    return list(np.ascontiguousarray(levels.flip(1).permute(0, 2, 3, 1).numpy()))


def exported(generator, path, side_px, frames):
    """The FP32 graph as INT8 starts from it, and the `minmax` ranges on `frames`."""
    onnx_from_generator(generator, path, meta(size_px=(side_px, side_px)))
    plain = prepared(onnx.load(path))
    model, _ = with_subpixel_upsampling(plain, channels_last=True)
    found = histograms_of(model, tensors_to_calibrate(model), frames)
    return model, {name: histogram.range("minmax") for name, histogram in found.items()}


def values_in(int8):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}


def dequantizing(int8, name):
    return next(node for node in int8.graph.node if name in node.output)


def arguments(int8, name):
    """Scales and zero points behind which a DequantizeLinear gives the tensor of this name."""
    stored_values = values_in(int8)
    return [stored_values[argument] for argument in dequantizing(int8, name).input[1:]]


def stored(int8, name):
    """The levels that it takes, where they are stored."""
    return values_in(int8)[dequantizing(int8, name).input[0]]


@pytest.mark.parametrize(
    "config",
    [SMALL, GeneratorConfig("unet_128", ngf=4), GeneratorConfig("relight_s", ngf=8)],
    ids=lambda config: config.name,
)
def test_what_is_rounded_is_exactly_what_export_stores(config, tmp_path):
    generator, side_px = lively_generator(config), side_of(config)
    frames = frames_of(pictures(2, side_px))
    model, ranges = exported(generator, tmp_path / "model.onnx", side_px, frames)
    int8 = quantized(model, ranges, CPU)
    quant = FakeQuant(generator)
    quant.attach()
    generator.train()
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        for seen in pictures(2, side_px):
            levels = (seen * 127.5 + 127.5).round()
            generator(levels[None] / 127.5 - 1)
    quant.remove()
    rounded = {
        name: rounded_weights(module)
        for name, module in folded(generator).named_modules()
        if name.replace(".", "/") in quant.inputs
    }
    graph = Graph(model)
    names = dict.fromkeys(node.name.partition(PHASE)[0] for node in quantizable(graph))
    assert len(names) == len(rounded) == len(quant.inputs), "every convolution, and no other"
    of_int8 = {node.name: node for node in int8.graph.node}
    convolutions = dict(folded(generator).named_modules())
    for exported_name, (name, weights) in zip(names, rounded.items(), strict=True):
        phases = [n for n in quantizable(graph) if n.name.partition(PHASE)[0] == exported_name]
        theirs = []
        for node in phases:
            name_of_weights = of_int8[node.name].input[1]
            levels, (scales, _) = stored(int8, name_of_weights), arguments(int8, name_of_weights)
            theirs.append((levels * scales.reshape(-1, 1, 1, 1)).astype(np.float32))
            scale, zero = arguments(int8, of_int8[node.name].input[0])
            seen = quant.inputs[name.replace(".", "/")]
            ours = float(seen.high - seen.low) / LARGEST_ACTIVATION
            # Ours saw what rounded layers made, theirs what FP32 did.
            assert ours == pytest.approx(float(scale), rel=0.2), name
            assert round(float(-seen.low) / ours) == pytest.approx(int(zero), abs=20), name
            assert (seen.low == 0) == (zero == 0), name
        module = convolutions[name]
        step = module.weight.detach().abs().max() / LARGEST_WEIGHT
        mine = np.sort(weights.detach().flatten().numpy())
        stored_here = np.sort(np.concatenate([values.flatten() for values in theirs]))
        if len(mine) != len(stored_here):  # sub-pixel kernels are filled up with zeros
            mine, stored_here = mine[mine != 0], stored_here[stored_here != 0]
        assert len(mine) == len(stored_here), name
        # Of thousands one may lie just between two levels, and be rounded the other way.
        other = np.abs(mine - stored_here) > 1e-3 * float(step)
        assert other.mean() < 1e-3, name


def test_bits_are_those_of_the_stricter_form():
    assert CPU.largest_weight == LARGEST_WEIGHT
    assert CPU.unsigned
    convolution = torch.nn.Conv2d(3, 5, 3)
    for row, levels in zip(convolution.weight, rounded_weights(convolution), strict=True):
        step = row.abs().max() / 63
        torch.testing.assert_close(levels, (row / step).round() * step)


def test_a_transposed_convolution_has_a_scale_for_each_phase():
    convolution = torch.nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1)
    with torch.no_grad():
        convolution.weight[:, :, 0, 0] *= 1000
    rounded = rounded_weights(convolution)
    error = (rounded - convolution.weight).abs()
    assert error[:, :, 1::2, 1::2].max() <= convolution.weight[:, :, 1::2, 1::2].abs().max() / 126
    assert error[:, :, 2, 2].max() > 10 * error[:, :, 1, 1].max(), "its phase has the outlier"


def test_gradients_go_straight_through_and_end_where_values_are_cut_off():
    convolution = torch.nn.Conv2d(2, 3, 3)
    weights = torch.randn_like(convolution.weight)
    (rounded_weights(convolution) * weights).sum().backward()
    torch.testing.assert_close(convolution.weight.grad, weights)
    seen = InputRange()
    seen(torch.tensor([-1.0, 2.0]), learns=True)
    x = torch.tensor([-1.5, -0.9, 0.0, 1.3, 2.5], requires_grad=True)
    y = seen(x, learns=False)
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert y[2].item() == 0
    assert y[0].item() == pytest.approx(-1, abs=3 / 255)
    assert y[4].item() == pytest.approx(2, abs=3 / 255)


def test_ranges_grow_at_first_and_are_then_kept():
    seen = InputRange()
    for number in range(SETTLING_PASSES):
        seen(torch.tensor([0.5, 1.0 + number]), learns=True)
    seen(torch.tensor([-9.0, 1e6]), learns=True)
    assert (seen.low.item(), seen.high.item()) == (0.0, float(SETTLING_PASSES))


def test_nothing_is_left_behind_when_it_is_removed():
    generator = lively_generator(SMALL)
    x, names = pictures(1, 64), list(generator.state_dict())
    plain = generator(x)
    quant = FakeQuant(generator)
    quant.attach()
    generator.train()
    generator.eval()
    for seen in quant.inputs.values():
        seen(torch.tensor([-3.0, 3.0]), learns=True)
    assert not torch.allclose(generator(x), plain, atol=1e-3)
    assert list(generator.state_dict()) == names
    quant.remove()
    assert torch.equal(generator(x), plain)


def with_outliers(config):
    """A generator in which one weight of each filter takes most of INT8's levels."""
    generator = lively_generator(config)
    with torch.no_grad():
        for name, module in generator.named_modules():
            if isinstance(module, torch.nn.Conv2d) and name.startswith("blocks"):
                module.weight[:, 0, 0, 0] = 3 * module.weight.abs().amax()
    return generator


def teaching_pairs(generator, source):
    """uint8 [N, 6, H, W]: what the generator itself draws is the target."""
    with torch.no_grad():
        both = torch.cat([source, generator(source).clamp(-1, 1)], 1)
    return (both * 127.5 + 127.5).round().byte()


def int8_error(generator, path, source, target):
    """Mean difference in grey levels of the INT8 picture, by ONNX Runtime, to `target`."""
    frames = frames_of(source)
    model, ranges = exported(generator, path, source.shape[2], frames)
    drawn = drawn_by(quantized(model, ranges, CPU), frames)
    return np.mean([np.abs(d.astype(float) - t) for d, t in zip(drawn, target, strict=True)])


def qat_config(checkpoint, **given):
    return TrainConfig(
        generator=SMALL,
        init=str(checkpoint),
        qat=True,
        objective=ObjectiveConfig(gan_mode="none"),
        crop_size=64,
        load_size=64,
        ema_decay=0.9,
        **given,
    )


def test_int8_draws_nearer_to_the_float_picture_after_it(tmp_path):
    run = write_run(tmp_path / "run", SMALL)
    before = with_outliers(SMALL)
    _, info = load_generator(run)
    save_generator(run / "generator.safetensors", before.state_dict(), info)
    source = pictures(4, 64)
    pairs = teaching_pairs(before, source)
    wanted = frames_of(before(source).detach().clamp(-1, 1))
    # In FP32 there is nothing to learn: it draws its targets already.
    training = Training(qat_config(run, lr=5e-4), 60, torch.device("cpu"))
    for _ in range(60):
        training.train_step([pairs])
    statistics = [n for n in before.state_dict() if "running" in n]
    for name in statistics:
        assert torch.equal(training.average.state_dict()[name], before.state_dict()[name])
    first = int8_error(before, tmp_path / "before.onnx", source, wanted)
    after = int8_error(training.average, tmp_path / "after.onnx", source, wanted)
    assert after < 0.7 * first, f"{first:.2f} grey levels before, {after:.2f} after"


def test_a_resumed_run_goes_on_exactly(tmp_path):
    run = write_run(tmp_path / "run", SMALL)
    pairs = teaching_pairs(load_generator(run)[0], pictures(4, 64))
    straight = Training(qat_config(run), 6, torch.device("cpu"))
    for _ in range(3):
        straight.train_step([pairs])
    save_training(tmp_path / "half" / TRAINING_FILE, straight.state())
    resumed = Training.resumed(load_training(tmp_path / "half"), 6, torch.device("cpu"))
    for _ in range(3):
        straight.train_step([pairs])
        resumed.train_step([pairs])
    ours, theirs = straight.state().networks, resumed.state().networks
    assert ours.keys() == theirs.keys() == {"generator", "average", "fake_quant"}
    for network, weights in ours.items():
        for name, values in weights.items():
            assert torch.equal(values, theirs[network][name]), (network, name)
    # Without the ranges it would not: they are wider than those of a fresh start.
    assert all(int(v) == 6 for n, v in ours["fake_quant"].items() if n.endswith("passes"))


def test_the_command_takes_it_with_init_alone_and_saves_an_ordinary_generator(
    training_pairs, tmp_path
):
    run = write_run(tmp_path / "run", SMALL)
    common = (training_pairs, "--qat", "--gan-mode", "none", "--crop-size", "64", "--steps", "2")
    assert "--qat without --init" in refused(train, *common, "--out", tmp_path / "a")
    line = refused(train, *common, "--init", run, "--compile", "--out", tmp_path / "b")
    assert "--qat with --compile" in line
    done(train, *common, "--init", run, "--out", tmp_path / "c")
    generator, info = load_generator(tmp_path / "c")
    assert info.config == SMALL
    assert generator(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert load_training(tmp_path / "c").config.qat
