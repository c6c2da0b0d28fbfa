"""What all peers have in common: what they are made of, and how a picture comes in and goes out.

A peer runs the generator as a person writes it down: the picture is resized, made float and
planar on the host, drawn, and made a picture again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.stock import Size, export_stock
from benchmarks.rounds.rows import PEER
from runtime.engines.base import one_line
from runtime.errors import EngineError, UserError
from runtime.frame import Image, resized

if TYPE_CHECKING:
    from torch import nn

    from export.checkpoints import Checkpoint

FP32, FP16 = "fp32", "fp16"
AUTO, CPU, CUDA = "auto", "cpu", "cuda"
DEVICES = (AUTO, CPU, CUDA)


@dataclass(frozen=True)
class Asked:
    """What a peer is to run, and how."""

    peer: str
    name: str
    generator: str
    checkpoint: Checkpoint
    frame_size_px: Size
    network_size_px: Size
    batch_statistics: bool
    """Whether BatchNorm takes each picture's own statistics, as the export that it is compared
    with does."""
    precision: str
    threads: int
    device: str
    folder: Path
    stock: Path | None
    """A stock export that is there already."""

    @cached_property
    def module(self) -> nn.Module:
        """Float [1, C, H, W] -1 to 1 to the same, at the frame's size; FP32, on the CPU.

        A copy: what a peer does to its weights does not reach the next one.
        """
        import copy

        generator = self.checkpoint.generator
        if self.batch_statistics:
            from export.norm_stats import with_batch_statistics

            generator = with_batch_statistics(generator)
        generator = copy.deepcopy(generator).eval()
        if self.frame_size_px == self.network_size_px:
            return generator
        from benchmarks.peers.modules import at_frame_size

        return at_frame_size(
            generator, self.frame_size_px, self.network_size_px, coloured=self.coloured
        )

    @property
    def coloured(self) -> bool:
        """Whether the generator takes and gives three colours."""
        return self.checkpoint.input_channels == self.checkpoint.output_channels == 3

    def stock_file(self) -> Path:
        """The graph as torch exports it: made once for these weights, this size and this torch.

        Raises:
            ModelError: torch's exporter refuses the generator.
        """
        if self.stock is not None and self.precision == FP32 and not self.batch_statistics:
            return self.stock
        import torch

        height, width = self.frame_size_px
        marks = [self.checkpoint.sha256[:12], f"{width}x{height}", self.precision]
        if self.network_size_px != self.frame_size_px:
            marks.append("x".join(map(str, reversed(self.network_size_px))))
        if self.batch_statistics:
            marks.append("own-statistics")
        version = str(torch.__version__).partition("+")[0]
        path = self.folder / f"stock-{'-'.join(marks)}-torch{version}.onnx"
        if not path.is_file():
            module = self.module.half() if self.precision == FP16 else self.module
            export_stock(module, self.checkpoint.input_channels, self.frame_size_px, path)
        return path

    def on_cuda(self, has_cuda: bool, library: str) -> bool:
        """Whether this peer runs on the GPU.

        Args:
            has_cuda: whether its library can.
            library: its name.

        Raises:
            EngineError: CUDA was asked for and is not there, or FP16 for a CPU.
        """
        if self.device == CUDA and not has_cuda:
            raise EngineError(
                f"{self.peer} cannot run on CUDA: the {library} here has none",
                f"a build of {library} for CUDA, and an NVIDIA GPU with its driver",
                "see what is missing with: p2p-doctor; or measure on the CPU",
            )
        on_cuda = has_cuda and self.device != CPU
        if self.precision == FP16 and not on_cuda:
            raise EngineError(
                f"{self.peer} has no FP16 arithmetic of its own on a CPU",
                "FP32 on the CPU, or a GPU",
                "measure its FP32 row",
            )
        return on_cuda


class PeerRow(ABC):
    """A peer: `benchmarks.rounds.rows.Row`. What differs from peer to peer is `infer`.

    Args:
        asked: what it runs.
        load_ms: from nothing to ready to infer.
        engine: what runs it, for people.
        how: how it is set up, and which documentation says so.
        file: what it was loaded from.
    """

    role = PEER

    def __init__(
        self, asked: Asked, *, load_ms: float, engine: str, how: str, file: Path | None
    ) -> None:
        self.name, self.peer, self.generator = asked.name, asked.peer, asked.generator
        self.precision, self.frame_size_px = asked.precision, asked.frame_size_px
        self.load_ms, self.engine, self.how, self.file = load_ms, engine, how, file
        self._channels = asked.checkpoint.input_channels

    def prepare(self, image: Image) -> Any:
        """Float [1, C, h, w], RGB or grey, -1 to 1, of a picture of any size."""
        return as_planes(resized(image, self.frame_size_px), self._channels)

    @abstractmethod
    def infer(self, batch: Any) -> Any:
        """Float [1, C, h, w], -1 to 1, of what `prepare` gave; done when it returns."""

    def finish(self, drawn: Any, image: Image) -> Image:
        """Uint8 [H, W, 3], BGR, of the size of `image`."""
        height, width = image.shape[:2]
        return resized(as_picture(drawn), (height, width))

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. May be called twice."""


def as_planes(frame: Image, channels: int, *, in_order: bool = True) -> NDArray[np.float32]:
    """Uint8 [H, W, 3] BGR as float [1, channels, H, W], RGB or grey, -1 to 1.

    Args:
        frame: of the network's size.
        channels: 3, or 1 for grey.
        in_order: whether the planes lie in memory one behind the other; else their pixels do.
    """
    code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
    floats = np.atleast_3d(cv2.cvtColor(frame, code)).astype(np.float32) / 127.5 - 1
    planes: NDArray[np.float32] = floats.transpose(2, 0, 1)[np.newaxis]
    return np.ascontiguousarray(planes) if in_order else planes


def as_picture(drawn: NDArray[Any]) -> Image:
    """Float [1, C, H, W], RGB or grey, -1 to 1 as uint8 [H, W, 3] BGR."""
    planes = np.asarray(drawn[0], np.float32)
    levels = (planes.transpose(1, 2, 0) + 1) * 127.5
    picture = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    code = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_GRAY2BGR
    result: Image = np.asarray(cv2.cvtColor(picture, code), np.uint8)
    return result


def noise(size_px: Size) -> Image:
    """Uint8 [H, W, 3] with something everywhere: what a peer warms up and is tried with."""
    return np.random.default_rng(0).integers(0, 256, (*size_px, 3), np.uint8)


@contextmanager
def told_failure(peer: str, library: str) -> Iterator[None]:
    """Turn what a library throws at this model or machine into the one line of a row.

    Raises:
        EngineError: in the library's own words.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise EngineError(
            f"{peer} cannot run: {library} is not installed here ({one_line(error)})",
            f"the package {library}",
            f"pip install 'pix2pix-edge[{_EXTRAS[library]}]', or leave {peer} out",
        ) from error
    except Exception as error:  # each library has classes of its own, and torch a dozen
        cause = one_line(error)
        if len(cause) > _LONGEST_CAUSE:
            cause = cause[:_LONGEST_CAUSE] + "..."
        raise EngineError(
            f"{peer} failed: {library}: {type(error).__name__}: {cause}",
            "a model that it can run",
            f"leave {peer} out, or try another version of {library}",
        ) from error


_EXTRAS = {"torch": "train", "openvino": "openvino", "onnxruntime": "cpu"}
_LONGEST_CAUSE = 300
