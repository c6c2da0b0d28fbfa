"""The exported ONNX takes a frame, gives a frame, and draws what PyTorch draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_runs import lively_generator, side_of
from pairs import picture
from torch import nn

from export.to_onnx import FrameInFrameOut, folded, onnx_from_generator
from runtime import Translator
from runtime.artifact import ArtifactMeta, meta_of_onnx
from trainer.config import GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = {
    **{f"unet-{n}": GeneratorConfig("unet_128", 4, norm=n) for n in ("batch", "instance", "none")},
    "resnet-instance": GeneratorConfig("resnet_6blocks", 4, norm="instance"),
    "grey": GeneratorConfig("unet_128", 4, input_channels=1, output_channels=1),
}


def meta(precision="fp32", size_px=(256, 256)):
    return ArtifactMeta("unet_256", precision, size_px, size_px, 18, "generator", "0" * 64)


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def generator(config):
    return lively_generator(config)


@pytest.fixture(scope="module")
def exported(config, generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx_from_generator(
        generator,
        path,
        meta(size_px=(side_of(config),) * 2),
        input_channels=config.input_channels,
        output_channels=config.output_channels,
    )
    return path


def as_python_draws(generator, frame):
    """uint8 [H, W, 3] BGR to the same, with the steps around the generator done by numpy."""
    first = next(m for m in generator.modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == 1:
        weights = np.array([0.114, 0.587, 0.299], np.float32)  # of BGR
        seen = np.rint((frame.astype(np.float32) * weights).sum(axis=2))[None]
    else:
        seen = frame[..., ::-1].transpose(2, 0, 1)
    with torch.no_grad():
        drawn = generator(torch.tensor(seen[None] / 127.5 - 1, dtype=torch.float32))[0].numpy()
    levels = np.clip(np.rint(drawn.astype(float) * 127.5 + 127.5), 0, 255)
    return np.broadcast_to(levels, (3, *levels.shape[1:]))[::-1].transpose(1, 2, 0)


def test_it_draws_the_same_picture_as_pytorch_to_one_grey_level(exported, generator, config):
    with Translator.load(exported) as translator:
        for seed in range(3):
            frame = picture(seed, side_of(config), side_of(config))
            expected = as_python_draws(generator, frame)
            assert expected.std() > 20, "a plain picture would prove nothing"
            assert np.abs(translator(frame) - expected).max() <= 1


def test_dropout_and_batch_norm_are_gone(exported, config):
    frame = picture(1, side_of(config), side_of(config))
    with Translator.load(exported) as translator:
        np.testing.assert_array_equal(translator(frame), translator(frame))
    kinds = {node.op_type for node in onnx.load(str(exported)).graph.node}
    assert not kinds & {"Dropout", "BatchNormalization"}


def test_graph_stays_within_what_jetpack_6_parses(exported):
    model = onnx.load(str(exported))
    assert model.ir_version <= 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]


def test_input_and_output_are_uint8_frames(exported, config):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    shape = [1, side_of(config), side_of(config), 3]
    assert (taken.name, taken.type, taken.shape) == ("frames", "tensor(uint8)", shape)
    assert (given.name, given.type, given.shape) == ("translated", "tensor(uint8)", shape)


def test_contract_travels_inside_the_file(exported, config):
    assert meta_of_onnx(exported) == meta(size_px=(side_of(config),) * 2)


def test_file_says_nothing_of_the_machine_that_made_it(exported):
    model = onnx.load(str(exported))
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")  # random bytes may spell anything
    data = model.SerializeToString()
    for trace in (b"stack_trace", b".py", b"/home", b"/root", b"/tmp", b"/work"):
        assert trace not in data


@pytest.mark.parametrize(("name", "multiple"), [("unet_128", 128), ("resnet_6blocks", 4)])
def test_a_dynamic_file_takes_every_multiple_and_every_batch(tmp_path, name, multiple):
    generator = lively_generator(GeneratorConfig(name, 2))
    contract = replace(meta(size_px=(128, 128)), dynamic=True, batch=3, size_multiple=multiple)
    path = tmp_path / "model.onnx"
    onnx_from_generator(generator, path, contract)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 128, 128), (3, 128, 256), (2, 256, 128)):
        frames = np.stack([picture(seed, height, width) for seed in range(batch)])
        (drawn,) = session.run(None, {"frames": frames})
        assert drawn.shape == frames.shape
        for frame, translated in zip(frames, drawn, strict=True):
            assert np.abs(translated - as_python_draws(generator, frame)).max() <= 1


def test_channels_are_bgr_outside_and_rgb_inside():
    class RedToWhite(nn.Module):
        def forward(self, x):
            return x[:, :1].expand(-1, 3, -1, -1)

    frames = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    frames[..., 2] = 200  # red, in BGR
    assert (FrameInFrameOut(RedToWhite())(frames) == 200).all()


def test_every_grey_level_survives_the_way_in_and_out():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    assert torch.equal(FrameInFrameOut(nn.Identity())(levels), levels)
    grey = FrameInFrameOut(nn.Identity(), input_channels=1, output_channels=1)
    assert torch.equal(grey(levels), levels)


def test_grey_is_what_pillow_calls_grey():
    frames = torch.tensor([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]]]).byte()
    grey = FrameInFrameOut(nn.Identity(), input_channels=1, output_channels=1)
    assert grey(frames)[0, 0].tolist() == [[29] * 3, [150] * 3, [76] * 3, [22] * 3]


def test_frames_are_resized_to_the_network_and_back():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x

    frames = torch.full((2, 30, 50, 3), 77, dtype=torch.uint8)
    drawn = FrameInFrameOut(Watching(), network_size_px=(16, 32))(frames)
    assert seen == [(2, 3, 16, 32)]
    assert torch.equal(drawn, frames)


def test_folding_changes_no_picture_and_leaves_the_generator_alone():
    generator = lively_generator(GeneratorConfig("unet_128", 2))
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    plain = folded(generator)
    assert len(norms) == 11
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)] == norms
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        assert (plain(x) - generator(x)).abs().max() < 1e-4
