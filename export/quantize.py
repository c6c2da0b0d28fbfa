"""INT8 as explicit quantise and dequantise nodes, in the form that each runtime is fast with.

`TENSORRT`: signed symmetric activations and weights, one scale for each output channel of a
convolution, at the convolutions' inputs alone: TensorRT fuses the rest. `CPU`: unsigned
activations, quantised behind each convolution too, so that ONNX Runtime's CPU computes from
the first convolution to the last in bytes.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.calibrate import Range
from export.frame_bytes import drawn_bytes, frame_values
from export.graph import Array, Graph, drop_unused_weights, names_in, product, unique_name
from export.int8_scales import ONLY_MOVES, Scales

_IN_BYTES = (*ONLY_MOVES, "Add", "Concat", "LeakyRelu", "Relu")
"""Operators that ONNX Runtime's CPU computes in bytes between two quantised convolutions."""
_FEWEST_PRODUCTS = 8
"""Of one output value: below, INT8 saves nothing and its rounding shows in the picture."""
_FP16_MAX = 65504.0
_INT32_ROOM = 2.0**30


@dataclass(frozen=True)
class Form:
    """How a runtime wants INT8 to be written."""

    name: str
    unsigned: bool
    """uint8 activations with a zero point; else int8, symmetric about 0."""
    largest_weight: int
    carried: bool
    """Whether activations stay in bytes from one convolution to the next."""
    kept_in: str
    """Precision of the convolutions that are left out: `fp16` or `fp32`."""


TENSORRT = Form("tensorrt", unsigned=False, largest_weight=127, carried=False, kept_in="fp16")
CPU = Form("cpu", unsigned=True, largest_weight=63, carried=True, kept_in="fp32")
"""Weights of seven bits: CPUs without VNNI add two products in 16 bits, where 255 * 127 twice
overflows; the sums of seven bits are exact on every CPU, so the picture is the same on all."""
FORMS = {form.name: form for form in (TENSORRT, CPU)}


def quantizable(graph: Graph) -> list[onnx.NodeProto]:
    """The convolutions that can be INT8: FP32, all weights stored, many products to a value.

    Transposed ones cannot.
    """
    return [
        node
        for node in graph.convolutions()
        if node.op_type == "Conv"
        and graph.types[node.input[1]].dtype == TensorProto.FLOAT
        and product(graph.types[node.input[1]].shape[1:]) >= _FEWEST_PRODUCTS
        and all(name in graph.weights for name in node.input[1:] if name)
    ]


def tensors_to_calibrate(model: onnx.ModelProto) -> list[str]:
    """The activations whose range `quantized` may ask for, for any form and any choice."""
    graph = Graph(model)
    values = frame_values(graph)
    names: dict[str, None] = {} if values is None else {values: None}
    for node in quantizable(graph):
        names[node.input[0]] = names[node.output[0]] = None
    for node in graph.nodes:
        if node.op_type in _IN_BYTES and any(name in names for name in node.input):
            names.update(dict.fromkeys(node.output))
    return [name for name in names if graph.types[name].dtype == TensorProto.FLOAT]


