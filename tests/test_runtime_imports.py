"""The arrows of DESIGN.md: a Jetson installs the runtime, and no torch."""

import subprocess
import sys

BLOCK = """
import importlib, pkgutil, sys

class Blocked:
    def __init__(self, names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is blocked by the test")

sys.meta_path.insert(0, Blocked(sys.argv[1].split(",")))

def import_all_of(package, but=()):
    package = importlib.import_module(package)
    names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    for name in names:
        if name not in but:
            importlib.import_module(name)
    return names
"""


def run(blocked, code):
    ran = subprocess.run(
        [sys.executable, "-c", BLOCK + code, blocked], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_all_of_the_runtime_imports_without_torch_onnx_trainer_and_export():
    run(
        "torch,onnx,trainer,export,benchmarks",
        "names = import_all_of('runtime'); assert 'runtime.engines.ort' in names",
    )


def test_all_of_the_runtime_imports_without_any_engines_library():
    run(
        "torch,onnx,onnxruntime,tensorrt,tensorrt_rtx,pycuda,cuda",
        "import_all_of('runtime'); from runtime import Translator, stream",
    )


def test_importing_the_runtime_alone_brings_in_neither_opencv_nor_numpy():
    run("cv2,numpy,onnxruntime,torch", "import runtime")


def test_only_the_commands_know_click():
    run("click", "import_all_of('runtime', but=['runtime.cli'])")


def test_a_missing_onnxruntime_is_told_with_the_line_that_installs_it(negative_onnx):
    run(
        "onnxruntime,openvino",
        f"""
from runtime import Translator
from runtime.errors import EngineError
try:
    Translator.load({str(negative_onnx)!r})
except EngineError as error:
    assert "pip install 'pix2pix-edge[cpu]'" in str(error), error
else:
    raise AssertionError
""",
    )
