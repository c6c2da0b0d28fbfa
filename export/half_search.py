"""Which nodes of a graph FP16 would hurt: found by running it on pictures, not by their names.

First what FP16 cannot hold is left in FP32: values beyond its range or below its precision. Then
the FP16 graph draws, and while the pictures are not good enough, the nodes go back to FP32 that
alone in FP16 cost the picture most.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from export.graph import Array, Graph, drawn_by, product, values_of
from export.half import FLOAT, Slots, half_slots, prepared, rounded_to_half, to_half
from export.half_rehearsal import rehearsal
from export.verify import Difference, Image, Threshold
from runtime.errors import ModelError

FP16_MAX = 65504.0
HEADROOM = 2.0
"""Pictures that are not searched may reach further than those that are."""
MAX_LOSS = 0.01
"""Relative L2 error that rounding to FP16 may leave in a tensor: normal numbers lose 2 in 10000;
more than 100 in 10000 are subnormal ones."""
RANKING_PICTURES = 2
MOST_IN_FP32 = 0.5
"""Share of the multiply-accumulates beyond which a graph would be FP16 in name only."""
_EXPOSED_BYTES = 256 * 2**20
"""Of tensors that are looked at in one pass."""
_SQUARES_INSIDE = (
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "MeanVarianceNormalization",
    "LpNormalization",
    "LRN",
    "ReduceL2",
    "ReduceSumSquare",
)
"""Operators that square their input where no tensor shows it."""
_SUMS = ("MatMul", "Softmax", "LogSoftmax", "Einsum", "AveragePool", "GlobalAveragePool", "CumSum")
"""Operators that add many values up, beside those with weights and the Reduce family."""
_HAS_BIAS_THIRD = ("Conv", "ConvTranspose", "Gemm", *_SQUARES_INSIDE[:3])
_LEADS_OUT = ("Cast", "Transpose", "Gather", "Round", "Clip", "Identity")


@dataclass(frozen=True)
class Kept:
    """A node that computes in FP32."""

    node: str
    op_type: str
    why: str
    """In words, with the figure that was measured."""


@dataclass(frozen=True)
class HalfResult:
    """An FP16 graph whose pictures are good enough."""

    model: onnx.ModelProto
    kept: tuple[Kept, ...]
    """In the order of the graph. Arithmetic on sizes, which stays FP32 too, is not in it."""
    psnr_db: float
    """Of the worst picture of those searched."""


def half_that_passes(
    model: onnx.ModelProto,
    frames: Sequence[Image],
    references: Sequence[Image],
    allowed: Threshold,
    say: Callable[[str], None] = lambda _line: None,
) -> HalfResult:
    """The FP16 form of an FP32 model with as few nodes in FP32 as its pictures need.

    Where the pictures reach `allowed.min_psnr_db`, and only single pixels are off by more than
    `allowed.max_abs_diff` unless most of the work is done in FP32, the form that FP16 can hold is
    given: it is for the gate to judge.

    Args:
        model: frame in, frame out, FP32.
        frames: uint8 [H, W, 3] BGR, of the model's frame size; at least one.
        references: what each frame is to become, uint8 [H, W, 3] BGR.
        allowed: what every picture keeps.
        say: is told what is kept, and what the pictures lack.

    Raises:
        ModelError: not even FP32 throughout draws the references.
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("no frames to search with")
    search = _Search(prepared(model), frames, references)
    why = search.what_fp16_cannot_hold()
    if why:
        say(f"{len(why)} nodes stay in FP32, whose values FP16 cannot hold")
    ranked: list[tuple[float, str]] | None = None
    least: HalfResult | None = None
    step = 1
    while True:
        half = to_half(search.model, why)
        found = search.rehearsed(half)
        worst = _worst(found)
        if worst and allowed.allows(worst):
            worst = _worst([worst, *search.drawn(half)])
        if worst and allowed.allows(worst):
            return HalfResult(half, search.kept(why), worst.psnr_db)
        if least is None and worst is not None and worst.psnr_db >= allowed.min_psnr_db:
            least = HalfResult(half, search.kept(why), worst.psnr_db)
        if least is not None and search.macs_share(why) > MOST_IN_FP32:
            say(
                f"more FP32 does not mend single pixels ({_told(worst)}): back to "
                f"{len(least.kept)} nodes in FP32 and {least.psnr_db:.1f} dB; the gate decides"
            )
            return least
        if search.nodes <= why.keys():
            raise ModelError(
                f"a model that in FP32 itself draws {_told(worst)} from its references",
                str(allowed),
                "give references that this model draws",
            )
        say(f"FP16 with {len(why)} nodes in FP32 draws {_told(worst)}: keeping more")
        if ranked is None:
            ranked = search.ranked(search.nodes - why.keys(), _hardest(found))
        for psnr_db, name in ranked[:step]:
            told = f"{psnr_db:.1f} dB" if psnr_db > -np.inf else "values that are not finite"
            why[name] = f"alone in FP16 it draws {told}"
        if ranked:
            search.close_gaps(why)
        else:
            rest = search.nodes - why.keys()
            why.update(dict.fromkeys(rest, "the picture needs all of the graph in FP32"))
        del ranked[:step]
        step *= 2


