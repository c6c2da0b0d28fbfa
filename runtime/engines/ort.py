"""ONNX Runtime: the engine that runs everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta, meta_of_onnx
from runtime.errors import EngineError, ModelError

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3


class OrtEngine:
    """Runs a frame-in frame-out ONNX file: on CUDA where that starts, else on the CPU.

    Args:
        path: an ONNX file: ours, or any whose one input and one output are uint8 [N, H, W, 3].
        threads: CPU threads of one inference; None: as many as there are physical cores.

    Raises:
        ModelError: the file is missing, broken, or its inputs and outputs are not frames.
        EngineError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        meta = meta_of_onnx(path)
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise EngineError(
                f"{path.name} needs ONNX Runtime, which is not installed",
                "the package onnxruntime, or onnxruntime-gpu",
                "pip install 'pix2pix-edge[cpu]'",
            ) from error
        threads = threads or physical_cores()
        self._session = _open_session(ort, path, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        frame_size_px = _frame_size_px(path, inputs, outputs)
        self.meta = meta or _meta_of_stranger(path, frame_size_px)
        if self.meta.frame_size_px != frame_size_px:
            raise ModelError(
                f"{path.name} says frames of {self.meta.frame_size_px}, its graph takes "
                f"{frame_size_px}",
                "the file as p2p-export wrote it",
                "export it again with: p2p-export",
            )
        self._input_name: str = inputs[0].name
        self._output_names: list[str] = [outputs[0].name]
        self.description = _describe(ort, self._session.get_providers(), threads)
        self._try_one_frame(path)

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate uint8 [1, H, W, 3]; a new array of the same shape, the caller's own."""
        result: NDArray[np.uint8] = self._session.run(
            self._output_names, {self._input_name: frames}
        )[0]
        return result

    def close(self) -> None:
        """Give back the session and its memory."""
        self._session = None

    def _try_one_frame(self, path: Path) -> None:
        """Run once: it warms up, and a graph may declare its output's size by a mere name."""
        frames = np.zeros((1, *self.meta.frame_size_px, 3), np.uint8)
        try:
            result = self.infer(frames)
        except Exception as error:  # onnxruntime has a class for each status code
            raise ModelError(
                f"ONNX Runtime cannot run {path.name}: {error}",
                f"a graph that takes uint8 {list(frames.shape)}",
                "export it again with: p2p-export",
            ) from error
        if result.shape != frames.shape:
            raise ModelError(
                f"{path.name} turns frames of {list(frames.shape)} into {list(result.shape)}",
                "frames of the same size out as in",
                "wrap an image model with: p2p-export FILE.onnx",
            )


def physical_cores() -> int:
    """Cores that this process may run on; two hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // 2)
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def _open_session(ort: Any, path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # Threads spin while a frame is on its way through the graph, and leave the cores to the
    # camera and the sink between two frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = [_CPU]
    if _CUDA in ort.get_available_providers():
        providers.insert(0, _CUDA)
        if hasattr(ort, "preload_dlls"):  # since 1.21: CUDA and cuDNN out of pip's packages
            ort.preload_dlls()
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has a class for each status code
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}",
            "a whole ONNX file with operators that this version knows",
            "export it again with: p2p-export",
        ) from error


def _describe(ort: Any, providers: list[str], threads: int) -> str:
    name = f"ONNX Runtime {ort.__version__}"
    if providers[0] == _CUDA:
        return f"{name}, CUDA"
    on_cpu = f"{name}, CPU, {threads} thread{'s' if threads > 1 else ''}"
    if _CUDA in ort.get_available_providers():
        return f"{on_cpu} (its CUDA provider is installed but did not start: p2p-doctor tells why)"
    return on_cpu


def _frame_size_px(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[int, int]:
    """(height, width) of the graph's frames.

    Raises:
        ModelError: inputs and outputs are not frames.
    """
    if len(inputs) == len(outputs) == 1 and _is_frames(inputs[0]) and _is_frames(outputs[0]):
        _, height, width, _ = inputs[0].shape
        _, out_height, out_width, _ = outputs[0].shape
        same = all(
            not isinstance(out, int) or out == size
            for out, size in ((out_height, height), (out_width, width))
        )
        if isinstance(height, int) and isinstance(width, int) and same:
            return height, width
    raise ModelError(
        f"{path.name} has inputs {_told(inputs)} and outputs {_told(outputs)}",
        "one input uint8 [1, H, W, 3] with H and W fixed, and one output of the same shape",
        "wrap a float NCHW image model with: p2p-export FILE.onnx",
    )


def _is_frames(value: Any) -> bool:
    shape = value.shape
    return (
        value.type == "tensor(uint8)"
        and len(shape) == 4
        and (shape[0] == 1 or not isinstance(shape[0], int))
        and (shape[3] == 3 or not isinstance(shape[3], int))
    )


def _told(values: Sequence[Any]) -> str:
    return ", ".join(
        f"{value.name}: {value.type.removeprefix('tensor(').removesuffix(')')} {value.shape}"
        for value in values
    )


def _meta_of_stranger(path: Path, frame_size_px: tuple[int, int]) -> ArtifactMeta:
    """What can be known of an ONNX file that keeps the contract and does not say who made it."""
    return ArtifactMeta(
        generator="unknown",
        precision="fp32",
        frame_size_px=frame_size_px,
        network_size_px=frame_size_px,
        opset=0,
        source=path.name,
        source_sha256="",
    )
