"""What every engine can do: one small Protocol, one class an engine."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.errors import FrameError, ModelError

GraphShape: TypeAlias = tuple[int | None, int | None, int | None]
"""Frames, height and width that a graph takes; None: left open until it runs."""


class Engine(Protocol):
    """Runs an exported generator: uint8 frames in, uint8 frames out.

    An engine owns its session, buffers and device memory until `close`; it serves one thread at
    a time.
    """

    @property
    def meta(self) -> ArtifactMeta:
        """The contract of the model that it runs."""

    @property
    def description(self) -> str:
        """What runs where, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255, C-contiguous. N is `meta.batch`, H and W
                are `meta.frame_size_px`; with `meta.dynamic`, N is 1 to `meta.batch`, H and W
                are any multiples of `meta.size_multiple`.

        Returns:
            uint8 of the same shape; the caller owns it.

        Raises:
            FrameError: the frames are of another type, number or size.
            ModelError, EngineError: the engine cannot run the model on them.
        """

    def close(self) -> None:
        """Give back session, memory and device. May be called twice."""


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


def told_frames(meta: ArtifactMeta) -> str:
    """What `Engine.infer` takes, for people: `uint8 [1, 256, 256, 3]`."""
    if not meta.dynamic:
        return f"uint8 {[meta.batch, *meta.frame_size_px, 3]}"
    count = "1" if meta.batch == 1 else f"1 to {meta.batch}"
    multiples = "" if meta.size_multiple == 1 else f", H and W multiples of {meta.size_multiple}"
    return f"uint8 [{count}, H, W, 3]{multiples}"


def described(engine: str, meta: ArtifactMeta, note: str = "") -> str:
    """An engine's `description`: what runs where, then what its user should know of the model."""
    notes = (engine, note, "" if meta.verified else "not verified (--no-verify)")
    return "; ".join(filter(None, notes))


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
