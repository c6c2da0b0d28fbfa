"""Both ends of a graph brought to where the bytes of a frame are the quantised values.

A frame's bytes b are quantised already: (b - 128) / 127.5 has the scale 1 / 127.5 and the zero
point 128, and is half a level beside what the generator was trained on, which goes into the bias
of the convolution that reads it. At the other end 127.5 * tanh(x) + 127.5 is 255 * sigmoid(2 x),
which from bytes to bytes is a table of 256 values. The order of the colours goes into the weights
of the first and of the last convolution.

`export.quantize` knows what is written here: `frame_values` and `drawn_bytes` find it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import Array, Graph, drop_unused_weights, names_in, unique_name

FRAME_ZERO = 128
FRAME_SCALE = 1 / 127.5
_HALF_A_LEVEL = 0.5 * FRAME_SCALE
_TO_PLANES, _TO_PIXELS = [0, 3, 1, 2], [0, 2, 3, 1]


def with_frame_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose ends are so, where they are those of `FrameInFrameOut` on colours.

    The picture stays, but for what a convolution sees beyond the frame's border: half a grey
    level more.

    Args:
        model: FP32, frame in, frame out, named nodes.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for rewrite in (_with_bytes_in, _with_bytes_out):
        rewrite(made)
    drop_unused_weights(made)
    onnx.checker.check_model(made)
    return made


def frame_values(graph: Graph) -> str | None:
    """The tensor that is (frame - 128) / 127.5; None where the graph has none."""
    for node in graph.nodes:
        if node.op_type != "Cast" or node.input[0] != graph.model.graph.input[0].name:
            continue
        less = _reader(graph, node.output[0], "Sub", FRAME_ZERO)
        scaled = less and _only_reader(graph, less.output[0], "Mul", FRAME_SCALE)
        return str(scaled.output[0]) if scaled else None
    return None


def drawn_bytes(graph: Graph, node: onnx.NodeProto) -> str | None:
    """What a Cast to the bytes of a frame gives 255 times, rounded: the values of a sigmoid."""
    if node.op_type != "Cast" or node.output[0] != graph.model.graph.output[0].name:
        return None
    rounded = graph.producer.get(node.input[0])
    times = graph.producer.get(rounded.input[0]) if rounded is not None else None
    if times is None or rounded is None or rounded.op_type != "Round" or times.op_type != "Mul":
        return None
    source = graph.producer.get(times.input[0])
    is_drawn = source is not None and source.op_type == "Sigmoid" and _stores(graph, times, 255.0)
    return str(times.input[0]) if is_drawn else None


# ----------------------------------------------------------------------------------- the first end


@dataclass(frozen=True)
class _Reader:
    """The convolution that reads the frame, and what moves pixels before it."""

    conv: onnx.NodeProto
    moves: Sequence[onnx.NodeProto]
    taps: int
    """Inputs of the convolution that come from one colour: 1, or the pixels of a block."""


def _with_bytes_in(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    cast = next((n for n in graph.nodes if n.input[:1] == [model.graph.input[0].name]), None)
    if cast is None or cast.op_type != "Cast":
        return
    planes = _reader(graph, cast.output[0], "Transpose")
    if planes is None or list(planes.attribute[0].ints) != _TO_PLANES:
        return
    turned = _only_reader(graph, planes.output[0], "Gather")
    if turned is not None and not _is_reversal(graph, turned):
        return
    before = turned or planes
    scaled = _only_reader(graph, before.output[0], "Mul", FRAME_SCALE)
    less = scaled and _only_reader(graph, scaled.output[0], "Sub", 1.0)
    reader = _reader_of(graph, less.output[0]) if less else None
    if scaled is None or less is None or reader is None:
        return
    conv = reader.conv
    kernel = graph.weight(conv.input[1]).astype(np.float64)
    if turned is not None:
        by_colour = kernel.reshape(len(kernel), -1, reader.taps, *kernel.shape[2:])
        kernel = by_colour[:, ::-1].reshape(kernel.shape)
    has_bias = len(conv.input) > 2 and conv.input[2]
    bias = graph.weight(conv.input[2]).astype(np.float64) if has_bias else np.zeros(len(kernel))
    bias = bias + _HALF_A_LEVEL * kernel.reshape(len(kernel), -1).sum(axis=1)
    store = _Store(model)
    inputs = [conv.input[0], store.floats(conv.input[1], kernel), store.floats("bias", bias)]
    source, result = planes.input[0], less.output[0]
    centred, values = store.name("centred"), store.name("frame_values")
    nodes = [
        helper.make_node(
            "Sub", [source, store.floats("middle", FRAME_ZERO)], [centred], store.name("Sub")
        ),
        helper.make_node(
            "Mul", [centred, store.floats("scale", FRAME_SCALE)], [values], store.name("Mul")
        ),
        helper.make_node(
            "Transpose", [values], [result], store.name("Transpose"), perm=_TO_PLANES
        ),
    ]
    del conv.input[:]
    conv.input.extend(inputs)
    _replace(model, [n for n in (planes, turned, scaled, less) if n is not None], nodes)


def _reader_of(graph: Graph, name: str) -> _Reader | None:
    """Who reads the frame, through a mirrored border or `pixel_unshuffle` or as it is."""
    moves: list[onnx.NodeProto] = []
    while True:
        readers = graph.consumers.get(name, [])
        if len(readers) != 1:
            return None
        node = readers[0]
        if node.op_type == "Conv":
            break
        if node.op_type not in ("Pad", "Reshape", "Transpose") or len(moves) == 3:
            return None
        moves.append(node)
        name = node.output[0]
    kinds = [move.op_type for move in moves]
    if kinds not in ([], ["Pad"], ["Reshape", "Transpose", "Reshape"]):
        return None
    weights = [name for name in node.input[1:] if name]
    own = all(w in graph.weights and len(graph.consumers[w]) == 1 for w in weights)
    group = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("group", 1)
    depth = graph.types[node.input[1]].shape[1] if own else None
    if not own or group != 1 or not depth or depth % 3:
        return None
    return _Reader(node, moves, depth // 3)


# ------------------------------------------------------------------------------------ the last end


def _with_bytes_out(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    cast = graph.producer[model.graph.output[0].name]
    found: list[onnx.NodeProto] = []
    name = cast.input[0]
    turned = False
    for kind in ("Transpose", "Gather", "Round", "Clip", "Add", "Mul", "Tanh"):
        node = graph.producer.get(name)
        if node is None or len(graph.consumers[name]) != 1:
            return
        if kind == "Gather" and node.op_type != kind:
            continue
        if node.op_type != kind or not _fits_the_end(graph, node):
            return
        turned |= kind == "Gather"
        found.append(node)
        name = node.input[0]
    drawer, taps = _drawer_of(graph, name)
    if cast.op_type != "Cast" or drawer is None:
        return
    axis = 0 if drawer.op_type == "Conv" else 1
    store = _Store(model)
    for index, weights in enumerate(drawer.input):
        if index == 0 or not weights:
            continue
        values = graph.weight(weights).astype(np.float64) * 2
        along = np.moveaxis(values, axis if index == 1 else 0, 0)
        if turned:
            along = along.reshape(-1, taps, *along.shape[1:])[::-1].reshape(along.shape)
        values = np.moveaxis(along, 0, axis if index == 1 else 0)
        drawer.input[index] = store.floats(weights, values)
    pixels, drawn, times, whole = map(store.name, ("pixels", "drawn", "times", "whole"))
    nodes = [
        helper.make_node("Transpose", [name], [pixels], store.name("Transpose"), perm=_TO_PIXELS),
        helper.make_node("Sigmoid", [pixels], [drawn], store.name("Sigmoid")),
        helper.make_node("Mul", [drawn, store.floats("white", 255.0)], [times], store.name("Mul")),
        helper.make_node("Round", [times], [whole], store.name("Round")),
        helper.make_node(
            "Cast", [whole], [cast.output[0]], store.name("Cast"), to=TensorProto.UINT8
        ),
    ]
    _replace(model, [*found, cast], nodes)


def _fits_the_end(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether one step from values of -1 to 1 to levels is the one that `FrameInFrameOut` does."""
    if node.op_type == "Transpose":
        return list(node.attribute[0].ints) == _TO_PIXELS
    if node.op_type == "Gather":
        return _is_reversal(graph, node)
    if node.op_type in ("Add", "Mul"):
        return _stores(graph, node, 127.5)
    if node.op_type == "Clip":
        ends = [name for name in node.input[1:] if name in graph.weights]
        return [float(graph.weight(name)) for name in ends] == [0.0, 255.0]
    return True


