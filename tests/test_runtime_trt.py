"""What the TensorRT engine refuses, and why: all that can be known of it without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import export.to_tensorrt as to_tensorrt
import runtime.engines.trt as trt_engine
from runtime import Translator, machine
from runtime.artifact import BUILT_AHEAD, ArtifactMeta, sidecar_of
from runtime.errors import EngineError, ModelError

API_FILES = sorted(Path("../shared/facts/tensorrt_api").glob("api_*.json"))
ORIN = machine.Gpu("Orin", "8.7")


class Library:
    """Stands for an installed TensorRT of this version: only its version is asked."""

    __version__ = "10.3.0"


def engine_file(folder: Path, library: str, gpu: str = BUILT_AHEAD) -> Path:
    path = folder / "model.fp16.engine"
    path.write_bytes(b"an engine")
    meta = ArtifactMeta(
        "unet_256", "fp16", (64, 64), (64, 64), 18, "g", "0", engine_library=library, gpu=gpu
    )
    sidecar_of(path).write_text(meta.to_json())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(EngineError) as caught:
        Translator.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def with_tensorrt(monkeypatch):
    monkeypatch.setattr(trt_engine.importlib, "import_module", lambda name: Library)


def test_an_engine_without_its_contract_is_refused(tmp_path):
    (tmp_path / "model.engine").write_bytes(b"an engine")
    with pytest.raises(ModelError, match=re.escape("model.engine.json")):
        Translator.load(tmp_path / "model.engine")


def test_an_engine_of_a_library_that_is_not_here_names_the_command_that_rebuilds(tmp_path):
    told = refusal(engine_file(tmp_path, "tensorrt 9.9.9"))
    assert "built by tensorrt 9.9.9" in told
    assert "p2p-export model.fp16.onnx" in told


def test_an_engine_of_another_version_is_refused(tmp_path, with_tensorrt):
    told = refusal(engine_file(tmp_path, "tensorrt 11.4.0"))
    assert "built by tensorrt 11.4.0, and here is tensorrt 10.3.0" in told


def test_without_a_gpu_the_onnx_file_is_named(tmp_path, with_tensorrt, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: ([], "no NVIDIA driver"))
    told = refusal(engine_file(tmp_path, "tensorrt 10.3.0"))
    assert "needs an NVIDIA GPU: no NVIDIA driver" in told
    assert "model.fp16.onnx" in told


def test_an_engine_of_another_gpu_is_refused(tmp_path, with_tensorrt, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
    told = refusal(engine_file(tmp_path, "tensorrt 10.3.0", "Xavier (compute 7.2)"))
    assert "built on Xavier (compute 7.2), and here is Orin (compute 8.7)" in told


@pytest.mark.parametrize("gpu", [BUILT_AHEAD, str(ORIN)])
def test_a_fitting_engine_gets_as_far_as_pycuda(tmp_path, with_tensorrt, monkeypatch, gpu):
    monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    told = refusal(engine_file(tmp_path, "tensorrt 10.3.0", gpu))
    assert "pip install 'pix2pix-edge[gpu]'" in told


@pytest.mark.skipif(not API_FILES, reason="the lists of TensorRT's names are not here")
@pytest.mark.parametrize("module", [to_tensorrt, trt_engine], ids=["builder", "engine"])
@pytest.mark.parametrize("api_file", API_FILES, ids=lambda path: path.stem)
def test_every_tensorrt_name_that_is_used_exists_in_this_version(api_file, module):
    names = json.loads(api_file.read_text())
    members = {member for found in names.values() for member in found}
    source = Path(module.__file__).read_text()
    used = set(re.findall(r"\btrt\.([A-Z]\w+)(?:\.([A-Z]\w+))?", source))
    assert used
    for first, second in used:
        assert first in names, first
        assert not second or second in names[first] or second in names, (first, second)
    objects = r"\b(?:builder|network|config|parser|runtime|_engine|_execution)\.([a-z]\w+)\("
    for called in set(re.findall(objects, source)):
        assert called in members, called
