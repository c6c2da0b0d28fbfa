"""A transposed convolution rewritten as convolution and depth-to-space draws the same picture."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_runs import lively_generator
from onnx import TensorProto, helper, numpy_helper
from test_export_onnx import meta

from export.graph import Graph, drawn_by
from export.subpixel import with_subpixel_upsampling
from export.to_onnx import onnx_from_generator, save_with_meta
from export.to_tensorrt import engine_from_onnx
from trainer.config import GeneratorConfig
from trainer.generators import build_generator
from trainer.scenes import draw_pair

FLOAT = TensorProto.FLOAT
SIDES_PX = {"unet_128": 128, "resnet_6blocks": 64}


def exported(generator, contract):
    """The FP32 graph of a generator."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx_from_generator(generator, path, contract)
        return onnx.load(str(path))


@cache
def drawing(name, norm="batch"):
    """The FP32 graph of a generator that draws something; a test that changes it copies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small cost more to share among threads than to compute
    try:
        generator = lively_generator(GeneratorConfig(name, ngf=8, norm=norm))
        return exported(generator, meta(size_px=(SIDES_PX[name],) * 2))
    finally:
        torch.set_num_threads(threads)


def scenes(count, side_px):
    """Drawn streets, uint8 [H, W, 3]."""
    step = 256 // side_px
    return [np.ascontiguousarray(draw_pair(seed)[0][::step, ::step]) for seed in range(count)]


def model_of(nodes, stored, shape_in, shape_out=("n", "c", "h", "w"), opset=18):
    """A float graph from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, shape_in)],
        [helper.make_tensor_value_info("y", FLOAT, shape_out)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def computed(model, x):
    """`y`, as ONNX Runtime computes it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x})[0]


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


def transposed(weights, shape_in, bias=None, **attributes):
    """One transposed convolution of `x`, [N, C_in, H, W]."""
    stored = {"weights": weights} | ({} if bias is None else {"bias": bias})
    node = helper.make_node("ConvTranspose", ["x", *stored], ["y"], "up", **attributes)
    return model_of([node], stored, shape_in)


def normal(*shape):
    """The same values each time."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def in_torch(x, weights, bias, stride, pads, extra):
    """[top, left, bottom, right] cut off what a transposed convolution without padding gives."""
    arrays = [None if each is None else torch.from_numpy(each) for each in (x, weights, bias)]
    whole = torch.nn.functional.conv_transpose2d(*arrays, stride, 0, extra).numpy()
    top, left, bottom, right = pads
    return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]


@settings(max_examples=120, deadline=None)
@given(data=st.data(), has_bias=st.booleans(), channels_last=st.booleans())
def test_it_computes_what_torchs_transposed_convolution_does(data, has_bias, channels_last):
    kernel = data.draw(st.tuples(st.integers(2, 6), st.integers(2, 6)), "kernel")
    stride = data.draw(st.integers(2, 3), "stride")
    pads = data.draw(st.tuples(*[st.integers(0, side - 1) for side in kernel * 2]), "pads")
    extra = data.draw(st.tuples(*[st.integers(0, stride - 1)] * 2), "output padding")
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 7)), "height, width")
    batch = data.draw(st.integers(1, 2), "batch")
    whole = [stride * (n - 1) + k + more for n, k, more in zip(size, kernel, extra, strict=True)]
    assume(all(whole[i] > pads[i] + pads[i + 2] for i in range(2)))
    x, weights = normal(batch, 3, *size), normal(3, 2, *kernel)
    bias = normal(2) if has_bias else None
    model = transposed(
        weights,
        x.shape,
        bias,
        strides=[stride] * 2,
        pads=pads,
        output_padding=extra,
    )
    rewritten, count = with_subpixel_upsampling(model, channels_last)
    assert count == 1
    assert "ConvTranspose" not in kinds(rewritten)
    expected = in_torch(x, weights, bias, stride, pads, extra)
    given_back = computed(rewritten, x)
    assert given_back.shape == expected.shape
    np.testing.assert_allclose(given_back, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("pad", [3, 5])
def test_padding_wider_than_the_kernel_is_no_crash_and_no_change(kernel, stride, pad):
    x, weights = normal(1, 3, 9, 8), normal(3, 2, kernel, kernel)
    model = transposed(weights, x.shape, strides=[stride] * 2, pads=[pad] * 4)
    rewritten, _ = with_subpixel_upsampling(model)
    expected = in_torch(x, weights, None, stride, [pad] * 4, 0)
    np.testing.assert_allclose(computed(rewritten, x), expected, rtol=1e-5, atol=1e-5)


LEFT_ALONE = {
    "groups": {"group": 2, "strides": [2, 2]},
    "dilations": {"dilations": [2, 2], "strides": [2, 2]},
    "automatic padding": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "a given output shape": {"output_shape": [12, 14], "strides": [2, 2]},
    "no stride": {},
    "two strides": {"strides": [2, 3]},
}


@pytest.mark.parametrize("attributes", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_it_cannot_rewrite_stays_as_it_is(attributes):
    model = transposed(
        normal(4, 2, 4, 4), (1, 4, 6, 7), normal(2 * attributes.get("group", 1)), **attributes
    )
    rewritten, count = with_subpixel_upsampling(model)
    assert count == 0
    assert list(rewritten.graph.node) == list(model.graph.node)
    assert {t.name for t in rewritten.graph.initializer} == {"weights", "bias"}


@pytest.mark.parametrize("which", ["weights", "bias"])
def test_weights_and_biases_that_are_computed_are_left_alone(which):
    model = transposed(normal(4, 2, 4, 4), (1, 4, 6, 7), normal(2), strides=[2, 2])
    (node,) = model.graph.node
    node.input[list(node.input).index(which)] = "computed"
    model.graph.node.insert(0, helper.make_node("Neg", [which], ["computed"]))
    assert with_subpixel_upsampling(model)[1] == 0


def test_two_that_share_their_weights_and_have_no_names_are_both_rewritten():
    x, weights = normal(1, 3, 4, 5), normal(3, 3, 4, 4)
    given = {"strides": [2, 2], "pads": [1] * 4}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "weights"], ["half"], **given),
        helper.make_node("ConvTranspose", ["half", "weights"], ["y"], **given),
    ]
    rewritten, count = with_subpixel_upsampling(model_of(nodes, {"weights": weights}, x.shape))
    assert count == 2
    assert "weights" not in {tensor.name for tensor in rewritten.graph.initializer}
    once = in_torch(x, weights, None, 2, [1] * 4, 0)
    twice = in_torch(np.ascontiguousarray(once), weights, None, 2, [1] * 4, 0)
    np.testing.assert_allclose(computed(rewritten, x), twice, rtol=1e-4, atol=1e-4)


