"""The peers that run the graph as torch exports it: ONNX Runtime, OpenVINO, a plain script.

The CUDA ways were written after the documentation and never run: no machine here has a GPU.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.plain_loop import PlainNetwork
from benchmarks.peers.rows import CUDA, FP16, Asked, PeerRow, noise, told_failure
from benchmarks.peers.trials import fastest
from runtime.engines.ort_session import CPU as ORT_CPU
from runtime.engines.ort_session import CUDA as ORT_CUDA
from runtime.engines.ort_session import cuda_options
from runtime.engines.threads import told_threads
from runtime.errors import EngineError
from runtime.frame import Image, resized

_SPINNING = (
    "session.force_spinning_stop: its threads sleep at the end of a call, as in our own sessions, "
    "where they would else spin into the next row's turn; a call then starts with waking them"
)


# ------------------------------------------------------------------------------- ONNX Runtime


class OnnxRuntimeRow(PeerRow):
    """An ONNX Runtime session; on a GPU with the input and the output bound to its memory."""

    def __init__(self, asked: Asked, session: Any, path: Path, on_cuda: bool, **told: Any) -> None:
        super().__init__(asked, file=path, **told)
        self._session: Any = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._half = asked.precision == FP16
        self._binding: Any = None
        self._on_device: Any = None
        if on_cuda:
            self._bind()

    def prepare(self, image: Image) -> NDArray[Any]:
        """Float [1, C, h, w], -1 to 1, in the graph's own precision."""
        planes: NDArray[Any] = super().prepare(image)
        return planes.astype(np.float16) if self._half else planes

    def infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Float [1, C, h, w], -1 to 1."""
        if self._binding is None:
            drawn: NDArray[Any] = self._session.run(None, {self._input: batch})[0]
            return drawn
        self._on_device.update_inplace(batch)
        self._session.run_with_iobinding(self._binding)
        copied: NDArray[Any] = self._binding.copy_outputs_to_cpu()[0]
        return copied

    def close(self) -> None:
        """Give back the session and its memory."""
        self._binding = self._on_device = self._session = None

    def _bind(self) -> None:
        from onnxruntime import OrtValue

        batch = self.prepare(noise(self.frame_size_px))
        self._on_device = OrtValue.ortvalue_from_numpy(batch, CUDA, 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._input, self._on_device)
        self._binding.bind_output(self._output, CUDA)


def onnxruntime_row(asked: Asked) -> OnnxRuntimeRow:
    """ONNX Runtime on the stock graph.

    Raises:
        EngineError: ONNX Runtime is not installed, or refuses the graph.
        ModelError: torch's exporter refuses the generator.
    """
    with told_failure(asked.peer, "onnxruntime"):
        import onnxruntime as ort

        on_cuda = asked.on_cuda(ORT_CUDA in ort.get_available_providers(), "onnxruntime")
        path = asked.stock_file()
        started_ns = time.perf_counter_ns()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = asked.threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(str(path), options, _providers(on_cuda))
        _check_provider(asked, session, on_cuda)
        how = (
            "All graph optimisations, one operator after the other (Thread management; Graph "
            f"Optimizations in ONNX Runtime). {_SPINNING}."
        )
        if on_cuda:
            how = (
                "CUDA provider with an exhaustive search of cuDNN's algorithms, input and output "
                "bound to the GPU's memory (CUDA Execution Provider; I/O Binding)."
            )
        row = OnnxRuntimeRow(
            asked,
            session,
            path,
            on_cuda,
            engine=_engine(ort, asked, on_cuda),
            how=how,
            load_ms=0.0,
        )
        row.infer(row.prepare(noise(asked.frame_size_px)))
        row.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        return row


def _providers(on_cuda: bool) -> list[Any]:
    return [(ORT_CUDA, cuda_options()), ORT_CPU] if on_cuda else [ORT_CPU]


def _check_provider(asked: Asked, session: Any, on_cuda: bool) -> None:
    """ONNX Runtime goes on without a word where its CUDA libraries do not load."""
    if on_cuda and session.get_providers()[0] != ORT_CUDA:
        raise EngineError(
            f"{asked.peer} cannot run on CUDA: ONNX Runtime's CUDA provider did not start",
            "an NVIDIA GPU with its driver, CUDA and cuDNN",
            "see what is missing with: p2p-doctor; or measure on the CPU",
        )


def _engine(ort: Any, asked: Asked, on_cuda: bool) -> str:
    where = "CUDA" if on_cuda else f"CPU, {told_threads(asked.threads, 1)}"
    return f"ONNX Runtime {ort.__version__}, {where}"


# ----------------------------------------------------------------------------- the plain script


class PlainLoopRow(PeerRow):
    """What one writes in an afternoon: OpenCV, numpy, and a session with its defaults."""

    def __init__(self, asked: Asked, network: PlainNetwork, path: Path, **told: Any) -> None:
        super().__init__(asked, file=path, **told)
        self._network: PlainNetwork | None = network

    def prepare(self, image: Image) -> NDArray[Any]:
        """As `PlainNetwork.prepare`."""
        return self._open.prepare(image)

    def infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """As `PlainNetwork.infer`."""
        return self._open.infer(batch)

    def finish(self, drawn: NDArray[Any], image: Image) -> Image:
        """As `PlainNetwork.finish`."""
        return self._open.finish(drawn, image)

    def close(self) -> None:
        """Give back the session."""
        self._network = None

    @property
    def _open(self) -> PlainNetwork:
        if self._network is None:
            raise ValueError("the row is closed")
        return self._network


def opencv_loop_row(asked: Asked) -> PlainLoopRow:
    """The plain script on the stock graph.

    Raises:
        EngineError: ONNX Runtime is not installed, or refuses the graph.
        ModelError: torch's exporter refuses the generator.
    """
    with told_failure(asked.peer, "onnxruntime"):
        import onnxruntime as ort

        on_cuda = asked.on_cuda(ORT_CUDA in ort.get_available_providers(), "onnxruntime")
        path = asked.stock_file()
        started_ns = time.perf_counter_ns()
        providers = [ORT_CUDA, ORT_CPU] if on_cuda else [ORT_CPU]
        network = PlainNetwork(path, threads=asked.threads, providers=providers)
        _check_provider(asked, network.session, on_cuda)
        network(noise(asked.frame_size_px))
        load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        how = (
            "cv2.resize, numpy, InferenceSession.run, numpy, cv2.resize, with default options but "
            "the number of threads (Python API of ONNX Runtime: Load and run a model). "
            f"{_SPINNING}."
        )
        return PlainLoopRow(
            asked, network, path, load_ms=load_ms, engine=_engine(ort, asked, on_cuda), how=how
        )


# ------------------------------------------------------------------------------------- OpenVINO


class OpenVinoRow(PeerRow):
    """An OpenVINO request whose graph takes floats, or frames of bytes."""

    def __init__(self, asked: Asked, request: Any, takes_frames: bool, **told: Any) -> None:
        super().__init__(asked, **told)
        self._request: Any = request
        self.takes_frames = takes_frames

    def prepare(self, image: Image) -> NDArray[Any]:
        """Float [1, C, h, w], -1 to 1; or uint8 [1, h, w, 3] BGR where the graph does the rest."""
        if self.takes_frames:
            return resized(image, self.frame_size_px)[np.newaxis]
        planes: NDArray[Any] = super().prepare(image)
        return planes

    def infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """As the batch: floats, or frames. Valid until the next call."""
        drawn: NDArray[Any] = self._request.infer([batch], share_inputs=True, share_outputs=True)[
            0
        ]
        return drawn

    def finish(self, drawn: NDArray[Any], image: Image) -> Image:
        """Uint8 [H, W, 3], BGR, of the size of `image`."""
        if not self.takes_frames:
            return super().finish(drawn, image)
        height, width = image.shape[:2]
        picture = resized(drawn[0], (height, width))
        return picture.copy() if np.shares_memory(picture, drawn) else picture

    def close(self) -> None:
        """Give back the request and its compiled model."""
        self._request = None


def openvino_row(asked: Asked) -> OpenVinoRow:
    """OpenVINO on the stock graph, pictures made floats by numpy or in the graph.

    Raises:
        EngineError: OpenVINO is not installed, or refuses the graph, or a GPU was asked for.
        ModelError: torch's exporter refuses the generator.
    """
    asked.on_cuda(False, "openvino")
    path = asked.stock_file()
    with told_failure(asked.peer, "openvino"):
        started_ns = time.perf_counter_ns()
        core = _core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": asked.threads,
        }
        models: list[tuple[Any, bool]] = [(str(path), False)]
        if asked.coloured:  # a grey one's weights of the colours are no step that OpenVINO has
            models.append((_frame_in_frame_out(core, path), True))
        rows = [
            OpenVinoRow(
                asked,
                core.compile_model(model, "CPU", options).create_infer_request(),
                takes_frames,
                file=path,
                load_ms=0.0,
                engine=f"OpenVINO {_version()}, CPU, {told_threads(asked.threads, 1)}",
                how="",
            )
            for model, takes_frames in models
        ]
        load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        picture = noise(asked.frame_size_px)
        chosen = fastest([(row, _whole_way(row, picture)) for row in rows])
        for row in rows:
            if row is not chosen:
                row.close()
        chosen.load_ms = load_ms
        steps = "bytes made floats in the graph" if chosen.takes_frames else "floats by numpy"
        tried = ", the faster of both when they were tried here" if len(rows) > 1 else ""
        chosen.how = (
            f"LATENCY hint, one stream, the ONNX file itself, {steps}{tried} (High-level "
            "Performance Hints; Optimize Preprocessing). FP32 is asked for: where a processor has "
            "bfloat16, OpenVINO's default would draw another picture (Precision Control)."
        )
        return chosen


def _whole_way(row: OpenVinoRow, picture: Image) -> Any:
    return lambda: row.finish(row.infer(row.prepare(picture)), picture)


@cache
def _core() -> Any:
    """The one core of this process, which is never given back: see `openvino_engine._core`."""
    import openvino

    return openvino.Core()


def _version() -> str:
    import openvino

    return str(openvino.__version__).partition("-")[0]


def _frame_in_frame_out(core: Any, path: Path) -> Any:
    """The stock graph with the steps before and behind it as OpenVINO's own preprocessing."""
    import openvino as ov
    from openvino import opset13 as ops
    from openvino.preprocess import ColorFormat, PrePostProcessor

    def number(value: float) -> Any:
        return ops.constant(np.float32(value))

    def levels(drawn: Any) -> Any:
        scaled = ops.add(ops.multiply(drawn, number(127.5)), number(127.5))
        rounded = ops.round(ops.clamp(scaled, 0.0, 255.0), "half_to_even")
        turned = ops.gather(rounded, ops.constant(np.array([2, 1, 0])), ops.constant(1))
        return turned.output(0)

    steps = PrePostProcessor(core.read_model(str(path)))
    taken = steps.input()
    taken.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    taken.tensor().set_color_format(ColorFormat.BGR)
    taken.model().set_layout(ov.Layout("NCHW"))
    taken.preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB)
    taken.preprocess().mean(127.5).scale(127.5)
    given = steps.output()
    given.model().set_layout(ov.Layout("NCHW"))
    given.postprocess().custom(levels).convert_layout(ov.Layout("NHWC"))
    given.postprocess().convert_element_type(ov.Type.u8)
    return steps.build()
