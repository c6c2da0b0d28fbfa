"""The doctor's checks of the machine, the engines and the trainer.

One small function a thing, each answers on any machine.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from runtime import machine
from runtime.checking import ABSENT, MISSING, OK, Check

_LEAST_DISK_GIB = 3


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


def check_openvino() -> Check:
    """OpenVINO, another engine for CPUs."""
    version = machine.version_of("openvino")
    if version is None:
        told = "not needed: --engine openvino"
        return Check("OpenVINO", ABSENT, told, "pip install 'pix2pix-edge[openvino]'")
    works, told = machine.probe("import openvino")
    return _library("OpenVINO", works, version if works else told, "pip install openvino")


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
