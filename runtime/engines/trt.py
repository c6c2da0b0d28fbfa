"""TensorRT: the engine for GPUs, from a Jetson to a data centre.

TensorRT 10.3 to 11.4 and TensorRT-RTX through one path: named tensors, `execute_async_v3`. pycuda
gives the context, the memory and the stream. No machine with a GPU has run this file yet: the
tests put a simulated device in the place of both libraries.
"""

from __future__ import annotations

import importlib
import math
import re
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
from runtime.engines.base import GraphShape, check_frames, check_graph, described
from runtime.errors import EngineError, FrameError

_AMPERE = (8, 0)
"""The compute capability from which on engines run that are `hardware_compatible`."""


def runs_with(meta: ArtifactMeta, library: str) -> bool:
    """Whether this TensorRT loads the engine: the one that built it; a later one too, if it was
    built `version_compatible`.

    Source: NVIDIA TensorRT documentation, Engine Compatibility.

    Args:
        meta: of an engine.
        library: name and version, as in `ArtifactMeta.engine_library`.
    """
    built_by = meta.engine_library or ""
    if library == built_by:
        return True
    name, _, version = library.partition(" ")
    built_name, _, built_version = built_by.partition(" ")
    here, builder = _numbers(version), _numbers(built_version)
    later = bool(builder) and here >= builder
    return name == built_name and later and _is_built(meta, "version_compatible")


def runs_on(meta: ArtifactMeta, gpu: machine.Gpu | None) -> bool:
    """Whether the engine runs on this GPU: the one that it was built on; any from Ampere on, if
    it was built `hardware_compatible`; any at all, if it was built ahead.

    Args:
        meta: of an engine.
        gpu: None, where there is none: an engine that was built ahead waits for one.
    """
    if meta.gpu == BUILT_AHEAD:
        return True
    if gpu is None:
        return False
    from_ampere_on = _numbers(gpu.compute_capability) >= _AMPERE
    return meta.gpu == str(gpu) or (from_ampere_on and _is_built(meta, "hardware_compatible"))


