"""The doctor's checks: one small function a thing, each answers on any machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime import machine

OK, MISSING, ABSENT = "ok", "missing", "absent"

_CAMERA_S = 15
_LEAST_DISK_GIB = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    """`ok`; `missing`: this machine could use it; `absent`: not here, and not needed here."""
    found: str
    """What is there, or why it does not work."""
    mend: str = ""
    """The line that mends it; empty where nothing is to be mended."""


_DESCRIBE_OPENCV = """
import re, cv2
told = cv2.getBuildInformation()
def has(name):
    line = re.search(r"^\\s*" + name + r":\\s*(.+)$", told, re.MULTILINE)
    return line is not None and line[1].strip().split()[0] not in ("NO", "NONE")
gui = re.search(r"^\\s*GUI:\\s*(\\S+)", told, re.MULTILINE)
names = ("GStreamer", "FFMPEG")
window = "windows by " + gui[1] if gui and gui[1] != "NONE" else "no windows"
print(cv2.__version__ + ", " + ", ".join(
    ("with " if has(name) else "without ") + name.replace("MPEG", "mpeg") for name in names
) + ", " + window)
"""

# An ONNX file of one Identity node, small enough to be written out here: the doctor tries the
# CUDA provider without a model and without the onnx package.
_IDENTITY_ONNX = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12'
    b"\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)

_START_CUDA = """
import onnxruntime as o
if "CUDAExecutionProvider" not in o.get_available_providers():
    print("no provider")
else:
    if hasattr(o, "preload_dlls"):
        o.preload_dlls()
    s = o.InferenceSession(model, providers=["CUDAExecutionProvider"])
    if s.get_providers()[0] != "CUDAExecutionProvider":
        sys.exit(1)  # its reason was logged to stderr
    print("started")
"""


def check_python() -> Check:
    """Python's version, and this package's."""
    ours = machine.version_of("pix2pix-edge")
    found = f"{platform.python_version()}, pix2pix-edge " + (ours or "not installed (a clone)")
    return Check("Python", OK, found)


def check_cpu() -> Check:
    """Processor, cores and memory."""
    memory = machine.memory_gib()
    told = f"{machine.cpu_model()}, {machine.usable_cpus()} usable threads"
    return Check(
        "CPU", OK, told + (f", {memory:.0f} GiB" if memory else "") + f", {platform.machine()}"
    )


def check_jetson() -> Check:
    """Whether this is a Jetson, and in which power mode."""
    model = machine.jetson()
    if model is None:
        return Check("Jetson", ABSENT, "not a Jetson")
    mode = machine.power_mode()
    return Check("Jetson", OK, model + (f", power mode {mode}" if mode else ""))


def check_gpu() -> Check:
    """NVIDIA GPU and driver."""
    found, told = machine.gpus()
    if found:
        names = "; ".join(map(str, found))
        return Check("NVIDIA GPU", OK, f"{names}, {told}")
    kinds = ("10de::0300", "10de::0302")  # NVIDIA's VGA and 3D controllers
    if any(machine.output_of("lspci", "-d", kind) for kind in kinds):
        return Check(
            "NVIDIA GPU",
            MISSING,
            f"a GPU is in this machine; {told}",
            "install NVIDIA's driver: https://www.nvidia.com/drivers, and start again",
        )
    return Check("NVIDIA GPU", ABSENT, told)


def check_disk() -> Check:
    """Free space in the working folder."""
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    found = f"{free_gib:.0f} GiB free in {Path.cwd()}"
    if free_gib < _LEAST_DISK_GIB:
        return Check(
            "disk", MISSING, found, "free some space: a run of U-Net 256 takes about 2 GiB"
        )
    return Check("disk", OK, found)


def check_onnxruntime() -> Check:
    """ONNX Runtime, and whether two of its packages overwrote each other."""
    both = {name: machine.version_of(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    if all(both.values()):
        return Check(
            "ONNX Runtime",
            MISSING,
            " and ".join(f"{name} {version}" for name, version in both.items())
            + " are both installed, and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then "
            f"pip install 'pix2pix-edge[{'gpu' if machine.gpus()[0] else 'cpu'}]'",
        )
    works, told = machine.probe(
        "import onnxruntime as o; p = o.get_available_providers(); "
        "print(o.__version__ + ', providers: ' + ', '.join("
        "n.removesuffix('ExecutionProvider') for n in p))"
    )
    return _library("ONNX Runtime", works, told, "pip install 'pix2pix-edge[cpu]'")


def check_onnxruntime_cuda() -> Check:
    """Whether ONNX Runtime's CUDA provider starts, and why not."""
    name = "ONNX Runtime CUDA"
    found, told = machine.gpus()
    if not found:
        return Check(name, ABSENT, told)
    works, told = machine.probe(f"model = {_IDENTITY_ONNX!r}\n{_START_CUDA}")
    if works and told == "started":
        return Check(name, OK, "starts")
    if works and told == "no provider":
        return Check(
            name,
            MISSING,
            "this ONNX Runtime is built without it",
            "pip uninstall -y onnxruntime, then pip install 'pix2pix-edge[gpu]' "
            "(on a Jetson: run TensorRT instead)",
        )
    return Check(name, MISSING, told, "pip install 'onnxruntime-gpu[cuda,cudnn]'")


