"""What a graph moves between depth and space, as moves of [N, H, W, C]; its picture stays.

ONNX Runtime's INT8 convolutions work in [N, H, W, C]. In that layout depth-to-space is one
transpose of whole runs of memory, and the two that lead into and out of it cancel against those
of the convolutions beside it. The order of channels that this takes goes into their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph import Array, Graph, drop_unused_weights, names_in, unique_name

_UNSHUFFLED = [0, 1, 3, 5, 2, 4]
"""Of [N, C, h, S, w, S], as torch writes `pixel_unshuffle`."""


def with_moves_channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose moves between depth and space beside convolutions are of [N, H, W, C].

    Rewritten are DepthToSpace, in channel order CRD only behind a convolution of its own, and
    `pixel_unshuffle` before one. What has an open size stays as it is.

    Args:
        model: FP32, with stored weights and named nodes.
    """
    return _Rewriting(model).run()


def depth_to_space(
    source: str,
    result: str,
    blocks: tuple[int, int, int, int],
    step: int,
    name: Callable[[str], str],
    integers: Callable[[str, Sequence[int]], str],
) -> list[onnx.NodeProto]:
    """Nodes from blocks to pixels.

    Args:
        source: [N, S * S * C, H, W], channels in the order row, column, channel.
        result: [N, C, S * H, S * W].
        blocks: (N, H, W, C).
        step: S.
        name: makes a name of a word.
        integers: stores numbers, and gives their name.
    """
    batch, height, width, channels = blocks
    last, apart, woven, whole = map(name, ("last", "apart", "woven", "whole"))
    split = integers("split", (batch, height, width, step, step * channels))
    merged = integers("merged", (batch, height * step, width * step, channels))
    return [
        _transpose(source, last, [0, 2, 3, 1], name),
        helper.make_node("Reshape", [last, split], [apart], name("Reshape")),
        _transpose(apart, woven, [0, 1, 3, 2, 4], name),
        helper.make_node("Reshape", [woven, merged], [whole], name("Reshape")),
        _transpose(whole, result, [0, 3, 1, 2], name),
    ]


class _Rewriting:
    """The work on one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = Graph(model)
        self._taken = names_in(model)
        self._stored: list[onnx.TensorProto] = []
        self._weights: dict[str, Array] = {}
        """By name of a convolution's weights or bias: their values in the new order."""

    def run(self) -> onnx.ModelProto:
        replaced: dict[int, list[onnx.NodeProto]] = {}
        for node in self._graph.nodes:
            if node.op_type == "DepthToSpace" and (moves := self._depth_to_space(node)):
                replaced[id(node)] = moves
            elif node.op_type == "Conv" and (chain := self._unshuffled_before(node)):
                replaced[id(chain[0])] = self._space_to_depth(chain, node)
                replaced |= {id(other): [] for other in chain[1:]}
        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        del made.graph.node[:], made.graph.value_info[:]
        for node in self._graph.nodes:
            made.graph.node.extend(replaced.get(id(node), [node]))
        for tensor in made.graph.initializer:
            if tensor.name in self._weights:
                values = np.ascontiguousarray(self._weights[tensor.name])
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        made.graph.initializer.extend(self._stored)
        drop_unused_weights(made)
        onnx.checker.check_model(made)
        return made

    def _depth_to_space(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What takes the place of a DepthToSpace; nothing where it has to stay."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        step = int(given["blocksize"])
        shape = self._graph.types[node.input[0]].shape
        if None in shape:
            return []
        if given.get("mode", b"DCR") == b"CRD":
            before = self._graph.producer.get(node.input[0])
            if before is None or not self._is_own_convolution(before):
                return []
            for name in before.input[1:]:
                if name:
                    values = self._graph.weight(name)
                    apart = values.reshape(-1, step * step, *values.shape[1:])
                    self._weights[name] = apart.swapaxes(0, 1).reshape(values.shape)
        batch, depth, height, width = (side or 1 for side in shape)
        return depth_to_space(
            node.input[0],
            node.output[0],
            (batch, height, width, depth // step**2),
            step,
            lambda word: unique_name(self._taken, f"{node.name}_{word}"),
            lambda word, values: self._integers(f"{node.name}_{word}", values),
        )

    def _is_own_convolution(self, node: onnx.NodeProto) -> bool:
        """Whether nothing else reads what it gives, nor its weights."""
        return (
            node.op_type == "Conv"
            and len(self._graph.consumers[node.output[0]]) == 1
            and all(self._is_own_weight(name) for name in node.input[1:] if name)
        )

    def _is_own_weight(self, name: str) -> bool:
        return name in self._graph.weights and len(self._graph.consumers[name]) == 1

    def _unshuffled_before(self, conv: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Reshape, Transpose and Reshape that are `pixel_unshuffle`, read by `conv` alone."""
        graph = self._graph
        chain: list[onnx.NodeProto] = []
        name = conv.input[0]
        for kind in ("Reshape", "Transpose", "Reshape"):
            node = graph.producer.get(name)
            if node is None or node.op_type != kind or len(graph.consumers[name]) != 1:
                return []
            chain.insert(0, node)
            name = node.input[0]
        perm = list(helper.get_attribute_value(chain[1].attribute[0]))
        source = graph.types[name].shape
        apart = graph.types[chain[0].output[0]].shape
        if len(source) != 4 or None in source or None in apart or perm != _UNSHUFFLED:
            return []
        batch, channels, height, width = (side or 1 for side in source)
        step = apart[3] or 1
        fits = apart == (batch, channels, height // step, step, width // step, step)
        whole = (batch, channels * step**2, height // step, width // step)
        is_whole = graph.types[conv.input[0]].shape == whole
        groups = {a.name: helper.get_attribute_value(a) for a in conv.attribute}.get("group", 1)
        own = groups == 1 and self._is_own_weight(conv.input[1])
        return chain if fits and is_whole and own else []

    def _space_to_depth(
        self, chain: list[onnx.NodeProto], conv: onnx.NodeProto
    ) -> list[onnx.NodeProto]:
        source, result = chain[0].input[0], chain[-1].output[0]
        batch, channels, height, width = (s or 1 for s in self._graph.types[source].shape)
        step = self._graph.types[chain[0].output[0]].shape[3] or 1
        kernel = self._graph.weight(conv.input[1])
        apart = kernel.reshape(len(kernel), channels, step * step, *kernel.shape[2:])
        self._weights[conv.input[1]] = apart.swapaxes(1, 2).reshape(kernel.shape)
        base = chain[1].name

        def name(word: str) -> str:
            return unique_name(self._taken, f"{base}_{word}")

        high, wide = height // step, width // step
        split = self._integers(f"{base}_split", (batch, high, step, wide, step * channels))
        merged = self._integers(f"{base}_merged", (batch, high, wide, step * step * channels))
        last, cut, woven, whole = map(name, ("last", "cut", "woven", "whole"))
        return [
            _transpose(source, last, [0, 2, 3, 1], name),
            helper.make_node("Reshape", [last, split], [cut], name("Reshape")),
            _transpose(cut, woven, [0, 1, 3, 2, 4], name),
            helper.make_node("Reshape", [woven, merged], [whole], name("Reshape")),
            _transpose(whole, result, [0, 3, 1, 2], name),
        ]

    def _integers(self, wanted: str, values: Sequence[int]) -> str:
        name = unique_name(self._taken, wanted)
        self._stored.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _transpose(
    source: str, result: str, perm: Sequence[int], name: Callable[[str], str]
) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [result], name("Transpose"), perm=perm)
