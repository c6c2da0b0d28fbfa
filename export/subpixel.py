"""A transposed convolution as a convolution and a depth-to-space: the same picture, exactly.

Neither TensorRT nor ONNX Runtime has a good INT8 kernel for a transposed convolution; both have
one for a convolution. Source of the identity: Shi et al. 2016, "Is the deconvolution layer the
same as a convolutional layer?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.channels_last import depth_to_space
from export.graph import Array, Graph, drop_unused_weights, names_in, unique_name

PHASE = "_phase"
"""Stands, before a number, in the names of the convolutions that one transposed one became."""
_CLEARLY_LESS = 0.96


def with_subpixel_upsampling(
    model: onnx.ModelProto, channels_last: bool = False
) -> tuple[onnx.ModelProto, int]:
    """A copy whose transposed convolutions are convolutions, and how many were rewritten.

    One of kernel 4, stride 2, padding 1 becomes a 2x2 convolution with four times the channels,
    depth-to-space, and a crop of one pixel: 8.5 % more multiply-accumulates in a U-Net 256, since
    it computes one more row and column. Groups, dilations and automatic padding stay as they are.

    Args:
        model: of any precision, with stored weights.
        channels_last: write depth-to-space, where the size is fixed, as transposes and reshapes
            of [N, H, W, C]. ONNX Runtime's INT8 convolutions work in that layout, and the
            transposes cancel against its own. And where it spares work, one convolution for each
            phase of the stride, with exactly the taps of the transposed one.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = Graph(model)
    taken = names_in(model)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    count = 0
    for node in graph.nodes:
        plan = _plan(graph, node)
        if plan is None:
            nodes.append(node)
            continue
        count += 1
        nodes += _Rewrite(graph, node, plan, taken, weights).nodes(channels_last)
    del rewritten.graph.node[:], rewritten.graph.value_info[:]
    rewritten.graph.node.extend(nodes)
    rewritten.graph.initializer.extend(weights)
    drop_unused_weights(rewritten)
    onnx.checker.check_model(rewritten)
    return rewritten, count


@dataclass(frozen=True)
class _Axis:
    """How one axis of a transposed convolution is done by a plain one."""

    stride: int
    crop_begin: int
    """Pixels cut off the start of what depth-to-space gives."""
    crop_end: int
    pad_begin: int
    pad_end: int
    taps: tuple[tuple[int | None, ...], ...]
    """By phase 0 .. stride - 1: for each tap of the plain kernel the index in the transposed
    kernel, or None for a zero."""

    phases: tuple[_Phase, ...] | None
    """One for each phase of the stride; None where the size is no multiple of the stride."""

    @property
    def width(self) -> int:
        return len(self.taps[0])


@dataclass(frozen=True)
class _Phase:
    """Every stride-th pixel of the result: a plain convolution of its own along one axis."""

    pad_begin: int
    pad_end: int
    taps: tuple[int, ...]
    """Indices in the transposed kernel."""


def _plan(graph: Graph, node: onnx.NodeProto) -> tuple[_Axis, _Axis] | None:
    stored = all(name in graph.weights for name in node.input[1:] if name)
    if node.op_type != "ConvTranspose" or not stored:
        return None
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kernel = graph.types[node.input[1]].shape[2:]
    if len(kernel) != 2 or given.get("group", 1) != 1 or "output_shape" in given:
        return None
    if set(given.get("dilations", [1])) != {1}:
        return None
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        return None
    strides = given.get("strides", [1, 1])
    pads = given.get("pads", [0, 0, 0, 0])
    extra = given.get("output_padding", [0, 0])
    if strides[0] != strides[1] or strides[0] < 2:
        return None
    axes = [
        _axis(int(kernel[i] or 0), strides[i], pads[i], pads[i + 2], extra[i]) for i in range(2)
    ]
    if any(pad < 0 for axis in axes for pad in (axis.pad_begin, axis.pad_end)):
        return None
    return axes[0], axes[1]


