"""Run an exported image-to-image model on a stream of frames, at the lowest latency.

from runtime import Translator, stream

for frame in stream("0", "model.onnx"):
    show(frame.image)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.pipeline import stream
    from runtime.translator import Translator

__all__ = ["Translator", "stream"]


def __getattr__(name: str) -> Any:
    """Import OpenCV and the rest only when they are asked for."""
    if name == "Translator":
        from runtime.translator import Translator

        return Translator
    if name == "stream":
        from runtime.pipeline import stream

        return stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
