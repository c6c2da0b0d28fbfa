"""Which step each activation of an INT8 model is stored in: scales and zero points."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np

from export.calibrate import Range
from export.frame_bytes import FRAME_SCALE, FRAME_ZERO
from export.graph import Graph

ONLY_MOVES = ("DepthToSpace", "Identity", "Pad", "Reshape", "Slice", "Transpose", "MaxPool")
"""Operators that give values which they were given (or 0): one scale before and behind."""
_TANH_ENDS = 3.5
"""Past this, tanh stays within a quarter of a grey level of 1; a sigmoid past twice this."""


class Scales:
    """Scale and zero point of the activations of one model, worked out when first asked."""

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, Range],
        tensors: Set[str],
        removed_relus: Mapping[str, str],
        *,
        unsigned: bool,
        carried: bool,
        frame_values: str | None,
    ) -> None:
        """Look at `graph`.

        Args:
            graph: FP32.
            ranges: by tensor, as calibrated.
            tensors: that are stored in bytes.
            removed_relus: by the result of a ReLU that its scale stands in for: what it reads.
            unsigned: uint8 with a zero point; else int8, symmetric about 0.
            carried: whether activations stay in bytes from one convolution to the next.
            frame_values: the tensor that the bytes of the frame stand for, if any.
        """
        self._graph = graph
        self._ranges = ranges
        self._tensors = tensors
        self._removed_relus = removed_relus
        self._relus = {source: output for output, source in removed_relus.items()}
        self._unsigned, self._carried = unsigned, carried
        self._found: dict[str, tuple[float, int]] = {}
        if frame_values is not None:
            self._found[frame_values] = (FRAME_SCALE, FRAME_ZERO)

    def of(self, name: str) -> tuple[float, int]:
        """Scale and zero point of a tensor; one pair for what only moves values."""
        if name not in self._found:
            self._found[name] = self._worked_out(name)
        return self._found[name]

    def share(self, name: str, source: str) -> None:
        """Give a tensor the pair of another."""
        self._found[name] = self.of(source)

    def _worked_out(self, name: str) -> tuple[float, int]:
        producer = self._graph.producer.get(name)
        if (
            self._carried
            and producer is not None
            and producer.op_type in ONLY_MOVES
            and producer.input[0] in self._tensors
        ):
            return self.of(producer.input[0])
        if (joined := self._joined_into(name)) and not self._would_lose_its_relu(name, joined):
            return self.of(joined)
        return self._fitting(self._needed_range(name))

    def _joined_into(self, name: str) -> str | None:
        """The quantised result of the Concat that is all that a tensor is for, if any.

        With its scale from the start, joining needs no arithmetic and rounds no second time.
        """
        if not self._carried:
            return None
        consumers = self._graph.consumers.get(name, [])
        while len(consumers) == 1 and consumers[0].op_type in ONLY_MOVES:
            consumers = self._graph.consumers.get(consumers[0].output[0], [])
        if len(consumers) != 1 or consumers[0].op_type != "Concat":
            return None
        output = str(consumers[0].output[0])
        joined = self._relus.get(output, output)
        return joined if joined in self._tensors else None

    def _would_lose_its_relu(self, name: str, joined: str) -> bool:
        """Whether 0 is not the lowest level of the scale that was to stand in for a ReLU."""
        return name in self._removed_relus and self.of(joined)[1] != 0

    def _fitting(self, needed: Range) -> tuple[float, int]:
        tiny = float(np.finfo(np.float32).tiny)
        if not self._unsigned:
            return max(needed.largest / 127, tiny), 0
        scale = max((needed.high - needed.low) / 255, tiny)
        return scale, round(-needed.low / scale)

    def _needed_range(self, name: str) -> Range:
        """The calibrated range without what the layers behind throw away."""
        seen = self._ranges[name]
        if self._all_end_in(name, "Relu") or name in self._removed_relus:
            return Range(0.0, seen.high)
        for kind, end in (("Tanh", _TANH_ENDS), ("Sigmoid", 2 * _TANH_ENDS)):
            if self._all_end_in(name, kind):
                return Range(max(seen.low, -end), min(seen.high, end))
        return seen

    def _all_end_in(self, name: str, kind: str) -> bool:
        """Whether all that a tensor flows into, through what only moves values, is `kind`."""
        consumers = self._graph.consumers.get(name, [])
        return bool(consumers) and all(
            node.op_type == kind
            or (node.op_type in (*ONLY_MOVES, "Concat") and self._all_end_in(node.output[0], kind))
            for node in consumers
        )