class TrtEngine:
    """Runs an engine file of `p2p-export` on GPU 0, in the device's primary context.

    The context is shared with ONNX Runtime and PyTorch, and current only inside `__init__`,
    `infer` and `close`, so that any thread may call them, one at a time.

    Raises:
        ModelError: the engine or its JSON contract is missing or damaged, or they disagree.
        EngineError: TensorRT, pycuda or the GPU is missing, or not one that it was built for.
    """

    def __init__(self, path: Path) -> None:
        self.meta = meta_of_engine(path)
        trt, self._library = _library_of(path, self.meta)
        _check_gpu(path, self.meta)
        self._cuda = _pycuda(path)
        self._context: Any = self._cuda.Device(0).retain_primary_context()
        with self._current():
            self._engine = _deserialized(trt, path, self.meta)
            shape = _shape_of(self._engine)
            check_graph(path.name, self.meta, shape)
            self._any_shape = None in shape
            self._execution = self._engine.create_execution_context()
            self._stream = self._cuda.Stream()
            self._buffers = _Buffers(self._cuda)
            self._shape: tuple[int, ...] = ()
            self._take((self.meta.batch, *self.meta.frame_size_px, 3))
        self.description = described(f"{self._library}, {machine.gpus()[0][0].name}", self.meta)

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255; N, H and W as `Engine.infer` has them,
                and inside the range that a dynamic engine was built for.

        Returns:
            uint8 of the same shape; a new array, the caller's own.

        Raises:
            FrameError: the frames are of another type, number or size.
            EngineError: TensorRT refused to run, or the device has too little memory.
        """
        check_frames(frames, self.meta)
        with self._current():
            if frames.shape != self._shape:
                self._take(frames.shape)
            buffers = self._buffers
            host_in = buffers.host_in[: frames.size]
            host_out = buffers.host_out[: frames.size]
            np.copyto(host_in.reshape(frames.shape), frames)
            self._cuda.memcpy_htod_async(buffers.device_in, host_in, self._stream)
            if not self._execution.execute_async_v3(self._stream.handle):
                raise EngineError(
                    f"{self._library} refused to run the engine",
                    "an engine that was built on this machine",
                    "build it again with: p2p-export model.onnx",
                )
            self._cuda.memcpy_dtoh_async(host_out, buffers.device_out, self._stream)
            self._stream.synchronize()
            translated: NDArray[np.uint8] = host_out.reshape(frames.shape).copy()
            return translated

    def close(self) -> None:
        """Give back the engine, its memory and the context. May be called twice."""
        if self._context is None:
            return
        with self._current():
            self._buffers.free()
            self._execution = self._engine = self._stream = None
        self._context.detach()
        self._context = None

    def _take(self, shape: tuple[int, ...]) -> None:
        """Make ready for frames of this shape; the stream is idle."""
        self._shape = ()  # nothing is ready if one of these steps fails
        if self._any_shape and not self._execution.set_input_shape(INPUT_NAME, shape):
            least, _, most = self._engine.get_tensor_profile_shape(INPUT_NAME, 0)
            raise FrameError(
                f"the frames are uint8 {list(shape)}",
                f"from {list(least)} to {list(most)}, which the engine was built for",
                "resize them, or build an engine with a wider range with: p2p-export model.onnx",
            )
        size_bytes = math.prod(shape)
        if size_bytes > self._buffers.size_bytes:
            self._buffers.grow(size_bytes)
            self._execution.set_tensor_address(INPUT_NAME, int(self._buffers.device_in))
            self._execution.set_tensor_address(OUTPUT_NAME, int(self._buffers.device_out))
        self._shape = shape

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()


class _Buffers:
    """Memory for the largest batch seen, once on its way in and once on its way out.

    The host's side is pinned: copies to and from the device run at full speed, unstaged. Use it
    in a current context.

    Args:
        cuda: `pycuda.driver`.
    """

    host_in: Any
    host_out: Any
    device_in: Any
    device_out: Any

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._forget()

    def grow(self, size_bytes: int) -> None:
        """Replace all four; what they held is lost.

        Raises:
            EngineError: there is too little memory; then none is held.
        """
        self.free()
        try:
            self.device_in = self._cuda.mem_alloc(size_bytes)
            self.device_out = self._cuda.mem_alloc(size_bytes)
            self.host_in = self._cuda.pagelocked_empty(size_bytes, np.uint8)
            self.host_out = self._cuda.pagelocked_empty(size_bytes, np.uint8)
        except self._cuda.MemoryError as error:
            self.free()
            raise EngineError(
                f"there is no memory for frames of {size_bytes / 1e6:.0f} MB",
                "twice as much free memory on the GPU",
                "close other programs, or use smaller frames",
            ) from error
        self.size_bytes = size_bytes

    def free(self) -> None:
        """Give all memory back. May be called twice."""
        for held in (self.device_in, self.device_out):
            if held is not None:
                held.free()
        self._forget()

    def _forget(self) -> None:
        self.host_in = self.host_out = self.device_in = self.device_out = None
        self.size_bytes = 0


def _shape_of(engine: Any) -> GraphShape:
    """Frames, height and width that an engine takes; None where TensorRT says -1."""
    count, height, width, _ = (
        None if size < 0 else int(size) for size in engine.get_tensor_shape(INPUT_NAME)
    )
    return count, height, width


def _library_of(path: Path, meta: ArtifactMeta) -> tuple[Any, str]:
    """A TensorRT that loads the engine, and its name with version."""
    name = (meta.engine_library or "").partition(" ")[0]
    try:
        trt = importlib.import_module(name) if name in ("tensorrt", "tensorrt_rtx") else None
    except ImportError:
        trt = None
    found = f"no {name}" if trt is None else f"{name} {trt.__version__}"
    if trt is None or not runs_with(meta, found):
        portable = _is_built(meta, "version_compatible")
        raise EngineError(
            f"{path.name} was built by {meta.engine_library}, and here is {found}",
            "the same version" + (" or a later one" if portable else ""),
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )
    return trt, found


def _check_gpu(path: Path, meta: ArtifactMeta) -> None:
    gpus, why_none = machine.gpus()
    if not gpus:
        raise EngineError(
            f"{path.name} needs an NVIDIA GPU: {why_none}",
            "a GPU with its driver",
            f"run the ONNX file instead: {path.with_suffix('.onnx').name}",
        )
    if not runs_on(meta, gpus[0]):
        portable = _is_built(meta, "hardware_compatible")
        raise EngineError(
            f"{path.name} was built on {meta.gpu}, and here is {gpus[0]}",
            "a GPU of compute 8.0 or more" if portable else "the GPU that it was built on",
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )


def _is_built(meta: ArtifactMeta, option: str) -> bool:
    return isinstance(meta.build, dict) and meta.build.get(option) is True


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; none in what is no version."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


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


def _deserialized(trt: Any, path: Path, meta: ArtifactMeta) -> Any:
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    if _is_built(meta, "version_compatible"):
        # Such an engine brings the runtime of its builder with it: code, so allow no other.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot load {path.name}",
            "a whole engine file for this GPU",
            f"build it here with: p2p-export {path.with_suffix('.onnx').name}",
        )
    return engine
