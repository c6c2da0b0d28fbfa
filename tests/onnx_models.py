"""Small ONNX files for tests: real graphs that ONNX Runtime runs in a moment."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from runtime.artifact import META_KEY, ArtifactMeta


def write_negative(
    path: Path, size_px: tuple[int, int] = (64, 96), meta: ArtifactMeta | None = None
) -> Path:
    """A frame-in frame-out model that gives the negative, 255 - x: uint8 [1, H, W, 3]."""
    white = helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["white", "levels"], ["negative"]),
        helper.make_node("Cast", ["negative"], ["translated"], to=TensorProto.UINT8),
    ]
    shape = [1, *size_px, 3]
    return _write(path, nodes, [white], TensorProto.UINT8, shape, shape, meta)


def write_float_image_model(path: Path) -> Path:
    """What torch exports of a bare generator: float [1, 3, H, W] in and out."""
    nodes = [helper.make_node("Tanh", ["frames"], ["translated"])]
    shape = [1, 3, 64, 96]
    return _write(path, nodes, [], TensorProto.FLOAT, shape, shape, None)


def write_cropping(path: Path) -> Path:
    """Takes frames, but gives smaller ones, and declares its output's size by names only."""
    starts = helper.make_tensor("starts", TensorProto.INT64, [1], [0])
    ends = helper.make_tensor("ends", TensorProto.INT64, [1], [8])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["levels", "starts", "ends", "axes"], ["top"]),
        helper.make_node("Cast", ["top"], ["translated"], to=TensorProto.UINT8),
    ]
    return _write(
        path,
        nodes,
        [starts, ends, axes],
        TensorProto.UINT8,
        [1, 64, 96, 3],
        [1, "h", "w", 3],
        None,
    )


def _write(path, nodes, constants, kind, shape_in, shape_out, meta):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("frames", kind, shape_in)],
        [helper.make_tensor_value_info("translated", kind, shape_out)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if meta is not None:
        helper.set_model_props(model, {META_KEY: meta.to_json()})
    onnx.save(model, path)
    return path
