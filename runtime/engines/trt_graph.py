"""A CUDA graph of all that one frame queues up: launched with one call in the place of many.

pycuda cannot capture; `cuda-bindings` can, on pycuda's own stream.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from runtime.engines.trt_device import one_line
from runtime.errors import EngineError, UserError


class CaptureRefusedError(Exception):
    """No graph was made, for the reason that this says. The stream is as it was before."""


class CudaGraph:
    """Work that was captured from a stream, to be launched again and again.

    Whatever the captured calls refer to (memory, TensorRT's execution context) must stay as it
    is while the graph is in use. Use it in a current context.

    Args:
        stream: of pycuda, idle.
        queue_up: queues the work up on `stream`, as it did once before: the first run of an
            execution context prepares what a capture may not hold.

    Raises:
        CaptureRefusedError: cuda-bindings is missing, or CUDA or TensorRT refuses.
    """

    def __init__(self, stream: Any, queue_up: Callable[[], None]) -> None:
        self._driver = _cuda_bindings()
        driver = self._driver
        try:
            self._stream = driver.CUstream(stream.handle)
            graph = self._captured(queue_up)
            try:
                (self._launchable,) = _done(driver.cuGraphInstantiate(graph, 0))
            finally:
                driver.cuGraphDestroy(graph)
        except RuntimeError as error:  # of cuda-bindings: the driver lacks the function
            raise CaptureRefusedError(one_line(error)) from error

    def launch(self) -> None:
        """Queue all of it up.

        Raises:
            EngineError: CUDA does not launch it.
        """
        (status,) = self._driver.cuGraphLaunch(self._launchable, self._stream)
        if status != 0:
            raise EngineError(
                f"the GPU failed (cuGraphLaunch: {_named(status)})",
                "a GPU that answers",
                "start again; if it comes back, see: p2p-doctor, and the system's log (dmesg)",
            )

    def free(self) -> None:
        """Give it back; the stream is idle. May be called twice."""
        launchable, self._launchable = self._launchable, None
        if launchable is not None:
            self._driver.cuGraphExecDestroy(launchable)

    def _captured(self, queue_up: Callable[[], None]) -> Any:
        driver = self._driver
        # Thread local: what other threads do to the GPU meanwhile neither breaks the capture,
        # nor is it refused to them.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _done(driver.cuStreamBeginCapture(self._stream, mode))
        refused = ""
        try:
            queue_up()
        except UserError as error:
            refused = error.received
        except Exception as error:  # noqa: BLE001 - of pycuda; the capture must end all the same
            refused = one_line(error)
        # Only this gives the stream back to plain calls, also after a refusal.
        status, graph = driver.cuStreamEndCapture(self._stream)
        made = status == 0 and graph is not None and int(graph) != 0
        if made and not refused:
            return graph
        if made:
            driver.cuGraphDestroy(graph)
        raise CaptureRefusedError(refused or f"cuStreamEndCapture: {_named(status)}")


def _cuda_bindings() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise CaptureRefusedError("the package cuda-bindings is not installed") from error


def _done(returned: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call of cuda-bindings gives beside its status."""
    status, *values = returned
    if status != 0:
        raise CaptureRefusedError(_named(status))
    return tuple(values)


def _named(status: Any) -> str:
    return str(getattr(status, "name", status))
