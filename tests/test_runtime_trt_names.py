"""Every name that the TensorRT engine takes from pycuda and cuda-bindings is there.

cuda-bindings loads without a GPU: the names are held against the package that is installed. pycuda
builds only where CUDA is: `PYCUDA` was read off its source (2026.1), and is held against the
package where there is one.
"""

from __future__ import annotations

import ast
import importlib
from functools import reduce
from pathlib import Path

import pytest
from simulated_gpu import SimulatedGpu, cuda_bindings_of, pycuda_of

ENGINES = Path(__file__).resolve().parent.parent / "runtime" / "engines"
PYCUDA = {
    "Context.pop",
    "Device",
    "Error",
    "Event",
    "MemoryError",
    "Stream",
    "device_attribute.CAN_MAP_HOST_MEMORY",
    "device_attribute.INTEGRATED",
    "host_alloc_flags.DEVICEMAP",
    "init",
    "mem_alloc",
    "memcpy_dtoh_async",
    "memcpy_htod_async",
    "pagelocked_empty",
}
METHODS = {
    "Context": {"push", "pop", "detach"},
    "Device": {"retain_primary_context", "get_attribute"},
    "DeviceAllocation": {"free", "__int__"},
    "Event": {"record", "synchronize", "time_till"},
    "PagelockedHostAllocation": {"free", "get_device_pointer"},
    "Stream": {"handle", "synchronize"},
}
"""Of pycuda's objects, by class."""
CUDA_BINDINGS = {
    "CUstream": None,
    "CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": None,
    "cuGraphDestroy": 1,
    "cuGraphExecDestroy": 1,
    "cuGraphInstantiate": 2,
    "cuGraphLaunch": 2,
    "cuStreamBeginCapture": 2,
    "cuStreamEndCapture": 1,
}
"""Each function with the number of its arguments."""


def names_of(holders: set[str]) -> set[str]:
    """The dotted names that the engine's sources take from these variables."""
    found = set()
    for path in ENGINES.glob("trt*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                name = ast.unparse(node)
                for holder in holders:
                    if name.startswith(holder + "."):
                        found.add(name.removeprefix(holder + "."))
    return found


def member(module, name: str):
    return reduce(getattr, name.split("."), module)


def test_the_table_of_pycuda_holds_what_the_engine_uses():
    assert names_of({"cuda", "self._cuda"}) == PYCUDA


def test_the_table_of_cuda_bindings_holds_what_the_engine_uses():
    assert names_of({"driver", "self._driver"}) == CUDA_BINDINGS.keys()


def test_the_installed_cuda_bindings_has_each_function_with_these_arguments():
    driver = pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings here")
    for name, count in CUDA_BINDINGS.items():
        found = member(driver, name)
        if count is not None:
            signature = found.__doc__.splitlines()[0]
            assert signature.startswith(f"{name}("), signature
            assert signature.count(",") + 1 == count, signature


def test_statuses_of_cuda_bindings_compare_with_zero_and_have_names():
    driver = pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings here")
    assert driver.CUresult.CUDA_SUCCESS == 0
    assert driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED != 0
    invalidated = driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    assert invalidated.name == "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    assert int(driver.CUgraph(5)) == 5
    assert int(driver.CUgraph()) == 0


def test_without_a_driver_cuda_bindings_raises_what_counts_as_a_refused_capture():
    pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings here")
    pathfinder = importlib.import_module("cuda.pathfinder")
    assert issubclass(pathfinder.DynamicLibNotFoundError, RuntimeError)


def test_the_installed_pycuda_has_every_name():
    cuda = pytest.importorskip("pycuda.driver", reason="no pycuda here", exc_type=ImportError)
    for name in PYCUDA:
        member(cuda, name)
    lacking = [
        f"{owner}.{name}"
        for owner, names in METHODS.items()
        for name in names
        if not hasattr(getattr(cuda, owner), name)
    ]
    assert not lacking


def test_the_simulated_libraries_have_the_same_names_and_no_more():
    gpu = SimulatedGpu()
    for names, module in ((PYCUDA, pycuda_of(gpu)), (CUDA_BINDINGS, cuda_bindings_of(gpu))):
        for name in names:
            member(module, name)
        assert vars(module).keys() == {name.partition(".")[0] for name in names}
