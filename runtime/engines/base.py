"""What every engine can do: one small Protocol, one class an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.errors import FrameError, ModelError

GraphShape: TypeAlias = tuple[int | None, int | None, int | None]
"""Frames, height and width that a graph takes; None: left open until it runs."""


class Engine(Protocol):
    """Runs an exported generator: uint8 frames in, uint8 frames out.

    An engine owns its session, buffers and device memory until `close`. Any thread may call
    `infer`; more than `streams` threads at once wait for each other where the engine says so.
    """

    @property
    def meta(self) -> ArtifactMeta:
        """The contract of the model that it runs."""

    @property
    def description(self) -> str:
        """What runs where, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""

    @property
    def streams(self) -> int:
        """How many calls of `infer` may run at the same time; 1 for most."""

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255, C-contiguous. N is `meta.batch`, H and W
                are `meta.frame_size_px`; with `meta.dynamic`, N is 1 to `meta.batch`, H and W
                are any multiples of `meta.size_multiple`.

        Returns:
            uint8 of the same shape; the caller owns it for as long as it refers to it.

        Raises:
            FrameError: the frames are of another type, number or size.
            ModelError, EngineError: the engine cannot run the model on them.
        """

    def close(self) -> None:
        """Give back session, memory and device. May be called twice."""


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph, as its library tells it."""

    name: str
    kind: str
    """`uint8`, `float32`: the type of its elements."""
    sizes: tuple[int | str | None, ...]
    """A number, or the name of (or None for) a size that is left open until the graph runs."""

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} {list(self.sizes)}"


def check_frames(frames: Any, meta: ArtifactMeta) -> None:
    """Refuse a batch that the model does not take; costs under a microsecond.

    Raises:
        FrameError: not uint8, or not of a shape that `Engine.infer` names.
    """
    if isinstance(frames, np.ndarray):
        if frames.dtype == np.uint8 and _takes(meta, frames.shape):
            return
        received = f"the frames are {frames.dtype} {list(frames.shape)}"
    else:
        received = f"the frames are a {type(frames).__name__}"
    raise FrameError(
        received,
        told_frames(meta),
        "pass pictures to a runtime.Translator: it brings them to that",
    )


def check_graph(name: str, meta: ArtifactMeta, shape: GraphShape) -> None:
    """Refuse a file whose contract and graph do not agree.

    Args:
        name: the file's name, for the error's line.
        meta: what the file says of itself.
        shape: what its graph takes.

    Raises:
        ModelError: frames that keep the contract are not what the graph takes.
    """
    count, *sides = shape
    if meta.dynamic:
        # A graph whose number of frames is fixed takes no other, so one frame is all it may be.
        fits = sides == [None, None] and (count is None or count == meta.batch == 1)
    else:
        fits = count in (None, meta.batch) and tuple(sides) == meta.frame_size_px
    # What the engine is tried and tuned with must itself keep the contract.
    tuned_for = (meta.batch, *meta.frame_size_px, 3)
    if fits and min(meta.batch, meta.size_multiple) >= 1 and _takes(meta, tuned_for):
        return
    told = ", ".join("any" if size is None else str(size) for size in shape)
    raise ModelError(
        f"{name} says that it takes {told_frames(meta)}, its graph takes [{told}, 3]",
        "the file as p2p-export wrote it",
        "export it again with: p2p-export",
    )


