"""INT8: the nodes are right to the last bit, both runtimes take them, and the picture stays."""

from __future__ import annotations

import warnings
from copy import deepcopy
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_export_onnx import meta
from test_export_subpixel import (
    SIDES_PX,
    computed,
    drawing,
    kinds,
    model_of,
    normal,
    scenes,
)

from export.calibrate import Range, histograms_of
from export.graph import Graph, drawn_by
from export.int8_search import Int8Search, written_for
from export.quantize import CPU, FORMS, TENSORRT, quantizable, quantized, tensors_to_calibrate
from export.settings import METHODS
from export.subpixel import with_subpixel_upsampling
from export.to_onnx import save_with_meta
from export.to_tensorrt import engine_from_onnx
from export.verify import Difference
from runtime.errors import ModelError

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
both_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
SEEN = {"x": Range(-1.3, 2.1), "sums": Range(-6.0, 4.5)}


def convolution(weights, bias=None):
    """Its sums with the sign turned, which stands for whatever does not compute in bytes."""
    stored = {"weights": weights} | ({} if bias is None else {"bias": bias})
    nodes = [
        helper.make_node("Conv", ["x", *stored], ["sums"], "conv"),
        helper.make_node("Neg", ["sums"], ["y"], "neg"),
    ]
    return model_of(nodes, stored, (1, weights.shape[1], 6, 7))


def correlated(levels, kernel):
    """Integers [C_in, H, W] and [C_out, C_in, K, K] to [C_out, H', W'], without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(levels, kernel.shape[2:], (1, 2))
    return np.einsum("ihwyx,oiyx->ohw", windows.astype(np.int64), kernel.astype(np.int64))


def in_integers(x, weights, bias, form):
    """What a quantised convolution is to give, its weights' levels, and the scales."""
    largest, lowest, highest = (63, 0, 255) if form is CPU else (127, -128, 127)

    def scale_of(seen):
        if form is CPU:
            scale = (seen.high - seen.low) / 255
            return scale, round(-seen.low / scale)
        return max(-seen.low, seen.high) / 127, 0

    scale_x, zero_x = scale_of(SEEN["x"])
    scales_w = np.abs(weights).max(axis=(1, 2, 3)) / largest
    levels_w = np.rint(weights / scales_w[:, None, None, None])
    levels_x = np.clip(np.rint(x[0] / np.float32(scale_x)) + zero_x, lowest, highest) - zero_x
    exact = correlated(levels_x, levels_w) * (scale_x * scales_w)[:, None, None]
    if bias is not None:
        exact = exact + bias[:, None, None]
    if form is CPU:
        scale_y, zero_y = scale_of(SEEN["sums"])
        exact = (np.clip(np.rint(exact / scale_y) + zero_y, 0, 255) - zero_y) * scale_y
    return exact, levels_w, scale_x, scales_w


def stored_of(model, node, index):
    """The levels, scales and zero points that input `index` of a node is dequantised from."""
    graph = Graph(model)
    source = graph.producer[node.input[index]]
    assert source.op_type == "DequantizeLinear"
    return [graph.weight(name) for name in source.input]


@both_forms
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_a_convolution_computes_what_integers_do(has_bias, form):
    weights = normal(4, 3, 3, 2) * np.float32([1, 0.01, 30, 1e-4]).reshape(4, 1, 1, 1) / 20
    bias = np.float32([0.3, -0.01, -1.5, 2e-4]) if has_bias else None
    x = normal(1, 3, 6, 7) * 2  # some of it past the range
    model = quantized(convolution(weights, bias), SEEN, form)
    expected, levels_w, scale_x, scales_w = in_integers(x, weights, bias, form)
    found = -computed(model, x)[0]
    if form is CPU:
        step = (SEEN["sums"].high - SEEN["sums"].low) / 255
        steps_off = np.abs(found - expected) / step
        assert steps_off.max() < 1.01, "a value between two levels may become either"
        assert (steps_off > 0.01).mean() < 0.02
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    levels, scales, zeros = stored_of(model, conv, 1)
    assert levels.dtype == np.int8
    np.testing.assert_array_equal(levels, levels_w)
    assert np.abs(levels).reshape(4, -1).max(axis=1).tolist() == [63 if form is CPU else 127] * 4
    np.testing.assert_allclose(scales, scales_w, rtol=1e-6)
    assert not zeros.any()
    if has_bias and form is CPU:
        levels, scales, zeros = stored_of(model, conv, 2)
        assert levels.dtype == np.int32
        np.testing.assert_allclose(scales, scale_x * scales_w, rtol=1e-5)
        assert (np.abs(levels * scales.astype(np.float64) - bias) <= scales / 2).all()
        assert not zeros.any()
    elif has_bias:
        assert Graph(model).types[conv.input[2]].dtype == FLOAT


