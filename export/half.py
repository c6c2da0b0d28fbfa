"""From an FP32 graph to an FP16 one, with the nodes that are named left in FP32.

The graph is converted, not the module that it was exported from, so that a stranger's ONNX
becomes FP16 too. Types are strict, as TensorRT's strongly typed networks want them: all float
inputs of a node have one type, and Casts stand where an FP16 and an FP32 region meet.
`export.half_search` finds out which nodes to leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import Graph, names_in, unique_name

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_STANDARD_DOMAINS = ("", "ai.onnx")
_READS_ANY_TYPE = ("Cast", "CastLike", "Shape", "Size")
"""Their first input may be of any type, whatever comes out: it never needs a Cast."""
_FIRST_IR_WITH_FREE_INITIALISERS = 4


@dataclass(frozen=True)
class Slots:
    """Which float inputs and outputs of a node become FP16, by index."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def to_half(model: onnx.ModelProto, keep_fp32: Collection[str] = ()) -> onnx.ModelProto:
    """An FP16 copy of an FP32 model, strictly typed.

    What stays FP32 beside `keep_fp32`: the model's own inputs and outputs; operators and inputs
    that ONNX defines without FP16 (the scales of a Resize); operators of other domains or with
    graphs inside; and what does not depend on the model's input, such as arithmetic on sizes,
    which FP16 would round to the wrong size. Values beyond FP16's range become infinite.

    Args:
        model: opset 11 to 20, weights inside. Sizes may be open.
        keep_fp32: names of nodes that compute in FP32. A node without a name has the one that
            `prepared` gives it.

    Raises:
        ValueError: `keep_fp32` names a node that is not there.
    """
    half = prepared(model)
    graph = Graph(half)
    named = {node.name for node in (*model.graph.node, *graph.nodes)}
    if missing := sorted(set(keep_fp32) - named):
        raise ValueError(f"no such nodes: {', '.join(missing)}")
    keep = set(keep_fp32)
    plan = {name: slots for name, slots in half_slots(graph).items() if name not in keep}
    nodes, made_half = _Rewriting(graph, plan).nodes()
    _keep_declared_outputs(half, nodes, made_half)
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    for value in half.graph.value_info:
        if value.name in made_half:
            value.type.tensor_type.elem_type = HALF
    return half


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own and every float constant is stored alike.

    A nameless node is named after its operator and its place in the graph. Constant nodes of
    FP32 become initialisers, and an Identity of a stored tensor becomes that tensor.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    taken, seen = names_in(copy), set()
    for place, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = unique_name(taken, f"{node.op_type}_{place}")
        seen.add(node.name)
    stored = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        _rename_inputs(node, same)
        constant = _float_constant(node)
        if constant is not None:
            graph.initializer.append(constant)
            stored.add(constant.name)
        elif (
            _is_standard(node, "Identity")
            and node.input[0] in stored
            and node.output[0] not in outputs
        ):
            same[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for declared in (graph.input, graph.value_info):  # exporters may list stored tensors there too
        others = [value for value in declared if value.name not in stored]
        del declared[:]
        declared.extend(others)
    copy.ir_version = max(copy.ir_version, _FIRST_IR_WITH_FREE_INITIALISERS)
    return copy


def half_slots(graph: Graph) -> dict[str, Slots]:
    """By name of node: what `to_half` would convert of a prepared model if nothing were kept.

    Of the nodes that depend on the model's input and have anything in FP32; a node that ONNX does
    not define for FP16 has no slots at all.
    """
    opset = next(o.version for o in graph.model.opset_import if o.domain in _STANDARD_DOMAINS)
    of_the_frame = {value.name for value in graph.model.graph.input}
    found = {}
    for node in graph.nodes:
        if not of_the_frame.intersection((*node.input, *_captured(node))):
            continue
        if not _is_standard(node, "Shape", "Size"):
            of_the_frame.update(node.output)
        slots = _slots(node, graph, opset)
        if slots.inputs or any(_dtype(graph, name) == FLOAT for name in node.output):
            found[node.name] = slots
    return found


class _Rewriting:
    """The nodes of the FP16 graph, and its stored tensors as those nodes want them."""

    def __init__(self, graph: Graph, plan: Mapping[str, Slots]) -> None:
        self._graph = graph
        self._plan = plan
        self._taken = names_in(graph.model)
        self._made_half: set[str] = set()
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._stored_half = self._store()

    def nodes(self) -> tuple[list[onnx.NodeProto], set[str]]:
        """All nodes in their order, and the names of the tensors that are FP16 now."""
        for node in self._graph.nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for index, name, dtype in self._wanted(node):
                copy.input[index] = self._as(name, dtype)
            captured = [n for n in _captured(node) if n in self._made_half]
            _rename_inputs(copy, {name: self._as(name, FLOAT) for name in captured}, inside=True)
            if slots := self._plan.get(node.name):
                self._made_half.update(node.output[index] for index in slots.outputs)
                for attribute in copy.attribute:
                    if node.op_type == "Cast" and attribute.name == "to":
                        attribute.i = HALF
            self._nodes.append(copy)
        return self._nodes, self._made_half

    def _wanted(self, node: onnx.NodeProto) -> Iterator[tuple[int, str, int]]:
        """Index, name and wanted element type of each input that was FP32."""
        slots = self._plan.get(node.name, Slots((), ()))
        for index, name in enumerate(node.input):
            reads_any = index == 0 and _is_standard(node, *_READS_ANY_TYPE)
            if not reads_any and _dtype(self._graph, name) == FLOAT:
                yield index, name, HALF if index in slots.inputs else FLOAT

    def _as(self, name: str, dtype: int) -> str:
        """The name under which a tensor is to be had in `dtype`; adds a Cast where needed."""
        if name in self._graph.weights:
            return self._stored_half[name] if dtype == HALF else name
        if dtype == (HALF if name in self._made_half else FLOAT):
            return name
        if (name, dtype) not in self._casts:
            cast = _cast(name, dtype, self._taken)
            self._nodes.append(cast)
            self._casts[name, dtype] = cast.output[0]
        return self._casts[name, dtype]

    def _store(self) -> dict[str, str]:
        """Round the stored tensors that FP16 nodes use; one that FP32 nodes use too stays beside.

        Returns:
            FP32 name to FP16 name.
        """
        uses = [use for node in self._graph.nodes for use in self._wanted(node)]
        half = {name for _, name, dtype in uses if dtype == HALF} & set(self._graph.weights)
        full = {name for _, name, dtype in uses if dtype == FLOAT}
        full.update(name for node in self._graph.nodes for name in _captured(node))
        full.update(value.name for value in self._graph.model.graph.output)
        names = {}
        for name in sorted(half):
            rounded = rounded_to_half(self._graph.weight(name))
            tensor = self._graph.weights[name]
            if name in full:
                names[name] = unique_name(self._taken, f"{name}_fp16")
                tensor = self._graph.model.graph.initializer.add()
            else:
                names[name] = name
            tensor.CopyFrom(numpy_helper.from_array(rounded, names[name]))
        return names


def rounded_to_half(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As float16; what lies beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float16)


def _slots(node: onnx.NodeProto, graph: Graph, opset: int) -> Slots:
    """What of a node ONNX allows to be FP16; empty where the whole node must stay as it is."""
    nothing = Slots((), ())
    schema = _schema(node.op_type, node.domain, opset)
    names = [name for name in (*node.input, *node.output) if name]
    if schema is None or any(_dtype(graph, name) is None for name in names):
        return nothing
    if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
        return nothing
    inputs, read = [], set()
    for index, name in enumerate(node.input):
        parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
        read.add(parameter.type_str)
        if _dtype(graph, name) != FLOAT or parameter.type_str not in schema.allows_half:
            continue
        if index == 0 and node.op_type in _READS_ANY_TYPE:
            continue
        if node.op_type == "Resize" and index == 1:
            continue  # roi, in the picture's own units: TensorRT and ONNX Runtime want FP32
        if not schema.allows_half[parameter.type_str]:
            return nothing
        inputs.append(index)
    outputs = []
    for index, name in enumerate(node.output):
        type_str = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
        if _dtype(graph, name) == FLOAT and schema.allows_half.get(type_str, False):
            if type_str not in read and node.op_type != "Cast":
                return nothing  # the type is an attribute's: a random number's, a constant's
            outputs.append(index)
    return Slots(tuple(inputs), tuple(outputs))


@dataclass(frozen=True)
class _Schema:
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    allows_half: Mapping[str, bool]
    """By type variable; a type that is no variable, `tensor(float)`, is not in it."""


@cache
def _schema(op_type: str, domain: str, opset: int) -> _Schema | None:
    """None: not an operator of ONNX, so nothing is known of its types."""
    if domain not in _STANDARD_DOMAINS:
        return None
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    allows_half = {
        constraint.type_param_str: "tensor(float16)" in constraint.allowed_type_strs
        for constraint in schema.type_constraints
    }
    return _Schema(list(schema.inputs), list(schema.outputs), allows_half)


def _keep_declared_outputs(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], made_half: set[str]
) -> None:
    """Give the model's own outputs in FP32, as it declares them."""
    taken = names_in(model) | {name for node in nodes for name in node.output}
    for declared in [value.name for value in model.graph.output if value.name in made_half]:
        inner = unique_name(taken, f"{declared}_fp16")
        for node in nodes:
            _rename_inputs(node, {declared: inner})
            for index, name in enumerate(node.output):
                if name == declared:
                    node.output[index] = inner
        cast = _cast(inner, FLOAT, taken)
        cast.output[0] = declared
        nodes.append(cast)
        made_half.remove(declared)


