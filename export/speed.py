"""How long each form takes for a frame on the machine at hand, side by side in one run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from runtime.engines import open_engine

ROUNDS = 9
_SPENT_S = 20.0


def frame_times_ms(models: Mapping[str, Path]) -> dict[str, float]:
    """Median milliseconds that each model takes for a frame, their rounds interleaved.

    A model that takes batches shares an inference among its frames.

    Args:
        models: by name: files that this machine can run.
    """
    with ExitStack() as stack:
        engines = {}
        for name, path in models.items():
            engine = open_engine(path)
            stack.callback(engine.close)
            engines[name] = engine
        frames = {
            name: np.zeros((engine.meta.batch, *engine.meta.frame_size_px, 3), np.uint8)
            for name, engine in engines.items()
        }
        times: dict[str, list[float]] = {name: [] for name in engines}
        started = perf_counter()
        for round_number in range(ROUNDS + 1):
            for name, engine in engines.items():
                before = perf_counter()
                engine.infer(frames[name])
                if round_number:  # the first one warms up
                    spent_ms = (perf_counter() - before) * 1e3
                    times[name].append(spent_ms / len(frames[name]))
            if round_number >= 2 and perf_counter() - started > _SPENT_S:
                break
        return {name: median(values) for name, values in times.items()}


def told_speed(times_ms: Mapping[str, float], int8_names: Mapping[str, str]) -> list[str]:
    """One line of all times, and one for each INT8 form that is not the faster one.

    Args:
        times_ms: by name.
        int8_names: name of an INT8 form to that of the form that it has to beat.
    """
    if len(times_ms) < 2:
        return []
    fastest = min(times_ms, key=lambda name: times_ms[name])
    lines = [
        "a frame here takes "
        + ", ".join(f"{name} {ms:.1f} ms" for name, ms in times_ms.items())
        + f": {fastest} is the fastest"
    ]
    for name, rival in int8_names.items():
        if name in times_ms and rival in times_ms and times_ms[name] > times_ms[rival]:
            lines.append(
                f"{name} is SLOWER than {rival} on this machine "
                f"({times_ms[name] / times_ms[rival]:.2f} times its time): use {rival} here"
            )
    return lines
