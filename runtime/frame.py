"""One frame on its way from a source to a sink, and the one shape that all of them have."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import FrameError

Image: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, 3], BGR, 0 to 255: what OpenCV gives and takes."""


@dataclass(slots=True)
class Frame:
    """A picture with its place in the stream.

    Whoever receives a frame owns its array for as long as it holds it: the memory is used again
    only when nobody refers to the array, or to a view of it, any more (`runtime.buffers`).
    """

    image: Image
    """uint8 [H, W, 3], BGR, 0 to 255."""
    index: int
    """0 for the first frame that the source gave; gaps are frames that were dropped."""
    captured_at_ns: int = field(default_factory=time.perf_counter_ns)
    """When the source had the frame in hand (`time.perf_counter_ns`)."""
    capture_ms: float = 0.0
    """How long the source worked (or waited) to get it."""
    name: str = ""
    """The file name that an image came from; empty for a stream."""


@dataclass(slots=True)
class Translated(Frame):
    """A translated frame; `image` is what to show: the translation, or a view made of it."""

    translated: Image | None = None
    """The translation alone: uint8 [H, W, 3], BGR."""
    original: Image | None = None
    """The frame as the source gave it, or the part of it that was translated; of the same size
    as `translated`."""
    in_ms: float = 0.0
    infer_ms: float = 0.0
    out_ms: float = 0.0
    source: str = ""
    """Name of the source that it came from, where there are several."""
    note: str = ""
    """What the viewer must know, such as a camera that is being opened again; else empty."""
    others: tuple[Translated, ...] = ()
    """Frames of other sources that this picture is the first to show, in a grid of them."""
    repeated: bool = False
    """Shown once more for the sake of its note: no new picture, and not counted."""


def check_image(image: Any) -> Image:
    """Return `image` unchanged if it is a frame.

    Raises:
        FrameError: it is not uint8 [H, W, 3] with at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise FrameError(
            f"frame is a {type(image).__name__}",
            "a numpy array, uint8 [H, W, 3] BGR",
            "pass what cv2.imread or VideoCapture.read returned",
        )
    if image.dtype != np.uint8:
        raise FrameError(
            f"frame is {image.dtype} {list(image.shape)}",
            "uint8 [H, W, 3] BGR, 0 to 255",
            "scale a 0..1 picture by 255 and call .astype(numpy.uint8)",
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise FrameError(
            f"frame has shape {list(image.shape)}",
            "[H, W, 3], BGR",
            "use cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for grey, COLOR_BGRA2BGR for alpha",
        )
    return image


def as_bgr(image: NDArray[np.uint8], into: Image | None = None) -> Image:
    """Bring what cameras and decoders give, grey and four channels too, to the one shape.

    Args:
        image: uint8 [H, W], [H, W, 1], [H, W, 3] BGR or [H, W, 4] BGRA.
        into: uint8 [H, W, 3] to write to where something has to be converted; None: a new array.

    Returns:
        uint8 [H, W, 3], BGR; `image` itself when it has three channels.

    Raises:
        FrameError: something else.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels in (1, 4) and image.dtype == np.uint8 and 0 not in image.shape:
        code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
        converted: Image = cv2.cvtColor(image, code, dst=into)
        return converted
    return check_image(image)


def resized(image: Image, size_px: tuple[int, int], into: Image | None = None) -> Image:
    """Resize a picture as every part of the runtime does: by area when it shrinks (no moire),
    linear when it grows.

    Args:
        image: uint8 [H, W, 3].
        size_px: (height, width) of the result.
        into: uint8 [height, width, 3] to write to; None: a new array.

    Returns:
        `into` or the new array; `image` itself when it has that size and `into` is None.
    """
    height, width = size_px
    if into is None:
        if image.shape[:2] == size_px:
            return image
        into = np.empty((height, width, 3), np.uint8)
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    cv2.resize(image, (width, height), dst=into, interpolation=interpolation)
    return into