def check_tensorrt() -> Check:
    """Full TensorRT."""
    works, told = machine.probe("import tensorrt as t; t.Builder; print(t.__version__)")
    if machine.jetson():
        mend = (
            "sudo apt install python3-libnvinfer, and make the environment with "
            "python3 -m venv --system-site-packages .venv"
        )
        return _library("TensorRT", works, told, mend)
    if not works and not machine.gpus()[0] and machine.version_of("tensorrt") is None:
        return Check("TensorRT", ABSENT, "not installed; it needs a GPU")
    return _library("TensorRT", works, told, "pip install 'pix2pix-edge[gpu]'")


def check_tensorrt_rtx() -> Check:
    """TensorRT-RTX, which builds engines without a GPU too."""
    works, told = machine.probe("import tensorrt_rtx as t; t.Builder; print(t.__version__)")
    if not works and platform.machine().lower() not in ("x86_64", "amd64"):
        return Check("TensorRT-RTX", ABSENT, "made for x86-64 only")
    if works and not machine.gpus()[0]:
        told += ", builds engines; running them needs a GPU"
    return _library("TensorRT-RTX", works, told, "pip install 'pix2pix-edge[rtx]'")


def check_pycuda() -> Check:
    """pycuda, by which TensorRT gets memory and streams."""
    found, told = machine.gpus()
    if not found:
        return Check("pycuda", ABSENT, f"not needed: {told}")
    works, told = machine.probe("import pycuda, pycuda.driver; print(pycuda.VERSION_TEXT)")
    extra = "jetson" if machine.jetson() else "gpu"
    return _library("pycuda", works, told, f"pip install 'pix2pix-edge[{extra}]'")


def check_cuda_bindings() -> Check:
    """cuda-bindings, by which an inference is captured as a CUDA graph."""
    version = machine.version_of("cuda-bindings")
    if version:
        return Check("cuda-bindings", OK, version)
    found, told = machine.gpus()
    if not found:
        return Check("cuda-bindings", ABSENT, f"not needed: {told}")
    return Check(
        "cuda-bindings", MISSING, "no CUDA graphs without it", "pip install cuda-bindings"
    )