def _axis(kernel: int, stride: int, pad_begin: int, pad_end: int, extra: int) -> _Axis:
    """Output pixel o takes input pixel i through kernel index o + pad - stride * i.

    With c pixels cropped, block p and phase r stand for o = stride * p + r - c. The c that needs
    the fewest taps is taken, and of those the smallest.
    """
    choices = []
    for crop in range(stride):
        reach = [
            (block, phase, index)
            for phase in range(stride)
            for block in range(-kernel, kernel + pad_begin + 1)
            if 0 <= (index := phase - crop + pad_begin - stride * block) < kernel
        ]
        first = min(block for block, _, _ in reach)
        last = max(block for block, _, _ in reach)
        choices.append((last - first + 1, crop, first, last, reach))
    width, crop, first, last, reach = min(choices, key=lambda choice: choice[:2])
    taps: list[list[int | None]] = [[None] * width for _ in range(stride)]
    for block, phase, index in reach:
        taps[phase][block - first] = index
    # The transposed one gives stride * (n - 1) + kernel - pads + extra pixels of n.
    surplus = kernel - stride - pad_begin - pad_end + extra
    blocks_more = -(-max(surplus + crop, 0) // stride)
    return _Axis(
        stride=stride,
        crop_begin=crop,
        crop_end=stride * blocks_more - crop - surplus,
        pad_begin=-first,
        pad_end=last + blocks_more,
        taps=tuple(map(tuple, taps)),
        phases=_phases(kernel, stride, pad_begin) if surplus == 0 else None,
    )


def _phases(kernel: int, stride: int, pad: int) -> tuple[_Phase, ...] | None:
    """Phase r of block p is output pixel stride * p + r, nothing cropped."""
    found = []
    for phase in range(stride):
        taps = {
            block: index
            for block in range(-kernel, kernel + pad + 1)
            if 0 <= (index := phase + pad - stride * block) < kernel
        }
        if not taps or min(taps) > 0 or max(taps) < 0:
            return None
        found.append(
            _Phase(-min(taps), max(taps), tuple(index for _, index in sorted(taps.items())))
        )
    return tuple(found)


@dataclass
class _Rewrite:
    """What takes the place of one transposed convolution."""

    graph: Graph
    node: onnx.NodeProto
    plan: tuple[_Axis, _Axis]
    taken: set[str]
    weights: list[onnx.TensorProto]
    """Grows by what the new nodes need."""

    def nodes(self, channels_last: bool) -> list[onnx.NodeProto]:
        """Conv, depth-to-space and, where there is something to cut off, Slice."""
        rows, columns = self.plan
        crops = (rows.crop_begin, columns.crop_begin, rows.crop_end, columns.crop_end)
        result = self.node.output[0]
        blocks = self._name("blocks")
        size = self.graph.types[self.node.input[0]].shape
        height, width = size[2] or 0, size[3] or 0
        is_fixed = None not in size
        if channels_last and is_fixed and self._phases_spare_work(height, width):
            return [
                *self._convolutions_by_phase(blocks),
                *self._depth_to_space_channels_last(blocks, result, height, width),
            ]
        pixels = self._name("pixels") if any(crops) else result
        made = [self._convolution(blocks)]
        if channels_last and is_fixed:
            height += rows.pad_begin + rows.pad_end - rows.width + 1
            width += columns.pad_begin + columns.pad_end - columns.width + 1
            made += self._depth_to_space_channels_last(blocks, pixels, height, width)
        else:
            step = rows.stride
            made.append(self._node("DepthToSpace", [blocks], pixels, blocksize=step, mode="DCR"))
        if any(crops):
            far = np.iinfo(np.int64).max
            bounds = {
                "crop_starts": crops[:2],
                "crop_ends": [-crop if crop else far for crop in crops[2:]],
                "crop_axes": (2, 3),
            }
            made.append(
                self._node(
                    "Slice", [pixels, *map(self._integers, bounds, bounds.values())], result
                )
            )
        return made

    def _convolution(self, output: str) -> onnx.NodeProto:
        rows, columns = self.plan
        given = list(self.node.input)
        kernel = _plain_kernel(self.graph.weight(given[1]), self.plan)
        inputs = [given[0], self._stored("subpixel", kernel)]
        if len(given) > 2 and given[2]:
            bias = np.tile(self.graph.weight(given[2]), rows.stride**2)
            inputs.append(self._stored("subpixel_bias", bias))
        return self._node(
            "Conv",
            inputs,
            output,
            kernel_shape=[rows.width, columns.width],
            pads=[rows.pad_begin, columns.pad_begin, rows.pad_end, columns.pad_end],
        )

    def _phases_spare_work(self, height: int, width: int) -> bool:
        """Whether a convolution a phase has clearly less to multiply than one for all."""
        rows, columns = self.plan
        if rows.phases is None or columns.phases is None:
            return False
        by_phase = sum(len(y.taps) * len(x.taps) for y in rows.phases for x in columns.phases)
        together = rows.stride**2 * rows.width * columns.width
        more_rows = rows.pad_begin + rows.pad_end - rows.width + 1
        more_columns = columns.pad_begin + columns.pad_end - columns.width + 1
        grown = (height + more_rows) * (width + more_columns) / (height * width)
        return by_phase < _CLEARLY_LESS * together * grown

    def _convolutions_by_phase(self, result: str) -> list[onnx.NodeProto]:
        """[N, S * S * C, H, W]: the phases' results one behind the other."""
        rows, columns = self.plan
        kernel = self.graph.weight(self.node.input[1])
        base = self._name("Conv")
        made = []
        phases = [(y, x) for y in rows.phases or () for x in columns.phases or ()]
        for number, (y, x) in enumerate(phases):
            taps = kernel[:, :, list(y.taps)][:, :, :, list(x.taps)].transpose(1, 0, 2, 3)
            made.append(
                helper.make_node(
                    "Conv",
                    [
                        self.node.input[0],
                        self._stored(f"phase{number}", taps),
                        *[name for name in self.node.input[2:] if name],
                    ],
                    [self._name(f"phase{number}_pixels")],
                    f"{base}{PHASE}{number}",
                    kernel_shape=[len(y.taps), len(x.taps)],
                    pads=[y.pad_begin, x.pad_begin, y.pad_end, x.pad_end],
                )
            )
        parts = [node.output[0] for node in made]
        return [*made, self._node("Concat", parts, result, axis=1)]

    def _depth_to_space_channels_last(
        self, source: str, result: str, height: int, width: int
    ) -> list[onnx.NodeProto]:
        """Pixels of [N, S * S * C, height, width] blocks."""
        batch = self.graph.types[self.node.input[0]].shape[0] or 1
        channels = self.graph.types[self.node.output[0]].shape[1] or 0
        blocks = (batch, height, width, channels)
        step = self.plan[0].stride
        return depth_to_space(source, result, blocks, step, self._name, self._integers)

    def _node(self, kind: str, inputs: list[str], output: str, **given: object) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], self._name(kind), **given)

    def _name(self, wanted: str) -> str:
        return unique_name(self.taken, f"{self.node.name or self.node.output[0]}_{wanted}")

    def _integers(self, name: str, values: Sequence[int]) -> str:
        return self._stored(name, np.array(values, np.int64))

    def _stored(self, name: str, values: Array) -> str:
        name = self._name(name)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _plain_kernel(kernel: Array, plan: tuple[_Axis, _Axis]) -> Array:
    """[C_in, C_out, K, K] of a transposed convolution as [S * S * C_out, C_in, T, T].

    The new channels are ordered phase row, phase column, channel, as depth-to-space (DCR) wants.
    """
    rows, columns = plan
    stride = rows.stride
    inputs, outputs = kernel.shape[:2]
    plain = np.zeros(
        (stride, stride, outputs, inputs, rows.width, columns.width), dtype=kernel.dtype
    )
    for phase_row, row_taps in enumerate(rows.taps):
        for phase_column, column_taps in enumerate(columns.taps):
            for y, row in enumerate(row_taps):
                for x, column in enumerate(column_taps):
                    if row is not None and column is not None:
                        plain[phase_row, phase_column, :, :, y, x] = kernel[:, :, row, column].T
    return plain.reshape(stride**2 * outputs, inputs, rows.width, columns.width)
