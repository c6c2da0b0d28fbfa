"""TensorRT and TensorRT-RTX on a `simulated_gpu`: one engine, which gives the negative.

What it stands for: the objects whose libraries run nothing without a GPU. Their names are held
against the real libraries in `test_tensorrt_api.py`; what they draw, only a GPU can show.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
from simulated_gpu import cuda_bindings_of, pycuda_of

from runtime import machine
from runtime.artifact import BUILT_AHEAD, ArtifactMeta, sidecar_of

ORIN = machine.Gpu("Orin", "8.7")
META = ArtifactMeta("unet_256", "fp16", (64, 64), (64, 64), 18, "g", "0", gpu=BUILT_AHEAD)
DYNAMIC = replace(META, batch=4, dynamic=True, size_multiple=32)
ANY_SHAPE = (-1, -1, -1, 3)


class SimulatedTensorRT:
    """Stands for the module `tensorrt`: its one engine gives the negative, 255 - x.

    Args:
        gpu: that it runs on.
        version: of the library.
    """

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

    TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
    DataType = Enum("DataType", "UINT8 FLOAT")
    TensorFormat = Enum("TensorFormat", "LINEAR HWC8")
    TensorLocation = Enum("TensorLocation", "DEVICE HOST")

    def __init__(self, gpu, version="10.3.0"):
        self.gpu, self.__version__ = gpu, version
        self.whole = b"an engine"
        """What an engine file must hold."""
        self.tensors = ["frames", "translated"]
        self.given_shape = None
        self.dtype, self.layout = self.DataType.UINT8, self.TensorFormat.LINEAR
        self.location = self.TensorLocation.DEVICE
        self.error_while_capturing = ""
        self.host_code_allowed = None

    def Runtime(self, logger):  # noqa: N802 - a class of TensorRT
        return Runtime(self, logger)


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, data):
        self._trt.host_code_allowed = self.engine_host_code_allowed
        if not self._trt.gpu.works("deserialize_cuda_engine") or data != self._trt.whole:
            self._logger.log("error", "magicTag does not match\n(in deserialize)")
            return None
        return CudaEngine(self._trt, self._logger)


class CudaEngine:
    """Stands for `ICudaEngine`."""

    def __init__(self, trt, logger):
        self.trt, self.gpu, self.logger = trt, trt.gpu, logger
        self.gpu.hold("engine")
        self.num_io_tensors = len(trt.tensors)

    def get_tensor_name(self, number):
        return self.trt.tensors[number]

    def get_tensor_mode(self, name):
        modes = self.trt.TensorIOMode
        return modes.INPUT if name == self.trt.tensors[0] else modes.OUTPUT

    def get_tensor_dtype(self, _name):
        return self.trt.dtype

    def get_tensor_format(self, _name):
        return self.trt.layout

    def get_tensor_location(self, _name):
        return self.trt.location

    def get_tensor_shape(self, name):
        given = self.trt.given_shape
        return self.gpu.shape if given is None or name == "frames" else given

    def get_tensor_profile_shape(self, _name, _profile):
        return [(1, 32, 32, 3), (1, 64, 64, 3), self.gpu.largest]

    def create_execution_context(self, runtime_config=None):
        if not self.gpu.works("create_execution_context"):
            return None
        return ExecutionContext(self, runtime_config)

    def create_runtime_config(self):
        return RuntimeConfig(self.trt)

    def __del__(self):
        if hasattr(self, "num_io_tensors"):
            self.gpu.give_back("engine", context=False)


class ExecutionContext:
    """Stands for `IExecutionContext`."""

    def __init__(self, engine, runtime_config):
        self.engine, self.gpu, self.runtime_config = engine, engine.gpu, runtime_config
        self.gpu.hold("execution context")
        self.shape = None if -1 in self.gpu.shape else self.gpu.shape
        self.addresses = {}

    def set_input_shape(self, _name, shape):
        if any(size > most for size, most in zip(shape, self.gpu.largest, strict=True)):
            return False
        self.shape = shape
        return self.gpu.works("set_input_shape", shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.gpu.works("set_tensor_address", name)

    def execute_async_v3(self, handle):
        gpu, stream = self.gpu, self.gpu.stream
        assert handle == stream.handle
        if not gpu.works("execute_async_v3", self.shape):
            self.engine.logger.log("error", "enqueue failed")
            return False
        if stream.recording is not None and self.engine.trt.error_while_capturing:
            self.engine.logger.log("error", self.engine.trt.error_while_capturing)
        size = int(np.prod(self.shape))
        taken, given = self.addresses["frames"], self.addresses["translated"]
        if self.runtime_config is not None:
            self.runtime_config.cache.compiled = b"kernels of this GPU"

        def work():
            if gpu.memory[given].base is not None:
                gpu.now_ms += gpu.mapped_ms
            else:
                gpu.now_ms += gpu.compute_ms
            gpu.memory[given][:size] = 255 - gpu.memory[taken][:size]

        stream.add(work)
        return True

    def __del__(self):
        if hasattr(self, "addresses"):
            self.gpu.give_back("execution context", context=False)


class SimulatedRtx(SimulatedTensorRT):
    """Stands for the module `tensorrt_rtx`."""

    CudaGraphStrategy = Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")


class RuntimeConfig:
    """Stands for `IRuntimeConfig` of TensorRT-RTX."""

    def __init__(self, trt):
        self.cuda_graph_strategy = None
        self.cache = None
        self.made = RuntimeCache()

    def create_runtime_cache(self):
        return self.made

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class RuntimeCache:
    """Stands for `IRuntimeCache`: takes nothing but its own words, as the real one does."""

    def __init__(self):
        self.compiled = b""

    def serialize(self):
        return self.compiled and self.compiled + hashlib.sha256(self.compiled).digest()

    def deserialize(self, blob):
        compiled, digest = blob[:-32], blob[-32:]
        if hashlib.sha256(compiled).digest() != digest:
            return False
        self.compiled = compiled
        return True


def engine_file(folder: Path, library: str, gpu: str = BUILT_AHEAD, meta=META) -> Path:
    """An engine that the simulated TensorRT loads, with this contract beside it."""
    path = folder / "model.fp16.engine"
    path.write_bytes(b"an engine")
    meta = replace(meta, engine_library=library, gpu=gpu)
    sidecar_of(path).write_text(meta.to_json())
    return path


def noise(*shape):
    """A batch of frames."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def install(monkeypatch, gpu, trt, bindings=True):
    """Put the simulated libraries where `import` finds them.

    Args:
        bindings: whether cuda-bindings is there.
    """
    pycuda = ModuleType("pycuda")
    pycuda.driver = pycuda_of(gpu)
    name = "tensorrt_rtx" if isinstance(trt, SimulatedRtx) else "tensorrt"
    monkeypatch.setitem(sys.modules, name, trt)
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", pycuda.driver)
    monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
    driver = cuda_bindings_of(gpu) if bindings else None
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
