"""Engines run an exported generator; the file and the machine say which one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import machine
from runtime.artifact import existing_model
from runtime.engines.base import Engine, first_frames
from runtime.engines.threads import is_small, one_is_enough
from runtime.errors import EngineError, ModelError

if TYPE_CHECKING:
    from runtime.engines.ort import OrtEngine

ENGINES = (
    "auto",
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "tensorrt",
)
_FITTING = {".onnx": ENGINES[1:5], ".engine": ENGINES[5:]}


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs a file, and why."""

    engine: str
    """One of `ENGINES`, never `auto`."""
    reason: str
    """For people: `ONNX Runtime on the CPU: an .onnx file, and no NVIDIA GPU is here`."""


def choose_engine(path: str | Path, engine: str = "auto") -> EngineChoice:
    """Choose the engine for the model in `path`; nothing is opened.

    `auto` takes TensorRT for an `.engine` file. For an `.onnx` file it takes ONNX Runtime, whose
    pictures are those that the export compared, and OpenVINO only where that is what is
    installed: measured side by side, the two are within a tenth of each other in FP32 and INT8.

    Args:
        path: an `.onnx` or `.engine` file.
        engine: one of `ENGINES`.

    Raises:
        ModelError: the file is missing, or no engine loads it.
        EngineError: this engine does not load it, or none is installed.
    """
    path = existing_model(Path(path))
    fitting = _FITTING.get(path.suffix.lower())
    if fitting is None:
        raise ModelError(
            f"{path.name} is not a model that an engine loads",
            "an .onnx or .engine file",
            "export a run or a checkpoint with: p2p-export",
        )
    if engine in fitting:
        return EngineChoice(engine, f"{engine}: as asked")
    if engine != "auto":
        raise EngineError(
            f"engine {engine} cannot load {path.name}",
            f"engine {' or '.join(fitting)} for {path.suffix} files",
            "leave the engine to be chosen by the suffix: --engine auto",
        )
    if fitting == ("tensorrt",):
        return EngineChoice("tensorrt", "TensorRT: an .engine file")
    return _choose_for_onnx(path)


def open_engine(
    path: str | Path, engine: str = "auto", threads: int | None = None, streams: int = 1
) -> Engine:
    """Open the engine that runs the model in `path`.

    Args:
        path: an `.onnx` or `.engine` file.
        engine: one of `ENGINES`; `auto`: as `choose_engine` has it.
        threads: CPU threads of one inference; None: as many as there are physical cores, shared
            out among the streams, and one for a small network that is no slower with it
            (`runtime.engines.threads.one_is_enough`; ONNX Runtime only).
        streams: how many calls of `infer` should run at the same time, at least 1; an engine on
            a GPU does one at a time and says so in `Engine.streams`.

    Raises:
        ModelError: the file is missing, broken or not for this engine.
        EngineError: the engine's library or device is not here.
    """
    if streams < 1:
        raise ValueError(f"streams is {streams}, at least 1 is needed")
    path = Path(path)
    chosen = choose_engine(path, engine).engine
    if chosen == "tensorrt":
        from runtime.engines.trt import TrtEngine

        return TrtEngine(path)
    if chosen == "openvino":
        from runtime.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path, threads, streams)
    from runtime.engines.ort import OrtEngine
    from runtime.engines.ort_session import CUDA, TENSORRT

    provider = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}.get(chosen)
    opened = OrtEngine(path, threads, streams, provider)
    return opened if threads or streams > 1 else _on_one_thread_if_enough(opened, path, provider)


def _on_one_thread_if_enough(opened: OrtEngine, path: Path, provider: str | None) -> OrtEngine:
    """The engine, or another that runs the same model on one thread."""
    from runtime.engines.ort import OrtEngine

    # What a graph of any size costs is not known before its frames come.
    if opened.threads == 1 or opened.meta.dynamic:
        return opened
    frames = first_frames(opened.meta)
    if not is_small(partial(opened.infer, frames)):
        return opened
    alone = OrtEngine(path, threads=1, provider=provider)
    enough = one_is_enough(partial(opened.infer, frames), partial(alone.infer, frames))
    kept, other = (alone, opened) if enough else (opened, alone)
    other.close()
    return kept


def _choose_for_onnx(path: Path) -> EngineChoice:
    if not _is_installed("onnxruntime"):
        if _is_installed("openvino"):
            return EngineChoice(
                "openvino", "OpenVINO on the CPU: an .onnx file, and onnxruntime is not installed"
            )
        raise EngineError(
            f"{path.name} needs ONNX Runtime or OpenVINO, and neither is installed",
            "the package onnxruntime, onnxruntime-gpu or openvino",
            "pip install 'pix2pix-edge[cpu]'",
        )
    import onnxruntime as ort

    gpus, why_none = machine.gpus()
    if not gpus:
        reason = f"ONNX Runtime on the CPU: an .onnx file, and no NVIDIA GPU is here ({why_none})"
    elif "CUDAExecutionProvider" in ort.get_available_providers():
        reason = f"ONNX Runtime with CUDA: an .onnx file, and an {gpus[0].name} is here"
    else:
        reason = (
            f"ONNX Runtime on the CPU: an .onnx file, and this onnxruntime has no CUDA provider; "
            f"for the {gpus[0].name} here build an engine with: p2p-export {path.name}"
        )
    return EngineChoice("onnxruntime", reason)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # something in the way of the import says no
        return False
