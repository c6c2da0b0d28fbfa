"""The work of a graph is what a person counts with pencil and paper, in every form of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from made_runs import lively_generator
from onnx import TensorProto, helper, numpy_helper
from onnx_models import write_negative
from test_export_int8 import with_ranges
from test_export_onnx import meta
from test_export_subpixel import exported, scenes

from benchmarks.roofs.graph_work import FRAMES, work_of
from export.inspect_model import inspect_model
from export.quantize import CPU, TENSORRT, quantized
from runtime.errors import ModelError
from trainer.catalogue import macs_of
from trainer.config import EDGE_GENERATORS, GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8
SIDES_PX = {"edge_unet_s": 64, "unet_128": 128}


def write(path, nodes, stored, taken, given=("y", FLOAT, None), opset=18):
    """A graph of `nodes` from the one input `taken` to the one output `given`."""
    graph = helper.make_graph(
        [helper.make_node(*node[:3], f"n{at}", **node[3]) for at, node in enumerate(nodes)],
        "by hand",
        [helper.make_tensor_value_info(*taken)],
        [helper.make_tensor_value_info(*given)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def only(path):
    (layer,) = work_of(path).layers
    return layer


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_a_convolution_reads_weights_and_input_once_and_writes_its_output_once(tmp_path):
    nodes = [("Conv", ["x", "w", "b"], ["y"], {"pads": [1] * 4})]
    stored = {"w": zeros(4, 3, 3, 3), "b": zeros(4)}
    layer = only(write(tmp_path / "m.onnx", nodes, stored, ("x", FLOAT, (1, 3, 5, 6))))
    assert (layer.kind, layer.precision) == ("Conv", "FP32")
    assert layer.macs == 4 * 5 * 6 * 3 * 9
    assert layer.weight_bytes == 4 * (4 * 3 * 9 + 4)
    assert layer.read_bytes == 4 * 3 * 5 * 6
    assert layer.written_bytes == 4 * 4 * 5 * 6
    assert layer.moved_bytes == 4 * (112 + 90 + 120)


@pytest.mark.parametrize(
    ("kind", "weights", "attributes", "macs", "written"),
    [
        # Two groups: each of 4 outputs from 3 of 6 inputs.
        ("Conv", (4, 3, 1, 1), {"group": 2}, 4 * 5 * 7 * 3, 4 * 5 * 7),
        # Each of 5 x 7 pixels of 6 channels goes into 2 channels of 4 x 4: 12 x 16 come out.
        ("ConvTranspose", (6, 2, 4, 4), {"strides": [2, 2]}, 6 * 5 * 7 * 2 * 16, 2 * 12 * 16),
        ("ConvTranspose", (6, 1, 2, 2), {"group": 3}, 6 * 5 * 7 * 4, 3 * 6 * 8),
    ],
)
def test_groups_and_transposed_ones(kind, weights, attributes, macs, written, tmp_path):
    nodes = [(kind, ["x", "w"], ["y"], attributes)]
    path = write(tmp_path / "m.onnx", nodes, {"w": zeros(*weights)}, ("x", FLOAT, (1, 6, 5, 7)))
    layer = only(path)
    assert (layer.macs, layer.written_bytes) == (macs, 4 * written)
    assert layer.weight_bytes == 4 * np.prod(weights)


def test_all_frames_of_a_batch_are_computed_and_its_weights_are_read_once(tmp_path):
    nodes = [("Conv", ["x", "w"], ["y"], {})]
    stored = {"w": zeros(4, 3, 1, 1)}
    one, four, open_batch = (
        only(write(tmp_path / "m.onnx", nodes, stored, ("x", FLOAT, (batch, 3, 5, 6))))
        for batch in (1, 4, "n")
    )
    assert (four.macs, four.read_bytes, four.written_bytes) == tuple(
        4 * each for each in (one.macs, one.read_bytes, one.written_bytes)
    )
    assert four.weight_bytes == one.weight_bytes
    assert open_batch == one


def test_matrix_products_with_either_side_stored_and_with_none(tmp_path):
    taken = ("x", FLOAT, (2, 8, 16))
    right = only(
        write(tmp_path / "m.onnx", [("MatMul", ["x", "w"], ["y"], {})], {"w": zeros(16, 3)}, taken)
    )
    assert right.macs == 2 * 8 * 16 * 3
    assert (right.weight_bytes, right.read_bytes) == (4 * 48, 4 * 256)
    left = only(
        write(tmp_path / "m.onnx", [("MatMul", ["w", "x"], ["y"], {})], {"w": zeros(5, 8)}, taken)
    )
    assert left.macs == 2 * 5 * 8 * 16
    assert (left.weight_bytes, left.read_bytes) == (4 * 40, 4 * 256)
    nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["x", "t"], ["y"], {}),
    ]
    neither = only(write(tmp_path / "m.onnx", nodes, {}, taken))
    assert neither.macs == 2 * 8 * 16 * 8
    assert (neither.weight_bytes, neither.read_bytes) == (0, 2 * 4 * 256)
    gemm = only(
        write(
            tmp_path / "m.onnx",
            [("Gemm", ["x", "w"], ["y"], {"transA": 1, "transB": 1})],
            {"w": zeros(3, 8)},
            ("x", FLOAT, (8, 16)),
        )
    )
    assert gemm.macs == 16 * 8 * 3


def test_integer_operators_are_int8_work_in_bytes(tmp_path):
    scales = {
        "s": np.float32(0.1),
        "z": np.uint8(3),
        "zw": np.int8(0),
        "w": zeros(4, 3, 3, 3, dtype=np.int8),
    }
    nodes = [("QLinearConv", ["x", "s", "z", "w", "s", "zw", "s", "z"], ["y"], {})]
    taken, given = ("x", BYTE, (1, 3, 8, 8)), ("y", BYTE, None)
    layer = only(write(tmp_path / "m.onnx", nodes, scales, taken, given))
    assert (layer.kind, layer.precision) == ("QLinearConv", "INT8")
    assert layer.macs == 4 * 6 * 6 * 27
    assert layer.weight_bytes == 4 * 27 + 4 + 1 + 1  # each scale and zero point once
    assert (layer.read_bytes, layer.written_bytes) == (3 * 64, 4 * 36)

    stored = {"w": zeros(16, 5, dtype=np.int8)}
    taken, given = ("x", BYTE, (7, 16)), ("y", TensorProto.INT32, None)
    nodes = [("MatMulInteger", ["x", "w"], ["y"], {})]
    layer = only(write(tmp_path / "m.onnx", nodes, stored, taken, given))
    assert (layer.precision, layer.macs) == ("INT8", 7 * 16 * 5)
    assert (layer.weight_bytes, layer.read_bytes, layer.written_bytes) == (80, 112, 4 * 35)

    nodes = [("ConvInteger", ["x", "w"], ["y"], {})]
    stored = {"w": zeros(4, 3, 1, 1, dtype=np.int8)}
    layer = only(write(tmp_path / "m.onnx", nodes, stored, ("x", BYTE, (1, 3, 2, 5)), given))
    assert (layer.precision, layer.macs, layer.written_bytes) == ("INT8", 120, 4 * 40)


def dequantised(path):
    """Frame, cast and scaled, quantised; a convolution and a ReLU; quantised again; a second."""
    stored = {
        "s": np.float32(0.1),
        "z": np.uint8(3),
        "zw": np.int8(0),
        "w": zeros(4, 3, 3, 3, dtype=np.int8),
        "v": zeros(2, 4, 1, 1, dtype=np.int8),
    }
    nodes = [
        ("Cast", ["x"], ["f"], {"to": FLOAT}),
        ("Mul", ["f", "s"], ["g"], {}),
        ("QuantizeLinear", ["g", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "s", "zw"], ["wd"], {}),
        ("Conv", ["d", "wd"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("QuantizeLinear", ["r", "s", "z"], ["rq"], {}),
        ("DequantizeLinear", ["rq", "s", "z"], ["rd"], {}),
        ("DequantizeLinear", ["v", "s", "zw"], ["vd"], {}),
        ("Conv", ["rd", "vd"], ["y"], {}),
    ]
    return write(path, nodes, stored, ("x", BYTE, (1, 3, 8, 8)))


def test_a_convolution_between_quantise_and_dequantise_is_int8_work_in_bytes(tmp_path):
    first, second = work_of(dequantised(tmp_path / "m.onnx")).layers
    assert (first.precision, second.precision) == ("INT8", "INT8")
    assert (first.macs, second.macs) == (4 * 36 * 27, 2 * 36 * 4)
    assert (first.weight_bytes, first.read_bytes, first.written_bytes) == (108, 192, 144)
    assert (second.weight_bytes, second.read_bytes, second.written_bytes) == (8, 144, 4 * 72)


def test_what_lies_between_two_products_is_fused_but_another_size_is_written_as_it_is(tmp_path):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("Concat", ["r", "x"], ["j"], {"axis": 1}),
        ("Conv", ["j", "v"], ["y"], {}),
    ]
    stored = {"w": zeros(4, 3, 1, 1), "v": zeros(2, 7, 1, 1)}
    path = write(tmp_path / "m.onnx", nodes, stored, ("x", FLOAT, (1, 3, 5, 6)))
    first, second = work_of(path).layers
    assert (first.read_bytes, first.written_bytes) == (4 * 90, 4 * 120)
    assert (second.read_bytes, second.written_bytes) == (4 * 210, 4 * 60)


def test_frames_that_no_product_reads_or_writes_cross_memory_all_the_same(tmp_path):
    layer = only(write_negative(tmp_path / "negative.onnx", (48, 104)))
    assert (layer.kind, layer.macs) == (FRAMES, 0)
    assert (layer.read_bytes, layer.written_bytes) == (48 * 104 * 3, 48 * 104 * 3)


@cache
def drawing(name):
    side = SIDES_PX[name]
    return exported(lively_generator(GeneratorConfig(name, 8)), meta(size_px=(side, side)))


def convolved(work):
    """Multiply-accumulates of the convolutions alone."""
    return sum(layer.macs for layer in work.layers if "Conv" in layer.kind)


@pytest.mark.parametrize("name", SIDES_PX)
def test_an_exported_network_has_the_macs_of_the_catalogue_and_the_weights_of_its_file(
    name, tmp_path
):
    onnx.save(drawing(name), tmp_path / "m.onnx")
    work = work_of(tmp_path / "m.onnx")
    side = SIDES_PX[name]
    assert convolved(work) == macs_of(GeneratorConfig(name, 8), side)
    if name not in EDGE_GENERATORS:  # those enlarge gain and offset by products of matrices
        assert work.macs == convolved(work)
    assert list(work.by_precision()) == ["FP32"]
    assert work.by_precision()["FP32"]["macs"] == work.macs
    facts = inspect_model(tmp_path / "m.onnx").nodes
    biases = sum(layer.weight_bytes for layer in work.layers) - sum(n.weight_bytes for n in facts)
    assert 0 <= biases < 0.1 * sum(node.weight_bytes for node in facts)
    assert work.layers[0].read_bytes == side * side * 3, "the frame is read as bytes"
    assert work.layers[-1].written_bytes >= side * side * 3


@pytest.mark.parametrize("form", [CPU, TENSORRT], ids=["cpu", "tensorrt"])
@pytest.mark.parametrize("name", SIDES_PX)
def test_its_int8_form_moves_a_fraction_of_the_bytes(name, form, tmp_path):
    onnx.save(drawing(name), tmp_path / "fp32.onnx")
    made = quantized(*with_ranges(drawing(name), scenes(1, SIDES_PX[name]), form), form)
    onnx.save(made, tmp_path / "int8.onnx")
    before, after = (work_of(tmp_path / f"{each}.onnx") for each in ("fp32", "int8"))
    found = after.by_precision()
    assert found["INT8"]["macs"] > 0.9 * convolved(after)
    assert after.macs == sum(each["macs"] for each in found.values())
    weights = [
        sum(layer.weight_bytes for layer in each.layers if "Conv" in layer.kind)
        for each in (before, after)
    ]
    more = convolved(after) / convolved(before)  # a transposed one, rewritten, has more weights
    if more == 1:
        assert weights[0] / 4 <= weights[1] < weights[0] / 3
    if form is CPU:
        assert after.moved_bytes < 0.5 * before.moved_bytes * more


def branching(path):
    def branch(name):
        return helper.make_graph(
            [helper.make_node("Neg", ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, (2,))],
        )

    stored = {"on": np.array(True)}
    nodes = [("If", ["on"], ["y"], {"then_branch": branch("a"), "else_branch": branch("b")})]
    return write(path, nodes, stored, ("x", FLOAT, (2,)))


def open_sides(path):
    nodes = [("Conv", ["x", "w"], ["y"], {})]
    return write(path, nodes, {"w": zeros(4, 3, 1, 1)}, ("x", FLOAT, (1, 3, "h", "w")))


def no_onnx(path):
    path.write_bytes(b"no model at all")
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (branching, "control flow: the If node"),
        (open_sides, "open: [1, 4, ?, ?]"),
        (no_onnx, "neither an ONNX file nor"),
        (lambda path: path, "no such model"),
        (lambda path: path.with_suffix(".engine"), "is an engine"),
    ],
    ids=["control flow", "open sides", "no onnx", "missing", "engine"],
)
def test_what_cannot_be_counted_is_told_in_one_line(make, told, tmp_path):
    with pytest.raises(ModelError) as refused:
        work_of(make(tmp_path / "m.onnx"))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
