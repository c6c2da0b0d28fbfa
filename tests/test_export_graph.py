"""Look-ups in ONNX graphs, and how the times of two forms are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import write_negative
from test_export_onnx import meta
from test_export_subpixel import computed, model_of, normal

from export.graph import Graph, TensorType, drawn_by, drop_unused_weights, values_of
from export.speed import frame_times_ms, told_speed

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def one(kind, weights, shape_in, **attributes):
    node = helper.make_node(kind, ["x", "weights"], ["y"], kind, **attributes)
    return model_of([node], {"weights": weights}, shape_in)


@pytest.mark.parametrize(
    ("kind", "shape_in", "weights", "attributes", "macs"),
    [
        # 4 channels of 5 x 6 pixels, each from 3 channels of 3 x 3.
        ("Conv", (1, 3, 5, 6), (4, 3, 3, 3), {"pads": [1] * 4}, 4 * 5 * 6 * 3 * 9),
        ("Conv", (1, 3, 9, 8), (4, 3, 4, 4), {"strides": [2, 2]}, 4 * 3 * 3 * 3 * 16),
        ("Conv", (1, 6, 5, 6), (4, 3, 1, 1), {"group": 2}, 4 * 5 * 6 * 3),
        # Frames of a batch are not counted.
        ("Conv", (7, 3, 5, 6), (4, 3, 1, 1), {}, 4 * 5 * 6 * 3),
        # Each of 5 x 6 pixels of 3 channels goes into 4 channels of 4 x 4.
        ("ConvTranspose", (1, 3, 5, 6), (3, 4, 4, 4), {"strides": [2, 2]}, 3 * 5 * 6 * 4 * 16),
        ("ConvTranspose", (1, 4, 5, 6), (4, 3, 2, 2), {"group": 2}, 4 * 5 * 6 * 3 * 4),
    ],
)
def test_multiply_accumulates_are_those_counted_by_hand(kind, shape_in, weights, attributes, macs):
    graph = Graph(one(kind, normal(*weights), shape_in, **attributes))
    (node,) = graph.convolutions()
    assert graph.macs(node) == macs


def test_the_work_of_an_open_size_is_that_of_one_pixel():
    graph = Graph(one("Conv", normal(4, 3, 1, 1), ("n", 3, "h", "w")))
    assert graph.macs(graph.nodes[0]) == 4 * 3


def test_convolutions_with_computed_weights_are_not_listed():
    model = one("Conv", normal(4, 3, 1, 1), (1, 3, 5, 6))
    model.graph.node[0].input[1] = "computed"
    model.graph.node.insert(0, helper.make_node("Neg", ["weights"], ["computed"]))
    assert Graph(model).convolutions() == []


@pytest.mark.parametrize("channels", [8, 40], ids=["small weights", "large weights"])
def test_types_are_known_through_weights_and_stored_shapes_of_any_size(channels):
    weights = normal(channels, channels, 3, 3).astype(np.float16)
    assert (weights.size > 1024) is (channels == 40)
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["sums"], pads=[1] * 4),
        helper.make_node("Reshape", ["sums", "shape"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["y"], to=FLOAT),
    ]
    stored = {"weights": weights, "shape": np.array([0, channels * 2, -1])}
    model = model_of(nodes, stored, (2, channels, 4, 6), ("n", "c", "pixels"))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    types = Graph(model).types
    half = TensorProto.FLOAT16
    assert types["sums"] == TensorType(half, (2, channels, 4, 6))
    assert types["flat"] == TensorType(half, (2, channels * 2, 12))
    assert types["weights"] == TensorType(half, (channels, channels, 3, 3))
    assert types["shape"] == TensorType(TensorProto.INT64, (3,))


def test_weights_that_are_declared_as_inputs_too_are_no_inputs():
    model = one("Conv", normal(4, 3, 1, 1), (1, 3, 5, 6))
    declared = helper.make_tensor_value_info("weights", FLOAT, (4, 3, 1, 1))
    model.graph.input.append(declared)
    graph = Graph(model)
    assert graph.types["y"].shape == (1, 4, 5, 6)
    assert len(graph.convolutions()) == 1


def test_an_open_side_is_none_and_counts_once():
    graph = Graph(one("Conv", normal(4, 3, 1, 1), ("n", 3, "h", 6)))
    assert graph.types["y"].shape == (None, 4, None, 6)
    assert graph.types["y"].elements == 4 * 6


def test_producers_and_consumers_are_found_by_tensor():
    nodes = [
        helper.make_node("Neg", ["x"], ["a"], "first"),
        helper.make_node("Mul", ["a", "a"], ["b"], "second"),
        helper.make_node("Add", ["a", "b"], ["y"], "third"),
    ]
    graph = Graph(model_of(nodes, {}, (1, 2)))
    assert graph.producer["b"].name == "second"
    assert [node.name for node in graph.consumers["a"]] == ["second", "second", "third"]
    assert "x" not in graph.producer


def batched(batch):
    """The negative, and half of it, of `batch` frames of 4 x 5 pixels."""
    nodes = [
        helper.make_node("Cast", ["x"], ["levels"], to=FLOAT),
        helper.make_node("Sub", ["white", "levels"], ["negative"]),
        helper.make_node("Mul", ["negative", "half"], ["halved"]),
        helper.make_node("Cast", ["negative"], ["y"], to=UINT8),
    ]
    stored = {"white": np.float32(255), "half": np.float32(0.5)}
    shape = (batch, 4, 5, 3)
    model = model_of(nodes, stored, shape, shape)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = UINT8
    return model


FRAMES = [np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8) for seed in (0, 1)]


@pytest.mark.parametrize(("batch", "given"), [(1, 1), (3, 3), ("n", 1)])
def test_values_inside_come_frame_by_frame_also_from_a_model_that_takes_batches(batch, given):
    model = batched(batch)
    wanted = ["halved", "y", "negative", "halved"]
    found = list(values_of(model, wanted, iter(FRAMES)))
    assert [set(values) for values in found] == [set(wanted)] * 2
    for frame, values in zip(FRAMES, found, strict=True):
        assert values["halved"].shape == (given, 4, 5, 3)
        for copy in values["halved"]:
            np.testing.assert_array_equal(copy, (255 - frame.astype(np.float32)) / 2)
    assert len(model.graph.output) == 1, "the model itself is left alone"


@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_a_model_draws_one_picture_for_each_frame(batch):
    for frame, picture in zip(FRAMES, drawn_by(batched(batch), FRAMES), strict=True):
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, 255 - frame)


def test_stored_tensors_stay_if_only_a_graph_inside_a_node_reads_them():
    def branch(name, constant):
        return helper.make_graph(
            [helper.make_node("Add", ["x", constant], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )

    nodes = [
        helper.make_node(
            "If", ["on"], ["y"], then_branch=branch("a", "one"), else_branch=branch("b", "two")
        )
    ]
    stored = {"on": np.array(True), "one": np.float32([1]), "two": np.float32([2])}
    model = model_of(nodes, stored | {"idle": np.float32([3])}, (2,), ("n",))
    drop_unused_weights(model)
    assert {tensor.name for tensor in model.graph.initializer} == set(stored)
    np.testing.assert_array_equal(computed(model, np.float32([1, 5])), [2, 6])


def test_a_stored_tensor_that_is_an_output_stays():
    model = one("Conv", normal(4, 3, 1, 1), (1, 3, 5, 6))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([3]), "told"))
    model.graph.output.append(helper.make_tensor_value_info("told", FLOAT, (1,)))
    drop_unused_weights(model)
    onnx.checker.check_model(model)
    assert {tensor.name for tensor in model.graph.initializer} == {"weights", "told"}


RIVALS = {"int8": "fp16", "int8.cpu": "fp32"}


def test_int8_that_loses_is_said_to_be_slower_than_its_rival_and_by_how_much():
    lines = told_speed({"fp32": 10.0, "fp16": 2.0, "int8": 3.0, "int8.cpu": 5.0}, RIVALS)
    assert len(lines) == 2
    assert "fp16 is the fastest" in lines[0]
    assert "SLOWER" not in lines[0]
    assert "int8 is SLOWER than fp16" in lines[1]
    assert "1.50 times its time" in lines[1]
    assert "use fp16" in lines[1]


def test_int8_that_wins_is_told_by_its_time_alone():
    (line,) = told_speed({"fp32": 10.0, "fp16": 2.0, "int8": 1.5, "int8.cpu": 9.9}, RIVALS)
    for part in ("fp32 10.0 ms", "fp16 2.0 ms", "int8 1.5 ms", "int8 is the fastest"):
        assert part in line
    assert "SLOWER" not in line


def test_int8_without_its_rival_is_not_compared():
    (line,) = told_speed({"fp32": 1.0, "int8": 5.0}, RIVALS)
    assert "SLOWER" not in line


@pytest.mark.parametrize("times", [{}, {"int8": 1.0}])
def test_one_time_alone_tells_nothing(times):
    assert told_speed(times, RIVALS) == []


def test_every_model_is_timed_also_those_of_batches(tmp_path):
    size_px = (16, 24)
    models = {
        "one": write_negative(tmp_path / "one.onnx", size_px, meta(size_px=size_px)),
        "four": write_negative(
            tmp_path / "four.onnx", size_px, replace(meta(size_px=size_px), batch=4), batch=4
        ),
    }
    times_ms = frame_times_ms(models)
    assert list(times_ms) == ["one", "four"]
    assert all(0 < ms < 1e4 for ms in times_ms.values())
