"""The machine's own peak, measured: matrix products by precision, and bandwidth by footprint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.roofs.instructions import instruction_note, processor_flags
from benchmarks.roofs.memory import Bandwidth, bandwidth, main_memory_footprint_bytes
from benchmarks.roofs.products import PRECISIONS, Product, Run, Way, cpu_ways, cuda_ways
from benchmarks.roofs.rates import Rate, seconds_of
from runtime import machine
from runtime.errors import EngineError, UserError

CPU, CUDA = "cpu", "cuda"
WIDER = {
    "FP32": ("FP32",),
    "FP16": ("FP16", "FP32"),
    "BF16": ("BF16", "FP32"),
    "INT8": ("INT8", "FP16", "BF16", "FP32"),
}
"""Precisions that hold the values of one without loss: a machine may compute in any of them."""
_EXPLORED = 2
"""Repetitions of each way and shape, to learn which ones are worth more."""
_FINALISTS = 2
_LONGEST_S = 0.5
"""Larger shapes of a way that would take longer than this are left out."""

OnStep: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    products: tuple[Product, ...]
    """In growing order."""
    footprints_bytes: tuple[int, ...]
    """In growing order: inside the caches. Main memory's comes after them."""
    main_footprint_bytes: int | None = None
    """None: three arrays that are each four times as large as the last-level cache."""
    repetitions: int = 20


FULL = Effort(
    products=(
        Product(256, 256, 256),
        Product(32 * 32, 9 * 64, 64),
        Product(512, 512, 512),
        Product(64 * 64, 9 * 128, 128),
        Product(1024, 1024, 1024),
    ),
    footprints_bytes=(2**18, 2**20, 2**22, 2**24),
)
ON_GPU = Effort(
    products=(Product(1024, 1024, 1024), Product(4096, 4096, 4096), Product(8192, 8192, 8192)),
    footprints_bytes=(2**22, 2**24),
    main_footprint_bytes=3 * 2**30,
)


@dataclass(frozen=True)
class Peaks:
    """What a machine reaches at most, as measured."""

    device: str
    """For people."""
    threads: int
    products: dict[str, Rate]
    """By precision, in thousand millions of multiply-accumulates a second."""
    memory: Bandwidth
    """With arrays far larger than the last-level cache."""
    caches: tuple[Bandwidth, ...]
    """By growing footprint, below that of `memory`."""
    notes: tuple[str, ...] = ()
    """What could not be measured, and why."""

    def product_rate(self, precision: str) -> tuple[float, str]:
        """The most that a layer of this precision can reach, and the precision that reaches it.

        That is its own, or a wider one that this machine is faster in.

        Raises:
            UserError: none of them was measured.
        """
        known = [each for each in WIDER.get(precision, ()) if each in self.products]
        if not known:
            raise UserError(
                f"no peak was measured for {precision or 'an unknown precision'}",
                "layers in " + ", ".join(self.products),
                "leave the model out",
            )
        best = max(known, key=lambda each: self.products[each].best)
        return self.products[best].best, best

    def bandwidth_of(self, moved_bytes: int) -> float:
        """The most bytes a second, in thousand millions, that so many bytes can be moved at.

        What a smaller footprint reaches is what they could reach at best.
        """
        rising = [*self.caches, self.memory]
        at = max(
            (at for at, each in enumerate(rising) if each.footprint_bytes <= moved_bytes),
            default=0,
        )
        return max(each.best for each in rising[at:])

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "device": self.device,
            "threads": self.threads,
            "gmacs_per_s": {name: rate.to_json() for name, rate in self.products.items()},
            "memory_gb_per_s": self.memory.to_json(),
            "cache_gb_per_s": [each.to_json() for each in self.caches],
            "notes": list(self.notes),
        }


def peaks(
    threads: int,
    device: str = CPU,
    effort: Effort | None = None,
    on_step: OnStep = lambda _told: None,
) -> Peaks:
    """Measure this machine; half a minute where nothing else runs.

    On `cuda` all is measured by torch. That way has not been run yet: no machine of ours has a
    GPU.

    Args:
        threads: of the CPU; those of the rows that are compared with it.
        device: `cpu` or `cuda`.
        effort: None: `FULL`, or `ON_GPU`.
        on_step: is told what is measured next.

    Raises:
        EngineError: no library that computes products, or no GPU, is here.
    """
    ways, absent = _cuda_ways() if device == CUDA else cpu_ways()
    if not ways:
        raise EngineError(
            "no library that computes matrix products is installed",
            "torch, or onnxruntime and onnx",
            "pip install 'pix2pix-edge[train,cpu]'",
        )
    effort = effort or (ON_GPU if device == CUDA else FULL)
    flags = processor_flags()
    products, notes = {}, list(absent)
    with _torch_threads(threads):
        for precision in PRECISIONS:
            on_step(f"{precision} products")
            of_precision = [way for way in ways if way.precision == precision]
            note = "" if device == CUDA else instruction_note(precision, flags)
            rate = _fastest(of_precision, effort, threads, note, notes)
            if rate is not None:
                products[precision] = rate
        on_step("memory")
        footprint = effort.main_footprint_bytes or main_memory_footprint_bytes()
        main = bandwidth(footprint, effort.repetitions, threads, device)
        caches = tuple(
            bandwidth(each, effort.repetitions, threads, device)
            for each in effort.footprints_bytes
        )
    return Peaks(_device_name(device), threads, products, main, caches, tuple(notes))


def _fastest(
    ways: Sequence[Way], effort: Effort, threads: int, note: str, notes: list[str]
) -> Rate | None:
    """Of all ways and shapes; None where none runs. What does not run is told in `notes`."""
    tried: list[tuple[Rate, Product, Run]] = []
    for way in ways:
        told = f"{way.library}, {way.operator}"
        slow_until = 0.0
        for product in filter(way.takes, effort.products):
            if slow_until * product.macs > _LONGEST_S:
                break
            try:
                run = way.prepare(product, threads)
                seconds = seconds_of(run, _EXPLORED)
            except Exception as error:  # noqa: BLE001 - each library has its own; it is told
                line = next(iter(str(error).splitlines()), type(error).__name__)
                notes.append(f"{told}: {way.precision} does not run here: {line}")
                break
            slow_until = min(seconds) / product.macs
            tried.append((Rate.of(product.macs, seconds, f"{told}, {product}"), product, run))
    tried.sort(key=lambda each: -each[0].best)
    finals = [
        Rate.of(product.macs, seconds_of(run, effort.repetitions), rate.by, note)
        for rate, product, run in tried[:_FINALISTS]
    ]
    return max(finals, key=lambda rate: rate.best, default=None)


def _cuda_ways() -> tuple[list[Way], list[str]]:
    try:
        import torch

        if torch.cuda.is_available():
            return cuda_ways(), []
        why = "torch does not find a GPU"
    except ImportError:
        why = "torch is not installed"
    raise EngineError(
        f"the GPU's peak cannot be measured: {why}",
        "torch with CUDA",
        "see p2p-doctor, or measure the CPU with --device cpu",
    )


def _device_name(device: str) -> str:
    if device == CPU:
        return machine.cpu_model()
    return ", ".join(str(gpu) for gpu in machine.gpus()[0]) or CUDA


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Where torch is installed, it computes with so many."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
