"""What every engine can do: one small Protocol, one class an engine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta


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
            frames: uint8 [1, H, W, 3], BGR, C-contiguous, H and W as in `meta.frame_size_px`.

        Returns:
            uint8 of the same shape; the caller owns it.
        """

    def close(self) -> None:
        """Give back session, memory and device. May be called twice."""
