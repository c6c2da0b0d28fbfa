"""Engines run an exported generator; the file's suffix says which one."""

from __future__ import annotations

from pathlib import Path

from runtime.artifact import existing_model
from runtime.engines.base import Engine
from runtime.errors import EngineError, ModelError

ENGINES = ("auto", "onnxruntime", "tensorrt")
_ENGINE_OF_SUFFIX = {".onnx": "onnxruntime", ".engine": "tensorrt"}


def open_engine(path: str | Path, engine: str = "auto", threads: int | None = None) -> Engine:
    """Open the engine that runs the model in `path`.

    Args:
        path: an `.onnx` or `.engine` file.
        engine: `onnxruntime`, `tensorrt`, or `auto`: by the suffix.
        threads: CPU threads of one inference; None: as many as there are physical cores.

    Raises:
        ModelError: the file is missing, broken or not for this engine.
        EngineError: the engine's library or device is not here.
    """
    path = existing_model(Path(path))
    fitting = _ENGINE_OF_SUFFIX.get(path.suffix.lower())
    if fitting is None:
        raise ModelError(
            f"{path.name} is not a model that an engine loads",
            "an .onnx or .engine file",
            "export a run or a checkpoint with: p2p-export",
        )
    if engine not in ("auto", fitting):
        raise EngineError(
            f"engine {engine} cannot load {path.name}",
            f"engine {fitting} for {path.suffix} files",
            "leave the engine to be chosen by the suffix: --engine auto",
        )
    if fitting == "onnxruntime":
        from runtime.engines.ort import OrtEngine

        return OrtEngine(path, threads)
    from runtime.engines.trt import TrtEngine

    return TrtEngine(path)
