"""What `benchmarks/live.py` measures of our own runtime, a round at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from runtime.monitor import Monitor
from runtime.pipeline import Pipeline
from runtime.sinks import NoSink, open_sink
from runtime.sources import open_source
from runtime.sources.synthetic import SyntheticSource
from runtime.stats import Statistics
from runtime.translator import Translator

SETTLED_S = 1.0
"""The first second of a round is left out: a camera's rhythm has to be known."""


def live_ages_ms(
    translator: Translator, size_px: tuple[int, int], fps: float, seconds: float
) -> list[float]:
    """Age of each frame at the sink of a live run.

    Args:
        translator: what runs.
        size_px: (height, width) of the time-coded source.
        fps: of the source.
        seconds: how long to run; the first one is left out.
    """
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    source = SyntheticSource(size_px, fps=fps)
    timer.start()
    try:
        stats = Pipeline(source, translator, NoSink(), keep_samples=True).run(stop)
    finally:
        timer.cancel()
    started_ns = stats.samples[0]["captured_at_ns"] if stats.samples else 0
    return [
        sample["stages_ms"]["age"]
        for sample in stats.samples
        if sample["captured_at_ns"] - started_ns > SETTLED_S * 1e9
    ]


def file_fps(translator: Translator, video: Path, result: Path, frames: int) -> float:
    """Frames per second of a video that becomes a video, opening and finishing it included.

    Args:
        translator: opened for throughput.
        video: read from its beginning.
        result: a video file to write.
        frames: how many.
    """
    started_s = time.perf_counter()
    source = open_source(str(video))
    sink = open_sink(str(result), fps=source.fps)
    stats = Pipeline(source, translator, sink, mode="throughput", max_frames=frames).run()
    return stats.frames_out / (time.perf_counter() - started_s)


def inference_ms(translator: Translator, size_px: tuple[int, int], times: int) -> list[float]:
    """The engine alone, on a batch that was prepared before."""
    image = np.zeros((*size_px, 3), np.uint8)
    batch = translator.prepare(image)
    taken_ms = []
    for _ in range(times):
        started_ns = time.perf_counter_ns()
        translator.infer(batch)
        taken_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    return taken_ms


def frame_ms(translator: Translator, video: Path, frames: int) -> list[float]:
    """From frame to frame where each does its whole way before the next: decoded, translated,
    brought to its size again."""
    source = open_source(str(video))
    stats = Pipeline(
        source, translator, NoSink(), mode="latency", max_frames=frames, keep_samples=True
    ).run()
    stamps_ns = [sample["done_at_ns"] for sample in stats.samples]
    return [(b - a) / 1e6 for a, b in pairwise(stamps_ns)]


@dataclass(frozen=True)
class Footprint:
    """What a process holds at one moment."""

    frames: int
    rss_mb: float
    threads: int
    open_files: int


def soak(model: Path, mode: str, frames: int, settled_after: int) -> tuple[Footprint, Footprint]:
    """Run `frames` frames of a synthetic source in a process of its own; what that holds after
    the first `settled_after` of them, and at the end.

    Args:
        model: a small network, so that it ends today.
        mode: `latency` (a live source of 1000 frames a second) or `throughput`.
        frames: how many.
        settled_after: when memory is expected to grow no more.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(_soaked, model, mode, frames, settled_after).result()


def _soaked(
    model: Path, mode: str, frames: int, settled_after: int
) -> tuple[Footprint, Footprint]:
    live = mode == "latency"
    source = SyntheticSource((120, 160), fps=1000.0 if live else None, frames=frames)
    footprints: list[Footprint] = []
    with Monitor(again_after_s=0.0) as monitor, Translator.load(model) as translator:

        def look(stats: Statistics) -> None:
            if not footprints and stats.frames_in >= settled_after:
                footprints.append(_footprint(stats.frames_in, monitor))
            elif footprints and stats.frames_in < frames:
                footprints[1:] = [_footprint(stats.frames_in, monitor)]

        Pipeline(source, translator, NoSink(), mode=mode).run(on_progress=look)
    return footprints[0], footprints[-1]


def _footprint(frames: int, monitor: Monitor) -> Footprint:
    figures = monitor.sample()
    return Footprint(
        frames, figures["rss_mb"], int(figures["threads"]), int(figures["open_files"])
    )
