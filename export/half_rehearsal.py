"""What an FP16 graph draws where every node rounds, on a CPU that by itself rounds less often."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph import Graph, names_in, unique_name
from export.half import FLOAT, HALF


def rehearsal(half: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph that rounds where the FP16 graph `half` rounds: after each of its nodes.

    ONNX Runtime's CPU has few FP16 kernels. It computes chains of FP16 nodes in FP32 and rounds
    at their ends alone, at every optimisation level, so that a value which FP16 cannot hold
    passes through unseen. The Casts that are written into this graph are not its own, so it
    keeps them.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(half)
    graph = Graph(half)
    taken = names_in(half)
    wide: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def is_half(name: str) -> bool:
        return name in graph.types and graph.types[name].dtype == HALF

    def cast(source: str, target: str, dtype: int) -> None:
        nodes.append(
            helper.make_node("Cast", [source], [target], unique_name(taken, target), to=dtype)
        )

    for node in graph.nodes:
        halves = [name for name in node.input if is_half(name)]
        if node.op_type == "Cast" or not halves:
            nodes.append(node)
            continue
        for name in halves:
            if name in wide:
                continue
            wide[name] = unique_name(taken, f"{name}_wide")
            if name in graph.weights:
                exact = graph.weight(name).astype(np.float32)
                shown.graph.initializer.append(numpy_helper.from_array(exact, wide[name]))
            else:
                cast(name, wide[name], FLOAT)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [wide.get(name, name) for name in node.input]
        exact_outputs = {n: unique_name(taken, f"{n}_exact") for n in node.output if is_half(n)}
        copy.output[:] = [exact_outputs.get(name, name) for name in node.output]
        nodes.append(copy)
        for name, exact_output in exact_outputs.items():
            cast(exact_output, name, HALF)
    del shown.graph.node[:]
    shown.graph.node.extend(nodes)
    return shown
