"""What an ONNX file holds: tensors, work by precision, bytes. Its weights are not read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.inliner import inline_local_functions

from export.graph import Graph, product
from export.inspect_model import ModelFacts, NodeFacts, TensorFacts
from runtime.artifact import META_KEY, ArtifactMeta
from runtime.errors import ModelError

_WEIGHED = {
    "Conv": 1,
    "ConvTranspose": 1,
    "FusedConv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "Gemm": 1,
    "FusedGemm": 1,
    "QGemm": 3,
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "QLinearMatMul": 3,
}
"""Operators whose work is counted, and which of their inputs holds the weights."""
_INTEGER = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm")
_CARRIES = ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Identity", "Reshape")
_SHORT = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64"}
_NOT_PARAMETERS = ("INT64", "INT32", "BOOL", "STRING")


def onnx_facts(path: Path, meta: ArtifactMeta | None) -> ModelFacts:
    """Look into an ONNX file.

    Args:
        path: of an ONNX file, ours or anybody's.
        meta: the contract in it, if it is ours.

    Raises:
        ModelError: the file is not whole, or empty.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        outside = _without_weights(model)
        if model.functions:
            model = inline_local_functions(model)
        graph = Graph(model)
    except (
        DecodeError,
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
    ) as error:
        raise ModelError(
            f"{path} is not a valid ONNX file ({str(error).splitlines()[0]})",
            "a whole file that onnx can read",
            "export it again",
        ) from error
    if not graph.nodes:
        raise ModelError(f"{path} holds an empty graph", "an ONNX model", "name another file")
    stored = _stored(graph)
    every = list(_all_nodes(model.graph))
    beside = {name: path.parent / name for name in sorted(outside)}
    notes = [
        f"{name}, with weights, is not beside it" for name in beside if not beside[name].is_file()
    ]
    if inside := len(every) - len(graph.nodes):
        notes.append(f"{inside} nodes lie in branches and loops, whose work is not counted")
    return ModelFacts(
        path=str(path),
        kind="ONNX",
        size_bytes=path.stat().st_size,
        external_bytes=sum(file.stat().st_size for file in beside.values() if file.is_file()),
        meta=meta,
        foreign_meta={p.key: p.value for p in model.metadata_props if p.key != META_KEY},
        inputs=tuple(_tensor(graph, v) for v in model.graph.input if v.name not in graph.weights),
        outputs=tuple(_tensor(graph, v) for v in model.graph.output),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=int(model.ir_version),
        opsets={entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import},
        operators=dict(Counter(node.op_type for node in every).most_common()),
        nodes=tuple(
            _node(graph, stored, node)
            for node in graph.nodes
            if len(node.input) > _WEIGHED.get(node.op_type, len(node.input))
        ),
        parameters=sum(
            elements for dtype, elements in stored.values() if dtype not in _NOT_PARAMETERS
        ),
        stored_bytes=_bytes_by_type(stored),
        notes=tuple(notes),
    )


def _without_weights(model: onnx.ModelProto) -> set[str]:
    """Drop the values of large tensors, which nothing here looks at; the files of those outside.

    Shape inference copies the model twice: 700 MB of weights would be in memory three times.
    """
    outside: set[str] = set()
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in tensors:
        outside |= {e.value for e in tensor.external_data if e.key == "location"}
        if tensor.external_data or len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return outside


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _all_nodes(inner)


def _stored(graph: Graph) -> dict[str, tuple[str, int]]:
    """Type and number of elements of each stored tensor: initialisers, and Constant nodes."""
    tensors = dict(graph.weights)
    for node in graph.nodes:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    return {
        name: (_type_name(tensor.data_type), math.prod(tensor.dims))
        for name, tensor in tensors.items()
    }


def _bytes_by_type(stored: dict[str, tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for dtype, elements in stored.values():
        found[dtype] += _bytes_of(dtype, elements)
    return dict(found.most_common())


def _bytes_of(dtype: str, elements: int) -> int:
    named = re.search(r"\d+", dtype)
    bits = int(named[0]) if named else {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}.get(dtype, 0)
    return -(-elements * bits // 8)


def _node(graph: Graph, stored: dict[str, tuple[str, int]], node: onnx.NodeProto) -> NodeFacts:
    weights_at = _WEIGHED[node.op_type]
    data, weights = node.input[0], node.input[weights_at]
    origin = weights
    while origin not in stored and (producer := graph.producer.get(origin)):
        if producer.op_type not in _CARRIES:
            break
        origin = producer.input[0]
    return NodeFacts(
        name=node.name or node.output[0],
        kind=node.op_type,
        compute=_compute(graph, node, (data, weights)),
        macs=_macs(graph, node, data, weights),
        weight_bytes=_bytes_of(*stored[origin]) if origin in stored else 0,
    )


def _compute(graph: Graph, node: onnx.NodeProto, operands: Sequence[str]) -> str:
    if node.op_type in _INTEGER:
        return "INT8"
    quantised = []
    for name in operands:
        producer = graph.producer.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":
            quantised.append(_dtype(graph, producer.input[0]))
    if len(quantised) == len(operands):
        return "/".join(dict.fromkeys(dtype.replace("UINT", "INT") for dtype in quantised))
    flows = (dtype for name in operands if (dtype := _dtype(graph, name)) != "?")
    dtype = next(flows, "?")
    return _SHORT.get(dtype, dtype)


def _macs(graph: Graph, node: onnx.NodeProto, data: str, weights: str) -> int | None:
    """For one frame: the leading side of what comes out is the batch, and counts once."""

    def shape(name: str) -> tuple[int | None, ...]:
        found = graph.types.get(name)
        return found.shape if found else ()

    given, taken, kernel = shape(node.output[0]), shape(data), shape(weights)
    sides: list[int | None]
    if "Conv" in node.op_type:
        # A convolution multiplies at each output pixel, a transposed one at each input pixel.
        at = taken if node.op_type == "ConvTranspose" else given
        sides = [*at[2:], *kernel] if len(at) == len(kernel) > 2 else [None]
    else:
        across = {a.name: a.i for a in node.attribute}.get("transA", 0)
        inner = taken[0 if across else -1] if len(taken) > across else None
        sides = [*given[1:], inner] if given else [None]
    known = [side for side in sides if side is not None]
    return product(known) if len(known) == len(sides) else None


def _tensor(graph: Graph, value: onnx.ValueInfoProto) -> TensorFacts:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):  # an output whose shape only inference tells
        inferred = tuple("?" if side is None else side for side in graph.types[value.name].shape)
        return TensorFacts(value.name, _dtype(graph, value.name), inferred or ("...",))
    sides = tuple(
        int(side.dim_value) if side.HasField("dim_value") else side.dim_param or "?"
        for side in tensor.shape.dim
    )
    return TensorFacts(value.name, _type_name(tensor.elem_type), sides)


def _dtype(graph: Graph, name: str) -> str:
    found = graph.types.get(name)
    return _type_name(found.dtype) if found and found.dtype else "?"


def _type_name(dtype: int) -> str:
    try:
        return str(onnx.TensorProto.DataType.Name(dtype))
    except ValueError:  # newer than the onnx package
        return f"TYPE_{dtype}"