def _drawer_of(graph: Graph, name: str) -> tuple[onnx.NodeProto | None, int]:
    """The convolution whose result is drawn, and its channels of one colour side by side."""
    node, taps = graph.producer.get(name), 1
    if node is not None and node.op_type == "DepthToSpace":
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if given.get("mode") != b"CRD":
            return None, 1
        taps = int(given["blocksize"]) ** 2
        node = graph.producer.get(node.input[0])
    if node is None or node.op_type not in ("Conv", "ConvTranspose"):
        return None, 1
    weights = [weight for weight in node.input[1:] if weight]
    group = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("group", 1)
    own = all(w in graph.weights and len(graph.consumers[w]) == 1 for w in weights)
    alone = len(graph.consumers[node.output[0]]) == 1
    return (node, taps) if own and alone and group == 1 else (None, 1)


# --------------------------------------------------------------------------------------- of both


class _Store:
    """New names and new stored values of one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._taken = names_in(model)

    def name(self, wanted: str) -> str:
        return unique_name(self._taken, wanted)

    def floats(self, wanted: str, values: Array | float) -> str:
        name = self.name(wanted)
        stored = np.ascontiguousarray(np.asarray(values, np.float32))
        stored = stored if np.ndim(values) else stored.reshape(())
        self._model.graph.initializer.append(numpy_helper.from_array(stored, name))
        return name


def _replace(
    model: onnx.ModelProto, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]
) -> None:
    """Put `new` where the first of `old` in the graph's order was."""
    gone = {node.output[0] for node in old}
    nodes: list[onnx.NodeProto] = []
    waiting = list(new)
    for node in model.graph.node:
        if node.output[0] not in gone:
            nodes.append(node)
        elif waiting:
            nodes += waiting
            waiting = []
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(kept)


def _only_reader(
    graph: Graph, name: str, kind: str, stored: float | None = None
) -> onnx.NodeProto | None:
    """As `_reader`, where nothing else reads `name`."""
    alone = len(graph.consumers.get(name, [])) == 1
    return _reader(graph, name, kind, stored) if alone else None


def _reader(
    graph: Graph, name: str, kind: str, stored: float | None = None
) -> onnx.NodeProto | None:
    """The one node of this kind that reads `name`, and whose other input is this number."""
    readers = [
        node
        for node in graph.consumers.get(name, [])
        if node.op_type == kind and (stored is None or _stores(graph, node, stored))
    ]
    return readers[0] if len(readers) == 1 and readers[0].input[0] == name else None


def _stores(graph: Graph, node: onnx.NodeProto, value: float) -> bool:
    """Whether its second input is this one number."""
    name = node.input[1]
    if name not in graph.weights or graph.types[name].elements != 1:
        return False
    return bool(np.isclose(graph.weight(name).reshape(()), value, rtol=1e-6))


def _is_reversal(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Gather turns the three colours round."""
    axis = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("axis", 0)
    stored = node.input[1] in graph.weights
    return axis == 1 and stored and graph.weight(node.input[1]).tolist() == [2, 1, 0]
