"""FP16 by converting the graph: strict types, and FP32 where FP16 would hurt, found by running."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_export_onnx import meta
from torch import nn

from export.foreign_onnx import frame_in_frame_out, open_image_model
from export.graph import Graph, drawn_by
from export.half import prepared, to_half
from export.half_rehearsal import rehearsal
from export.half_search import half_that_passes
from export.to_onnx import FrameInFrameOut, onnx_from_generator, save_with_meta
from export.to_tensorrt import engine_from_onnx
from export.verify import Difference, Threshold
from runtime.errors import ModelError
from trainer.config import GeneratorConfig
from trainer.generators import build_generator
from trainer.generators.resnet import ResNetGenerator
from trainer.scenes import draw_pair

pytestmark = pytest.mark.usefixtures("one_thread")

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
GATE = Threshold(45.0, 3)


class Drawn(NamedTuple):
    """A generator's FP32 graph, and what PyTorch draws with the generator."""

    model: onnx.ModelProto
    frames: list
    references: list


GENERATORS = {
    "unet-batch": (128, lambda: build_generator(GeneratorConfig("unet_128", ngf=8))),
    "unet-instance": (
        128,
        lambda: build_generator(GeneratorConfig("unet_128", ngf=8, norm="instance")),
    ),
    "resnet-instance": (
        64,
        lambda: build_generator(GeneratorConfig("resnet_9blocks", ngf=8, norm="instance")),
    ),
    "pix2pixhd-global": (  # the shape of its global generator
        64,
        lambda: ResNetGenerator(9, 4, 3, 3, "instance", 0.0, downsamplings=4),
    ),
}
"""The side of the pictures, in pixels, and what draws them."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Gives what a generator of `GENERATORS` draws, made once; a test that changes it copies."""

    @cache
    def made(name):
        side_px, build = GENERATORS[name]
        torch.manual_seed(1)
        generator = build()
        enliven(generator, side_px)
        path = tmp_path_factory.mktemp("half") / "fp32.onnx"
        onnx_from_generator(generator, path, meta("fp32", (side_px, side_px)))
        frames = frames_of(side_px)
        wrapped = FrameInFrameOut(deepcopy(generator)).eval()
        with torch.inference_mode():
            references = [wrapped(torch.from_numpy(f[None]))[0].numpy() for f in frames]
        return Drawn(onnx.load(str(path)), frames, references)

    return made


def frames_of(side_px):
    step = 256 // side_px
    return [np.ascontiguousarray(draw_pair(seed)[0][::step, ::step]) for seed in range(2)]


def enliven(generator, side_px):
    """Weights whose picture uses the whole range, and running statistics that are true."""
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.mul_(3)
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3)
                module.momentum = None  # the mean of all passes
        if any(isinstance(module, nn.BatchNorm2d) for module in generator.modules()):
            generator.train()
            for _ in range(4):
                generator(torch.rand(4, 3, side_px, side_px) * 2 - 1)
    generator.eval()


def scaled(model, first, second, factor):
    """A copy where the convolution number `first` gives `factor` times as much, and number
    `second` takes it away again: ReLU lets factors through, and a norm takes them away itself."""
    model = deepcopy(model)
    graph = Graph(model)
    convolutions = graph.convolutions()
    factors = dict.fromkeys(convolutions[first].input[1:], factor)
    if second is not None:
        factors[convolutions[second].input[1]] = 1 / factor
    for name, by in factors.items():
        exact = graph.weight(name) * np.float32(by)
        graph.weights[name].CopyFrom(numpy_helper.from_array(exact, name))
    return model


def searched(model, frames, references):
    return half_that_passes(model, frames, references, GATE)


def differences(model, frames, references):
    return list(map(Difference.between, references, drawn_by(model, frames)))


def good(found):
    return all(map(GATE.allows, found))


def float_types(model):
    """By name of node, the element types of all its float inputs and outputs."""
    graph = Graph(model)
    onnx.checker.check_model(model, full_check=True)
    return {
        node.name: {
            graph.types[name].dtype
            for name in (*node.input, *node.output)
            if name and graph.types[name].dtype in (HALF, FLOAT)
        }
        for node in graph.nodes
        if node.op_type != "Cast"
    }


