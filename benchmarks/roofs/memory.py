"""Memory bandwidth: copy, sum of two arrays or triad, and reading, at a given footprint.

Bytes are counted as a program reads and writes them (McCalpin 1995, "Memory Bandwidth and Machine
Balance in Current High Performance Computers", STREAM): 2 for each byte of a copy, 3 of a triad.
The line that a processor reads before it writes to it (write-allocate) is NOT counted, so that a
bus may carry up to half as much again; reading alone has none of that, and is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.roofs.rates import Rate, seconds_of
from runtime import machine

COPY, TRIAD, READ = "copy", "triad", "read"
_ARRAYS = {COPY: 2, TRIAD: 3, READ: 1}
_FLOAT_BYTES = 4
_LLC_ARRAYS = 4
"""STREAM's rule: each array at least four times as large as the last-level cache."""
_LEAST_ARRAY_BYTES = 128 * 2**20
_UNKNOWN_LLC_BYTES = 32 * 2**20
_BYTES_A_REPETITION = 16 * 2**20
"""Small footprints are gone through many times, so that the clock's own time does not count."""
_MOST_SHARE = 1 / 8
"""Of the installed memory, for all arrays together."""

Passes: TypeAlias = "dict[str, Callable[[], object]]"


@dataclass(frozen=True)
class Bandwidth:
    """Of one footprint, in thousand millions of bytes a second, read and written."""

    footprint_bytes: int
    """Of all arrays of one pass."""
    passes: dict[str, Rate]
    """Of `COPY`, `TRIAD` and `READ`: the faster library."""

    @property
    def best(self) -> float:
        """Of the fastest pass: what a roof is made of."""
        return max(rate.best for rate in self.passes.values())

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "footprint_bytes": self.footprint_bytes,
            "best": self.best,
            **{name: rate.to_json() for name, rate in self.passes.items()},
        }


def last_level_cache_bytes() -> int:
    """Of the largest cache that the system tells of; 32 MiB where it tells none."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    told = [machine.read_text(str(index / "size")) for index in folder.glob("index*")]
    units = {"K": 2**10, "M": 2**20}
    sizes = [int(each[:-1]) * units[each[-1]] for each in told if each and each[-1] in units]
    return max(sizes, default=_UNKNOWN_LLC_BYTES)


def main_memory_footprint_bytes() -> int:
    """Of three arrays that are far larger than the last-level cache, where they fit."""
    array = max(_LEAST_ARRAY_BYTES, _LLC_ARRAYS * last_level_cache_bytes())
    installed_gib = machine.memory_gib()
    most = array * 3 if installed_gib is None else int(installed_gib * 2**30 * _MOST_SHARE)
    return min(array * 3, most)


def bandwidth(
    footprint_bytes: int, repetitions: int, threads: int, device: str = "cpu"
) -> Bandwidth:
    """Measure the passes of the libraries that are here; of each pass, the faster one is told.

    Args:
        footprint_bytes: of all arrays of a pass together.
        repetitions: of each pass of each library.
        threads: that share the arrays.
        device: `cpu` or `cuda`; the latter was not run yet, since no machine of ours has a GPU.
    """
    found: dict[str, Rate] = {}
    with ExitStack() as opened:
        for library, make in _libraries(opened, threads, device):
            for name, arrays in _ARRAYS.items():
                elements = footprint_bytes // arrays // _FLOAT_BYTES
                run = make(name, elements)
                moved = elements * arrays * _FLOAT_BYTES
                calls = max(1, _BYTES_A_REPETITION // moved)
                rate = Rate.of(moved, seconds_of(run, repetitions, calls), library)
                if name not in found or rate.best > found[name].best:
                    found[name] = rate
    return Bandwidth(footprint_bytes, found)


_Make: TypeAlias = Callable[[str, int], Callable[[], object]]


def _libraries(opened: ExitStack, threads: int, device: str) -> Iterator[tuple[str, _Make]]:
    try:
        import torch
    except ImportError:
        torch = None  # type: ignore[assignment]
    if torch is not None:
        yield f"torch {torch.__version__}", lambda name, elements: _torch(name, elements, device)
    if device == "cpu":
        pool = opened.enter_context(ThreadPoolExecutor(threads))
        yield (
            f"numpy {np.__version__}",
            lambda name, elements: _numpy(name, elements, pool, threads),
        )


def _torch(name: str, elements: int, device: str) -> Callable[[], object]:
    import torch

    a, b, c = (torch.ones(elements, device=device) for _ in range(3))
    passes: Passes = {
        COPY: lambda: a.copy_(b),
        TRIAD: lambda: torch.add(b, c, alpha=3.0, out=a),
        READ: lambda: torch.sum(b),
    }
    run = passes[name]
    if device == "cpu":
        return run

    def and_wait() -> None:
        run()
        torch.cuda.synchronize()

    return and_wait


def _numpy(
    name: str, elements: int, pool: ThreadPoolExecutor, threads: int
) -> Callable[[], object]:
    """Numpy has no triad in one pass: its sum of two arrays moves as many bytes."""
    a, b, c = (np.array_split(np.ones(elements, np.float32), threads) for _ in range(3))
    parts: dict[str, Callable[[int], object]] = {
        COPY: lambda at: np.copyto(a[at], b[at]),
        TRIAD: lambda at: np.add(b[at], c[at], out=a[at]),
        READ: lambda at: np.maximum.reduce(b[at]),
    }
    part = parts[name]
    if threads == 1:
        return lambda: part(0)
    return lambda: list(pool.map(part, range(threads)))
