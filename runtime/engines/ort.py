"""ONNX Runtime: the engine that runs everywhere."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta, meta_of_onnx
from runtime.buffers import FrameBuffers
from runtime.engines.base import (
    Port,
    changes_size,
    check_frames,
    described,
    does_not_run,
    first_frames,
    meta_of_graph,
    one_line,
    slow_form,
)
from runtime.engines.ort_session import CPU, CUDA, TENSORRT, OpenedSession, open_session
from runtime.engines.threads import threads_each, told_threads
from runtime.errors import EngineError, ModelError

_KINDS = {"float": "float32", "double": "float64"}


class OrtEngine:
    """Runs a frame-in frame-out ONNX file: on CUDA where that starts, else on the CPU.

    Args:
        path: an ONNX file: ours, or any whose one input and one output are uint8 [N, H, W, 3].
        threads: CPU threads of one inference; None: as many as there are physical cores, shared
            out among the streams.
        streams: inferences at the same time; a provider on a GPU does one.
        provider: `CPUExecutionProvider` or another that it must be; None: CUDA, else the CPU.

    Raises:
        ModelError: the file is missing, broken, or its inputs and outputs are not frames.
        EngineError: onnxruntime or the provider is not installed, or does not start.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        streams: int = 1,
        provider: str | None = None,
    ) -> None:
        meta = meta_of_onnx(path)
        ort = _library(path)
        threads = threads_each(threads, streams)
        opened = open_session(ort, path, meta, provider, threads, streams)
        session = opened.session
        inputs, outputs = (
            [Port(port.name, _kind(port.type), tuple(port.shape)) for port in ports]
            for ports in (session.get_inputs(), session.get_outputs())
        )
        self.meta = meta_of_graph(path, meta, inputs, outputs)
        self.streams = streams if opened.provider == CPU else 1
        self.threads = threads if opened.provider == CPU else 1
        """CPU threads of one inference; 1 where a GPU does the work."""
        self._session = session
        self._name = path.name
        self._names = inputs[0].name, outputs[0].name
        self._buffers = FrameBuffers()
        lane = _HostLane if opened.provider == CPU else _DeviceLane
        self._lanes: queue.SimpleQueue[_HostLane] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._lanes.put(lane(ort, session, *self._names))
        self.description = _describe(ort, path, self.meta, opened, threads, streams)
        # It warms up, and a graph may declare its output's size by a mere name.
        self.infer(first_frames(self.meta))

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch. A call beyond `streams` waits for another to end.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255; N, H and W as `Engine.infer` has them.

        Returns:
            uint8 of the same shape, in memory that is used again when nobody refers to it.

        Raises:
            FrameError: the frames are of another type, number or size.
            ModelError: the graph breaks on them, or gives frames of another size.
        """
        check_frames(frames, self.meta)
        if self._session is None:
            raise ValueError("the engine is closed")
        frames = np.ascontiguousarray(frames)
        translated = self._buffers.take_shape(frames.shape)
        lane = self._lanes.get()
        try:
            lane.run(frames, translated)
        except Exception as error:  # onnxruntime has a class for each status code
            self._check_size(frames)
            raise self._broke(frames, error) from error
        finally:
            self._lanes.put(lane)
        return translated

    def close(self) -> None:
        """Give back the session and its memory; no `infer` may be running."""
        self._lanes = queue.SimpleQueue()  # bindings first: they point into the session
        self._session = None

    def _check_size(self, frames: NDArray[np.uint8]) -> None:
        """Whether a graph runs but gives another size, which an array of ours does not hold.

        Raises:
            ModelError: it does.
        """
        try:
            result = self._session.run([self._names[1]], {self._names[0]: frames})[0]
        except Exception as error:
            raise self._broke(frames, error) from error
        if result.shape != frames.shape:
            raise changes_size(self._name, self.meta, frames.shape, result.shape)

    def _broke(self, frames: NDArray[np.uint8], error: Exception) -> ModelError:
        cause = one_line(error)
        return does_not_run("ONNX Runtime", self._name, self.meta, frames.shape, cause)


class _HostLane:
    """One inference at a time, from our memory into our memory.

    A binding holds addresses, no arrays: both are bound anew for each frame, which costs some
    microseconds, and no pixel is allocated or copied.
    """

    def __init__(self, ort: Any, session: Any, input_name: str, output_name: str) -> None:
        # Attributes go in this order, and what is bound must go before the session that owns it.
        self._binding = session.io_binding()
        self._session = session
        self._ort = ort
        self._input_name = input_name
        self._output_name = output_name

    def run(self, frames: NDArray[np.uint8], into: NDArray[np.uint8]) -> None:
        """Translate `frames` into an array of their shape; both C-contiguous."""
        self._bind_input(frames)
        self._binding.bind_output(
            self._output_name, "cpu", 0, np.uint8, into.shape, into.ctypes.data
        )
        self._session.run_with_iobinding(self._binding)

    def _bind_input(self, frames: NDArray[np.uint8]) -> None:
        self._binding.bind_input(
            self._input_name, "cpu", 0, np.uint8, frames.shape, frames.ctypes.data
        )


class _DeviceLane(_HostLane):
    """As `_HostLane`, with the input in device memory that is made once for a shape.

    ONNX Runtime copies the output into our array at the end of the run. Its Python interface
    has no pinned memory in the versions that are supported, so both copies are staged.
    """

    _frames: Any = None

    def _bind_input(self, frames: NDArray[np.uint8]) -> None:
        if self._frames is None or tuple(self._frames.shape()) != frames.shape:
            self._frames = self._ort.OrtValue.ortvalue_from_shape_and_type(
                frames.shape, np.uint8, "cuda", 0
            )
            self._binding.bind_ortvalue_input(self._input_name, self._frames)
        self._frames.update_inplace(frames)


def _library(path: Path) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise EngineError(
            f"{path.name} needs ONNX Runtime, which is not installed",
            "the package onnxruntime, or onnxruntime-gpu",
            "pip install 'pix2pix-edge[cpu]'",
        ) from error
    return ort


def _kind(told: str) -> str:
    """`uint8` of ONNX Runtime's `tensor(uint8)`."""
    kind = told.removeprefix("tensor(").removesuffix(")")
    return _KINDS.get(kind, kind)


def _describe(
    ort: Any, path: Path, meta: ArtifactMeta, opened: OpenedSession, threads: int, streams: int
) -> str:
    name = f"ONNX Runtime {ort.__version__}"
    if opened.provider != CPU:
        on = {CUDA: "CUDA", TENSORRT: "TensorRT provider"}[opened.provider]
        return described(f"{name}, {on}", meta)
    on_cpu = f"{name}, CPU, {told_threads(threads, streams)}"
    return described(on_cpu, meta, opened.note, slow_form(path, meta))
