"""ONNX graphs, as every later step of an export sees them: shapes, weights, work, values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.verify import Image

Array: TypeAlias = NDArray[Any]
_SMALL = 1024
"""Elements: smaller stored tensors may be shapes, whose values inference needs."""
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class TensorType:
    """Element type (of onnx.TensorProto) and shape of one tensor; an open side is None."""

    dtype: int
    shape: tuple[int | None, ...]

    @property
    def elements(self) -> int:
        """Of one frame: an open side counts once."""
        return product(self.shape)


class Graph:
    """Look-ups in one model, made once. The model is not copied: a change needs a new `Graph`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: Sequence[onnx.NodeProto] = model.graph.node
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = _types(model)

    def weight(self, name: str) -> Array:
        """The values of a stored tensor."""
        return np.asarray(numpy_helper.to_array(self.weights[name]))

    def convolutions(self) -> list[onnx.NodeProto]:
        """Conv and ConvTranspose nodes with stored weights, in the order of the graph."""
        return [n for n in self.nodes if n.op_type in CONVOLUTIONS and n.input[1] in self.weights]

    def macs(self, node: onnx.NodeProto) -> int:
        """Multiply-accumulates of a convolution for one frame, counted where they are done.

        A convolution does each at an output pixel, a transposed one at an input pixel; papers
        that count a transposed one at its output say four times as much.
        """
        kernel = self.types[node.input[1]].shape
        at = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
        return product(self.types[at].shape[2:]) * product(kernel)


def values_of(
    model: onnx.ModelProto, names: Sequence[str], frames: Iterable[Image]
) -> Iterator[dict[str, Array]]:
    """What the tensors `names` hold, for one frame after another, as ONNX Runtime's CPU computes.

    A model that takes batches is given as many copies of the frame.

    Args:
        model: frame in, frame out.
        names: of tensors inside the graph.
        frames: uint8 [H, W, 3] BGR, of the model's frame size.
    """
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    types = _types(model)
    there = {output.name for output in shown.graph.output}
    for name in dict.fromkeys(names):
        if name not in there:
            shown.graph.output.append(
                onnx.helper.make_tensor_value_info(name, types[name].dtype, None)
            )
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), _quiet(onnxruntime), providers=["CPUExecutionProvider"]
    )
    source = session.get_inputs()[0]
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    for frame in frames:
        fed = {source.name: np.repeat(frame[None], batch, axis=0)}
        yield dict(zip(names, session.run(list(names), fed), strict=True))


def drawn_by(model: onnx.ModelProto, frames: Sequence[Image]) -> list[Image]:
    """The pictures that ONNX Runtime's CPU draws with `model`."""
    output = model.graph.output[0].name
    return [values[output][0] for values in values_of(model, [output], frames)]


def unique_name(taken: set[str], wanted: str) -> str:
    """`wanted`, or `wanted_2`, ... where that is taken; noted in `taken`."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def names_in(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors and nodes."""
    graph = model.graph
    names = {value.name for value in (*graph.input, *graph.initializer, *graph.node)}
    return names | {name for node in graph.node for name in node.output}


def at_size(model: onnx.ModelProto, frame: Image) -> onnx.ModelProto:
    """A copy that declares frames of this size, one at a time, where its sides are open."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    sides = fixed.graph.input[0].type.tensor_type.shape.dim
    for side, pixels in zip(sides, (1, *frame.shape), strict=True):
        if not side.HasField("dim_value"):
            side.dim_value = pixels
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fixed


def drop_unused_weights(model: onnx.ModelProto) -> None:
    """Forget, in place, what is stored and no node reads, nor any node of a graph inside one."""
    read = set(_names_read(model.graph.node)) | {value.name for value in model.graph.output}
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)


def load_model(path: Path) -> onnx.ModelProto:
    """An ONNX file of ours, read whole."""
    return onnx.load(str(path))


def product(sides: Sequence[int | None]) -> int:
    """Of all sides of a shape; an open one counts once."""
    return math.prod(side or 1 for side in sides)


def _names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_read(inner.node)


def _types(model: onnx.ModelProto) -> dict[str, TensorType]:
    inferred = onnx.shape_inference.infer_shapes(
        _without_weights(model), strict_mode=False, data_prop=True
    ).graph
    types = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        shape = tuple(
            side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim
        )
        types[value.name] = TensorType(int(tensor.elem_type), shape)
    for stored in model.graph.initializer:
        types[stored.name] = TensorType(int(stored.data_type), tuple(stored.dims))
    return types


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for shape inference: weights as mere inputs, which spares copying them twice."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph = model.graph
    bare.graph.name = graph.name
    bare.graph.node.extend(graph.node)
    bare.graph.output.extend(graph.output)
    bare.graph.value_info.extend(graph.value_info)
    stored = {tensor.name for tensor in graph.initializer}
    bare.graph.input.extend(value for value in graph.input if value.name not in stored)
    for tensor in graph.initializer:
        if product(tensor.dims) > _SMALL:
            bare.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        else:
            bare.graph.initializer.append(tensor)
    return bare


def _quiet(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