def quantized(
    model: onnx.ModelProto, ranges: Mapping[str, Range], form: Form, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of an FP32 model whose convolutions are INT8, but those named in `keep`.

    Args:
        model: FP32, folded, with stored weights.
        ranges: by tensor; has all of `tensors_to_calibrate`.
        form: what it is for.
        keep: names of convolutions that stay in `form.kept_in`.
    """
    return _Quantizer(model, ranges, form, frozenset(keep)).run()


class _Quantizer:
    """The work on one model."""

    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Mapping[str, Range],
        form: Form,
        keep: frozenset[str],
    ) -> None:
        self._model = model
        self._graph = Graph(model)
        self._ranges = ranges
        self._form = form
        self._taken = names_in(model)
        self._stored: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._dequantized: dict[str, str] = {}
        self._levels: dict[str, tuple[str, list[str]]] = {}
        """By tensor: the name of its bytes, and those of scale and zero point."""
        convolutions = quantizable(self._graph)
        self._chosen = {id(node): node for node in convolutions if node.name not in keep}
        self._kept = {id(node) for node in convolutions if node.name in keep}
        self._removed_relus: dict[str, str] = {}
        self._frame_values = frame_values(self._graph) if form.carried else None
        """What the bytes of the frame stand for."""
        self._tensors = self._tensors_in_bytes()
        self._scales = Scales(
            self._graph,
            ranges,
            self._tensors,
            self._removed_relus,
            unsigned=form.unsigned,
            carried=form.carried,
            frame_values=self._frame_values,
        )

    def run(self) -> onnx.ModelProto:
        for value in self._model.graph.input:
            self._offer(value.name)
        for node in self._graph.nodes:
            self._add(node)
        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        del made.graph.node[:], made.graph.value_info[:]
        made.graph.node.extend(self._read_nodes())
        made.graph.initializer.extend(self._stored)
        drop_unused_weights(made)
        onnx.checker.check_model(made)
        return made

    def _read_nodes(self) -> list[onnx.NodeProto]:
        """The nodes that something is done with."""
        read = {value.name for value in self._model.graph.output}
        kept = []
        for node in reversed(self._nodes):
            if read.intersection(node.output):
                read.update(node.input)
                kept.append(node)
        return kept[::-1]

    def _tensors_in_bytes(self) -> set[str]:
        """Activations that get a scale."""
        graph = self._graph
        tensors = {node.input[0] for node in self._chosen.values()}
        if not self._form.carried:
            return tensors
        if self._frame_values is not None and self._reaches_int8(self._frame_values):
            tensors.add(self._frame_values)
        tensors |= {node.output[0] for node in self._chosen.values()}
        for node in graph.nodes:
            if node.op_type in _IN_BYTES and self._activations(node) <= tensors:
                tensors |= {name for name in node.output if name in self._ranges}
        for node in graph.nodes:
            if not self._cuts_at_zero(node) or node.output[0] not in tensors:
                continue
            source = node.input[0]
            producer = graph.producer.get(source)
            if producer is None or len(graph.consumers[source]) > 1:
                continue
            if id(producer) in self._chosen or producer.op_type in ("Add", "Concat"):
                # Quantising with 0 as the lowest level is what ReLU does.
                tensors.discard(source)
                self._removed_relus[node.output[0]] = source
        return tensors

    def _reaches_int8(self, name: str) -> bool:
        """Whether a convolution in INT8 reads a tensor, through what only moves values."""
        return any(
            id(node) in self._chosen
            or (node.op_type in ONLY_MOVES and self._reaches_int8(node.output[0]))
            for node in self._graph.consumers.get(name, [])
        )

    def _cuts_at_zero(self, node: onnx.NodeProto) -> bool:
        """Whether a node is ReLU, or ReLU6 as exporters write it: a Clip from 0 to a stored value.

        The range that was seen behind it ends at that value.
        """
        if node.op_type == "Relu":
            return True
        bounds = [name for name in node.input[1:] if name]
        return (
            node.op_type == "Clip"
            and len(node.input) > 1
            and set(bounds) <= set(self._graph.weights)
            and node.input[1] in self._graph.weights
            and float(self._graph.weight(node.input[1])) == 0.0
        )

    def _activations(self, node: onnx.NodeProto) -> set[str]:
        """Inputs that are not stored: of a Pad or Reshape only the first is a picture."""
        inputs = node.input[:1] if node.op_type in ONLY_MOVES else node.input
        return {name for name in inputs if name and name not in self._graph.weights}

    def _add(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        if output in self._removed_relus:
            source = self._removed_relus[output]
            self._offer(output, source)
            return
        if self._does_nothing(node):
            source = node.input[0]
            self._scales.share(output, source)
            self._levels[output] = self._levels[source]
            self._dequantized[output] = self._dequantized[source]
            return
        drawn = drawn_bytes(self._graph, node) if self._form.carried else None
        if drawn is not None and self._is_carried(self._graph.producer[drawn].input[0]):
            arguments = self._arguments("drawn", 1 / 255, 0)
            self._emit("QuantizeLinear", [drawn, *arguments], output)
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if self._moves_bytes(node):
            self._move_bytes(copy)
            return
        if id(node) in self._chosen:
            self._quantize_convolution(copy)
            self._nodes.append(copy)
        elif id(node) in self._kept and self._form.kept_in == "fp16" and self._fits_half(node):
            self._keep_in_half(copy)
        else:
            in_bytes = self._form.carried and node.op_type in _IN_BYTES and output in self._tensors
            for index, name in enumerate(copy.input):
                if name in self._dequantized and (in_bytes or self._is_carried(name)):
                    copy.input[index] = self._dequantized[name]
            self._nodes.append(copy)
        for name in node.output:
            if name in self._tensors:
                self._offer(name)

    def _does_nothing(self, node: onnx.NodeProto) -> bool:
        """Whether a ReLU takes bytes of which 0 is the lowest level."""
        source = node.input[0]
        return (
            node.op_type == "Relu"
            and self._form.unsigned
            and self._is_carried(source)
            and source in self._levels
            and self._scales.of(source)[1] == 0
        )

    def _moves_bytes(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a mirroring Pad between bytes: ONNX Runtime would go through FP32."""
        mode = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("mode")
        return (
            node.op_type == "Pad"
            and mode in (b"reflect", b"edge")
            and node.input[0] in self._levels
            and node.output[0] in self._tensors
            and self._form.carried
        )

    def _move_bytes(self, node: onnx.NodeProto) -> None:
        """Do `node` on the bytes themselves."""
        source, output = node.input[0], node.output[0]
        levels, arguments = self._levels[source]
        node.input[0] = levels
        node.output[0] = unique_name(self._taken, f"{output}_quantized")
        self._nodes.append(node)
        self._levels[output] = (node.output[0], arguments)
        self._dequantized[output] = unique_name(self._taken, f"{output}_dequantized")
        self._emit("DequantizeLinear", [node.output[0], *arguments], self._dequantized[output])

    def _is_carried(self, name: str) -> bool:
        """Whether only the bytes of a tensor are there, since its producer computes in bytes."""
        producer = self._graph.producer.get(name)
        if producer is None or not self._form.carried:
            return False
        return (
            id(producer) in self._chosen
            or name in self._removed_relus
            or (producer.op_type in _IN_BYTES and self._activations(producer) <= self._tensors)
        )

    def _offer(self, name: str, source: str | None = None) -> None:
        """Add the quantised form of a tensor behind its producer."""
        if name not in self._tensors:
            return
        arguments = self._arguments(name, *self._scales.of(name))
        back = unique_name(self._taken, f"{name}_dequantized")
        if name == self._frame_values:
            levels = self._model.graph.input[0].name
        else:
            levels = unique_name(self._taken, f"{name}_quantized")
            self._emit("QuantizeLinear", [source or name, *arguments], levels)
        self._emit("DequantizeLinear", [levels, *arguments], back)
        self._dequantized[name] = back
        self._levels[name] = (levels, arguments)

    def _arguments(self, name: str, scale: float, zero: int) -> list[str]:
        """Names of a stored scale and zero point."""
        kind = np.uint8 if self._form.unsigned else np.int8
        return [
            self._store(f"{name}_scale", np.array(scale, np.float32)),
            self._store(f"{name}_zero_point", np.array(zero, kind)),
        ]

    def _quantize_convolution(self, node: onnx.NodeProto) -> None:
        """Inputs, weights and, for bytes throughout, the bias of a convolution as INT8."""
        kernel = self._graph.weight(node.input[1]).astype(np.float32)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = self._graph.weight(node.input[2]).astype(np.float64)
        scale_in, _ = self._scales.of(node.input[0])
        largest = np.abs(kernel).reshape(len(kernel), -1).max(axis=1).astype(np.float64)
        scales = np.maximum(largest / self._form.largest_weight, np.finfo(np.float32).tiny)
        if bias is not None and self._form.carried:
            # So that the bias fits into 32 bits in steps of both scales.
            scales = np.maximum(scales, np.abs(bias) / (scale_in * _INT32_ROOM))
        weight_scales = scales.astype(np.float32)
        steps = kernel / weight_scales.reshape(-1, *[1] * (kernel.ndim - 1))
        levels = np.clip(np.rint(steps), -self._form.largest_weight, self._form.largest_weight)
        node.input[0] = self._dequantized[node.input[0]]
        node.input[1] = self._dequantized_weights(node.name, levels.astype(np.int8), weight_scales)
        if bias is not None and self._form.carried:
            bias_scales = (weight_scales * np.float32(scale_in)).astype(np.float32)
            whole = np.rint(bias / bias_scales).astype(np.int32)
            node.input[2] = self._dequantized_weights(f"{node.name}_bias", whole, bias_scales)

    def _dequantized_weights(self, base: str, levels: Array, scales: Array) -> str:
        arguments = [
            self._store(f"{base}_levels", levels),
            self._store(f"{base}_scales", scales),
            self._store(f"{base}_zeros", np.zeros(len(scales), levels.dtype)),
        ]
        name = unique_name(self._taken, f"{base}_dequantized")
        self._emit("DequantizeLinear", arguments, name, axis=0)
        return name

    def _fits_half(self, node: onnx.NodeProto) -> bool:
        reach = max(self._ranges[name].largest for name in (node.input[0], node.output[0]))
        stored = [np.abs(self._graph.weight(name)).max() for name in node.input[1:] if name]
        return max(reach, *map(float, stored)) < _FP16_MAX

    def _keep_in_half(self, node: onnx.NodeProto) -> None:
        """A convolution in FP16 between two casts."""
        half = unique_name(self._taken, f"{node.input[0]}_half")
        self._emit("Cast", [node.input[0]], half, to=TensorProto.FLOAT16)
        node.input[0] = half
        for index, name in enumerate(node.input):
            if name in self._graph.weights:
                values = self._graph.weight(name).astype(np.float16)
                node.input[index] = self._store(f"{name}_half", values)
        output = node.output[0]
        node.output[0] = unique_name(self._taken, f"{output}_half")
        self._nodes.append(node)
        self._emit("Cast", [node.output[0]], output, to=TensorProto.FLOAT)

    def _emit(self, kind: str, inputs: Iterable[str], output: str, **given: object) -> None:
        name = unique_name(self._taken, f"{output}_node")
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name, **given))

    def _store(self, name: str, values: Array) -> str:
        name = unique_name(self._taken, name)
        self._stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name