@both_forms
def test_scale_and_zero_point_span_the_range(form):
    model = quantized(convolution(normal(2, 3, 3, 3)), SEEN, form)
    _, scale, zero = (
        Graph(model).weights.get(name)
        for name in next(n for n in model.graph.node if n.op_type == "QuantizeLinear").input
    )
    scale, zero = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
    assert scale.dtype == np.float32
    if form is CPU:
        assert (zero.dtype, int(zero)) == (np.uint8, 98)  # 1.3 of 3.4, of 255
        assert float(scale) == pytest.approx(3.4 / 255)
    else:
        assert (zero.dtype, int(zero)) == (np.int8, 0)
        assert float(scale) == pytest.approx(2.1 / 127)


@both_forms
def test_dead_channels_and_inputs_that_are_always_zero_give_the_bias(form):
    weights = normal(3, 3, 3, 3)
    weights[1] = 0
    bias = np.float32([0.5, 0.25, 0.0])
    seen = {"x": Range(0.0, 0.0), "sums": Range(0.0, 0.5)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quantized(convolution(weights, bias), seen, form)
        no_bias = quantized(convolution(weights * np.float32(1e-9)), seen, form)
    x = np.zeros((1, 3, 6, 7), np.float32)
    for channel, value in zip(-computed(model, x)[0], bias, strict=True):
        np.testing.assert_allclose(channel, value, atol=0.5 / 255 / 2 + 1e-6)
    assert np.isfinite(computed(no_bias, x)).all()


@both_forms
def test_a_bias_far_larger_than_the_products_fits_into_32_bits(form):
    weights, bias = normal(2, 3, 3, 3) * np.float32(1e-9), np.float32([100.0, -100.0])
    seen = {"x": Range(-1.0, 1.0), "sums": Range(-100.0, 100.0)}
    model = quantized(convolution(weights, bias), seen, form)
    found = computed(model, normal(1, 3, 6, 7))[0]
    np.testing.assert_allclose(found[0], -100, rtol=0.005)
    np.testing.assert_allclose(found[1], 100, rtol=0.005)


def with_ranges(model, frames, form):
    """A model as INT8 is made of it, and all the values that it has on `frames`."""
    model = written_for(model, form)
    found = histograms_of(model, tensors_to_calibrate(model), frames)
    return model, {name: histogram.range("minmax") for name, histogram in found.items()}


@cache
def calibrated(name, form):
    return with_ranges(drawing(name), scenes(4, SIDES_PX[name]), form)


def in_int8(name, form, keep=()):
    return quantized(*calibrated(name, form), form, keep)


def names(model):
    return [node.name for node in quantizable(Graph(model))]


def worst(model, reference, frames):
    """PSNR and SSIM of the worst picture."""
    drawn = zip(drawn_by(reference, frames), drawn_by(model, frames), strict=True)
    found = [Difference.between(*pair) for pair in drawn]
    return min(d.psnr_db for d in found), min(d.ssim for d in found)


def test_for_tensorrt_only_inputs_of_convolutions_are_quantised_symmetric_and_in_int8():
    model = in_int8("unet_128", TENSORRT)
    graph = Graph(model)
    found = kinds(model)
    assert (found["Conv"], found["QuantizeLinear"], found["DequantizeLinear"]) == (14, 14, 28)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = map(graph.weight, node.input[1:3])
        assert (scale.dtype, zero.dtype, zero.any()) == (np.float32, np.int8, np.False_)
        readers = {reader.op_type for reader in graph.consumers[node.output[0]]}
        assert readers == ({"DequantizeLinear"} if node.op_type == "QuantizeLinear" else {"Conv"})
    for node in model.graph.node:
        if node.op_type == "Conv":
            levels, scales, _ = stored_of(model, node, 1)
            assert len(scales) == len(levels)
            assert (np.abs(levels).reshape(len(levels), -1).max(axis=1) == 127).all()


@pytest.mark.parametrize(("name", "adds", "pads"), [("unet_128", 0, 0), ("resnet_6blocks", 6, 14)])
def test_onnx_runtimes_cpu_computes_from_the_first_to_the_last_convolution_in_bytes(
    name, adds, pads, tmp_path
):
    model = in_int8(name, CPU)
    for node in model.graph.node:
        if node.op_type == "Conv":
            levels = stored_of(model, node, 1)[0]
            assert (np.abs(levels).reshape(len(levels), -1).max(axis=1) == 63).all()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimised = onnx.load(str(tmp_path / "optimised.onnx"))
    found = kinds(optimised)
    assert found["QLinearConv"] == len(names(calibrated(name, CPU)[0]))
    assert found["QLinearAdd"] == adds
    assert not {"Conv", "FusedConv", "Relu", "LeakyRelu", "Concat"} & set(found)
    stored = {tensor.name for tensor in optimised.graph.initializer}
    dequantised = [n.input[0] for n in optimised.graph.node if n.op_type == "DequantizeLinear"]
    assert not stored & set(dequantised)
    # Borders are mirrored in bytes as well. The last convolution goes through a table.
    assert found["Pad"] == pads
    assert found["QLinearSigmoid"] == 1
    assert not dequantised


@pytest.mark.parametrize("name", SIDES_PX)
def test_kernels_in_bytes_draw_what_the_nodes_say(name):
    model, frames = in_int8(name, CPU), scenes(2, SIDES_PX[name])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    plain = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for frame, fast in zip(frames, drawn_by(model, frames), strict=True):
        (said,) = plain.run(None, {"frames": frame[None]})
        assert Difference.between(said[0], fast).psnr_db > 45


@both_forms
@pytest.mark.parametrize("name", SIDES_PX)
def test_generators_with_skips_residual_sums_and_mirrored_borders_draw_their_picture(name, form):
    frames = scenes(2, SIDES_PX[name])
    psnr_db, ssim = worst(in_int8(name, form), drawing(name), frames)
    assert psnr_db > 29
    assert ssim > 0.98


@both_forms
@pytest.mark.parametrize("name", SIDES_PX)
def test_with_every_convolution_kept_nothing_is_quantised(name, form):
    model, _ = calibrated(name, form)
    kept = in_int8(name, form, keep=names(model))
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(kept))
    frames = scenes(1, SIDES_PX[name])
    if form is CPU:
        np.testing.assert_array_equal(drawn_by(kept, frames), drawn_by(model, frames))
    else:
        assert worst(kept, model, frames)[0] > 45


