"""ONNX Runtime: the engine that runs everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta, meta_of_onnx
from runtime.engines.base import GraphShape, check_frames, check_graph, described
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
        shape = _shape_of(path, inputs, outputs)
        if meta is None:
            meta = _meta_of_stranger(path, inputs, outputs, shape)
        check_graph(path.name, meta, shape)
        self.meta = meta
        self._name = path.name
        self._input_name: str = inputs[0].name
        self._output_names: list[str] = [outputs[0].name]
        self.description = _describe(ort, path, meta, self._session.get_providers(), threads)
        # It warms up, and a graph may declare its output's size by a mere name.
        self.infer(np.zeros((1 if meta.dynamic else meta.batch, *meta.frame_size_px, 3), np.uint8))

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255; N, H and W as `Engine.infer` has them.

        Returns:
            uint8 of the same shape; a new array, the caller's own.

        Raises:
            FrameError: the frames are of another type, number or size.
            ModelError: the graph breaks on them, or gives frames of another size.
        """
        check_frames(frames, self.meta)
        run = self._session.run
        try:
            result: NDArray[np.uint8] = run(self._output_names, {self._input_name: frames})[0]
        except Exception as error:  # onnxruntime has a class for each status code
            raise ModelError(
                f"ONNX Runtime cannot run {self._name}: {_one_line(error)}",
                f"a graph that takes uint8 {list(frames.shape)}",
                "export it again with: p2p-export" + self._another_size(frames),
            ) from error
        if result.shape != frames.shape:
            raise ModelError(
                f"{self._name} turns frames of {list(frames.shape)} into {list(result.shape)}",
                "frames of the same size out as in",
                "wrap an image model with: p2p-export FILE.onnx" + self._another_size(frames),
            )
        return result

    def close(self) -> None:
        """Give back the session and its memory."""
        self._session = None

    def _another_size(self, frames: NDArray[np.uint8]) -> str:
        """What also mends it where only some sizes break: a padding wider than a small frame."""
        height, width = self.meta.frame_size_px
        if frames.shape[1:3] == (height, width):
            return ""
        return f", or give it frames nearer to {width}x{height}"


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
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {_one_line(error)}",
            "a whole ONNX file with operators that this version knows",
            "export it again with: p2p-export",
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _describe(ort: Any, path: Path, meta: ArtifactMeta, providers: list[str], threads: int) -> str:
    name = f"ONNX Runtime {ort.__version__}"
    if providers[0] == _CUDA:
        return described(f"{name}, CUDA", meta)
    on_cpu = f"{name}, CPU, {threads} thread{'s' if threads > 1 else ''}"
    if _CUDA in ort.get_available_providers():
        on_cpu += " (its CUDA provider is installed but did not start: p2p-doctor tells why)"
    note = ""
    if meta.precision == "int8" and meta.target == "tensorrt":
        fast = path.with_suffix(".cpu.onnx").name
        note = f"INT8 in TensorRT's form: {fast} is the fast one here"
    return described(on_cpu, meta, note)


def _shape_of(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> GraphShape:
    """Frames, height and width that the graph takes; None where they are mere names.

    Raises:
        ModelError: inputs and outputs are not frames, or not of one shape.
    """
    if len(inputs) == len(outputs) == 1 and _is_frames(inputs[0]) and _is_frames(outputs[0]):
        count, height, width = (_fixed(size) for size in inputs[0].shape[:3])
        out_count, out_height, out_width = (_fixed(size) for size in outputs[0].shape[:3])
        count = out_count if count is None else count
        if (
            out_count in (None, count)
            and out_height in (None, height)
            and out_width in (None, width)
        ):
            return count, height, width
    raise _no_frames(path, inputs, outputs)


def _is_frames(value: Any) -> bool:
    shape = value.shape
    return (
        value.type == "tensor(uint8)"
        and len(shape) == 4
        and all(size >= 1 for size in shape if isinstance(size, int))
        and _fixed(shape[3]) in (None, 3)
    )


def _fixed(size: int | str | None) -> int | None:
    """A size that the graph fixes; None for a name, or for nothing said."""
    return size if isinstance(size, int) else None


def _no_frames(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> ModelError:
    return ModelError(
        f"{path.name} has inputs {_told(inputs)} and outputs {_told(outputs)}",
        "one input uint8 [N, H, W, 3] with H and W fixed, and one output of the same shape",
        "wrap a float NCHW image model with: p2p-export FILE.onnx",
    )


def _told(values: Sequence[Any]) -> str:
    return ", ".join(
        f"{value.name}: {value.type.removeprefix('tensor(').removesuffix(')')} {value.shape}"
        for value in values
    )


def _meta_of_stranger(
    path: Path, inputs: Sequence[Any], outputs: Sequence[Any], shape: GraphShape
) -> ArtifactMeta:
    """What can be known of an ONNX file that keeps the contract and does not say who made it.

    Raises:
        ModelError: height or width are left open: which ones it can do, no one says.
    """
    count, height, width = shape
    if height is None or width is None:
        raise _no_frames(path, inputs, outputs)
    return ArtifactMeta(
        generator="unknown",
        precision="fp32",
        frame_size_px=(height, width),
        network_size_px=(height, width),
        opset=0,
        source=path.name,
        source_sha256="",
        batch=count or 1,
    )