class _Search:
    """One model, the pictures that it is searched with, and what is known of its nodes."""

    def __init__(
        self, model: onnx.ModelProto, frames: Sequence[Image], references: Sequence[Image]
    ) -> None:
        self.model = model
        self._graph = Graph(model)
        slots = half_slots(self._graph)
        self._slots = {name: s for name, s in slots.items() if s.inputs or s.outputs}
        self._without_form = slots.keys() - self._slots.keys()
        self._frames = list(frames)
        self._references = list(references)
        self.nodes = set(self._slots)
        """That can be FP16."""

    def what_fp16_cannot_hold(self) -> dict[str, str]:
        """Node to the reason why it stays in FP32, as the FP32 model's own values tell it."""
        reach, loss = self._measure_tensors()
        why: dict[str, str] = {}
        for node, slots in self._converted():
            for name in _halves(node, slots):
                if name in self._graph.weights:
                    reason = self._of_weight(node, name, reach)
                elif reach[name] * HEADROOM > FP16_MAX:
                    reason = f"activations reach {reach[name]:.3g}, FP16 ends at {FP16_MAX:.0f}"
                    if reach[name] <= FP16_MAX:
                        reason += ", which other pictures may pass"
                elif loss[name] > MAX_LOSS:
                    reason = (
                        f"activations lose {loss[name]:.2g} of themselves in FP16: "
                        f"they reach {reach[name]:.2g} only"
                    )
                else:
                    continue
                if reason:
                    why.setdefault(node.name, reason)
            squared = reach.get(node.input[0], 0.0) ** 2
            if node.op_type in _SQUARES_INSIDE and squared > FP16_MAX:
                why.setdefault(
                    node.name,
                    f"activations that it squares reach {squared**0.5:.3g}, and the square of "
                    f"that {squared:.2g}; FP16 ends at {FP16_MAX:.0f}",
                )
        return why

    def rehearsed(
        self, half: onnx.ModelProto, pictures: Sequence[int] | None = None
    ) -> list[Difference | None]:
        """Each picture where every node rounds, against its reference.

        None: the network's last values are not finite, which a uint8 picture cannot show.
        """
        shown = rehearsal(half)
        output, last = half.graph.output[0].name, _before_the_way_out(self._graph)
        chosen = range(len(self._frames)) if pictures is None else pictures
        frames = [self._frames[index] for index in chosen]
        found: list[Difference | None] = []
        for index, values in zip(chosen, values_of(shown, [output, last], frames), strict=True):
            finite = bool(np.isfinite(values[last]).all())
            difference = Difference.between(self._references[index], values[output][0])
            found.append(difference if finite else None)
        return found

    def drawn(self, half: onnx.ModelProto) -> list[Difference]:
        """Each picture as ONNX Runtime's CPU draws it, which rounds less often."""
        return list(map(Difference.between, self._references, drawn_by(half, self._frames)))

    def ranked(self, names: set[str], pictures: Sequence[int]) -> list[tuple[float, str]]:
        """Nodes with weights or sums, the worst first: the PSNR where one alone is in FP16."""
        nodes = [n for n, _ in self._converted() if n.name in names and self._adds_up(n)]
        found = []
        for node in nodes:
            alone = _worst(self.rehearsed(to_half(self.model, self.nodes - {node.name}), pictures))
            found.append((alone.psnr_db if alone else -np.inf, node.name))
        return sorted(found)

    def close_gaps(self, why: dict[str, str]) -> None:
        """Keep what follows FP32 nodes alone too, up to the next node with weights.

        The value is rounded once less, and an engine can fuse an activation with its convolution.
        """
        for node, slots in self._converted():
            taken = [n for n in _at(node.input, slots.inputs) if n not in self._graph.weights]
            makers = [self._graph.producer[n].name for n in taken if n in self._graph.producer]
            in_fp32 = all(name in why or name not in self.nodes for name in makers)
            if node.name not in why and makers and in_fp32 and not self._adds_up(node):
                why[node.name] = "all that it takes comes from nodes in FP32"

    def kept(self, why: dict[str, str]) -> tuple[Kept, ...]:
        """All nodes of the picture's way that compute in FP32."""
        return tuple(
            Kept(node.name, node.op_type, why.get(node.name, "ONNX has no FP16 form of it"))
            for node in self._graph.nodes
            if node.name in why or node.name in self._without_form
        )

    def macs_share(self, names: Collection[str]) -> float:
        """Of these nodes in all convolutions."""
        macs = {node.name: self._graph.macs(node) for node in self._graph.convolutions()}
        return sum(macs.get(name, 0) for name in names) / max(sum(macs.values()), 1)

    def _converted(self) -> Iterator[tuple[onnx.NodeProto, Slots]]:
        """Nodes that can be FP16, in the order of the graph."""
        for node in self._graph.nodes:
            if node.name in self.nodes:
                yield node, self._slots[node.name]

    def _measure_tensors(self) -> tuple[dict[str, float], dict[str, float]]:
        """By tensor, over all frames: the largest |x|, and the relative L2 error of FP16."""
        names = dict.fromkeys(
            name
            for node, slots in self._converted()
            for name in _halves(node, slots)
            if name not in self._graph.weights
        )
        reach = dict.fromkeys(names, 0.0)
        error, energy = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for group in self._groups(list(names)):
            for values in values_of(self.model, group, self._frames):
                for name, value in values.items():
                    of_tensor = _Rounding.of(value)
                    reach[name] = max(reach[name], of_tensor.reach)
                    error[name] += of_tensor.error
                    energy[name] += of_tensor.energy
        return reach, {n: (error[n] / energy[n]) ** 0.5 if energy[n] else 0.0 for n in names}

    def _groups(self, names: list[str]) -> Iterator[list[str]]:
        """So many tensors at a time as fit into `_EXPOSED_BYTES`."""
        group: list[str] = []
        size = 0
        for name in names:
            needs = 4 * self._graph.types[name].elements
            if None in self._graph.types[name].shape:
                needs *= self._frames[0].shape[0] * self._frames[0].shape[1]
            if group and size + needs > _EXPOSED_BYTES:
                yield group
                group, size = [], 0
            group.append(name)
            size += needs
        if group:
            yield group

    def _of_weight(self, node: onnx.NodeProto, name: str, reach: dict[str, float]) -> str | None:
        """Why FP16 cannot hold a stored tensor of `node`; None where it can."""
        of_tensor = _Rounding.of(self._graph.weight(name))
        if of_tensor.reach > FP16_MAX:
            return f"{name} reaches {of_tensor.reach:.3g}, FP16 ends at {FP16_MAX:.0f}"
        if not of_tensor.energy:
            return None
        loss = (of_tensor.error / of_tensor.energy) ** 0.5
        if loss <= MAX_LOSS:
            return None
        is_bias = node.op_type in _HAS_BIAS_THIRD and name in node.input[2:]
        # A bias is added: what counts is its error beside the rounding of the sum.
        if is_bias and of_tensor.worst_error <= reach[node.output[0]] * np.finfo(np.float16).eps:
            return None
        return f"{name} loses {loss:.2g} of itself in FP16: it reaches {of_tensor.reach:.2g} only"

    def _adds_up(self, node: onnx.NodeProto) -> bool:
        """Whether the node has weights or sums many values: where FP16 may cost something."""
        weighted = any(
            name in self._graph.weights and product(self._graph.types[name].shape) > 1
            for name in _at(node.input, self._slots[node.name].inputs)
        )
        sums = node.op_type in (*_SQUARES_INSIDE, *_SUMS) or node.op_type.startswith("Reduce")
        return weighted or sums