def test_for_tensorrt_a_kept_convolution_is_fp16_between_casts():
    model, _ = calibrated("unet_128", TENSORRT)
    keep = names(model)[4]
    made = in_int8("unet_128", TENSORRT, [keep])
    graph = Graph(made)
    node = next(node for node in made.graph.node if node.name == keep)
    assert {graph.types[name].dtype for name in (*node.input, *node.output)} == {HALF}
    assert graph.producer[node.input[0]].op_type == "Cast"
    (after,) = graph.consumers[node.output[0]]
    assert (after.op_type, graph.types[after.output[0]].dtype) == ("Cast", FLOAT)
    quantised = [n for n in made.graph.node if n.op_type == "Conv" and n.name != keep]
    assert len(quantised) == 13
    assert all(graph.producer[n.input[0]].op_type == "DequantizeLinear" for n in quantised)


def test_a_kept_convolution_whose_values_fp16_cannot_hold_stays_fp32():
    seen = SEEN | {"sums": Range(-70000.0, 4.0)}
    model = quantized(convolution(normal(2, 3, 3, 3)), seen, TENSORRT, ["conv"])
    assert kinds(model) == {"Conv": 1, "Neg": 1}
    model = quantized(convolution(normal(2, 3, 3, 3)), SEEN, TENSORRT, ["conv"])
    assert kinds(model) == {"Conv": 1, "Cast": 2, "Neg": 1}


