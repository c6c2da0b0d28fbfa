"""CUDA as pycuda gives it: the device's primary context, and what goes wrong there in one line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runtime.errors import EngineError

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream waits for nobody's default stream. While a stream that does
wait is being captured, other threads' work on the default stream (PyTorch, ONNX Runtime) fails."""


def pycuda_driver(name: str) -> Any:
    """`pycuda.driver`, ready for calls.

    Args:
        name: of the engine file, for the error's line.

    Raises:
        EngineError: pycuda is not installed, or CUDA's driver does not start.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise EngineError(
            f"{name} needs pycuda, which does not load here ({error})",
            "the package pycuda",
            "pip install 'pix2pix-edge[gpu]' (on a Jetson: 'pix2pix-edge[jetson]')",
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise EngineError(
            f"CUDA's driver does not start ({one_line(error)})",
            "a driver as new as the GPU and pycuda want it",
            "see what is here with: p2p-doctor",
        ) from error
    return cuda


class PrimaryContext:
    """The context of one GPU that ONNX Runtime and PyTorch use too.

    It is current only inside `current`, so that any thread may work in it, one at a time.

    Args:
        cuda: `pycuda.driver`.
        number: of the GPU.
    """

    def __init__(self, cuda: Any, number: int = 0) -> None:
        self._cuda = cuda
        with _one_line_errors(cuda):
            self.device: Any = cuda.Device(number)
            self._context: Any = self.device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it current in this thread.

        Raises:
            EngineError: CUDA failed in the body; after most failures it does not come back.
        """
        if self._context is None:
            raise EngineError(
                "the engine is closed", "an engine that is open", "open it again: TrtEngine(path)"
            )
        with _one_line_errors(self._cuda):
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._context is None

    def release(self) -> None:
        """Give it back; what was made in it must be gone. May be called twice."""
        if self._context is None:
            return
        context, self._context = self._context, None

        def release() -> None:
            with suppress(self._cuda.Error):  # a context that died is released already
                context.push()
                context.detach()

        # pycuda (2026.1, context::detach) lets go of a primary context only in the thread that
        # retained it or where it is current, and leaves it current there. So that happens in a
        # thread of its own: whoever closes an engine keeps the contexts that were current there.
        thread = threading.Thread(target=release, name="p2p-release-context")
        thread.start()
        thread.join()


def integrated(cuda: Any, device: Any) -> bool:
    """Whether GPU and CPU share their memory, as on a Jetson, and the GPU may use the CPU's."""
    wanted = cuda.device_attribute.INTEGRATED, cuda.device_attribute.CAN_MAP_HOST_MEMORY
    return all(device.get_attribute(attribute) for attribute in wanted)


def one_line(error: BaseException) -> str:
    """What an exception says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _one_line_errors(cuda: Any) -> Iterator[None]:
    try:
        yield
    except cuda.MemoryError as error:
        raise EngineError(
            f"the GPU has no memory left ({one_line(error)})",
            "free memory on the GPU",
            "close other programs, or use smaller frames",
        ) from error
    except cuda.Error as error:
        raise EngineError(
            f"the GPU failed ({one_line(error)})",
            "a GPU that answers",
            "start again; if it comes back, see: p2p-doctor, and the system's log (dmesg)",
        ) from error