def graph_shape(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> GraphShape:
    """Frames, height and width that a graph takes; None where they are left open.

    Args:
        name: the file's name, for the error's line.
        inputs: of the graph.
        outputs: of the graph.

    Raises:
        ModelError: inputs and outputs are not frames, or not of one shape.
    """
    if len(inputs) == len(outputs) == 1 and _is_frames(inputs[0]) and _is_frames(outputs[0]):
        count, height, width = (_fixed(size) for size in inputs[0].sizes[:3])
        out_count, out_height, out_width = (_fixed(size) for size in outputs[0].sizes[:3])
        count = out_count if count is None else count
        if (
            out_count in (None, count)
            and out_height in (None, height)
            and out_width in (None, width)
        ):
            return count, height, width
    raise _no_frames(name, inputs, outputs)


def meta_of_graph(
    path: Path, meta: ArtifactMeta | None, inputs: Sequence[Port], outputs: Sequence[Port]
) -> ArtifactMeta:
    """The contract of an ONNX file, checked against its graph; of a stranger's, what can be known.

    Args:
        path: the file.
        meta: what it says of itself; None for a file that says nothing.
        inputs: of its graph.
        outputs: of its graph.

    Raises:
        ModelError: the graph does not take and give frames, or others than the contract says, or
            a stranger's leaves height or width open: which ones it can do, no one says.
    """
    shape = count, height, width = graph_shape(path.name, inputs, outputs)
    if meta is None:
        if height is None or width is None:
            raise _no_frames(path.name, inputs, outputs)
        meta = ArtifactMeta(
            generator="unknown",
            precision="fp32",
            frame_size_px=(height, width),
            network_size_px=(height, width),
            opset=0,
            source=path.name,
            source_sha256="",
            batch=count or 1,
        )
    check_graph(path.name, meta, shape)
    return meta


def first_frames(meta: ArtifactMeta) -> NDArray[np.uint8]:
    """Black frames that a model takes: an engine warms up with them."""
    count = 1 if meta.dynamic else meta.batch
    return np.zeros((count, *meta.frame_size_px, 3), np.uint8)


def does_not_load(library: str, name: str, cause: str) -> ModelError:
    """The one line for a file that a library refuses to load."""
    return ModelError(
        f"{library} cannot load {name}: {cause}",
        "a whole ONNX file with operators that this version knows",
        "export it again with: p2p-export",
    )


def does_not_run(
    library: str, name: str, meta: ArtifactMeta, shape: tuple[int, ...], cause: str
) -> ModelError:
    """The one line for a graph that breaks on frames of this shape."""
    return ModelError(
        f"{library} cannot run {name}: {cause}",
        f"a graph that takes uint8 {list(shape)}",
        "export it again with: p2p-export" + _another_size(meta, shape),
    )


def changes_size(
    name: str, meta: ArtifactMeta, shape: tuple[int, ...], became: tuple[int, ...]
) -> ModelError:
    """The one line for a graph that gives frames of another shape than it took."""
    return ModelError(
        f"{name} turns frames of {list(shape)} into {list(became)}",
        "frames of the same size out as in",
        "wrap an image model with: p2p-export FILE.onnx" + _another_size(meta, shape),
    )


def one_line(error: BaseException) -> str:
    """What a library says, without its line breaks."""
    return " ".join(str(error).split())


def slow_form(path: Path, meta: ArtifactMeta) -> str:
    """What to tell of an INT8 file that is written for another engine than the CPU; else empty."""
    if meta.precision == "int8" and meta.target == "tensorrt":
        return (
            f"INT8 in TensorRT's form: {path.with_suffix('.cpu.onnx').name} is the fast one here"
        )
    return ""


def told_frames(meta: ArtifactMeta) -> str:
    """What `Engine.infer` takes, for people: `uint8 [1, 256, 256, 3]`."""
    if not meta.dynamic:
        return f"uint8 {[meta.batch, *meta.frame_size_px, 3]}"
    count = "1" if meta.batch == 1 else f"1 to {meta.batch}"
    multiples = "" if meta.size_multiple == 1 else f", H and W multiples of {meta.size_multiple}"
    return f"uint8 [{count}, H, W, 3]{multiples}"


def described(engine: str, meta: ArtifactMeta, *notes: str) -> str:
    """An engine's `description`: what runs where, then what its user should know of the model."""
    unverified = "" if meta.verified else "not verified (--no-verify)"
    return "; ".join(filter(None, (engine, *notes, unverified)))


def _is_frames(port: Port) -> bool:
    return (
        port.kind == "uint8"
        and len(port.sizes) == 4
        and all(size >= 1 for size in port.sizes if isinstance(size, int))
        and _fixed(port.sizes[3]) in (None, 3)
    )


def _fixed(size: int | str | None) -> int | None:
    """A size that the graph fixes; None for a name, or for nothing said."""
    return size if isinstance(size, int) else None


def _no_frames(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> ModelError:
    given, made = (", ".join(map(str, ports)) for ports in (inputs, outputs))
    return ModelError(
        f"{name} has inputs {given} and outputs {made}",
        "one input uint8 [N, H, W, 3] with H and W fixed, and one output of the same shape",
        "wrap a float NCHW image model with: p2p-export FILE.onnx",
    )


def _another_size(meta: ArtifactMeta, shape: tuple[int, ...]) -> str:
    """What also mends it where only some sizes break: a padding wider than a small frame."""
    height, width = meta.frame_size_px
    return (
        "" if shape[1:3] == (height, width) else f", or give it frames nearer to {width}x{height}"
    )


def _takes(meta: ArtifactMeta, shape: tuple[int, ...]) -> bool:
    if not meta.dynamic:
        return shape == (meta.batch, *meta.frame_size_px, 3)
    if len(shape) != 4:
        return False
    count, height, width, channels = shape
    multiple = meta.size_multiple
    return (
        1 <= count <= meta.batch
        and min(height, width) >= multiple
        and height % multiple == width % multiple == 0
        and channels == 3
    )
