"""Run an exported image-to-image model on a stream of frames, at the lowest latency.

from runtime import Translator, stream

for frame in stream("0", "model.onnx"):
    show(frame.image)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.pipeline import Pipeline
    from runtime.sinks import open_sink
    from runtime.sources import open_source
    from runtime.streaming import stream
    from runtime.translator import Translator

__all__ = ["Pipeline", "Translator", "open_sink", "open_source", "stream"]

_HOMES = {
    "Pipeline": "runtime.pipeline",
    "Translator": "runtime.translator",
    "open_sink": "runtime.sinks",
    "open_source": "runtime.sources",
    "stream": "runtime.streaming",
}


def __getattr__(name: str) -> Any:
    """Import OpenCV and the rest only when they are asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