def test_on_the_cpu_a_kept_convolution_has_its_fp32_weights():
    model, _ = calibrated("unet_128", CPU)
    keep = names(model)[4]
    made = in_int8("unet_128", CPU, [keep])
    node = next(node for node in made.graph.node if node.name == keep)
    before = next(node for node in model.graph.node if node.name == keep)
    assert node.input[1:] == before.input[1:]
    assert Graph(made).types[node.input[1]].dtype == FLOAT


def test_what_kept_convolutions_give_reaches_other_kept_ones_in_fp32():
    """`lit` is there in FP32 and, for `quick`, in bytes: `kept` takes the better one."""
    weights = {name: normal(8, 8, 1, 1) for name in "abc"}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["first"], "start"),
        helper.make_node("LeakyRelu", ["first"], ["lit"], "leaky"),
        helper.make_node("Conv", ["lit", "b"], ["second"], "quick"),
        helper.make_node("Conv", ["lit", "c"], ["third"], "kept"),
        helper.make_node("Add", ["second", "third"], ["y"], "sum"),
    ]
    model = model_of(nodes, weights, (1, 8, 4, 4))
    seen = dict.fromkeys(["x", "first", "lit", "second", "third", "y"], Range(-9.0, 9.0))
    made = {n.name: n for n in quantized(model, seen, CPU, ["start", "kept"]).graph.node}
    assert made["kept"].input[0] == "lit"
    assert made["quick"].input[0] != "lit"
    carried = {n.name: n for n in quantized(model, seen, CPU, ["kept"]).graph.node}
    assert carried["kept"].input[0] != "lit", "where only bytes are there, it takes those"


def test_a_bias_that_is_left_out_by_an_empty_name_is_none():
    model = convolution(normal(2, 3, 3, 3) / 10)
    model.graph.node[0].input.append("")
    x = np.clip(normal(1, 3, 6, 7), -1, 1)
    for form in FORMS.values():
        for keep in ((), ("conv",)):
            made = quantized(model, SEEN, form, keep)
            np.testing.assert_allclose(computed(made, x), computed(model, x), atol=0.1)


def test_a_bias_that_is_computed_leaves_its_convolution_in_fp32():
    model = convolution(normal(2, 3, 3, 3), normal(2))
    model.graph.node[0].input[2] = "computed"
    model.graph.node.insert(0, helper.make_node("Neg", ["bias"], ["computed"]))
    for form in FORMS.values():
        assert "QuantizeLinear" not in kinds(quantized(model, SEEN, form))


