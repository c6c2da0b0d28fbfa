"""The exported ONNX takes a frame, gives a frame, and draws what PyTorch draws."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_runs import lively_generator

from export.job import torch_draws
from export.to_onnx import FrameInFrameOut, onnx_from_generator
from runtime import Translator
from runtime.artifact import ArtifactMeta, meta_of_onnx
from trainer.config import GeneratorConfig
from trainer.scenes import draw_pair


def meta(precision="fp32", size_px=(256, 256)):
    return ArtifactMeta("unet_256", precision, size_px, size_px, 18, "generator", "0" * 64)


@pytest.fixture(scope="module", params=["batch", "instance", "none"])
def norm(request):
    return request.param


@pytest.fixture(scope="module")
def generator(norm):
    return lively_generator(GeneratorConfig("unet_256", ngf=8, norm=norm))


@pytest.fixture(scope="module")
def exported(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    for precision in ("fp32", "fp16"):
        onnx_from_generator(generator, folder / f"{precision}.onnx", meta(precision))
    return folder


@pytest.fixture(scope="module")
def frames():
    return [draw_pair(seed)[0] for seed in range(3)]


def test_fp32_draws_the_same_picture_as_pytorch_to_one_grey_level(exported, generator, frames):
    draw = torch_draws(generator)
    with Translator.load(exported / "fp32.onnx") as translator:
        for frame in frames:
            expected = draw(frame).astype(int)
            assert expected.std() > 5, "a plain picture would prove nothing"
            assert np.abs(translator(frame).astype(int) - expected).max() <= 1


def test_fp16_draws_the_same_picture_to_three_grey_levels(exported, generator, frames):
    draw = torch_draws(generator)
    with Translator.load(exported / "fp16.onnx") as translator:
        for frame in frames:
            difference = translator(frame).astype(float) - draw(frame)
            assert np.abs(difference).max() <= 3
            assert 10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9)) >= 45


def test_dropout_is_off_in_the_export(exported, frames):
    with Translator.load(exported / "fp32.onnx") as translator:
        np.testing.assert_array_equal(translator(frames[0]), translator(frames[0]))
    kinds = {node.op_type for node in onnx.load(str(exported / "fp32.onnx")).graph.node}
    assert "Dropout" not in kinds
    assert "BatchNormalization" not in kinds


def test_graph_stays_within_what_jetpack_6_parses(exported):
    model = onnx.load(str(exported / "fp16.onnx"))
    assert model.ir_version <= 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]


def test_fp16_file_is_half_the_bytes_and_has_no_fp32_weights(exported):
    model = onnx.load(str(exported / "fp16.onnx"))
    floats = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert not floats
    sizes = [(exported / f"{p}.onnx").stat().st_size for p in ("fp16", "fp32")]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.03)


def test_input_and_output_are_uint8_frames(exported):
    session = onnxruntime.InferenceSession(
        str(exported / "fp32.onnx"), providers=["CPUExecutionProvider"]
    )
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("frames", "tensor(uint8)", [1, 256, 256, 3])
    assert (given.name, given.type, given.shape) == (
        "translated",
        "tensor(uint8)",
        [1, 256, 256, 3],
    )


def test_contract_travels_inside_the_file(exported):
    assert meta_of_onnx(exported / "fp16.onnx") == meta("fp16")


def test_file_says_nothing_of_the_machine_that_made_it(exported):
    model = onnx.load(str(exported / "fp32.onnx"))
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")  # random bytes may spell anything
    data = model.SerializeToString()
    for trace in (b"stack_trace", b".py", b"/home", b"/root", b"/tmp", b"/work"):
        assert trace not in data


def test_channels_are_bgr_outside_and_rgb_inside():
    class RedToWhite(torch.nn.Module):
        def forward(self, x):
            return x[:, :1].expand(-1, 3, -1, -1)

    frames = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    frames[..., 2] = 200  # red, in BGR
    assert (FrameInFrameOut(RedToWhite())(frames) == 200).all()


def test_every_grey_level_survives_the_way_in_and_out():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    for precision in ("fp32", "fp16"):
        through = FrameInFrameOut(torch.nn.Identity(), precision)(levels)
        assert torch.equal(through, levels), precision
