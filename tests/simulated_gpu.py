"""A GPU with pycuda and cuda-bindings, for machines that have none; TensorRT on it is in
`simulated_tensorrt`.

What it stands for, and what not: it does what the documentation (and, of pycuda, the source) says
of these calls. Work lies on the stream until somebody waits for it; a capturing stream
records it instead; whatever is made counts as held until it is given back: what is pycuda's in a
current context; TensorRT's objects anywhere, since they find the primary context themselves.
That the real libraries take these calls, only a GPU can show (`test_gpu_trt.py`).
"""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import Counter
from enum import Enum, IntEnum
from types import SimpleNamespace

import numpy as np


class CudaError(Exception):
    """Stands for `pycuda.driver.Error`."""


class CudaMemoryError(CudaError, MemoryError):
    """Stands for `pycuda.driver.MemoryError`."""


class Status(IntEnum):
    """Stands for `cuda.bindings.driver.CUresult`."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_UNKNOWN = 999
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Attribute(Enum):
    INTEGRATED = 18
    CAN_MAP_HOST_MEMORY = 19


class SimulatedGpu:
    """The device: memory by address, one clock, threads' contexts, and a list of what is held.

    Args:
        shape: what the engine says that it takes and gives; -1 where it takes any size.
        largest: the largest batch that it was built for.
        memory_bytes: how much device memory may be held at once.
        integrated: whether it shares the host's memory.
        copy_ms, compute_ms, mapped_ms: what one copy, one run, and one run on mapped memory take.
    """

    def __init__(
        self,
        shape=(1, 64, 64, 3),
        largest=(4, 256, 256, 3),
        memory_bytes=1 << 30,
        integrated=False,
        copy_ms=0.25,
        compute_ms=2.0,
        mapped_ms=2.25,
    ):
        self.shape, self.largest, self.memory_bytes = shape, largest, memory_bytes
        self.integrated = integrated
        self.copy_ms, self.compute_ms, self.mapped_ms = copy_ms, compute_ms, mapped_ms
        self.now_ms = 0.0
        self.calls = []
        """(name of a call, ...), in order."""
        self.held = Counter()
        """What was made and not given back, by kind."""
        self.faults = []
        """What the real libraries would crash at or leak by."""
        self.memory = {}
        self.fail = {}
        """Name of a call: number of the first call that fails; all later ones fail too."""
        self.only_once = False
        """Whether the call after the one that fails works again."""
        self.lost = False
        """Whether every call of CUDA fails, as after an illegal access."""
        self.taken_bytes = 0
        self._addresses = itertools.count(1000)
        self._stacks = threading.local()
        self._counts = Counter()

    # --- what tests ask
    def assert_all_given_back(self):
        if +self.held:
            gc.collect()  # what an exception's frames still refer to
        left = dict(+self.held), len(self.memory), self.taken_bytes, self.faults, self.stack
        assert left == ({}, 0, 0, [], []), left

    def named(self, *names):
        """The calls of these names, in order."""
        return [call for call in self.calls if call[0] in names]

    # --- bookkeeping
    @property
    def stack(self):
        """The contexts that are current in this thread, one on the other."""
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
        return self._stacks.contexts

    @property
    def stream(self):
        return self.stream_ref()

    def works(self, name, *told):
        """Note a call; whether it works."""
        self.calls.append((name, *told))
        self._counts[name] += 1
        at = self.fail.get(name)
        if at is None:
            return True
        return self._counts[name] != at if self.only_once else self._counts[name] < at

    def cuda(self, name, *told):
        """Note a call of pycuda in a current context."""
        if not self.stack:
            self.faults.append(f"{name} without a context")
        works = self.works(name, *told)
        if self.lost or not works:
            raise CudaError(f"{name} failed:\nunspecified launch failure")

    def hold(self, kind):
        self.held[kind] += 1

    def give_back(self, kind, context=True):
        """Note what is given back, where a context has to be current for it."""
        if context and not self.stack:
            self.faults.append(f"{kind} given back without a context")
        self.held[kind] -= 1

    def new_memory(self, block):
        address = next(self._addresses) * 4096
        self.memory[address] = block
        return address


class Context:
    """Stands for a primary `pycuda.driver.Context`, with what is odd about its detach."""

    def __init__(self, gpu):
        self._gpu, self._thread = gpu, threading.get_ident()
        gpu.hold("context")

    def push(self):
        if not self._gpu.works("push"):
            raise CudaError("cuCtxPushCurrent failed: invalid device context")
        self._gpu.stack.append(self)

    def detach(self):
        if not self._gpu.stack or self._gpu.stack[-1] is not self:
            self._gpu.faults.append("detach where the context is not current: leaks or stays")
            return
        self._gpu.stack.pop()
        if self._thread == threading.get_ident():
            self._gpu.faults.append("a released context stays current in this thread")
        self._gpu.held["context"] -= 1


class Stream:
    """Stands for `pycuda.driver.Stream`: work waits until somebody synchronises."""

    def __init__(self, gpu, flags):
        gpu.cuda("Stream", flags)
        gpu.hold("stream")
        self.gpu, self.handle = gpu, 7
        self.queue = []
        self.recording = None
        gpu.stream_ref = weakref.ref(self)

    def add(self, work):
        (self.queue if self.recording is None else self.recording).append(work)

    def synchronize(self):
        self.gpu.cuda("synchronize")
        if self.recording is not None:
            raise CudaError("operation not permitted when stream is capturing")
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def __del__(self):
        if hasattr(self, "queue"):
            self.gpu.give_back("stream")


class Event:
    """Stands for `pycuda.driver.Event`, on the simulated clock."""

    def __init__(self, gpu):
        gpu.cuda("Event")
        gpu.hold("event")
        self.gpu, self.at_ms = gpu, None

    def record(self, stream):
        self.gpu.cuda("record")
        stream.add(lambda: setattr(self, "at_ms", self.gpu.now_ms))

    def synchronize(self):
        self.gpu.stream.synchronize()

    def time_till(self, end):
        return end.at_ms - self.at_ms

    def __del__(self):
        if hasattr(self, "at_ms"):
            self.gpu.give_back("event")


class DeviceAllocation:
    """Stands for `pycuda.driver.DeviceAllocation`."""

    def __init__(self, gpu, size):
        gpu.cuda("mem_alloc", size)
        if gpu.taken_bytes + size > gpu.memory_bytes:
            raise CudaMemoryError("cuMemAlloc failed: out of memory")
        gpu.taken_bytes += size
        gpu.hold("device memory")
        self.gpu, self.size = gpu, size
        self.address = gpu.new_memory(np.empty(size, np.uint8))

    def __int__(self):
        return self.address

    def free(self):
        self.gpu.give_back("device memory")
        self.gpu.taken_bytes -= self.size
        del self.gpu.memory[self.address]


class PinnedBlock(bytearray):
    """Stands for `pycuda.driver.PagelockedHostAllocation`: the base of a pinned array."""

    def free(self):
        self.gpu.give_back("pinned memory")
        self.gpu.memory.pop(self.address, None)

    def get_device_pointer(self):
        self.gpu.cuda("get_device_pointer")
        if not self.mapped:
            raise CudaError("cuMemHostGetDevicePointer failed: invalid argument")
        self.address = self.gpu.new_memory(np.frombuffer(self, np.uint8))
        return self.address


def pycuda_of(gpu):
    """The simulated `pycuda.driver`."""

    def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
        gpu.cuda("pagelocked_empty", mem_flags)
        block = PinnedBlock(int(np.prod(shape)))
        block.gpu, block.address, block.mapped = gpu, None, mem_flags == 2
        gpu.hold("pinned memory")
        return np.ndarray(shape, dtype, buffer=block)

    def memcpy_htod_async(there, here, stream):
        gpu.cuda("memcpy_htod_async")
        assert here.flags.c_contiguous

        def copy():
            gpu.memory[int(there)][:] = here.ravel()
            gpu.now_ms += gpu.copy_ms

        stream.add(copy)

    def memcpy_dtoh_async(here, there, stream):
        gpu.cuda("memcpy_dtoh_async")
        assert here.flags.c_contiguous

        def copy():
            here.ravel()[:] = gpu.memory[int(there)]
            gpu.now_ms += gpu.copy_ms

        stream.add(copy)

    def pop():
        gpu.stack.pop()

    def device(number):
        assert number == 0
        values = {Attribute.INTEGRATED: int(gpu.integrated), Attribute.CAN_MAP_HOST_MEMORY: 1}

        def retain_primary_context():
            if not gpu.works("retain_primary_context"):
                raise CudaError("cuDevicePrimaryCtxRetain failed: unknown error")
            return Context(gpu)

        return SimpleNamespace(
            retain_primary_context=retain_primary_context, get_attribute=values.__getitem__
        )

    return SimpleNamespace(
        init=lambda: None,
        Error=CudaError,
        MemoryError=CudaMemoryError,
        Device=device,
        Context=SimpleNamespace(pop=pop),
        Stream=lambda flags=0: Stream(gpu, flags),
        Event=lambda: Event(gpu),
        mem_alloc=lambda size: DeviceAllocation(gpu, size),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=memcpy_htod_async,
        memcpy_dtoh_async=memcpy_dtoh_async,
        device_attribute=Attribute,
        host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
    )


class Graph(int):
    """Stands for `CUgraph` and `CUgraphExec`: a handle that is not zero."""

    work: list


def cuda_bindings_of(gpu):
    """The simulated `cuda.bindings.driver`."""

    def status(name):
        works = gpu.works(name) and not gpu.lost
        return Status.CUDA_SUCCESS if works else Status.CUDA_ERROR_UNKNOWN

    def begin(stream, mode):
        assert (stream, mode) == (7, "thread local")
        told = status("cuStreamBeginCapture")
        if told == 0:
            gpu.stream.recording = []
        return (told,)

    def end(stream):
        told = status("cuStreamEndCapture")
        work, gpu.stream.recording = gpu.stream.recording, None
        if told != 0:
            return Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        graph = Graph(1)
        graph.work = work
        gpu.hold("graph")
        return told, graph

    def instantiate(graph, flags):
        told = status("cuGraphInstantiate")
        if told != 0:
            return told, None
        launchable = Graph(2)
        launchable.work = list(graph.work)
        gpu.hold("launchable graph")
        return told, launchable

    def launch(launchable, stream):
        told = status("cuGraphLaunch")
        if told == 0:
            gpu.stream.queue.extend(launchable.work)
        return (told,)

    def destroy(kind):
        def call(_handle):
            gpu.give_back(kind)
            return (Status.CUDA_SUCCESS,)

        return call

    return SimpleNamespace(
        CUstream=int,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local"),
        cuStreamBeginCapture=begin,
        cuStreamEndCapture=end,
        cuGraphInstantiate=instantiate,
        cuGraphLaunch=launch,
        cuGraphDestroy=destroy("graph"),
        cuGraphExecDestroy=destroy("launchable graph"),
    )
