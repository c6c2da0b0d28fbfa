"""What TensorRT-RTX has of its own: kernels that it compiles on the user's GPU, and their cache.

An engine that was built ahead of time holds no kernels for one GPU: they are compiled when it is
first run. The cache on disk keeps them, so that the next start takes a fraction of the time.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.engines.model_cache import cache_folder
from runtime.errors import UserError
from runtime.files import written_whole


def cache_path(engine_sha256: str, library: str, gpu: str) -> Path:
    """The cache of one engine, one version of the library and one GPU."""
    key = hashlib.sha256("\n".join((engine_sha256, library, gpu)).encode()).hexdigest()
    return cache_folder() / "tensorrt-rtx" / f"{key[:32]}.kernels"


class RtxExecution:
    """How TensorRT-RTX runs one engine: with a cache of its kernels, and CUDA graphs of its own.

    Its own graphs are preferred to ours. With frames of any size it runs stand-in kernels
    until the right ones are compiled in the background; a graph that we captured meanwhile would
    keep the stand-ins for good, while the library knows when to capture anew. What ours would add
    is the two copies, a few microseconds of host time.

    A cache that is damaged, of another GPU or another driver is thrown away: it only costs time.

    Args:
        trt: the module `tensorrt_rtx`.
        engine: its `ICudaEngine`.
        path: of the cache file, which need not exist.
        own_graphs: whether it may use CUDA graphs.
    """

    def __init__(self, trt: Any, engine: Any, path: Path, own_graphs: bool = True) -> None:
        self.note = ""
        """What became of the cache, where that is worth a word."""
        self._path = path
        self._runtime_config = engine.create_runtime_config()
        self.own_graphs = False
        """Whether the library captures CUDA graphs itself (since 1.2)."""
        if own_graphs and hasattr(trt, "CudaGraphStrategy"):
            whole = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._runtime_config.cuda_graph_strategy = whole
            self.own_graphs = self._runtime_config.cuda_graph_strategy == whole
        self._runtime_cache = self._runtime_config.create_runtime_cache()
        self._stored = self._load()
        self._runtime_config.set_runtime_cache(self._runtime_cache)

    def create_context(self, engine: Any) -> Any:
        """A new `IExecutionContext`; None where memory is short."""
        return engine.create_execution_context(self._runtime_config)

    def save(self) -> None:
        """Keep what was compiled since the start; a disk that refuses is noted."""
        compiled = bytes(self._runtime_cache.serialize())
        if not compiled or compiled == self._stored:
            return
        try:
            with written_whole(self._path) as beside:
                beside.write_bytes(compiled)
        except UserError as error:
            self.note = f"compiled kernels not kept: {error.received}"
        else:
            self._stored = compiled

    def _load(self) -> bytes:
        """Read the file into the cache; the bytes that it took."""
        try:
            stored = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.note = f"compiled kernels not read: {self._path} ({error.strerror})"
            return b""
        if stored and self._runtime_cache.deserialize(stored):
            return stored
        self.note = "compiled kernels thrown away: damaged, or of another GPU or driver"
        with suppress(OSError):  # written over at the next save
            self._path.unlink()
        return b""
