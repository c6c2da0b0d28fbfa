"""An engine that is a Python function: what a network would have to be trained to do."""

from __future__ import annotations

from runtime.artifact import ArtifactMeta
from runtime.engines.base import check_frames


class FunctionEngine:
    """Keeps the contract of `runtime.engines.base.Engine`, and the shapes that it was given.

    It stands for networks that no ONNX file of a test can hold: those that draw each tile in
    another tone, or that give back one and the same array.
    """

    streams = 8
    description = "a function"

    def __init__(self, function, size_px, batch=1, dynamic=False):
        self.meta = ArtifactMeta(
            generator="unknown",
            precision="fp32",
            frame_size_px=size_px,
            network_size_px=size_px,
            opset=0,
            source="",
            source_sha256="",
            batch=batch,
            dynamic=dynamic,
            size_multiple=8 if dynamic else 1,
        )
        self.shapes = []
        self.closed = False
        self._function = function

    def infer(self, frames):
        check_frames(frames, self.meta)
        self.shapes.append(frames.shape)
        return self._function(frames)

    def close(self):
        self.closed = True
