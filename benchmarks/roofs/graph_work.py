"""What a network has to compute and to move for one inference, layer by layer, from its ONNX file.

Multiply-accumulates, and the precision that they are done in, are those of `p2p-export --inspect`
(`export.inspect_onnx`): one definition for both. A convolution counts each at an output pixel, a
transposed one at an input pixel.

Bytes are a lower bound of what crosses memory. Each convolution or matrix product reads its
weights and its inputs once and writes its output once; whatever lies between two of them
(activations, norms, sums, concatenations, resizes, quantising) is taken as fused into them, and
free. Where that changes the type on the way, as Cast, QuantizeLinear and DequantizeLinear do, the
narrowest one counts: between two INT8 convolutions a value is one byte, and so is one of the
frame before the first. Counting every tensor instead would be an upper bound, which a runtime
that fuses beats, and no roof. A runtime that fuses two convolutions into one pass could beat this
one; no engine here does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import EngineError, ModelError

if TYPE_CHECKING:
    import onnx

    from export.graph import Graph, TensorType
    from export.inspect_model import NodeFacts

FRAMES = "frames"
"""Kind of the last layer, which is no node: see `Work`."""


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product, with what is fused into it."""

    name: str
    kind: str
    """The ONNX operator, or `FRAMES`."""
    precision: str
    """`INT8`, `FP16`, `FP32`, ...: also INT8 for a Conv between dequantised tensors."""
    macs: int
    """Multiply-accumulates of one inference, all frames of its batch."""
    weight_bytes: int
    """Of all inputs that are stored: weights, biases, scales; in the types they are stored in."""
    read_bytes: int
    """Of all other inputs."""
    written_bytes: int

    @property
    def moved_bytes(self) -> int:
        """Read and written."""
        return self.weight_bytes + self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class Work:
    """Of one inference. An open batch counts as one frame.

    The last layer may be of kind `FRAMES`: inputs of the graph that no layer reads and outputs
    that no layer writes, such as the frame that a retouching network changes by its gain and
    offset. They have to cross memory all the same.
    """

    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def moved_bytes(self) -> int:
        """Of all layers: read and written."""
        return sum(layer.moved_bytes for layer in self.layers)

    def by_precision(self) -> dict[str, dict[str, int]]:
        """`layers`, `macs` and `moved_bytes` of each precision, in the order of the graph."""
        totals: dict[str, dict[str, int]] = {}
        for layer in self.layers:
            if layer.kind == FRAMES:
                continue
            total = totals.setdefault(layer.precision, {"layers": 0, "macs": 0, "moved_bytes": 0})
            total["layers"] += 1
            total["macs"] += layer.macs
            total["moved_bytes"] += layer.moved_bytes
        return totals


def work_of(path: Path) -> Work:
    """Count the work of an ONNX file, ours or anybody's.

    Raises:
        ModelError: no ONNX file, branches or loops in its graph, or sides that it leaves open.
        EngineError: the onnx package is not installed.
    """
    if path.suffix.lower() == ".engine":
        raise ModelError(
            f"{path} is an engine, which does not tell its layers' work",
            "the ONNX file that it was built from",
            "name that one",
        )
    try:
        import onnx
        from onnx.inliner import inline_local_functions

        from export.graph import Graph
        from export.inspect_model import inspect_model
    except ImportError as error:
        raise EngineError(
            f"counting the work of {path} needs the package {error.name}, which is not installed",
            "the packages onnx and onnxruntime",
            "pip install 'pix2pix-edge[train,cpu]'",
        ) from error
    nodes = inspect_model(path).nodes
    model = onnx.load(str(path), load_external_data=False)
    if model.functions:
        model = inline_local_functions(model)
    return Work(tuple(_Counter(path, Graph(model), nodes).layers()))


