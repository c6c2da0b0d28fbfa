"""What a model file is: metadata, inputs and outputs, work by precision, bytes.

An ONNX file is read with the onnx package, weights left aside. An engine is told by the JSON
beside it; a stranger's is asked through TensorRT, which needs the GPU that it was built for.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.engine_log import CannotTell, EngineInside, Layer, inside_of
from export.to_tensorrt import engine_on_disk
from runtime.artifact import (
    INPUT_NAME,
    META_KEY,
    OUTPUT_NAME,
    ArtifactMeta,
    existing_model,
    meta_of_onnx,
    sidecar_of,
)
from runtime.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from export.graph import Graph

WIDTH = 96
SHOWN_ROWS = 60

_ENGINES = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
"""First bytes of an engine file, and the package that loads it."""
_HEADER_BYTES = 28
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


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """An open side is its name, or `?`; `...` stands for a number of sides that is open."""


@dataclass(frozen=True)
class NodeFacts:
    """A convolution or matrix product of an ONNX graph."""

    name: str
    kind: str
    compute: str
    """`INT8` where both of its data inputs are dequantised from 8 bits, else what flows in:
    `FP16`, `FP32`, ..."""
    macs: int | None
    """Multiply-accumulates for one frame (the leading side counts once); None: a shape is open."""
    weight_bytes: int
    """As stored; 0 where both inputs are computed."""


@dataclass(frozen=True)
class ModelFacts:
    """What `inspect_model` found. What a kind of file has not is empty."""

    path: str
    kind: str
    """`ONNX`, or the library that loads the engine with its version."""
    size_bytes: int
    """Of the file alone."""
    external_bytes: int = 0
    """Of the weights that an ONNX file keeps beside itself."""
    meta: ArtifactMeta | None = None
    """The contract, in files of `p2p-export`."""
    foreign_meta: dict[str, str] = field(default_factory=dict)
    """Metadata that others wrote into an ONNX file."""
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    producer: str = ""
    ir_version: int | None = None
    opsets: dict[str, int] = field(default_factory=dict)
    """By domain; the standard operators' is `ai.onnx`."""
    operators: dict[str, int] = field(default_factory=dict)
    nodes: tuple[NodeFacts, ...] = ()
    parameters: int | None = None
    """Stored numbers, without integers of 32 and 64 bits, which are shapes and indices."""
    stored_bytes: dict[str, int] = field(default_factory=dict)
    """Of all stored tensors, by type."""
    layers: tuple[Layer, ...] = ()
    """Of an engine."""
    notes: tuple[str, ...] = ()
    """What could not be told, and what it would need."""

    def by_precision(self) -> dict[str, dict[str, int]]:
        """`nodes`, `macs` (of those whose shapes are known), `nodes_of_unknown_macs` and
        `weight_bytes` of each compute type."""
        totals: dict[str, dict[str, int]] = {}
        for node in self.nodes:
            total = totals.setdefault(
                node.compute,
                {"nodes": 0, "macs": 0, "nodes_of_unknown_macs": 0, "weight_bytes": 0},
            )
            total["nodes"] += 1
            total["macs"] += node.macs or 0
            total["nodes_of_unknown_macs"] += node.macs is None
            total["weight_bytes"] += node.weight_bytes
        return totals

    def layers_by_type(self) -> dict[tuple[str, str, str], int]:
        """Number of an engine's layers by kind, input types and output types."""
        return dict(
            Counter(
                (
                    layer.kind,
                    "/".join(sorted(set(layer.input_types))),
                    "/".join(sorted(set(layer.output_types))),
                )
                for layer in self.layers
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all fields, and the totals."""
        values = asdict(self)
        if values["meta"]:
            del values["meta"]["layers"]  # they are in `layers`
        values["by_precision"] = self.by_precision()
        return values

    def lines(self, rows: int = SHOWN_ROWS) -> list[str]:
        """For a terminal of 100 columns; of the nodes, the `rows` with most work."""
        size = f"{_mb(self.size_bytes)} MB"
        if self.external_bytes:
            size += f" and {_mb(self.external_bytes)} MB of weights beside it"
        told = [f"{self.path}: {self.kind}, {size}"]
        if self.opsets:
            opsets = ", ".join(f"{domain} {version}" for domain, version in self.opsets.items())
            told.append(f"opset {opsets}; IR {self.ir_version}; by {self.producer or 'unknown'}")
        if self.inputs or self.outputs:
            told += ["", *_table(("", "name", "type", "shape"), [*self._in_and_out()], right=())]
        if self.meta:
            told += ["", "made by p2p-export", *_metadata(self.meta)]
        if self.foreign_meta:
            told += ["", "metadata", *_pairs(self.foreign_meta.items())]
        if self.parameters is not None:
            stored = ", ".join(
                f"{dtype} {_mb(count)}" for dtype, count in self.stored_bytes.items()
            )
            told += ["", f"{self.parameters / 1e6:.2f} M parameters; stored, in MB: {stored}"]
        if self.operators:
            counts = ", ".join(f"{kind} {count}" for kind, count in self.operators.items())
            told += textwrap.wrap(f"operators: {counts}", WIDTH, subsequent_indent="  ")
        told += self._node_tables(rows)
        if self.layers:
            told += ["", *_table(*self._layer_rows(), right=(3,))]
        for note in self.notes:
            told += ["", *textwrap.wrap(note, WIDTH)]
        return told

    def _in_and_out(self) -> Iterator[Sequence[str]]:
        for side, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor in tensors:
                shape = ", ".join(map(str, tensor.shape))
                yield side, tensor.name, tensor.dtype, f"[{shape}]"

    def _node_tables(self, rows: int) -> list[str]:
        if not self.nodes:
            return []
        totals = [
            (
                compute,
                str(total["nodes"]),
                _known(total["macs"], total["nodes_of_unknown_macs"], total["nodes"]),
                _mb(total["weight_bytes"]),
            )
            for compute, total in self.by_precision().items()
        ]
        heaviest = sorted(self.nodes, key=lambda node: -(node.macs or 0))[:rows]
        shown = {id(node) for node in heaviest}
        each = [
            (
                _shortened(node.name),
                node.kind,
                node.compute,
                _known(node.macs or 0, node.macs is None, 1),
                _mb(node.weight_bytes),
            )
            for node in self.nodes
            if id(node) in shown
        ]
        weights = "weights, MB"
        told = ["", *_table(("compute", "nodes", "MACs, G", weights), totals, right=(1, 2, 3))]
        told += [
            "",
            *_table(("node", "kind", "compute", "MACs, G", weights), each, right=(3, 4)),
        ]
        if hidden := len(self.nodes) - len(each):
            told.append(f"and {hidden} more with less work")
        if any(node.macs is None for node in self.nodes):
            told.append("MACs unknown: the file leaves sides of these shapes open")
        return told

    def _layer_rows(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        counted = sorted(self.layers_by_type().items(), key=lambda item: (-item[1], item[0]))
        rows = [(kind or "?", taken, given, str(count)) for (kind, taken, given), count in counted]
        return ("layers", "take", "give", "count"), [*rows, ("all", "", "", str(len(self.layers)))]


def inspect_model(path: Path) -> ModelFacts:
    """Look into an ONNX file or an engine, ours or anybody's.

    Raises:
        ModelError: no such file, or it is neither.
    """
    with existing_model(path).open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if head[:4] in _ENGINES:
        return _engine_facts(path, head)
    try:
        meta = meta_of_onnx(path)
    except ModelError as error:
        if "not an ONNX file" not in error.received:
            raise
        raise ModelError(
            f"{path} is neither an ONNX file nor a TensorRT engine",
            "an .onnx or .engine file, whole",
            "name another file",
        ) from error
    return _onnx_facts(path, meta)


def _onnx_facts(path: Path, meta: ArtifactMeta | None) -> ModelFacts:
    size_bytes = path.stat().st_size
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.inliner import inline_local_functions

        from export.graph import Graph
    except ModuleNotFoundError as error:
        note = (
            f"operators and MACs need the package {error.name}: pip install 'pix2pix-edge[train]'"
        )
        return ModelFacts(str(path), "ONNX", size_bytes, meta=meta, notes=(note,))
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
        size_bytes=size_bytes,
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
        name: (_type_name(tensor.data_type), _product(tensor.dims))
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
    return _product(known) if len(known) == len(sides) else None


def _engine_facts(path: Path, head: bytes) -> ModelFacts:
    package = _ENGINES[head[:4]]
    # The bytes that trtexec --getPlanVersionOnly reads.
    version = ".".join(map(str, head[24:_HEADER_BYTES])) if head[4:8] == bytes(4) else ""
    library = f"{package} {version}".rstrip()
    meta, inside, notes = None, EngineInside(), []
    try:
        if sidecar_of(path).is_file():
            meta, inside = _told_beside(path)
        else:
            inside = inside_of(path, package)
    except ModelError as error:
        notes = [error.received]
    except CannotTell as why:
        notes = [
            f"what is inside can be read by {library}, on a GPU of the kind that it was built "
            f"for: {why}"
        ]
    return ModelFacts(
        path=str(path),
        kind=f"engine of {library}",
        size_bytes=path.stat().st_size,
        meta=meta,
        inputs=tuple(TensorFacts(*tensor) for tensor in inside.inputs),
        outputs=tuple(TensorFacts(*tensor) for tensor in inside.outputs),
        layers=inside.layers,
        notes=tuple(notes),
    )


def _told_beside(path: Path) -> tuple[ArtifactMeta, EngineInside]:
    built = engine_on_disk(path)
    meta = built.meta
    shape: tuple[int | str, ...] = (meta.batch, *meta.frame_size_px, 3)
    if meta.dynamic:
        shape = ("frames", "height", "width", 3)
    taken, given = (((name, "UINT8", shape),) for name in (INPUT_NAME, OUTPUT_NAME))
    return meta, EngineInside(taken, given, built.layers)


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
    import onnx

    try:
        return str(onnx.TensorProto.DataType.Name(dtype))
    except ValueError:  # newer than the onnx package
        return f"TYPE_{dtype}"


def _product(sides: Sequence[int]) -> int:
    total = 1
    for side in sides:
        total *= int(side)
    return total


def _metadata(meta: ArtifactMeta) -> list[str]:
    values = {name: value for name, value in asdict(meta).items() if name != "layers"}
    return _pairs(values.items())


def _pairs(items: Any) -> list[str]:
    rows = [
        (str(name), value if isinstance(value, str) else json.dumps(value))
        for name, value in items
    ]
    longest = max(len(name) for name, _ in rows)
    told = []
    for name, value in rows:
        told += textwrap.wrap(
            f"  {name:<{longest}}  {value}", WIDTH, subsequent_indent=" " * (longest + 4)
        )
    return told


def _table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]
) -> list[str]:
    """Aligned columns, two spaces between them; those numbered in `right` to the right."""
    every = [titles, *rows]
    widths = [max(len(row[at]) for row in every) for at in range(len(titles))]
    return [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]


def _known(macs: int, unknown: int, nodes: int) -> str:
    if unknown == nodes:
        return "unknown"
    return f"{macs / 1e9:.3f}" + (f" + {unknown} unknown" if unknown else "")


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else f"...{name[-(longest - 3) :]}"


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f}"
