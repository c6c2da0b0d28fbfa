"""OpenVINO: an engine for processors, as an extra."""

from __future__ import annotations

import queue
import re
from functools import cache
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
    does_not_load,
    does_not_run,
    first_frames,
    meta_of_graph,
    one_line,
    slow_form,
)
from runtime.engines.model_cache import (
    ModelCache,
    check_room,
    keeps_weights_elsewhere,
    key_of,
    processor,
)
from runtime.engines.threads import threads_each, told_threads
from runtime.errors import EngineError, ModelError, UserError

_DEVICE = "CPU"


class OpenVinoEngine:
    """Runs a frame-in frame-out ONNX file with OpenVINO on the CPU.

    Its arithmetic is FP32 for every file: the library would take bfloat16 or FP16 on a processor
    that has it, and then draw another picture than the one that was compared at the export. INT8
    runs in INT8 where the file is written for the CPU.

    Args:
        path: an ONNX file: ours, or any whose one input and one output are uint8 [N, H, W, 3].
        threads: CPU threads of one inference; None: as many as there are physical cores, shared
            out among the streams.
        streams: inferences at the same time.

    Raises:
        ModelError: the file is missing, broken, or its inputs and outputs are not frames.
        EngineError: openvino is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None, streams: int = 1) -> None:
        meta = meta_of_onnx(path)
        self._ov = _library(path)
        version = str(self._ov.__version__).partition("-")[0]
        self._library = f"OpenVINO {version}"
        threads = threads_each(threads, streams)
        self._path = path
        self._options = compile_options(meta, threads, streams)
        self._compiled, note = self._compile()
        inputs, outputs = (
            [_port(port) for port in ports]
            for ports in (self._compiled.inputs, self._compiled.outputs)
        )
        self.meta = meta_of_graph(path, meta, inputs, outputs)
        self.streams = streams
        self._buffers = FrameBuffers()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(self._compiled.create_infer_request())
        self.description = described(
            f"{self._library}, CPU, {told_threads(threads, streams)}",
            self.meta,
            note,
            slow_form(path, self.meta),
        )
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
        if self._compiled is None:
            raise ValueError("the engine is closed")
        frames = np.ascontiguousarray(frames)
        translated = self._buffers.take_shape(frames.shape)
        request = self._requests.get()
        try:
            became = self._run(request, frames, translated)
        except Exception as error:  # openvino raises what its C++ threw
            try:
                self._check_size(frames)
            finally:
                # A graph that broke keeps what it had worked out of the frames' size, and breaks
                # on good frames, too.
                self._compiled, _ = self._compile()
                request = self._compiled.create_infer_request()
            raise self._broke(frames, error) from error
        finally:
            self._requests.put(request)
        if became != frames.shape:
            raise changes_size(self._path.name, self.meta, frames.shape, became)
        return translated

    def close(self) -> None:
        """Give back the compiled model and its memory; no `infer` may be running."""
        self._compiled = None
        self._requests = queue.SimpleQueue()

    def _run(
        self, request: Any, frames: NDArray[np.uint8], into: NDArray[np.uint8]
    ) -> tuple[int, ...]:
        """Translate `frames` into an array of their shape, or tell the shape that came out."""
        tensor = self._ov.Tensor
        request.set_input_tensor(0, tensor(frames, shared_memory=True))
        request.set_output_tensor(0, tensor(into, shared_memory=True))
        request.start_async()  # `infer` would put the result into a dictionary of new arrays
        request.wait()
        return tuple(request.get_output_tensor(0).shape)

    def _check_size(self, frames: NDArray[np.uint8]) -> None:
        """Whether a graph runs but gives another size, which an array of ours does not hold.

        Raises:
            ModelError: it does.
        """
        request = self._compiled.create_infer_request()
        request.set_input_tensor(0, self._ov.Tensor(frames, shared_memory=True))
        try:
            request.start_async()
            request.wait()
        except RuntimeError as error:
            raise self._broke(frames, error) from error
        became = tuple(request.get_output_tensor(0).shape)
        if became != frames.shape:
            raise changes_size(self._path.name, self.meta, frames.shape, became)

    def _broke(self, frames: NDArray[np.uint8], error: Exception) -> ModelError:
        cause = _cause(error)
        return does_not_run(self._library, self._path.name, self.meta, frames.shape, cause)

    def _compile(self) -> tuple[Any, str]:
        """The compiled model, from the cache where it is whole, else kept there; and a note.

        OpenVINO takes a damaged form without a word and draws another picture with it, so that a
        form counts only under the seal that it got when it was whole and on the disk.
        """
        note = ""
        try:
            cache = ModelCache("openvino")
            key = key_of(self._path, self._library, str(self._options), processor())
            if entry := cache.find(key):
                try:
                    return self._compile_in(entry), note
                except RuntimeError:  # damaged in a way that its seal does not show
                    cache.discard(key)
            if not keeps_weights_elsewhere(self._path):
                with cache.make(key) as folder:
                    check_room(folder, self._path.stat().st_size)
                    compiled = self._compile_in(folder)
                return compiled, note
        except UserError as error:
            note = f"starts slowly, its compiled form was not kept: {error.received}"
        except RuntimeError as error:  # it could not be written; else the model is to blame
            note = f"its compiled form was not kept: {_cause(error)}"
        try:
            return self._compile_in(None), note
        except RuntimeError as error:
            raise does_not_load(self._library, self._path.name, _cause(error)) from error

    def _compile_in(self, folder: Path | None) -> Any:
        """The compiled model, which OpenVINO takes from this folder or writes into it."""
        kept = {} if folder is None else {"CACHE_DIR": str(folder)}
        return _core(self._ov).compile_model(str(self._path), _DEVICE, {**self._options, **kept})


@cache
def _core(ov: Any) -> Any:
    """The one core of this process, which is never given back.

    Its CPU plugin puts a signal stack of its own under the thread that compiles first. Given back
    in another thread, it would take that stack away from under the first one, whose next signal,
    such as Ctrl-C, then kills the process.
    """
    return ov.Core()


def compile_options(meta: ArtifactMeta | None, threads: int, streams: int) -> dict[str, Any]:
    """Properties that a model is compiled with.

    Source: OpenVINO documentation, CPU device and Performance Hints. `LP_TRANSFORMS_MODE` is the
    CPU plugin's own switch of the transformations that make INT8 kernels of Q/DQ. They stay for
    files that are written for the CPU only: on a processor without VNNI, weights of full eight
    bits overflow their 16-bit sums (measured: TensorRT's form of a U-Net 14 grey levels off, and
    0.6 without them).

    Args:
        meta: what the file says of itself; None for a stranger's.
        threads: CPU threads of one inference.
        streams: inferences at the same time.
    """
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": streams,
    }
    if meta is None or meta.target != "cpu":
        options["LP_TRANSFORMS_MODE"] = "NO"
    return options


def _library(path: Path) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            f"engine openvino cannot run {path.name}: OpenVINO is not installed",
            "the package openvino",
            "pip install 'pix2pix-edge[openvino]'; or use --engine auto",
        ) from error
    return openvino


def _cause(error: Exception) -> str:
    """What OpenVINO says without the places in its own sources, each of which adds a line."""
    return re.sub(r"((Caught exception: )?Exception from [^\s:]+:\d+: )+", "", one_line(error))


def _port(port: Any) -> Port:
    names = port.get_names()
    sizes = tuple(
        None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()
    )
    return Port(min(names, default="unnamed"), port.get_element_type().to_dtype().name, sizes)