def test_weights_keep_their_precision():
    weights = normal(3, 2, 4, 4).astype(np.float16)
    model = transposed(weights, (1, 3, 4, 4), weights[0, :, 0, 0], strides=[2, 2], pads=[1] * 4)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    rewritten, _ = with_subpixel_upsampling(model)
    stored = {t.data_type for t in rewritten.graph.initializer if len(t.dims) in (1, 4)}
    assert stored - {TensorProto.INT64} == {TensorProto.FLOAT16}


def test_where_sizes_are_open_it_is_depth_to_space_and_right_at_every_size():
    weights, bias = normal(3, 2, 4, 4), normal(2)
    model = transposed(weights, (1, 3, "h", "w"), bias, strides=[2, 2], pads=[1] * 4)
    rewritten, count = with_subpixel_upsampling(model, channels_last=True)
    assert count == 1
    assert kinds(rewritten) == {"Conv": 1, "DepthToSpace": 1, "Slice": 1}
    for size in ((1, 1), (4, 6), (7, 3)):
        x = normal(1, 3, *size)
        expected = in_torch(x, weights, bias, 2, [1] * 4, 0)
        np.testing.assert_allclose(computed(rewritten, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("name", "count"), [("unet_128", 7), ("resnet_6blocks", 2)])
def test_a_generator_draws_the_same_picture_to_one_grey_level(name, count, channels_last):
    model, frames = drawing(name), scenes(2, SIDES_PX[name])
    rewritten, done = with_subpixel_upsampling(model, channels_last)
    assert done == count
    assert "ConvTranspose" not in kinds(rewritten)
    assert ("DepthToSpace" in kinds(rewritten)) is not channels_last
    for ours, theirs in zip(drawn_by(rewritten, frames), drawn_by(model, frames), strict=True):
        assert theirs.std() > 20, "a plain picture would prove nothing"
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_in_a_u_net_it_costs_one_more_row_and_column_of_2x2_kernels():
    generator = build_generator(GeneratorConfig("unet_256", ngf=4))
    model = exported(generator.eval(), meta())
    rewritten, count = with_subpixel_upsampling(model)
    assert count == 8
    graph, before = Graph(rewritten), Graph(model)
    made = [node for node in graph.convolutions() if node not in before.convolutions()]
    assert {graph.types[node.input[1]].shape[2:] for node in made} == {(2, 2)}
    # Sides of 1 to 128 pixels in; 16 multiply-accumulates a pixel for each pair of channels.
    pairs = [32 * 32, *[64 * 32] * 3, 64 * 16, 32 * 8, 16 * 4, 8 * 3]
    more = sum(16 * n * ((2**i + 1) ** 2 - 4**i) for i, n in enumerate(pairs))
    macs = [sum(g.macs(node) for node in g.convolutions()) for g in (before, graph)]
    assert macs[1] - macs[0] == more
    # At ngf 64 the channels are 16 times as many at every place but the two ends.
    ends = sum(16 * 128**2 * prod(channels) for channels in ((3, 4), (8, 3)))
    inside = (macs[0] - ends) * 256 + ends * 16
    more_at_the_end = 16 * pairs[-1] * (129**2 - 128**2)
    more_inside = (more - more_at_the_end) * 256 + more_at_the_end * 16
    assert more_inside / inside == pytest.approx(0.085, abs=0.0005)


@pytest.mark.slow
def test_a_generator_of_open_size_still_draws_the_same():
    contract = replace(meta(size_px=(128, 128)), dynamic=True, size_multiple=128)
    generator = lively_generator(GeneratorConfig("unet_128", ngf=4))
    model = exported(generator, contract)
    rewritten, count = with_subpixel_upsampling(model, channels_last=True)
    assert count == 7
    for frame in (draw_pair(1)[0], np.ascontiguousarray(draw_pair(2)[0][:128])):
        (ours,), (theirs,) = drawn_by(rewritten, [frame]), drawn_by(model, [frame])
        assert theirs.std() > 20, "a plain picture would prove nothing"
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_tensorrt_builds_it_without_a_transposed_convolution(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    model, found = drawing("unet_128"), []
    for form in (model, with_subpixel_upsampling(model)[0]):
        copy = deepcopy(form)
        save_with_meta(copy, tmp_path / "model.onnx", meta(size_px=(128, 128)))
        engine = engine_from_onnx(tmp_path / "model.onnx", tmp_path / "model.engine")
        found.append({layer.kind for layer in engine.layers})
    assert "deconv" in found[0], "else the next line proves nothing"
    assert "deconv" not in found[1]
    assert "correlation" in found[1]
