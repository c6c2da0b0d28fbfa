"""How an ONNX Runtime session is opened: its provider, its options, its model from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.artifact import ArtifactMeta
from runtime.engines.base import does_not_load, one_line
from runtime.engines.model_cache import (
    MOST_BYTES,
    ModelCache,
    check_room,
    keeps_weights_elsewhere,
    key_of,
    processor,
)
from runtime.errors import EngineError, ModelError, UserError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_FATAL_ONLY = 4
"""Errors are raised, too, and told once, by us."""

_LEAST_BYTES = 4 * 10**6
"""A smaller model starts in a moment, and is not worth a file."""

_OPTIMISED = "model.onnx"
_WEIGHTS = "weights.bin"
_EXTERNAL_WEIGHTS = {
    # Weights in a file of their own are mapped, not parsed and copied: that is what makes the
    # start short (measured: 0.79 s to 0.30 s for 218 MB; as one file only 0.68 s).
    "session.optimized_model_external_initializers_file_name": _WEIGHTS,
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


@dataclass(frozen=True)
class OpenedSession:
    """A session, and what its user should know of how it came about."""

    session: Any
    provider: str
    """The one that runs the graph."""
    note: str = ""


def open_session(
    ort: Any,
    path: Path,
    meta: ArtifactMeta | None,
    provider: str | None,
    threads: int,
    streams: int,
) -> OpenedSession:
    """Open a model on a provider.

    Args:
        ort: the module onnxruntime.
        path: an ONNX file.
        meta: what it says of itself; None for a stranger's.
        provider: which one it must be; None: CUDA where that starts, else the CPU.
        threads: CPU threads of one inference.
        streams: inferences at the same time.

    Raises:
        ModelError: ONNX Runtime cannot load the file.
        EngineError: the provider that must be is not there, or does not start.
    """
    available = ort.get_available_providers()
    if provider is not None and provider not in available:
        raise _no_provider(ort, path, provider)
    wanted = provider or (CUDA if CUDA in available else CPU)
    note = ""
    if wanted != CPU:
        try:
            return OpenedSession(_open_on_gpu(ort, path, meta, wanted, threads), wanted)
        except EngineError:
            if provider is not None:
                raise
            note = "its CUDA provider is installed but did not start: p2p-doctor tells why"
    session, unkept = _open_on_cpu(ort, path, threads, streams)
    return OpenedSession(session, CPU, "; ".join(filter(None, (note, unkept))))


def cuda_options() -> dict[str, str]:
    """Options of the CUDA provider.

    Source: ONNX Runtime documentation, CUDA Execution Provider. Memory grows by what is asked
    for, since a graph of fixed size asks for the same each time; cuDNN tries its convolutions
    once, at the warm-up; copies stay on the stream of the computation, as documented for safety.
    """
    return {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "do_copy_in_default_stream": "1",
    }


def tensorrt_options(ort: Any, path: Path, meta: ArtifactMeta | None) -> dict[str, str]:
    """Options of the TensorRT provider: no other precision than the file's, engines kept on disk.

    Source: ONNX Runtime documentation, TensorRT Execution Provider. It builds again when the
    library or the GPU is another one than that of the engine in its cache.

    Raises:
        UserError: the cache cannot be written to; a build at each start takes minutes.
    """
    precisions = set() if meta is None else {meta.precision, *(meta.kept or {})}
    folder = str(
        ModelCache("tensorrt-provider").open_folder(key_of(path, ort.__version__, TENSORRT))
    )
    return {
        "device_id": "0",
        "trt_fp16_enable": str(int("fp16" in precisions)),
        "trt_int8_enable": str(int("int8" in precisions)),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def _open_on_gpu(
    ort: Any, path: Path, meta: ArtifactMeta | None, provider: str, threads: int
) -> Any:
    """A session that runs on this provider.

    Raises:
        ModelError: the file is to blame.
        EngineError: the provider does not start.
    """
    if hasattr(ort, "preload_dlls"):  # since 1.21: CUDA and cuDNN out of pip's packages
        ort.preload_dlls()
    providers: list[Any] = [(CUDA, cuda_options()), CPU]
    if provider == TENSORRT:
        providers.insert(0, (TENSORRT, tensorrt_options(ort, path, meta)))
    options = _options(ort, threads, 1)
    try:
        session = _session(ort, path, options, providers)
    except ModelError as error:
        _session(ort, path, options)  # raises where the file is to blame
        cause = error.__cause__ or error
        raise _does_not_start(path, provider, one_line(cause)) from error
    if session.get_providers()[0] != provider:
        raise _does_not_start(path, provider, "its library does not load")
    return session


def _open_on_cpu(ort: Any, path: Path, threads: int, streams: int) -> tuple[Any, str]:
    """A session from the cache, else one whose optimised model goes into it; and a note."""
    options = _options(ort, threads, streams)
    size_bytes = path.stat().st_size
    if not _LEAST_BYTES <= size_bytes <= MOST_BYTES:
        return _session(ort, path, options), ""
    settings = (ort.__version__, CPU, "ORT_ENABLE_ALL", str(_EXTERNAL_WEIGHTS), processor())
    key = key_of(path, *settings)
    try:
        cache = ModelCache("onnxruntime")
        if entry := cache.find(key):
            prepared = _options(ort, threads, streams)
            prepared.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                return _session(ort, entry / _OPTIMISED, prepared), ""
            except UserError:  # damaged in a way that its seal does not show: made anew below
                cache.discard(key)
        if keeps_weights_elsewhere(path):
            return _session(ort, path, options), ""
        with cache.make(key) as folder:
            check_room(folder, size_bytes)
            saving = _options(ort, threads, streams)
            saving.optimized_model_filepath = str(folder / _OPTIMISED)
            for name, value in _EXTERNAL_WEIGHTS.items():
                saving.add_session_config_entry(name, value)
            session = _session(ort, path, saving)
        return session, ""
    except UserError as error:
        # Either the cache is at fault, and the model loads without it, or the model is.
        session = _session(ort, path, options)
        return session, f"starts slowly, its optimised form was not kept: {error.received}"


def _options(ort: Any, threads: int, streams: int) -> Any:
    options = ort.SessionOptions()
    # Each caller of `run` works itself, and all share the helpers: `threads` for each in all.
    options.intra_op_num_threads = streams * (threads - 1) + 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    # Memory of the last frame is that of the next: one plan, one block, no call to the system.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = True
    # Threads spin while a frame is on its way through the graph, and leave the cores to the
    # camera and the sink between two frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(ort: Any, path: Path, options: Any, providers: Sequence[Any] = (CPU,)) -> Any:
    try:
        # With its fallback, it would print lines of its own and go on with another provider.
        session = ort.InferenceSession(
            str(path), options, providers=list(providers), enable_fallback=False
        )
    except Exception as error:  # onnxruntime has a class for each status code
        cause = one_line(error)
        raise does_not_load(f"ONNX Runtime {ort.__version__}", path.name, cause) from error
    return session


_NAMES = {CUDA: ("CUDA", "onnxruntime-cuda"), TENSORRT: ("TensorRT", "onnxruntime-tensorrt")}


def _no_provider(ort: Any, path: Path, provider: str) -> EngineError:
    name, engine = _NAMES[provider]
    return EngineError(
        f"engine {engine} cannot run {path.name}: the ONNX Runtime {ort.__version__} here has no "
        f"{name} provider",
        "the package onnxruntime-gpu alone, without onnxruntime",
        "pip uninstall onnxruntime, then pip install 'pix2pix-edge[gpu]'; or use --engine auto",
    )


def _does_not_start(path: Path, provider: str, why: str) -> EngineError:
    name, engine = _NAMES[provider]
    return EngineError(
        f"engine {engine} cannot run {path.name}: the {name} provider did not start ({why})",
        "an NVIDIA GPU with its driver, CUDA and cuDNN"
        + (" and TensorRT" if provider == TENSORRT else ""),
        "see what is missing with: p2p-doctor; or use --engine auto",
    )