def casts(model):
    graph = Graph(model)
    return [n for n in graph.nodes if n.op_type == "Cast" and n.name.endswith("_cast")]


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_draw_in_fp16_what_pytorch_draws(name, drawn):
    model, frames, references = drawn(name)
    assert min(r.std() for r in references) > 5, "a plain picture would prove nothing"
    result = searched(model, frames, references)
    found = differences(rehearsal(result.model), frames, references)
    assert good(found)
    assert good(differences(result.model, frames, references))
    assert result.psnr_db <= min(d.psnr_db for d in found)
    assert {k.op_type for k in result.kept} <= {"InstanceNormalization"}
    assert result.model.ByteSize() < 0.6 * model.ByteSize()
    types = float_types(result.model)
    assert {name for name, kinds in types.items() if FLOAT in kinds} == {
        k.node for k in result.kept
    }
    assert all(len(kinds) <= 1 for kinds in types.values()), "no node mixes FP16 and FP32"


@pytest.mark.parametrize(
    ("factor", "told"),
    [(1e6, r"activations reach \S+e\+0\d, FP16 ends at 65504"), (1e-6, "activations lose")],
)
def test_nodes_whose_values_fp16_cannot_hold_stay_in_fp32(factor, told, drawn):
    model, frames, references = drawn("unet-batch")
    model = scaled(model, 6, 7, factor)  # the innermost two
    assert min(d.psnr_db for d in differences(model, frames, references)) > 50
    plain = differences(rehearsal(to_half(model)), frames, references)
    assert min(d.psnr_db for d in plain) < 40
    result = searched(model, frames, references)
    assert [k.op_type for k in result.kept] == ["Conv", "Relu", "ConvTranspose"]
    assert any(re.match(told, k.why) for k in result.kept), result.kept
    assert good(differences(rehearsal(result.model), frames, references))
    assert len(casts(result.model)) == 2, "one into the FP32 region and one out of it"


def test_values_that_overflow_before_a_norm_keep_the_convolution_and_the_norm(drawn):
    model, frames, references = drawn("resnet-instance")
    model = scaled(model, 1, None, 1e5)
    assert not good(differences(rehearsal(to_half(model)), frames, references))
    result = searched(model, frames, references)
    overflowing = [k for k in result.kept if "activations reach" in k.why or "reaches" in k.why]
    assert [k.op_type for k in overflowing] == ["Conv", "InstanceNormalization"]
    assert good(differences(rehearsal(result.model), frames, references))


def test_a_norm_whose_squares_overflow_stays_in_fp32_alone(drawn):
    model, frames, references = drawn("resnet-instance")
    kept = searched(scaled(model, 1, None, 1000.0), frames, references).kept
    assert {k.op_type for k in kept} == {"InstanceNormalization"}
    assert any("squares reach" in k.why for k in kept)


def test_where_plain_fp16_is_not_good_enough_the_worst_nodes_go_back_to_fp32(drawn):
    model, frames, references = drawn("unet-batch")
    plain = min(d.psnr_db for d in differences(rehearsal(to_half(model)), frames, references))
    lines = []
    result = half_that_passes(model, frames, references, Threshold(plain + 1, 3), lines.append)
    assert result.psnr_db >= plain + 1
    assert 0 < len(result.kept) < len(model.graph.node)
    assert any(re.match(r"alone in FP16 it draws \d+\.\d dB", k.why) for k in result.kept)
    assert any("keeping more" in line for line in lines)


def test_where_only_single_pixels_are_off_the_graph_does_not_end_up_in_fp32(drawn):
    model, frames, references = drawn("unet-batch")
    lines = []
    result = half_that_passes(model, frames, references, Threshold(45.0, 0), lines.append)
    assert result.psnr_db >= 45
    assert not result.kept
    assert "does not mend single pixels" in lines[-1]


def test_references_of_another_model_are_refused_with_what_was_drawn():
    model = small_graph(18)
    with pytest.raises(ModelError, match=r"in FP32 itself draws \d+\.\d dB"):
        half_that_passes(model, small_frames(), [255 - f for f in small_frames()], GATE)


def small_frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(2)]


