"""A stranger's ONNX image model, wrapped so that it takes and gives frames as ours do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.artifact import INPUT_NAME, OUTPUT_NAME
from runtime.errors import ModelError

VALUE_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
COLOR_ORDERS = ("RGB", "BGR")
MIN_OPSET = 11
_INNER = "inner_"


@dataclass(frozen=True)
class ImageModel:
    """An ONNX model whose one input and one output are images, and how it takes them."""

    path: Path
    model: onnx.ModelProto
    input_name: str
    output_name: str
    dtype: int
    """onnx.TensorProto.FLOAT or FLOAT16."""
    channels_first: bool
    size_px: tuple[int, int]
    value_range: tuple[float, float]
    color_order: str

    @property
    def opset(self) -> int:
        """Of the standard operators."""
        return int(next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")))

    @property
    def precision(self) -> str:
        return "fp16" if self.dtype == TensorProto.FLOAT16 else "fp32"

    def to_network(self, frame: NDArray[np.uint8]) -> NDArray[np.floating]:
        """uint8 [H, W, 3] BGR to what the stranger's model takes, [1, ...]."""
        low, high = self.value_range
        picture = frame if self.color_order == "BGR" else frame[..., ::-1]
        scaled = picture.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        batch = scaled.transpose(2, 0, 1)[None] if self.channels_first else scaled[None]
        return np.ascontiguousarray(batch.astype(helper.tensor_dtype_to_np_dtype(self.dtype)))

    def to_frame(self, output: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The reverse of `to_network`, rounded and clipped."""
        low, high = self.value_range
        picture = output[0].astype(np.float32)
        if self.channels_first:
            picture = picture.transpose(1, 2, 0)
        levels = np.clip(np.rint((picture - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels if self.color_order == "BGR" else levels[..., ::-1])


def open_image_model(
    path: Path, size_px: tuple[int, int] | None, value_range: str, color_order: str
) -> ImageModel:
    """Read a stranger's ONNX file and find out how it takes an image.

    Args:
        path: the ONNX file.
        size_px: (height, width), where the file leaves them open.
        value_range: a key of `VALUE_RANGES`: what the model wants a pixel to be.
        color_order: `RGB` or `BGR`.

    Raises:
        ModelError: it is no ONNX file, or its input and output are not one image each.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path} is not a valid ONNX file ({str(error).splitlines()[0]})",
            "a file that onnx.checker accepts, with its weights inside or beside it",
            "export it again",
        ) from error
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise _not_images(path, inputs, outputs, "one input and one output")
    dtype, shape = _type_of(inputs[0])
    output_dtype, output_shape = _type_of(outputs[0])
    if dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16) or output_dtype != dtype:
        raise _not_images(path, inputs, outputs, "a float or float16 image in and out")
    channels_first = len(shape) == 4 and shape[1] == 3
    if len(shape) != 4 or not (channels_first or shape[3] == 3):
        raise _not_images(path, inputs, outputs, "an image [1, 3, H, W] or [1, H, W, 3]")
    channel_axis = 1 if channels_first else 3
    if len(output_shape) != 4 or output_shape[channel_axis] not in (3, None):
        raise _not_images(path, inputs, outputs, "an output of the same layout as the input")
    height, width = shape[2:] if channels_first else shape[1:3]
    if size_px is not None:
        wrong = [
            f for f, asked in zip((height, width), size_px, strict=True) if f not in (None, asked)
        ]
        if wrong:
            raise ModelError(
                f"--imgsz {size_px[0]}x{size_px[1]} for {path.name}",
                f"{height}x{width}, the size that is fixed in the file",
                "leave --imgsz out",
            )
        height, width = size_px
    if height is None or width is None:
        raise ModelError(
            f"{path.name} takes pictures of any size",
            "one size to export for",
            "give it with --imgsz, e.g. --imgsz 256",
        )
    found = ImageModel(
        path,
        model,
        inputs[0].name,
        outputs[0].name,
        dtype,
        channels_first,
        (height, width),
        VALUE_RANGES[value_range],
        color_order,
    )
    if found.opset < MIN_OPSET:
        raise ModelError(
            f"{path.name} has opset {found.opset}",
            f"opset {MIN_OPSET} or later",
            "export it again with a newer opset",
        )
    return found


