"""The device's own times, in trtexec's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.rounds.rows import TimesItsDevice
from runtime.engines.trt_times import DeviceTimes

DEVICE_TIMES = ("h2d", "gpu_compute", "d2h", "enqueue", "latency")
"""H2D Latency, GPU Compute Time, D2H Latency, Enqueue Time and Latency of trtexec. Of our engines
the first four are of single launches; the last is as frames run otherwise, with a CUDA graph where
there is one."""


def device_times(
    device: TimesItsDevice, infer: Callable[[], object], count: int
) -> dict[str, list[float]]:
    """Milliseconds of `count` inferences by each of `DEVICE_TIMES` that the device told.

    Args:
        device: the engine.
        infer: runs one inference on it, always of the same batch.
        count: of inferences, in each of the two ways.
    """
    with device.measured(parts=True) as apart:
        for _ in range(1 + count):
            infer()
    with device.measured(parts=False) as whole:
        for _ in range(1 + count):
            infer()
    told = by_name(apart[1:])
    told["latency"] = [times.latency_ms for times in whole[1:]]
    return told


def by_name(samples: Sequence[DeviceTimes]) -> dict[str, list[float]]:
    """Milliseconds by each of `DEVICE_TIMES` that the samples hold."""
    columns: dict[str, list[float | None]] = {
        "h2d": [times.h2d_ms for times in samples],
        "gpu_compute": [times.compute_ms for times in samples],
        "d2h": [times.d2h_ms for times in samples],
        "enqueue": [times.enqueue_ms for times in samples],
        "latency": [times.latency_ms for times in samples],
    }
    known = {name: [ms for ms in told if ms is not None] for name, told in columns.items()}
    return {name: known[name] for name in DEVICE_TIMES if known[name]}
