"""What the system tells of the machine: processor, memory, GPU, Jetson, installed packages.

Needs nothing but Python. A library is imported in a process of its own (`probe`): one that aborts
or hangs is told like one that is missing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROBE_S = 60

_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver tells it."""

    name: str
    compute_capability: str
    """`8.7`: what engines are built for."""

    def __str__(self) -> str:
        return f"{self.name} (compute {self.compute_capability})"


def read_text(path: str) -> str:
    """A small file of the system without NUL bytes; empty where it is not there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def read_number(path: str) -> float | None:
    """A file of the system that holds one number; None where it is not there or holds another
    thing. Takes about 10 microseconds, for files that are read again and again."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast as Path
            return float(file.read(64))
    except (OSError, ValueError):
        return None


def output_of(*command: str, timeout_s: float = 10) -> str:
    """What a command prints; empty where it is not installed or fails."""
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()


def version_of(distribution: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    from importlib import metadata  # brings e-mail's parser along, which no live stream needs

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    for key in ("model name", "Model", "Hardware"):  # x86, some ARM boards
        if found := re.search(rf"^{key}\s*:\s*(.+)$", read_text("/proc/cpuinfo"), re.MULTILINE):
            return found[1]
    named = re.search(r"^Model name:\s*(.+)$", output_of("lscpu"), re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Hardware threads that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float | None:
    """Installed memory; None where the system does not tell."""
    found = re.search(r"MemTotal:\s+(\d+) kB", read_text("/proc/meminfo"))
    return int(found[1]) / 2**20 if found else None


def jetson() -> str | None:
    """Model, L4T and JetPack of a Jetson; None on anything else."""
    release = re.search(
        r"# R(\d+) \(release\), REVISION: ([\d.]+)", read_text("/etc/nv_tegra_release")
    )
    model = read_text("/proc/device-tree/model")
    if release is None and "jetson" not in model.lower():
        return None
    told = [model or "a Jetson"]
    if release:
        told.append(f"L4T {release[1]}.{release[2]}")
    jetpack = output_of("dpkg-query", "--showformat=${Version}", "--show", "nvidia-jetpack")
    if jetpack:
        told.append(f"JetPack {jetpack}")
    return ", ".join(told)


def power_mode() -> str | None:
    """A Jetson's power mode, which decides its clocks; None elsewhere."""
    if named := re.search(r"NV Power Mode:\s*(\S+)", output_of("nvpmodel", "-q")):
        return named[1]
    stored = stored_power_mode()
    return None if stored is None else f"mode {stored}"


def stored_power_mode(root: Path = Path("/")) -> int | None:
    """The number of a Jetson's power mode as it is kept for the next start; None elsewhere."""
    stored = re.search(r"pmode:(\d+)", read_text(str(root / "var/lib/nvpmodel/status")))
    return int(stored[1]) if stored else None


def power_modes(root: Path = Path("/")) -> dict[int, str]:
    """The names of a Jetson's power modes by number: `{0: "MAXN", 1: "15W"}`; empty elsewhere."""
    table = read_text(str(root / "etc/nvpmodel.conf"))
    found = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table)
    return {int(number): name for number, name in found}


def gpus() -> tuple[list[Gpu], str]:
    """The GPUs that CUDA's driver gives, and the driver's CUDA version, or why there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        status = int(cuda.cuInit(0))
    except (OSError, AttributeError):
        return [], "no NVIDIA driver"
    if status != 0:
        return [], f"the driver's library is here, but cuInit fails with CUDA error {status}"
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), number)
        capability = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            value = ctypes.c_int(0)
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, number)
            capability.append(str(value.value))
        found.append(Gpu(name.value.decode(errors="replace"), ".".join(capability)))
    driver = f"driver for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return found, driver if found else f"{driver}, but no GPU"


def probe(code: str, timeout_s: float = PROBE_S) -> tuple[bool, str]:
    """Run code in a Python of its own; whether it ended well, and the line that tells most."""
    started = f"import sys; sys.path.append({str(_REPOSITORY)!r})\n{code}"
    try:
        ran = subprocess.run(
            [sys.executable, "-c", started],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # a file here is not the library
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {timeout_s:.0f} s"
    except OSError as error:
        return False, str(error)
    if ran.returncode == 0:
        return True, ran.stdout.strip().rpartition("\n")[2]
    return False, reason_of(ran.stderr) or f"its import ends with exit code {ran.returncode}"


def reason_of(stderr: str) -> str:
    """The line of a failed import that names the cause."""
    lines = [
        _LOG_PREFIX.sub("", _COLOR.sub("", line)).strip() for line in stderr.strip().splitlines()
    ]
    if not lines:
        return ""
    if module := re.match(r"ModuleNotFoundError: No module named '(.+)'", lines[-1]):
        return f"not installed (no module {module[1]})"
    return next((line for line in lines if "cannot open shared object" in line), lines[-1])


_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_LOG_PREFIX = re.compile(r"^[\d\-: .]+\[\w:[^\]]*\] ")
