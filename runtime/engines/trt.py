"""TensorRT: the engine for GPUs, from a Jetson to a data centre.

TensorRT 10.3 to 11.4 and TensorRT-RTX through one path: named tensors, `execute_async_v3`. pycuda
gives the context, the memory, the stream and the events; cuda-bindings captures CUDA graphs.
No machine with a GPU has run this file yet: `tests/test_gpu_trt.py` is for one that has it; where
there is none, the tests put a simulated device in the place of these libraries.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import INPUT_NAME, meta_of_engine, sha256_of
from runtime.buffers import FrameBuffers
from runtime.engines import trt_fit
from runtime.engines.base import check_frames, described
from runtime.engines.trt_device import NON_BLOCKING, PrimaryContext, integrated, pycuda_driver
from runtime.engines.trt_fit import runs_on, runs_with
from runtime.engines.trt_graph import CaptureRefusedError
from runtime.engines.trt_lane import FrameLane, Lanes, Launches, Shape
from runtime.engines.trt_memory import MEMORIES, StagedMemory
from runtime.engines.trt_rtx import RtxExecution, cache_path
from runtime.engines.trt_times import DeviceTimes, Stopwatch
from runtime.errors import EngineError, FrameError
from runtime.machine import Gpu

__all__ = ["DeviceTimes", "Launches", "TrtEngine", "runs_on", "runs_with"]

_WARM_UPS = 2
_TIMED_RUNS = 7


class TrtEngine:
    """Runs an engine file of `p2p-export` on GPU 0, in the device's primary context.

    The context is shared with ONNX Runtime and PyTorch, and current only inside the methods, so
    that any thread may call them, one at a time.

    Args:
        path: the engine; its contract lies beside it.
        graph: whether a CUDA graph may be captured.
        memory: `staged` (pinned memory and copies) or `mapped` (the GPU uses the host's memory);
            None: staged over a bus; where GPU and CPU share their memory, the faster of the two,
            which is found by timing both.

    Raises:
        ModelError: the engine or its JSON contract is missing or damaged, or they disagree.
        EngineError: TensorRT, pycuda or the GPU is missing, or not one that it was built for.
    """

    streams = 1
    """How many `infer` calls may run at once."""

    def __init__(self, path: Path, *, graph: bool = True, memory: str | None = None) -> None:
        self.meta = meta_of_engine(path)
        self._trt, self._library = trt_fit.library_for(path, self.meta)
        gpu = trt_fit.gpu_for(path, self.meta)
        trt_fit.check_file(path, self.meta)
        self._cuda = pycuda_driver(path.name)
        self.graph = "off"
        """What became of the CUDA graph of the size seen last for the first time: `captured`,
        `by TensorRT-RTX`, `off`, or `refused: REASON`."""
        self.launches = Launches()
        self._pictures = FrameBuffers()
        self._times: list[DeviceTimes] | None = None
        self._parts = True
        self._lanes = Lanes(self._make_lane, _NoMemoryError)
        self._engine: Any = None
        self._rtx: RtxExecution | None = None
        self._stream: Any = None
        self._stopwatch: Stopwatch | None = None
        self.memory: str = StagedMemory.kind
        """`staged` or `mapped`: how frames reach the GPU."""
        self._context = PrimaryContext(self._cuda)
        try:
            with self._context.current():
                notes = self._open(path, gpu, graph, memory)
        except BaseException as error:
            _forget_locals(error)
            self.close()
            raise
        self.description = described(
            f"{self._library}, {gpu.name}", self.meta, "; ".join(filter(None, notes))
        )

    def infer(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate a batch.

        Args:
            frames: uint8 [N, H, W, 3], BGR, 0 to 255; N, H and W as `Engine.infer` has them,
                and inside the range that a dynamic engine was built for.

        Returns:
            uint8 of the same shape, the caller's own; its memory is used again once nobody
            refers to it.

        Raises:
            FrameError: the frames are of another type, number or size.
            EngineError: TensorRT refused to run, the GPU failed or has too little memory.
        """
        check_frames(frames, self.meta)
        with self._context.current():
            lane = self._lanes.of(frames.shape)
            np.copyto(lane.memory.host_in, frames)
            if self._times is None:
                lane.run(self.launches)
                self._stream.synchronize()
            else:
                assert self._stopwatch is not None
                self._times.append(lane.timed(self.launches, self._stopwatch, self._parts))
            translated = self._pictures.take_shape(frames.shape)
            np.copyto(translated, lane.memory.host_out)
            return translated

    @contextmanager
    def measured(self, parts: bool = True) -> Iterator[list[DeviceTimes]]:
        """Time each batch on the GPU, between events.

        Args:
            parts: copy in, compute and copy out each for itself, which goes past a CUDA graph;
                False: as it runs otherwise, where a graph is one launch whose parts nobody knows.

        Yields:
            A list to which each `infer` in the body adds its times.
        """
        times: list[DeviceTimes] = []
        self._times, self._parts = times, parts
        try:
            yield times
        finally:
            self._times = None

    def close(self) -> None:
        """Give back graphs, memory, events, the engine and the context. May be called twice."""
        if self._context.released:
            return
        # A GPU that failed was told of by the call that met it: here all goes back that can.
        with suppress(EngineError), self._context.current():
            with suppress(self._cuda.Error):
                if self._stream is not None:
                    self._stream.synchronize()
                if self._rtx is not None:
                    self._rtx.save()
            self._lanes.free()
            self._stopwatch = self._rtx = self._engine = self._stream = None
        self._context.release()

    def _open(self, path: Path, gpu: Gpu, graph: bool, memory: str | None) -> tuple[str, ...]:
        """Make all that frames of the contract's size need; what the description says of it."""
        self._logger = trt_fit.reasons_of(self._trt)
        self._engine = trt_fit.loaded(self._trt, path, self.meta, self._logger)
        trt_fit.check_tensors(self._trt, path, self.meta, self._engine)
        self._any_shape = trt_fit.is_any_shape(self._engine)
        if self._library.startswith("tensorrt_rtx"):
            kernels = cache_path(sha256_of(path), self._library, str(gpu))
            self._rtx = RtxExecution(self._trt, self._engine, kernels, graph)
        self._capture = graph
        if self._rtx is not None and self._rtx.own_graphs:
            self._capture = False
            self.graph = "by TensorRT-RTX"
        self._stopwatch = Stopwatch(self._cuda)
        self._stream = self._cuda.Stream(NON_BLOCKING)
        shape = (self.meta.batch, *self.meta.frame_size_px, 3)
        self.memory, found = self._choose_memory(memory, shape)
        self._lanes.of(shape)
        if self._rtx is not None:
            self._rtx.save()
        return f"CUDA graph {self.graph}", found, self._rtx.note if self._rtx else ""

    def _choose_memory(self, asked: str | None, shape: Shape) -> tuple[str, str]:
        """`staged` or `mapped`, and what the description says of it."""
        if asked is not None:
            return asked, f"{asked} memory"
        if not integrated(self._cuda, self._context.device):
            return StagedMemory.kind, ""
        took_ms = {kind: self._time_memory(kind, shape) for kind in MEMORIES}
        first, second = sorted(took_ms, key=took_ms.__getitem__)
        return first, f"{first} memory ({took_ms[first]:.2f} ms, {second} {took_ms[second]:.2f})"

    def _time_memory(self, kind: str, shape: Shape) -> float:
        """Milliseconds from the first copy to the last, the median of a few runs."""
        assert self._stopwatch is not None
        lane = self._bare_lane(kind, shape)
        try:
            for _ in range(_WARM_UPS):
                lane.enqueue()
            self._stream.synchronize()
            runs = [lane.time_parts(self._stopwatch) for _ in range(_TIMED_RUNS)]
            return median(run.latency_ms for run in runs)
        finally:
            self._drop(lane)

    def _make_lane(self, shape: Shape) -> FrameLane:
        """A lane that ran once, with a graph where it can be captured."""
        lane = self._bare_lane(self.memory, shape)
        with ExitStack() as taken:
            taken.callback(self._drop, lane)
            self._run_once(lane)
            if self._capture:
                self._capture_graph(lane)
            taken.pop_all()
        return lane

    def _bare_lane(self, kind: str, shape: Shape) -> FrameLane:
        if self._rtx is not None:
            execution = self._rtx.create_context(self._engine)
        else:
            execution = self._engine.create_execution_context()
        if execution is None:  # TensorRT's answer where its scratch memory does not fit
            raise _NoMemoryError(shape)
        if self._any_shape and not execution.set_input_shape(INPUT_NAME, shape):
            least, _, most = self._engine.get_tensor_profile_shape(INPUT_NAME, 0)
            raise FrameError(
                f"the frames are uint8 {list(shape)}",
                f"from {list(least)} to {list(most)}, which the engine was built for",
                "resize them, or build an engine with a wider range with: p2p-export model.onnx",
            )
        try:
            memory = MEMORIES[kind](self._cuda, shape)
        except self._cuda.MemoryError as error:
            raise _NoMemoryError(shape) from error
        return FrameLane(execution, memory, self._stream, self._refusal)

    def _drop(self, lane: FrameLane) -> None:
        """Give a lane back once nothing that was queued up uses its memory."""
        with suppress(self._cuda.Error):  # what broke the stream is on its way to the caller
            self._stream.synchronize()
        lane.free()

    def _capture_graph(self, lane: FrameLane) -> None:
        self._logger.take_reason()
        try:
            lane.capture()
            if reason := self._logger.take_reason():
                lane.drop_graph()
                raise CaptureRefusedError(reason)
        except CaptureRefusedError as refusal:
            self.graph = f"refused: {refusal}"
            self._run_once(lane)  # the stream takes plain calls again, or here is where it fails
        else:
            self.graph = "captured"

    def _run_once(self, lane: FrameLane) -> None:
        lane.enqueue()
        self._stream.synchronize()

    def _refusal(self, what: str) -> EngineError:
        reason = self._logger.take_reason()
        return EngineError(
            f"{self._library} refused to {what}" + (f" ({reason})" if reason else ""),
            "an engine that was built on this machine",
            "build it again with: p2p-export model.onnx",
        )


def _forget_locals(error: BaseException | None) -> None:
    """Let go of what the frames of an exception refer to: a stream goes back in its context alone,
    not when somebody forgets the exception."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class _NoMemoryError(EngineError):
    """The GPU or the host has no room for frames of a size."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(
            f"there is no memory for frames of {math.prod(shape) / 1e6:.0f} MB",
            "memory on the GPU for them, twice over, and for the engine's work",
            "close other programs, or use smaller frames",
        )