class _Counter:
    """The look-ups in one graph."""

    def __init__(self, path: Path, graph: Graph, facts: Sequence[NodeFacts]) -> None:
        self._path = path
        self._graph = graph
        self._no_control_flow()
        self._stored = _stored(graph)
        self._products = list(_paired(graph.nodes, facts))
        self._product_ids = {id(node) for node, _ in self._products}
        self._product_outputs = {name for node, _ in self._products for name in node.output}
        inputs = graph.model.graph.input
        self._unread = {value.name for value in inputs if value.name not in graph.weights}
        self._unwritten = {value.name for value in graph.model.graph.output}

    def layers(self) -> Iterator[Layer]:
        for node, facts in self._products:
            yield self._layer(node, facts)
        if self._unread or self._unwritten:
            yield Layer(
                "frames in and out",
                FRAMES,
                "",
                0,
                0,
                sum(self._own_bytes(name) for name in sorted(self._unread)),
                sum(self._own_bytes(name) for name in sorted(self._unwritten)),
            )

    def _layer(self, node: onnx.NodeProto, facts: NodeFacts) -> Layer:
        result = self._known(node.output[0])
        if facts.macs is None:
            raise self._open_sides(node.output[0])
        # The count is that of one frame: without the leading side of what comes out.
        frames = (result.shape[0] or 1) if result.shape else 1
        inputs = list(dict.fromkeys(filter(None, node.input)))
        return Layer(
            facts.name,
            facts.kind,
            facts.compute,
            facts.macs * frames,
            sum(self._bytes_before(name) for name in inputs if name in self._stored),
            sum(self._bytes_before(name) for name in inputs if name not in self._stored),
            sum(self._bytes_behind(name) for name in node.output if name),
        )

    def _bytes_before(self, name: str) -> int:
        """Of an input, in the narrowest type that it has had since it was written."""
        elements, width = self._known(name).elements, self._width(name)
        while name not in self._product_outputs:
            self._unread.discard(name)
            producer = self._graph.producer.get(name)
            if producer is None:
                break
            given = [source for source in producer.input if source]
            given = [source for source in given if source not in self._stored] or given[:1]
            if len(given) != 1 or not self._has(given[0], elements):
                break
            name = given[0]
            width = min(width, self._width(name))
        return elements * width

    def _bytes_behind(self, name: str) -> int:
        """Of an output, in the narrowest type that it gets before the next product reads it."""
        elements, width = self._known(name).elements, self._width(name)
        waiting, seen = [name], {name}
        while waiting:
            name = waiting.pop()
            width = min(width, self._width(name))
            self._unwritten.discard(name)
            for consumer in self._graph.consumers.get(name, ()):
                if id(consumer) in self._product_ids:
                    continue
                made = [each for each in consumer.output if self._has(each, elements)]
                waiting += [each for each in made if each not in seen]
                seen.update(made)
        return elements * width

    def _has(self, name: str, elements: int) -> bool:
        found = self._graph.types.get(name)
        return found is not None and bool(found.dtype) and found.elements == elements

    def _own_bytes(self, name: str) -> int:
        return self._known(name).elements * self._width(name)

    def _width(self, name: str) -> int:
        from onnx.helper import tensor_dtype_to_np_dtype

        return int(tensor_dtype_to_np_dtype(self._graph.types[name].dtype).itemsize)

    def _known(self, name: str) -> TensorType:
        """The type of a tensor whose sides are known, but the batch.

        Raises:
            ModelError: they are not.
        """
        found = self._graph.types.get(name)
        if found is None or not found.dtype or None in found.shape[1:]:
            raise self._open_sides(name)
        return found

    def _open_sides(self, name: str) -> ModelError:
        found = self._graph.types.get(name)
        sides = found.shape if found else ()
        told = ", ".join("?" if side is None else str(side) for side in sides) or "..."
        return ModelError(
            f"{self._path} leaves sides of the tensor {name} open: [{told}]",
            "a graph whose shapes are known, but for the batch",
            "export it without --dynamic, with --imgsz HxW",
        )

    def _no_control_flow(self) -> None:
        for node in self._graph.nodes:
            if any(each.HasField("g") or each.graphs for each in node.attribute):
                raise ModelError(
                    f"{self._path} has control flow: the {node.op_type} node {node.name!r}",
                    "a graph that computes the same for every frame",
                    "export it without branches and loops",
                )


def _paired(
    nodes: Iterable[onnx.NodeProto], facts: Sequence[NodeFacts]
) -> Iterator[tuple[onnx.NodeProto, NodeFacts]]:
    """The nodes that `facts` tells of, which keep the order of the graph."""
    waiting = iter(facts)
    wanted = next(waiting, None)
    for node in nodes:
        if wanted is None:
            return
        if (node.name or node.output[0], node.op_type) == (wanted.name, wanted.kind):
            yield node, wanted
            wanted = next(waiting, None)


def _stored(graph: Graph) -> set[str]:
    """Tensors that are the same for every frame: weights, and what is made of them alone."""
    found = set(graph.weights)
    for node in graph.nodes:
        given = [name for name in node.input if name]
        if (given or node.op_type == "Constant") and all(name in found for name in given):
            found.update(name for name in node.output if name)
    return found
