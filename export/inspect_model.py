"""What a model file is: metadata, inputs and outputs, work by precision, bytes.

An ONNX file is read by `export.inspect_onnx`, which needs the onnx package. An engine is told by
the JSON beside it; a stranger's is asked through TensorRT, on the GPU that it was built for.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from export.engine_cache import engine_on_disk
from export.engine_log import CannotTell, EngineInside, Layer, inside_of
from runtime.artifact import (
    INPUT_NAME,
    OUTPUT_NAME,
    ArtifactMeta,
    existing_model,
    meta_of_onnx,
    sidecar_of,
)
from runtime.errors import ModelError

WIDTH = 96
SHOWN_ROWS = 60

_ENGINES = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
"""First bytes of an engine file, and the package that loads it."""
_HEADER_BYTES = 28


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
    try:
        from export.inspect_onnx import onnx_facts
    except ModuleNotFoundError as error:
        note = (
            f"operators and MACs need the package {error.name}: pip install 'pix2pix-edge[train]'"
        )
        return ModelFacts(str(path), "ONNX", path.stat().st_size, meta=meta, notes=(note,))
    return onnx_facts(path, meta)


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
