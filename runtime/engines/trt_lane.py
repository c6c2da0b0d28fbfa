"""All that frames of one size need to cross the GPU, and how the last few sizes are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.artifact import INPUT_NAME, OUTPUT_NAME
from runtime.engines.trt_graph import CudaGraph
from runtime.engines.trt_memory import FrameMemory
from runtime.engines.trt_times import DeviceTimes, Stopwatch
from runtime.errors import EngineError

Shape = tuple[int, ...]


@dataclass
class Launches:
    """How many batches were queued up in which way, warm-up left out."""

    by_graph: int = 0
    by_enqueue: int = 0


class FrameLane:
    """Frames of one size: TensorRT's execution context, memory, a CUDA graph of the whole way.

    The execution context is the lane's own: a captured graph goes on using the scratch memory and
    what the context prepared for this size, so no other size may be set in it.

    Args:
        execution: knows the frames' shape; the lane tells it the addresses.
        memory: for that shape; the lane owns it from here on.
        stream: of pycuda.
        refusal: the error of a call that TensorRT refused, given what it refused.

    Raises:
        EngineError: TensorRT refuses the addresses; then the memory is given back.
    """

    def __init__(
        self,
        execution: Any,
        memory: FrameMemory,
        stream: Any,
        refusal: Callable[[str], EngineError],
    ) -> None:
        self.memory = memory
        self._graph: CudaGraph | None = None
        self._execution = execution
        self._stream = stream
        self._refusal = refusal
        addresses = {INPUT_NAME: memory.input_address, OUTPUT_NAME: memory.output_address}
        for name, address in addresses.items():
            if not self._execution.set_tensor_address(name, address):
                self.free()
                raise refusal(f"take the memory of {name}")

    def run(self, launches: Launches) -> None:
        """Queue one batch up, from `memory.host_in` to `memory.host_out`."""
        if self._graph is not None:
            self._graph.launch()
            launches.by_graph += 1
        else:
            self.enqueue()
            launches.by_enqueue += 1

    def timed(self, launches: Launches, stopwatch: Stopwatch, parts: bool) -> DeviceTimes:
        """As `run`, to its end.

        Args:
            launches: counted up.
            stopwatch: of the same context.
            parts: part by part, past the graph if there is one.
        """
        if self._graph is not None and not parts:
            launches.by_graph += 1
            return stopwatch.time_whole(self._stream, self._graph.launch)
        launches.by_enqueue += 1
        return self.time_parts(stopwatch)

    def time_parts(self, stopwatch: Stopwatch) -> DeviceTimes:
        """Run one batch to its end, part by part; not counted."""
        upload, download = self.memory.upload, self.memory.download
        return stopwatch.time_parts(self._stream, upload, self._execute, download)

    def enqueue(self) -> None:
        """Queue the parts up one by one; not counted."""
        self.memory.upload(self._stream)
        self._execute(self._stream)
        self.memory.download(self._stream)

    def capture(self) -> None:
        """Capture `enqueue`, which ran before; `run` launches the graph from then on.

        Raises:
            CaptureRefusedError: there is no graph, and `run` goes on without.
        """
        self._graph = CudaGraph(self._stream, self.enqueue)

    def drop_graph(self) -> None:
        """Give the graph back; `run` goes on without."""
        if self._graph is not None:
            self._graph.free()
        self._graph = None

    def free(self) -> None:
        """Give all back; the stream is idle. May be called twice."""
        self.drop_graph()
        self._execution = self._stream = None
        self.memory.free()

    def _execute(self, stream: Any) -> None:
        if not self._execution.execute_async_v3(stream.handle):
            raise self._refusal("run the engine")


class Lanes:
    """The lanes of the sizes seen last; the least recently used one goes.

    Args:
        make: a new lane for a shape.
        out_of_memory: what `make` raises where memory is short.
        most: how many are kept; each holds memory on the GPU.
    """

    def __init__(
        self,
        make: Callable[[Shape], FrameLane],
        out_of_memory: type[Exception],
        most: int = 4,
    ) -> None:
        self._make = make
        self._out_of_memory = out_of_memory
        self._most = most
        self._lanes: OrderedDict[Shape, FrameLane] = OrderedDict()

    def of(self, shape: Shape) -> FrameLane:
        """The lane of frames of this shape; the stream is idle.

        Raises:
            What `make` raises; the other lanes stay, unless memory was short.
        """
        lane = self._lanes.get(shape)
        if lane is None:
            try:
                lane = self._make(shape)
            except self._out_of_memory:
                if not self._lanes:
                    raise
                self.free()
                lane = self._make(shape)
            self._lanes[shape] = lane
            if len(self._lanes) > self._most:
                self._lanes.popitem(last=False)[1].free()
        else:
            self._lanes.move_to_end(shape)
        return lane

    def free(self) -> None:
        """Give all of them back. May be called twice."""
        while self._lanes:
            self._lanes.popitem()[1].free()