def _cast(name: str, dtype: int, taken: set[str]) -> onnx.NodeProto:
    suffix = "fp16" if dtype == HALF else "fp32"
    output = unique_name(taken, f"{name}_{suffix}")
    return helper.make_node(
        "Cast", [name], [output], unique_name(taken, f"{output}_cast"), to=dtype
    )


def _float_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds, under the name of its output, where that is FP32."""
    if not _is_standard(node, "Constant"):
        return None
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.asarray(value, np.float32), node.output[0])
    if attribute.name != "value" or value.data_type != FLOAT:
        return None
    tensor = onnx.TensorProto()
    tensor.CopyFrom(value)
    tensor.name = node.output[0]
    return tensor


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the graphs inside a node use, its own and those from outside alike."""
    for inner in _graphs_inside(node):
        for nested in inner.node:
            yield from nested.input
            yield from _captured(nested)


def _rename_inputs(node: onnx.NodeProto, names: Mapping[str, str], inside: bool = False) -> None:
    """Of the node (unless `inside`), and of all nodes of the graphs inside it."""
    if not names:
        return
    if not inside:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    for inner in _graphs_inside(node):
        for nested in inner.node:
            _rename_inputs(nested, names)


def _graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _is_standard(node: onnx.NodeProto, *op_types: str) -> bool:
    return node.domain in _STANDARD_DOMAINS and node.op_type in op_types


def _dtype(graph: Graph, name: str) -> int | None:
    """None: not known, or no tensor at all."""
    found = graph.types.get(name)
    return found.dtype or None if found else None
