"""Small ONNX files for tests: real graphs that ONNX Runtime runs in a moment."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from runtime.artifact import META_KEY, ArtifactMeta


def write_negative(
    path: Path,
    size_px: tuple[int | str, int | str] = (64, 96),
    meta: ArtifactMeta | None = None,
    batch: int | str = 1,
) -> Path:
    """A frame-in frame-out model that gives the negative, 255 - x: uint8 [N, H, W, 3].

    A side or a batch that is a text is a name: the graph leaves it open.
    """
    white = helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["white", "levels"], ["negative"]),
        helper.make_node("Cast", ["negative"], ["translated"], to=TensorProto.UINT8),
    ]
    shape = [batch, *size_px, 3]
    return _write(path, nodes, [white], TensorProto.UINT8, shape, shape, meta)


def write_float_image_model(path: Path) -> Path:
    """What torch exports of a bare generator: float [1, 3, H, W] in and out."""
    nodes = [helper.make_node("Tanh", ["frames"], ["translated"])]
    shape = [1, 3, 64, 96]
    return _write(path, nodes, [], TensorProto.FLOAT, shape, shape, None)


def write_cropping(
    path: Path,
    rows: int = 8,
    size_px: tuple[int | str, int | str] = (64, 96),
    meta: ArtifactMeta | None = None,
) -> Path:
    """Takes frames, gives `rows` rows of them, and declares its output's size by names only."""
    starts = helper.make_tensor("starts", TensorProto.INT64, [1], [0])
    ends = helper.make_tensor("ends", TensorProto.INT64, [1], [rows])
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
        [1, *size_px, 3],
        [1, "h", "w", 3],
        meta,
    )


def write_adding_rows(path: Path, meta: ArtifactMeta) -> Path:
    """Declares frames of any size, but adds a constant of 64 rows: no other height runs."""
    rows = helper.make_tensor("rows", TensorProto.FLOAT, [1, 64, 1, 1], [0.0] * 64)
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["levels", "rows"], ["sums"]),
        # ONNX Runtime would infer 64 rows, and the file be refused when it is loaded.
        helper.make_node("Shape", ["frames"], ["size"]),
        helper.make_node("Reshape", ["sums", "size"], ["unknown"]),
        helper.make_node("Cast", ["unknown"], ["translated"], to=TensorProto.UINT8),
    ]
    shape = [1, "h", "w", 3]
    return _write(path, nodes, [rows], TensorProto.UINT8, shape, shape, meta)


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
