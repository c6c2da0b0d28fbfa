"""What the numbers of a benchmark depend on, beside the model."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from runtime import machine

LIBRARIES = (
    "pix2pix-edge",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "onnx",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "cuda-bindings",
)
_REPOSITORY = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Machine, system and library versions, as a JSON object; None for what is not here."""
    found, driver = machine.gpus()
    memory = machine.memory_gib()
    versions = {name: machine.version_of(name) for name in LIBRARIES}
    return {
        "cpu": machine.cpu_model(),
        "cpu_threads": machine.usable_cpus(),
        "cpu_governor": _governor(),
        "memory_gib": None if memory is None else round(memory, 1),
        "architecture": platform.machine(),
        "gpus": [gpu.name for gpu in found],
        "gpu_driver": driver,
        "jetson": machine.jetson(),
        "power_mode": machine.power_mode(),
        "os": _system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version for name, version in versions.items() if version},
        "thread_variables": {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
            if name in os.environ
        },
        "git_commit": git_commit(_REPOSITORY),
        "load_average_1m": load_average(),
    }


def load_average() -> float | None:
    """Threads that wanted to run during the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def git_commit(folder: Path) -> str | None:
    """The commit of a clone, with `-dirty` where files differ; None in an installed package."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


def _governor() -> str | None:
    return machine.read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError, AttributeError):
        return platform.platform()
