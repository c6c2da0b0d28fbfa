"""Every family of generators and every way of doubling goes through the whole export."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_runs import lively_generator, side_of
from onnx import helper
from pairs import picture
from test_export_int8 import with_ranges, worst
from test_export_onnx import as_python_draws, meta
from test_export_subpixel import computed, exported, kinds, model_of, normal, scenes
from torch import nn

from export.calibrate import Range
from export.graph import drawn_by
from export.half import to_half
from export.half_rehearsal import rehearsal
from export.quantize import FORMS, quantized
from export.to_onnx import folded, onnx_from_generator, save_with_meta
from export.to_tensorrt import engine_from_onnx
from trainer.config import GeneratorConfig
from trainer.generators.layers import SubpixelConv2d

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = {
    "encoder-decoder": GeneratorConfig("encoder_decoder", 2),
    "dense-resize": GeneratorConfig("dense_unet", 4, upsample="resize"),
    "mobilenet-subpixel": GeneratorConfig("mobilenet_unet", 4, upsample="subpixel"),
    "unet-normalised-input": GeneratorConfig("unet_128", 4, input_norm=True),
}
MORE_NETWORKS = {
    "dense-transposed": GeneratorConfig("dense_unet", 4),
    "dense-subpixel-instance": GeneratorConfig(
        "dense_unet", 4, norm="instance", upsample="subpixel"
    ),
    "mobilenet-transposed": GeneratorConfig("mobilenet_unet", 4),
    "mobilenet-resize": GeneratorConfig("mobilenet_unet", 4, upsample="resize"),
    "mobilenet-instance": GeneratorConfig("mobilenet_unet", 4, norm="instance"),
    "unet-resize": GeneratorConfig("unet_128", 4, upsample="resize"),
    "unet-subpixel": GeneratorConfig("unet_128", 4, upsample="subpixel"),
    "resnet-resize": GeneratorConfig("resnet_6blocks", 4, upsample="resize"),
    "resnet-subpixel": GeneratorConfig("resnet_6blocks", 4, upsample="subpixel"),
}


@dataclass(frozen=True)
class Exported:
    config: GeneratorConfig
    generator: nn.Module
    model: onnx.ModelProto
    frames: list

    @property
    def side_px(self):
        return side_of(self.config)


@pytest.fixture(
    scope="module",
    params=[*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_NETWORKS)],
)
def network(request):
    config = (NETWORKS | MORE_NETWORKS)[request.param]
    generator = lively_generator(config)
    side_px = side_of(config)
    model = exported(generator, meta(size_px=(side_px, side_px)))
    return Exported(config, generator, model, scenes(2, side_px))


def test_onnx_runtime_draws_what_pytorch_draws_to_one_grey_level(network):
    for frame, drawn in zip(network.frames, drawn_by(network.model, network.frames), strict=True):
        expected = as_python_draws(network.generator, frame)
        assert expected.std() > 20, "a plain picture would prove nothing"
        assert np.abs(drawn - expected).max() <= 1


def test_the_graph_has_the_doublings_that_were_asked_and_no_batch_norm(network):
    found = kinds(network.model)
    doublings = {"transposed": "ConvTranspose", "resize": "Resize", "subpixel": "DepthToSpace"}
    for upsample, kind in doublings.items():
        assert (kind in found) is (network.config.upsample == upsample)
    assert not {"BatchNormalization", "Dropout"} & set(found)
    own_statistics = network.config.norm == "instance" or network.config.input_norm
    assert ("InstanceNormalization" in found) is own_statistics


def test_in_fp16_it_draws_the_same_picture(network):
    half = rehearsal(to_half(network.model))
    psnr_db, ssim = worst(half, network.model, network.frames)
    assert psnr_db > 45
    assert ssim > 0.995


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_with_every_convolution_in_int8_it_still_draws_its_picture(network, form):
    model, ranges = with_ranges(network.model, scenes(4, network.side_px), form)
    made = quantized(model, ranges, form)
    psnr_db, ssim = worst(made, network.model, network.frames)
    # Of random weights; a trained U-Net's is above 30. Something broken draws below 15.
    assert psnr_db > 24
    assert ssim > 0.94


def test_a_norm_behind_depth_to_space_folds_into_the_convolution_before_it():
    generator = lively_generator(GeneratorConfig("mobilenet_unet", 2, upsample="subpixel"))
    plain = folded(generator)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert sum(isinstance(module, SubpixelConv2d) for module in plain.modules()) == 5
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert (plain(x) - generator(x)).abs().max() < 1e-4


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_in_int8_a_relu_that_is_joined_with_negative_values_still_cuts_them_off(form):
    stored = {name: normal(3, 3, 1, 1) for name in "ab"} | {"c": normal(2, 6, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["linear"], "skip"),
        helper.make_node("Conv", ["x", "b"], ["sums"], "up"),
        helper.make_node("Relu", ["sums"], ["lit"], "relu"),
        helper.make_node("Concat", ["linear", "lit"], ["joined"], "join", axis=1),
        helper.make_node("Conv", ["joined", "c"], ["y"], "next"),
    ]
    x = normal(1, 3, 6, 7)
    model = model_of(nodes, stored, x.shape)
    largest = np.abs(x).max() * max(np.abs(w).sum() for w in stored.values())
    seen = dict.fromkeys(["x", "linear", "sums", "joined", "y"], Range(-largest, largest))
    made = quantized(model, seen | {"lit": Range(0.0, largest)}, form)
    step = 2 * largest / 127
    assert np.abs(computed(made, x) - computed(model, x)).max() < 8 * step


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig("mobilenet_unet", 2, norm="instance", upsample="resize"),
        GeneratorConfig("dense_unet", 2, upsample="subpixel"),
    ],
    ids=["mobilenet-instance-resize", "dense-subpixel"],
)
def test_a_file_of_open_size_takes_every_multiple_of_32(config, tmp_path):
    generator = lively_generator(config)
    contract = replace(meta(size_px=(64, 64)), dynamic=True, size_multiple=32)
    onnx_from_generator(generator, tmp_path / "model.onnx", contract)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for height, width in ((64, 64), (96, 160)):
        frame = picture(1, height, width)
        (drawn,) = session.run(None, {"frames": frame[None]})
        assert np.abs(drawn[0] - as_python_draws(generator, frame)).max() <= 1


@pytest.mark.slow
def test_tensorrt_builds_it_in_fp16(network, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    contract = meta("fp16", (network.side_px, network.side_px))
    save_with_meta(to_half(network.model), tmp_path / "half.onnx", contract)
    layers = engine_from_onnx(tmp_path / "half.onnx", tmp_path / "half.engine").layers
    convolutions = [x for x in layers if x.kind in ("correlation", "deconv")]
    assert convolutions
    assert all(set(layer.input_types) == {"Half"} for layer in convolutions)