def frame_in_frame_out(source: ImageModel) -> onnx.ModelProto:
    """The stranger's graph between the steps that turn a frame into its input and back.

    uint8 [1, H, W, 3] BGR to the same, in the order of steps that TensorRT's parser accepts.
    """
    from onnx.compose import add_prefix_graph

    low, high = source.value_range
    scalar = helper.tensor_dtype_to_np_dtype(source.dtype)
    graph = add_prefix_graph(source.model.graph, _INNER)
    inner_in, inner_out = _INNER + source.input_name, _INNER + source.output_name
    constants = {
        "to_scale": np.array((high - low) / 255, scalar),
        "to_offset": np.array(low, scalar),
        "from_scale": np.array(255 / (high - low), scalar),
        "from_offset": np.array(-low * 255 / (high - low), scalar),
        "lowest": np.array(0, scalar),
        "highest": np.array(255, scalar),
        "reversed_channels": np.array([2, 1, 0], np.int64),
    }
    axis = 1 if source.channels_first else 3
    swap = source.color_order == "RGB"
    before: list[tuple[str, list[str], dict[str, object]]] = [("Cast", [], {"to": source.dtype})]
    after: list[tuple[str, list[str], dict[str, object]]] = []
    if source.channels_first:
        before.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if swap:
        before.append(("Gather", ["reversed_channels"], {"axis": axis}))
    before += [("Mul", ["to_scale"], {}), ("Add", ["to_offset"], {})]
    after += [
        ("Mul", ["from_scale"], {}),
        ("Add", ["from_offset"], {}),
        ("Clip", ["lowest", "highest"], {}),
        ("Round", [], {}),
    ]
    if swap:
        after.append(("Gather", ["reversed_channels"], {"axis": axis}))
    if source.channels_first:
        after.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    after.append(("Cast", [], {"to": TensorProto.UINT8}))

    shape = [1, *source.size_px, 3]
    wrapped = helper.make_graph(
        [
            *_chain(before, INPUT_NAME, inner_in, "before"),
            *graph.node,
            *_chain(after, inner_out, OUTPUT_NAME, "after"),
        ],
        "frame_in_frame_out",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, shape)],
        [
            *graph.initializer,
            *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        ],
    )
    model = helper.make_model(wrapped, opset_imports=source.model.opset_import)
    model.ir_version = min(source.model.ir_version, 10)
    return model


def _chain(
    steps: list[tuple[str, list[str], dict[str, object]]], first: str, last: str, prefix: str
) -> list[onnx.NodeProto]:
    nodes = []
    name = first
    for number, (kind, constants, attributes) in enumerate(steps):
        output = last if number == len(steps) - 1 else f"{prefix}_{number}"
        nodes.append(
            helper.make_node(
                kind, [name, *constants], [output], f"{prefix}_{number}_{kind}", **attributes
            )
        )
        name = output
    return nodes


def _type_of(value: onnx.ValueInfoProto) -> tuple[int, list[int | None]]:
    tensor = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return int(tensor.elem_type), [size or None for size in sizes]


def _not_images(
    path: Path,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    expected: str,
) -> ModelError:
    def told(values: list[onnx.ValueInfoProto]) -> str:
        return ", ".join(
            f"{v.name} {TensorProto.DataType.Name(_type_of(v)[0]).lower()} "
            f"{[s or '?' for s in _type_of(v)[1]]}"
            for v in values
        )

    return ModelError(
        f"{path.name} takes {told(inputs)} and gives {told(outputs)}",
        expected,
        "only image-to-image models can be exported",
    )
