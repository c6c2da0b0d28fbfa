"""The peers that run the generator in PyTorch itself: eager, and compiled.

The CUDA ways were written after the documentation and never run: no machine here has a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from benchmarks.peers.rows import (
    CUDA,
    FP16,
    Asked,
    PeerRow,
    as_planes,
    noise,
    told_failure,
)
from benchmarks.peers.trials import fastest
from runtime.engines.threads import told_threads
from runtime.errors import EngineError
from runtime.frame import Image, resized

_GUIDE = "PyTorch's Performance Tuning Guide"
_REST = (
    "OpenMP's threads, which spin for some milliseconds after a call, are left as they are: "
    "stopping them costs every parallel loop a wake-up, and a rest before the next row does it"
)


class TorchRow(PeerRow):
    """A module in PyTorch.

    `torch.set_num_threads` counts for the whole process, so that it is set again where another
    row has set it.
    """

    def __init__(self, asked: Asked, run: Prepared, *, load_ms: float, how: str) -> None:
        import torch

        where = (
            torch.cuda.get_device_name(run.device)
            if run.device.type == CUDA
            else f"CPU, {told_threads(asked.threads, 1)}"
        )
        super().__init__(
            asked,
            load_ms=load_ms,
            engine=f"PyTorch {torch.__version__}, {run.mode}, {where}",
            how=how,
            file=asked.checkpoint.path,
        )
        self._run = run

    def prepare(self, image: Image) -> Any:
        """A float tensor [1, C, h, w], -1 to 1, in the host's memory."""
        return self._run.on_host(resized(image, self.frame_size_px), self._channels)

    def infer(self, batch: Any) -> NDArray[Any]:
        """Float [1, C, h, w], -1 to 1, of the tensor that `prepare` gave."""
        return self._run(batch)

    def close(self) -> None:
        """Give back the module and its memory."""
        self._run.close()


class Prepared:
    """A module on its device, with what brings a tensor there and back."""

    def __init__(
        self, module: Any, mode: str, device: Any, *, half: bool, channels_last: bool, threads: int
    ) -> None:
        self._module, self.mode, self.device = module, mode, device
        self._half, self._channels_last, self._threads = half, channels_last, threads

    def on_host(self, frame: Image, channels: int) -> Any:
        """A frame as the tensor that a call takes; pinned for a GPU, which can then fetch it."""
        import torch

        # Seen from planes, a frame lies in memory as channels_last has it.
        tensor = torch.from_numpy(as_planes(frame, channels, in_order=not self._channels_last))
        return tensor.pin_memory() if self.device.type == CUDA else tensor

    def __call__(self, tensor: Any) -> NDArray[Any]:
        """From a tensor in the host's memory to an array there."""
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            if self.device.type == CUDA:
                dtype = torch.float16 if self._half else torch.float32
                tensor = tensor.to(self.device, non_blocking=True).to(dtype)
            drawn: NDArray[Any] = self._module(tensor).cpu().numpy()  # waits for a GPU
        return drawn

    def close(self) -> None:
        """Give back the module."""
        self._module = None
        if self.device.type == CUDA:
            import torch

            torch.cuda.empty_cache()


def torch_row(asked: Asked) -> TorchRow:
    """Plain eager PyTorch in its faster memory format.

    Raises:
        EngineError: torch is not installed, or refuses the model.
    """
    with told_failure(asked.peer, "torch"):
        started_ns = time.perf_counter_ns()
        ways = [_prepared(asked, "eager", channels_last) for channels_last in (False, True)]
        load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        chosen = fastest([(way, _call_of(way, asked)) for way in ways])
        for way in ways:
            if way is not chosen:
                way.close()
        formats = "channels_last" if chosen is ways[1] else "contiguous"
        how = (
            f"torch.inference_mode, {formats} memory, which was the faster of contiguous and "
            f"channels_last when both were tried here ({_GUIDE}; tutorial Channels Last Memory "
            f"Format in PyTorch). {_on_device(chosen)}"
        )
        return TorchRow(asked, chosen, load_ms=load_ms, how=how)


def torch_compile_row(asked: Asked) -> TorchRow:
    """`torch.compile` with Inductor; the compilation is part of `load_ms`.

    Raises:
        EngineError: torch or what its compiler calls is not installed, or refuses the model.
    """
    with told_failure(asked.peer, "torch"):
        _check_compiler(asked.peer)
        started_ns = time.perf_counter_ns()
        run = _prepared(asked, "torch.compile", channels_last=False, compiled=True)
        with _frozen_weights():
            _call_of(run, asked)()  # compiles
        load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        # dynamic=False: a second network of another size in one process would be compiled for
        # any size, which is slower.
        what = (
            'torch.compile(mode="max-autotune", dynamic=False), which captures CUDA graphs (API '
            "page of torch.compile)"
            if run.device.type == CUDA
            else "torch.compile(dynamic=False) with Inductor's freezing, which packs the weights "
            "beforehand (tutorial Max-autotune Support on CPU with GEMM Template; its "
            "max_autotune searches matrix products, and these networks are made of convolutions)"
        )
        how = f"{what}, torch.inference_mode ({_GUIDE}). {_on_device(run)}"
        return TorchRow(asked, run, load_ms=load_ms, how=how)


@contextmanager
def _frozen_weights() -> Iterator[None]:
    """What is compiled meanwhile has its weights packed beforehand, as TORCHINDUCTOR_FREEZING=1.

    In `options` of torch.compile the setting does nothing: U-Net 256 took as long with it as
    without, and nearly three times as long as so. Left on, it would freeze a training's weights.
    """
    import torch._inductor.config as inductor_config

    before = inductor_config.freezing
    inductor_config.freezing = True
    try:
        yield
    finally:
        inductor_config.freezing = before


def _call_of(way: Prepared, asked: Asked) -> Callable[[], object]:
    tensor = way.on_host(noise(asked.frame_size_px), asked.checkpoint.input_channels)
    return lambda: way(tensor)


def _on_device(run: Prepared) -> str:
    if run.device.type == CUDA:
        return "Pinned host memory, copies that do not block the host, cuDNN's benchmark mode."
    return _REST + "."


def _prepared(asked: Asked, mode: str, channels_last: bool, *, compiled: bool = False) -> Prepared:
    import copy

    import torch

    on_cuda = asked.on_cuda(torch.cuda.is_available(), "torch")
    device = torch.device("cuda" if on_cuda else "cpu")
    half = asked.precision == FP16
    module: Any = copy.deepcopy(asked.module).to(device)
    if half:
        module = module.half()
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    if on_cuda:
        torch.backends.cudnn.benchmark = True  # the guide's: one size, so it searches once
    else:
        torch.set_num_threads(asked.threads)  # Inductor compiles for so many
    if compiled and on_cuda:
        module = torch.compile(module, dynamic=False, mode="max-autotune")
    elif compiled:
        module = torch.compile(module, dynamic=False)
    return Prepared(
        module,
        mode,
        device,
        half=half,
        channels_last=channels_last,
        threads=asked.threads,
    )


def _check_compiler(peer: str) -> None:
    from trainer.compiler import check_compiler
    from trainer.errors import ConfigError

    try:
        check_compiler()
    except ConfigError as error:
        compiler = os.environ.get("CXX") or "g++ or clang++"
        raise EngineError(
            f"{peer} cannot compile here: no C++ compiler ({compiler}) with Python.h",
            "a C++ compiler and Python's headers, which torch.compile calls",
            f"install them (Debian: apt-get install g++ python3-dev), or leave {peer} out",
        ) from error
