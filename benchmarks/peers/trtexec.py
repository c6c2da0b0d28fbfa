"""trtexec, NVIDIA's own stopwatch, on a file of ours: what the device does, and nothing else.

Source: TensorRT documentation, Performance Benchmarking; the names in the file of `--exportTimes`
are those of its Command-Line Programs. No machine here has trtexec: the tests run a script that
stands for it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rounds.rows import PEER
from runtime.artifact import INPUT_NAME, meta_of_engine, meta_of_onnx
from runtime.engines.base import one_line
from runtime.engines.trt_times import DeviceTimes
from runtime.errors import EngineError, ModelError

PROGRAM = "trtexec"
_WARM_UP_MS = 500
_LONGEST_S = 3600
"""Building an engine on a Jetson takes up to half an hour."""
_HELP_S = 60
_TIMES = ("startEnqMs", "endEnqMs", "h2dMs", "computeMs", "d2hMs", "latencyMs")
_THROUGHPUT = re.compile(r"Throughput:\s*([0-9.eE+-]+)\s*qps")
_VERSION = re.compile(r"TensorRT[ .]v?(\d{4,6})\b")


@dataclass(frozen=True)
class DeviceFigures:
    """What trtexec told, in the order of the frames."""

    samples: Sequence[DeviceTimes]
    fps: float | None
    """Its throughput, with frames queued one behind the other; None: it did not tell."""


class DeviceRow:
    """A row that has times of the device and no stages of the host: trtexec on one file.

    It has what names a `benchmarks.rounds.rows.Row` but none of its three steps; `measure` takes
    their place.

    Args:
        path: an `.onnx` or `.engine` file of ours.
        name: of the row.
        generator: of the row.

    Raises:
        EngineError: trtexec is not on the PATH.
        ModelError: no such file, or not one of ours.
    """

    role = PEER
    peer = PROGRAM

    def __init__(self, path: Path, *, name: str, generator: str) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise EngineError(
                f"{PROGRAM} is not on the PATH",
                "TensorRT with its command-line programs",
                "on a Jetson: export PATH=$PATH:/usr/src/tensorrt/bin; or leave trtexec out",
            )
        self._program = program
        self._is_engine = path.suffix.lower() == ".engine"
        meta = meta_of_engine(path) if self._is_engine else meta_of_onnx(path)
        if meta is None:
            raise ModelError(
                f"{path.name} does not say what it takes", "a file of ours", "run: p2p-export"
            )
        self._meta = meta
        self._file = path
        self.name, self.generator = name, generator
        self.engine = f"{PROGRAM}, TensorRT"
        self.precision, self.frame_size_px = meta.precision, meta.frame_size_px
        self.file: Path | None = path
        self.how = (
            "One stream, CUDA graph, the host spins while it waits (--useCudaGraph, "
            "--useSpinWait), copies included, random pictures (TensorRT documentation: "
            "Performance Benchmarking; Command-Line Programs)."
        )

    def measure(self, frames: int) -> DeviceFigures:
        """Run it once; from an ONNX file it builds the engine first.

        Args:
            frames: at least so many are measured, and for as long as trtexec takes by itself.

        Raises:
            EngineError: trtexec failed, in its own words, or told no times.
        """
        with tempfile.TemporaryDirectory(prefix="p2p-trtexec-") as folder:
            times = Path(folder) / "times.json"
            log = self._run(
                [*self._arguments(), f"--iterations={frames}", f"--exportTimes={times}"]
            )
            samples = _samples_in(times, self._file.name)
        if found := _VERSION.search(log):
            number = int(found[1])
            version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
            self.engine = f"{PROGRAM}, TensorRT {version}"
        throughput = _THROUGHPUT.search(log)
        return DeviceFigures(samples, float(throughput[1]) if throughput else None)

    def close(self) -> None:
        """It holds nothing."""

    def _arguments(self) -> list[str]:
        source = "--loadEngine" if self._is_engine else "--onnx"
        given = [f"{source}={self._file.resolve()}", "--useCudaGraph", "--useSpinWait"]
        given.append(f"--warmUp={_WARM_UP_MS}")
        if not self._is_engine and "--stronglyTyped" in self._run(["--help"], _HELP_S):
            given.append("--stronglyTyped")  # TensorRT 10; 11 knows no other networks
        if self._meta.dynamic:
            height, width = self.frame_size_px
            given.append(f"--shapes={INPUT_NAME}:1x{height}x{width}x3")
        return given

    def _run(self, arguments: Sequence[str], longest_s: float = _LONGEST_S) -> str:
        try:
            ran = subprocess.run(
                [self._program, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=longest_s,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(self._file.name, one_line(error)) from error
        if ran.returncode:
            lines = ran.stdout.strip().splitlines()
            told = [line for line in lines if "[E]" in line] or lines or ["it said nothing"]
            raise _failed(self._file.name, f"exit code {ran.returncode}: {told[0].strip()}")
        return ran.stdout


def _samples_in(path: Path, name: str) -> list[DeviceTimes]:
    """What `--exportTimes` wrote: one object a frame.

    Raises:
        EngineError: it is not there, or not that.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        samples = []
        for entry in entries:
            begun, queued, h2d, compute, d2h, latency = (float(entry[key]) for key in _TIMES)
            times = (latency, queued - begun, h2d, compute, d2h)
            if not all(map(math.isfinite, times)):
                raise ValueError("a time that is no number")
            samples.append(DeviceTimes(times[0], times[1], True, h2d, compute, d2h))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _failed(name, f"--exportTimes: {type(error).__name__}: {one_line(error)}") from error
    if not samples:
        raise _failed(name, "--exportTimes: no times in it")
    return samples


def _failed(name: str, why: str) -> EngineError:
    return EngineError(
        f"{PROGRAM} failed on {name}: {why}",
        "a TensorRT that loads this file, and its GPU",
        f"try it by hand with: {PROGRAM} --help; or leave {PROGRAM} out",
    )