@dataclass(frozen=True)
class _Rounding:
    """What FP16 makes of a tensor's finite values."""

    reach: float
    """The largest magnitude."""
    energy: float
    """Sum of the squares."""
    error: float
    """Sum of the squares of what rounding changes, where it does not overflow."""
    worst_error: float

    @classmethod
    def of(cls, tensor: Array) -> _Rounding:
        values = tensor[np.isfinite(tensor)].astype(np.float64)
        if not values.size:
            return cls(0.0, 0.0, 0.0, 0.0)
        change = rounded_to_half(values) - values
        change = change[np.isfinite(change)]
        worst_error = float(np.abs(change).max(initial=0.0))
        reach = float(np.abs(values).max())
        return cls(reach, float(values @ values), float(change @ change), worst_error)


def _before_the_way_out(graph: Graph) -> str:
    """The tensor that becomes the frame: it tells what rounding and clipping hide."""
    name = str(graph.model.graph.output[0].name)
    while (node := graph.producer.get(name)) is not None and node.op_type in _LEADS_OUT:
        if graph.types[node.input[0]].dtype != FLOAT:
            break
        name = node.input[0]
    return name


def _worst(differences: Sequence[Difference | None]) -> Difference | None:
    """The lowest PSNR and SSIM and the largest difference; None where one is None."""
    found = [difference for difference in differences if difference is not None]
    if len(found) < len(differences):
        return None
    return Difference(
        min(d.psnr_db for d in found),
        min(d.ssim for d in found),
        max(d.max_abs_diff for d in found),
    )


def _hardest(differences: Sequence[Difference | None]) -> list[int]:
    """Indices of the pictures that differ most."""
    order = np.argsort([d.psnr_db if d else -np.inf for d in differences], kind="stable")
    return [int(index) for index in order[:RANKING_PICTURES]]


def _told(worst: Difference | None) -> str:
    if worst is None:
        return "values that are not finite"
    return f"{worst.psnr_db:.1f} dB and up to {worst.max_abs_diff} levels"


def _halves(node: onnx.NodeProto, slots: Slots) -> list[str]:
    """What becomes FP16 where the node does."""
    return [*_at(node.input, slots.inputs), *_at(node.output, slots.outputs)]


def _at(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    return [names[index] for index in indices]