def test_tensorrt_computes_every_convolution_in_int8_but_the_kept_ones(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    everything = names(calibrated("unet_128", TENSORRT)[0])
    for keep in ([], [everything[3], everything[-1]]):
        path = tmp_path / "int8.onnx"
        save_with_meta(in_int8("unet_128", TENSORRT, keep), path, meta(size_px=(128, 128)))
        built = engine_from_onnx(path, tmp_path / "int8.engine")
        convolutions = [layer for layer in built.layers if layer.kind == "correlation"]
        by_type = [set(layer.input_types[:1]) for layer in convolutions]
        assert by_type.count({"Int8"}) == len(everything) - len(keep)
        assert by_type.count({"Half"}) == len(keep)
        assert len(convolutions) == len(everything)
        assert "deconv" not in {layer.kind for layer in built.layers}


def with_an_outlier(model, first, second, channel, factor=200.0):
    """A copy that draws the same, but channel `channel` of convolution `first` is `factor` times
    as large as the others; `second` reads it as channel `channel` of its own last ones."""
    model = deepcopy(model)
    graph = Graph(model)
    one, other = (graph.convolutions()[index] for index in (first, second))
    weights, bias = (graph.weight(name).copy() for name in one.input[1:])
    weights[:, channel] *= factor
    bias[channel] *= factor
    readers = graph.weight(other.input[1]).copy()
    readers[len(readers) // 2 + channel] /= factor
    changed = dict(zip((*one.input[1:], other.input[1]), (weights, bias, readers), strict=True))
    for name, values in changed.items():
        graph.weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return model


@pytest.mark.slow
@both_forms
def test_the_search_reaches_what_is_asked_for_and_tells_how(form):
    model, frames = drawing("unet_128"), scenes(6, 128)
    result = Int8Search(model, frames, form).result(35.0, 0.97)
    assert set(METHODS) <= set(result.methods)
    assert result.method in result.methods
    assert (result.quality.psnr_db, result.quality.ssim) == worst(result.model, model, frames)
    assert result.quality.psnr_db >= 35
    assert result.quality.ssim >= 0.97
    assert result.kept_macs_share < 0.1
    assert len(result.layers) == 14
    harm = [layer.quality.psnr_db for layer in result.layers]
    assert harm == sorted(harm)
    assert sum(layer.macs_share for layer in result.layers) == pytest.approx(1.0)
    assert result.calibration_images == 6
    # The innermost convolutions make few pixels; the picture does not hang on them.
    assert "generator.down.6" not in result.layers[0].name
    assert (
        result.methods["minmax"].psnr_db
        == worst(quantized(*with_ranges(model, frames, form), form), model, frames)[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("form", "sensitive"), [(TENSORRT, 1), (CPU, 2)], ids=FORMS)
def test_the_search_keeps_the_layer_that_an_outlier_channel_makes_sensitive(form, sensitive):
    """For TensorRT the outlier harms where it is read, on the CPU also where it is written."""
    frames = scenes(3, 128)
    model = with_an_outlier(drawing("unet_128"), 12, 13, channel=0)
    assert worst(model, drawing("unet_128"), frames)[0] > 60
    search = Int8Search(model, frames, form, method="minmax")
    result = search.result(34.0, 0.97)
    naive = result.methods["minmax"]
    assert naive.psnr_db < 30
    assert len(result.kept) == sensitive
    assert set(result.kept) == {layer.name for layer in result.layers[:sensitive]}
    last = names(with_subpixel_upsampling(model)[0])[-1]
    assert last in result.kept
    assert result.layers[0].quality.psnr_db < result.layers[sensitive].quality.psnr_db - 10
    assert result.quality.psnr_db >= 34
    assert (result.quality.psnr_db, result.quality.ssim) == worst(result.model, model, frames)
    macs = {layer.name: layer.macs for layer in result.layers}
    share = sum(macs[name] for name in result.kept) / sum(macs.values())
    assert result.kept_macs_share == pytest.approx(share)
    assert share < 0.14 * sensitive


def strangers(opset=18):
    """Frame in, frame out, by nodes without names, with a bias that goes through an Identity."""
    stored = {"w1": normal(4, 3, 3, 3) / 5, "w2": normal(3, 4, 3, 3) / 5, "bias": normal(4)}
    stored |= {"lowest": np.float32(0), "highest": np.float32(255)}
    nodes = [
        helper.make_node("Cast", ["x"], ["levels"], to=FLOAT),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Identity", ["bias"], ["same"]),
        helper.make_node("Conv", ["planes", "w1", "same"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
        helper.make_node("Clip", ["c", "lowest", "highest"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["e"], ["y"], to=TensorProto.UINT8),
    ]
    model = model_of(nodes, stored, (1, 32, 32, 3), (1, 32, 32, 3), opset)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    return model


@both_forms
def test_a_goal_out_of_reach_keeps_every_layer_and_says_how_far_it_comes(form):
    model, frames = strangers(), scenes(2, 32)
    result = Int8Search(model, frames, form).result(200.0, 0.97)
    assert len(result.kept) == len(result.layers) == 2, "nameless nodes are told apart"
    assert result.kept_macs_share == 1.0
    assert "QuantizeLinear" not in kinds(result.model)
    assert (result.quality.psnr_db, result.quality.ssim) == worst(result.model, model, frames)
    assert 45 < result.quality.psnr_db < 200


@both_forms
def test_int8_of_a_strangers_graph_draws_its_picture(form):
    model, frames = strangers(), scenes(2, 32)
    result = Int8Search(model, frames, form).result(30.0, 0.9)
    assert not result.kept
    assert worst(result.model, model, frames) > (30.0, 0.9)


def test_an_opset_without_scales_by_channel_is_refused():
    with pytest.raises(ModelError, match="--int8 for a model of opset 12; expected opset 13"):
        Int8Search(strangers(12), scenes(1, 32), CPU)