def small_graph(opset, open_sides=False):
    """A stranger's graph: nameless nodes, Constants, sizes computed in FP32, a shared weight."""
    rng = np.random.default_rng(1)
    weight = (rng.normal(size=(3, 3, 3, 3)) / 9).astype(np.float32)
    stored = {
        "weight": weight,
        "bias": np.full(3, 0.01, np.float32),
        "scale": np.array(1 / 255, np.float32),
        "twice": np.array([2], np.float32),
        "first": np.array([0, 1], np.int64),
        "zero": np.array(0, np.float32),
        "top": np.array(255, np.float32),
        "axes": np.array([2, 3], np.int64),
    }

    def node(kind, inputs, outputs, **attributes):
        return helper.make_node(kind, inputs, outputs, **attributes)

    by_attribute = opset < 18
    mean = {"axes": [2, 3]} if by_attribute else {}
    nodes = [
        node("Cast", ["frames"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Mul", ["planes", "scale"], ["x"]),
        node("Identity", ["bias"], ["same_bias"]),
        node("Conv", ["x", "weight", "same_bias"], ["a"], pads=[1] * 4),
        node("Conv", ["a", "weight", "bias"], ["b"], pads=[1] * 4),
        node("ReduceMean", ["b"] if by_attribute else ["b", "axes"], ["mean"], **mean),
        node("Sub", ["b", "mean"], ["centred"]),
        node("Constant", [], ["two"], value_float=2.0)
        if opset >= 12
        else node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2.0))),
        node("Pow", ["centred", "two"], ["squares"]),
        node("Add", ["squares", "a"], ["c"]),
        # The size to resize to, as exporters write it: Shape, Cast, Mul, Floor, Cast.
        node("Shape", ["c"], ["shape"]),
        node("Gather", ["shape", "first"], ["kept_sides"], axis=0),
        node("Gather", ["shape", "axes"], ["sides"], axis=0),
        node("Cast", ["sides"], ["float_sides"], to=FLOAT),
        node("Mul", ["float_sides", "twice"], ["doubled"]),
        node("Floor", ["doubled"], ["floored"]),
        node("Cast", ["floored"], ["new_sides"], to=TensorProto.INT64),
        node("Concat", ["kept_sides", "new_sides"], ["sizes"], axis=0),
        node("Resize", ["c", "", "", "sizes"], ["large"], mode="nearest")
        if opset >= 13
        else node("Resize", ["c", "roi", "scales"], ["large"], mode="nearest"),
        node("MaxPool", ["large"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", ["small"], ["drawn"]),
        node("Mul", ["drawn", "top"], ["scaled"]),
        node("Clip", ["scaled", "zero", "top"], ["clipped"]),
        node("Round", ["clipped"], ["rounded"]),
        node("Transpose", ["rounded"], ["picture"], perm=[0, 2, 3, 1]),
        node("Cast", ["picture"], ["translated"], to=TensorProto.UINT8),
    ]
    if opset < 13:
        stored |= {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2, 2])}
    shape = [1, "height", "width", 3] if open_sides else [1, 16, 16, 3]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize("open_sides", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("opset", [11, 13, 18, 20])
def test_a_strangers_graph_keeps_arithmetic_on_sizes_in_fp32_and_the_rest_is_half(
    opset, open_sides
):
    model = small_graph(opset, open_sides)
    half = to_half(model)
    types = float_types(half)
    on_sizes = {n.name for n in half.graph.node if {"doubled", "floored"} & set(n.output)}
    resize = next(n.name for n in half.graph.node if n.op_type == "Resize")
    assert all(types[name] == {FLOAT} for name in on_sizes)
    assert {n for n, kinds in types.items() if FLOAT in kinds} - on_sizes <= {resize}
    assert types[resize] == ({HALF, FLOAT} if opset < 13 else {HALF})
    assert not casts(half)
    references = drawn_by(model, small_frames())
    assert good(differences(rehearsal(half), small_frames(), references))
    assert good(differences(half, small_frames(), references))


def test_a_weight_that_fp16_and_fp32_nodes_share_is_stored_twice():
    model = prepared(small_graph(18))
    first, second = [n for n in model.graph.node if n.op_type == "Conv"]
    half = to_half(model, {second.name})
    stored = {t.name: t.data_type for t in half.graph.initializer}
    assert (stored["weight"], stored["weight_fp16"]) == (FLOAT, HALF)
    types = float_types(half)
    assert (types[first.name], types[second.name]) == ({HALF}, {FLOAT})
    one_way = [(n.input[0], helper.get_node_attr_value(n, "to")) for n in casts(half)]
    assert one_way == [("a", FLOAT), ("b", HALF)], "two nodes take b in FP16: one Cast serves both"


def test_with_every_node_kept_the_graph_computes_what_it_did():
    model = prepared(small_graph(18))
    names = {node.name for node in model.graph.node}
    assert len(names) == len(model.graph.node)
    same = to_half(model, names)
    assert HALF not in {t.data_type for t in same.graph.initializer}
    for ours, theirs in zip(
        drawn_by(same, small_frames()), drawn_by(model, small_frames()), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_name_that_is_no_node_is_refused():
    with pytest.raises(ValueError, match="no such nodes: nothing"):
        to_half(small_graph(18), ["nothing"])


def test_graphs_inside_nodes_and_float_outputs_keep_their_fp32_values():
    inner = helper.make_graph(
        [helper.make_node("Add", ["doubled", "doubled"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["positive"]),
            helper.make_node("Add", ["positive", "positive"], ["doubled"]),
            helper.make_node("If", ["which"], ["chosen"], then_branch=inner, else_branch=inner),
            helper.make_node("Exp", ["chosen"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, [4]),
            helper.make_tensor_value_info("which", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", FLOAT, [4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    half = to_half(model)
    types = float_types(half)
    assert [types[n.name] for n in half.graph.node if n.op_type in ("Relu", "Exp")] == [{HALF}] * 2
    session = onnxruntime.InferenceSession(half.SerializeToString())
    x = np.float32([-1, 0, 0.25, 1])
    (y,) = session.run(None, {"x": x, "which": np.array(True)})
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.exp(4 * np.maximum(x, 0)), rtol=2e-3)


def test_a_bias_too_small_for_fp16_costs_nothing_and_keeps_nothing():
    model = small_graph(18)
    stored = next(t for t in model.graph.initializer if t.name == "bias")
    stored.CopyFrom(numpy_helper.from_array(np.full(3, 1e-9, np.float32), "bias"))
    references = drawn_by(model, small_frames())
    assert half_that_passes(model, small_frames(), references, GATE).kept == ()


def test_a_strangers_network_becomes_fp16(tmp_path):
    frames = frames_of(64)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(8, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    ).eval()
    path = tmp_path / "theirs.onnx"
    picture = torch.zeros(1, 3, 64, 64)
    torch.onnx.export(network, (picture,), path, dynamo=True, opset_version=18, verbose=False)
    wrapped = frame_in_frame_out(open_image_model(path, None, "-1..1", "RGB"))
    references = drawn_by(wrapped, frames)
    result = searched(wrapped, frames, references)
    assert result.kept == ()
    kinds = {
        n.op_type: float_types(result.model)[n.name]
        for n in result.model.graph.node
        if n.op_type != "Cast"
    }
    assert {kind for kind, types in kinds.items() if FLOAT in types} == {"Resize"}, "its scales"
    assert good(differences(rehearsal(result.model), frames, references))


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 18])
def test_tensorrt_builds_a_strangers_half_graph(opset, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "half.onnx"
    save_with_meta(to_half(small_graph(opset)), path, meta("fp16", (16, 16)))
    kinds = engine_from_onnx(path, tmp_path / "half.engine").layer_types
    assert "Float" not in kinds


@pytest.mark.slow
def test_tensorrt_builds_a_mixed_graph_with_the_types_that_were_asked(drawn, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    model, frames, references = drawn("resnet-instance")
    result = searched(scaled(model, 1, None, 1e5), frames, references)
    path = tmp_path / "mixed.onnx"
    save_with_meta(result.model, path, meta("fp16", (64, 64)))
    layers = engine_from_onnx(path, tmp_path / "mixed.engine").layers
    convolutions = [x for x in layers if x.kind in ("correlation", "deconv")]
    types = [set(layer.input_types) for layer in convolutions]
    assert types.count({"Float"}) == 1, convolutions
    assert types.count({"Half"}) >= 20
