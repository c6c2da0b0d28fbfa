"""Memory in which frames cross to the GPU and back: made once for each size of frame."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FrameMemory(Protocol):
    """A batch of frames on its way in, and one on its way out.

    Use it in a current context. Its host arrays are the GPU's too while a run is queued: write
    and read them only when the stream is idle.
    """

    host_in: NDArray[np.uint8]
    """uint8 [N, H, W, 3]: where the caller puts the frames."""
    host_out: NDArray[np.uint8]
    """The same shape: where the result lies once the stream is synchronised."""
    input_address: int
    """Where the GPU reads the frames."""
    output_address: int
    """Where the GPU writes the result."""

    @property
    def kind(self) -> str:
        """`staged` or `mapped`."""

    def upload(self, stream: Any) -> None:
        """Queue up the copy of `host_in` to where the GPU reads it."""

    def download(self, stream: Any) -> None:
        """Queue up the copy of what the GPU wrote to `host_out`."""

    def free(self) -> None:
        """Give it back; `host_in` and `host_out` may be used no more. May be called twice."""


class StagedMemory:
    """Pinned host memory beside device memory, with a copy each way at the bus's full speed.

    Args:
        cuda: `pycuda.driver`.
        shape: [N, H, W, 3].

    Raises:
        pycuda.driver.MemoryError: there is too little; then nothing is held.
    """

    kind = "staged"

    def __init__(self, cuda: Any, shape: tuple[int, ...]) -> None:
        self._cuda = cuda
        with ExitStack() as taken:
            self._device_in = _on_device(cuda, shape, taken)
            self._device_out = _on_device(cuda, shape, taken)
            self.host_in = _pinned(cuda, shape, 0, taken)
            self.host_out = _pinned(cuda, shape, 0, taken)
            self.input_address = int(self._device_in)
            self.output_address = int(self._device_out)
            self._held = taken.pop_all()

    def upload(self, stream: Any) -> None:
        self._cuda.memcpy_htod_async(self._device_in, self.host_in, stream)

    def download(self, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(self.host_out, self._device_out, stream)

    def free(self) -> None:
        self._held.close()


class MappedMemory:
    """Pinned host memory that the GPU reads and writes itself: nothing is copied.

    For a GPU that shares its memory with the CPU; over a bus, each access would cross it.

    Args:
        cuda: `pycuda.driver`.
        shape: [N, H, W, 3].

    Raises:
        pycuda.driver.MemoryError: there is too little; then nothing is held.
    """

    kind = "mapped"

    def __init__(self, cuda: Any, shape: tuple[int, ...]) -> None:
        with ExitStack() as taken:
            flags = cuda.host_alloc_flags.DEVICEMAP
            self.host_in = _pinned(cuda, shape, flags, taken)
            self.host_out = _pinned(cuda, shape, flags, taken)
            self.input_address = _mapped_to(self.host_in)
            self.output_address = _mapped_to(self.host_out)
            self._held = taken.pop_all()

    def upload(self, stream: Any) -> None:
        """The GPU reads `host_in` itself."""

    def download(self, stream: Any) -> None:
        """The GPU writes `host_out` itself."""

    def free(self) -> None:
        self._held.close()


MEMORIES: dict[str, type[StagedMemory] | type[MappedMemory]] = {
    memory.kind: memory for memory in (StagedMemory, MappedMemory)
}


def _on_device(cuda: Any, shape: tuple[int, ...], taken: ExitStack) -> Any:
    allocation = cuda.mem_alloc(prod(shape))
    taken.callback(allocation.free)
    return allocation


def _pinned(cuda: Any, shape: tuple[int, ...], flags: int, taken: ExitStack) -> NDArray[np.uint8]:
    array: Any = cuda.pagelocked_empty(shape, np.uint8, mem_flags=flags)
    taken.callback(array.base.free)  # the base of such an array is pycuda's allocation
    pinned: NDArray[np.uint8] = array
    return pinned


def _mapped_to(array: Any) -> int:
    return int(array.base.get_device_pointer())
