"""TensorRT: the engine for GPUs, from a Jetson to a data centre.

TensorRT 10.3 to 11.4 and TensorRT-RTX through one path: named tensors, `execute_async_v3`. pycuda
gives the context, the memory and the stream. No machine with a GPU has run this file yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import machine
from runtime.artifact import (
    BUILT_AHEAD,
    INPUT_NAME,
    OUTPUT_NAME,
    ArtifactMeta,
    meta_of_engine,
)
from runtime.errors import EngineError


class TrtEngine:
    """Runs an engine file of `p2p-export` on GPU 0, in the device's primary context.

    The context is shared with ONNX Runtime and PyTorch, and current only inside `__init__`,
    `infer` and `close`, so that any thread may call them, one at a time.

    Raises:
        ModelError: the engine or its JSON contract is missing or damaged.
        EngineError: TensorRT, pycuda or the GPU is missing, or not the one it was built for.
    """

    def __init__(self, path: Path) -> None:
        self.meta = meta_of_engine(path)
        trt = _library_of(path, self.meta)
        _check_gpu(path, self.meta)
        self._cuda = _pycuda(path)
        self._context: Any = self._cuda.Device(0).retain_primary_context()
        with self._current():
            self._engine = _deserialized(trt, path)
            self._execution = self._engine.create_execution_context()
            shape = (1, *self.meta.frame_size_px, 3)
            # Pinned memory: the copies to and from the device run at full speed, unstaged.
            self._host_in = self._cuda.pagelocked_empty(shape, np.uint8)
            self._host_out = self._cuda.pagelocked_empty(shape, np.uint8)
            self._device_in = self._cuda.mem_alloc(self._host_in.nbytes)
            self._device_out = self._cuda.mem_alloc(self._host_out.nbytes)
            self._stream = self._cuda.Stream()
            self._execution.set_tensor_address(INPUT_NAME, int(self._device_in))
            self._execution.set_tensor_address(OUTPUT_NAME, int(self._device_out))
        self.description = f"{self.meta.engine_library}, {machine.gpus()[0][0].name}"

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate uint8 [1, H, W, 3]; a new array of the same shape, the caller's own."""
        with self._current():
            np.copyto(self._host_in, frames)
            self._cuda.memcpy_htod_async(self._device_in, self._host_in, self._stream)
            if not self._execution.execute_async_v3(self._stream.handle):
                raise EngineError(
                    f"{self.meta.engine_library} refused to run the engine",
                    "an engine that was built on this machine",
                    "build it again with: p2p-export model.onnx",
                )
            self._cuda.memcpy_dtoh_async(self._host_out, self._device_out, self._stream)
            self._stream.synchronize()
            return self._host_out.copy()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Give back the engine, its memory and the context. May be called twice."""
        if self._context is None:
            return
        with self._current():
            self._device_in.free()
            self._device_out.free()
            self._execution = self._engine = self._stream = None
            self._host_in = self._host_out = None
        self._context.detach()
        self._context = None

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()


def _library_of(path: Path, meta: ArtifactMeta) -> Any:
    """The TensorRT that built the engine: an engine loads in its own version alone."""
    name, _, version = (meta.engine_library or "").partition(" ")
    try:
        trt = importlib.import_module(name) if name in ("tensorrt", "tensorrt_rtx") else None
    except ImportError:
        trt = None
    found = None if trt is None else trt.__version__
    if found != version:
        raise EngineError(
            f"{path.name} was built by {meta.engine_library}, and here is "
            + (f"{name} {found}" if found else f"no {name}"),
            "the same version",
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )
    return trt


def _check_gpu(path: Path, meta: ArtifactMeta) -> None:
    gpus, why_none = machine.gpus()
    if not gpus:
        raise EngineError(
            f"{path.name} needs an NVIDIA GPU: {why_none}",
            "a GPU with its driver",
            f"run the ONNX file instead: {path.with_suffix('.onnx').name}",
        )
    if meta.gpu not in (BUILT_AHEAD, str(gpus[0])):
        raise EngineError(
            f"{path.name} was built on {meta.gpu}, and here is {gpus[0]}",
            "the GPU that it was built on",
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )


def _pycuda(path: Path) -> Any:
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise EngineError(
            f"{path.name} needs pycuda, which does not load here ({error})",
            "the package pycuda",
            "pip install 'pix2pix-edge[gpu]' (on a Jetson: 'pix2pix-edge[jetson]')",
        ) from error
    cuda.init()
    return cuda


def _deserialized(trt: Any, path: Path) -> Any:
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot load {path.name}",
            "a whole engine file for this GPU",
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )
    return engine