def check_opencv() -> Check:
    """OpenCV, and what it was built with."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    installed = [name for name in names if machine.version_of(name)]
    if len(installed) > 1:
        return Check(
            "OpenCV",
            MISSING,
            " and ".join(installed) + " are both installed, and overwrite each other's files",
            f"pip uninstall -y {' '.join(installed)}, then pip install opencv-python",
        )
    works, told = machine.probe(_DESCRIBE_OPENCV)
    if not works:
        mend = "pip install opencv-python"
        if "libGL" in told or "libgthread" in told or "libglib" in told:
            mend = "sudo apt install libgl1 libglib2.0-0"
        return Check("OpenCV", MISSING, told, mend)
    if machine.jetson() and "without GStreamer" in told:
        return Check(
            "OpenCV",
            MISSING,
            f"{told}: no CSI camera",
            "pip uninstall -y opencv-python, then sudo apt install python3-opencv, and make the "
            "environment with python3 -m venv --system-site-packages .venv",
        )
    return Check("OpenCV", OK, told)


def check_screen() -> Check:
    """Whether a window can open."""
    if sys.platform in ("win32", "darwin"):
        return Check("screen", OK, "a desktop")
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if value := os.environ.get(variable):
            return Check("screen", OK, f"{variable}={value}")
    return Check("screen", ABSENT, "no desktop session", "write to a file: --sink out.mp4")


def check_cameras() -> list[Check]:
    """Each camera: opened, and one frame read."""
    nodes = sorted(
        Path("/dev").glob("video[0-9]*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0)
    )
    if not nodes:
        return [
            Check(
                "camera",
                ABSENT,
                "no /dev/video*",
                "connect one, or try a file: --source clip.mp4",
            )
        ]
    with ThreadPoolExecutor(4) as workers:
        return list(workers.map(_check_camera, nodes))


def _check_camera(node: Path) -> Check:
    model = machine.read_text(f"/sys/class/video4linux/{node.name}/name")
    told_model = f"{model}: " if model else ""
    if machine.read_text(f"/sys/class/video4linux/{node.name}/index") not in ("", "0"):
        return Check(str(node), ABSENT, f"{told_model}a second node of a camera, without pictures")
    if not os.access(node, os.R_OK | os.W_OK):
        return Check(
            str(node),
            MISSING,
            f"{told_model}may not be opened by this user",
            "sudo usermod -aG video $USER, and log in again",
        )
    works, told = machine.probe(
        "from runtime.sources import open_source\n"
        f"s = open_source({str(node)!r}); print(s.description); s.close()",
        _CAMERA_S,
    )
    if works:
        return Check(str(node), OK, told_model + told)
    mend = "close the program that uses it, or try another USB port"
    return Check(str(node), MISSING, told_model + told, mend)


def check_torch() -> Check:
    """PyTorch, and whether it trains on the GPU."""
    version = machine.version_of("torch")
    if version is None:
        return Check("torch", MISSING, "not installed", "pip install 'pix2pix-edge[train]'")
    if not machine.gpus()[0]:
        return Check("torch", OK, f"{version}, trains on the CPU")
    works, told = machine.probe("import torch; print(torch.cuda.is_available())")
    if not works:
        return Check("torch", MISSING, told, "pip install --force-reinstall torch")
    if told == "True":
        return Check("torch", OK, f"{version}, trains on the GPU")
    mend = "pip install --force-reinstall torch (see https://pytorch.org for this driver)"
    return Check("torch", MISSING, f"{version}, which does not see the GPU", mend)


def check_training_packages() -> Check:
    """What the trainer and the exporter need beside PyTorch."""
    names = ("onnx", "onnxscript", "safetensors", "torchmetrics", "tensorboard")
    versions = {name: machine.version_of(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check(
            "training packages",
            MISSING,
            f"not installed: {', '.join(missing)}",
            "pip install 'pix2pix-edge[train]'",
        )
    return Check("training packages", OK, ", ".join(f"{n} {v}" for n, v in versions.items()))


def check_matplotlib() -> Check:
    """What draws the plot of a benchmark."""
    version = machine.version_of("matplotlib")
    if version is None:
        return Check(
            "matplotlib", MISSING, "no plots of benchmarks", "pip install 'pix2pix-edge[bench]'"
        )
    return Check("matplotlib", OK, version)


def _library(name: str, works: bool, told: str, mend: str) -> Check:
    return Check(name, OK, told) if works else Check(name, MISSING, told, mend)


SECTIONS: dict[str, tuple[Callable[[], Check | list[Check]], ...]] = {
    "machine": (check_python, check_cpu, check_gpu, check_jetson, check_disk),
    "engines": (
        check_onnxruntime,
        check_onnxruntime_cuda,
        check_tensorrt,
        check_tensorrt_rtx,
        check_pycuda,
        check_cuda_bindings,
    ),
    "video": (check_opencv, check_screen, check_cameras),
    "training": (check_torch, check_training_packages, check_matplotlib),
}
