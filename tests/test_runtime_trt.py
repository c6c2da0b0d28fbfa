"""Which engine files are refused, and what is said: all that happens before a GPU is needed.

`Library` and the libraries of `simulated_gpu` stand for TensorRT and pycuda, which need a GPU.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from simulated_gpu import SimulatedGpu
from simulated_tensorrt import (
    ANY_SHAPE,
    DYNAMIC,
    META,
    ORIN,
    SimulatedTensorRT,
    engine_file,
    install,
)

from runtime import Translator, machine
from runtime.artifact import BUILT_AHEAD, meta_of_engine
from runtime.engines import trt_fit
from runtime.engines.trt import TrtEngine, runs_on, runs_with
from runtime.errors import EngineError, ModelError


class Library:
    """Stands for an installed TensorRT of this version: only its version is asked."""

    __version__ = "10.3.0"


def refusal(path: Path) -> str:
    """The one line that says why an engine is not opened."""
    with pytest.raises(EngineError) as caught:
        Translator.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def with_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", Library)


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


FOR_LATER_VERSIONS = replace(META, build={"version_compatible": True})
FROM_AMPERE_ON = replace(META, build={"hardware_compatible": True})


@pytest.mark.parametrize(
    ("built_by", "here"),
    [
        ("10.3.0", "10.3.0"),
        ("10.3.0", "10.13.3.9"),
        ("10.13.3.9", "11.4.0.106"),
        ("10.3.0", "10.3.0.26"),
        ("10.9.0", "10.10.0rc1"),
    ],
)
def test_a_version_compatible_engine_loads_in_later_versions(
    tmp_path, with_tensorrt, monkeypatch, built_by, here
):
    monkeypatch.setattr(Library, "__version__", here)
    monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
    path = engine_file(tmp_path, f"tensorrt {built_by}", meta=FOR_LATER_VERSIONS)
    assert_it_gets_as_far_as_pycuda(path, monkeypatch)
    path = engine_file(tmp_path, f"tensorrt {built_by}")
    if built_by != here:
        assert f"built by tensorrt {built_by}" in refusal(path)


@pytest.mark.parametrize(
    ("built_by", "here"),
    [
        ("tensorrt 10.13.3.9", "10.3.0"),
        ("tensorrt 11.4.0.106", "10.13.3.9"),
        ("tensorrt 10.3.0.26", "10.3.0.9"),
        ("tensorrt unknown", "10.3.0"),
    ],
)
def test_a_version_compatible_engine_is_refused_by_earlier_versions(
    tmp_path, with_tensorrt, monkeypatch, built_by, here
):
    monkeypatch.setattr(Library, "__version__", here)
    told = refusal(engine_file(tmp_path, built_by, meta=FOR_LATER_VERSIONS))
    assert f"built by {built_by}, and here is tensorrt {here}" in told
    assert "the same version or a later one" in told


def test_another_library_does_not_count_as_a_later_version():
    meta = replace(FOR_LATER_VERSIONS, engine_library="tensorrt 1.0.0")
    assert runs_with(meta, "tensorrt 1.7.1")
    assert not runs_with(meta, "tensorrt_rtx 1.7.1")


@pytest.mark.parametrize("flag", ["yes", 1, None, False])
def test_only_a_contract_that_says_true_makes_an_engine_portable(flag):
    meta = replace(
        META,
        engine_library="tensorrt 10.3.0",
        gpu="A100 (compute 8.0)",
        build={"version_compatible": flag, "hardware_compatible": flag},
    )
    assert not runs_with(meta, "tensorrt 10.13.3.9")
    assert not runs_on(meta, ORIN)


@pytest.mark.parametrize("capability", ["8.0", "8.7", "9.0", "10.1", "12.0"])
def test_a_hardware_compatible_engine_runs_on_every_gpu_from_ampere_on(
    tmp_path, with_tensorrt, monkeypatch, capability
):
    gpu = machine.Gpu("another", capability)
    monkeypatch.setattr(machine, "gpus", lambda: ([gpu], "driver for CUDA 12.6"))
    built_on = "A100 (compute 8.0)"
    path = engine_file(tmp_path, "tensorrt 10.3.0", built_on, FROM_AMPERE_ON)
    assert_it_gets_as_far_as_pycuda(path, monkeypatch)
    path = engine_file(tmp_path, "tensorrt 10.3.0", built_on)
    assert f"built on {built_on}, and here is another (compute {capability})" in refusal(path)


@pytest.mark.parametrize("capability", ["7.2", "7.5", "?"])
def test_a_hardware_compatible_engine_is_refused_on_older_gpus(
    tmp_path, with_tensorrt, monkeypatch, capability
):
    gpu = machine.Gpu("old", capability)
    monkeypatch.setattr(machine, "gpus", lambda: ([gpu], "driver for CUDA 12.6"))
    told = refusal(engine_file(tmp_path, "tensorrt 10.3.0", "A100 (compute 8.0)", FROM_AMPERE_ON))
    assert f"and here is old (compute {capability})" in told
    assert "a GPU of compute 8.0 or more" in told


def assert_it_gets_as_far_as_pycuda(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert "pip install 'pix2pix-edge[gpu]'" in refusal(path)


@pytest.mark.parametrize("gpu", [BUILT_AHEAD, str(ORIN)])
def test_a_fitting_engine_gets_as_far_as_pycuda(tmp_path, with_tensorrt, monkeypatch, gpu):
    monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
    assert_it_gets_as_far_as_pycuda(engine_file(tmp_path, "tensorrt 10.3.0", gpu), monkeypatch)


@pytest.fixture
def trt(monkeypatch):
    """A simulated TensorRT on a simulated GPU."""
    gpu = SimulatedGpu()
    trt = SimulatedTensorRT(gpu)
    install(monkeypatch, gpu, trt)
    return trt


def refused_by(trt, path, error=ModelError) -> str:
    """What is said of an engine that is refused; nothing of the GPU is kept."""
    with pytest.raises(error) as caught:
        TrtEngine(path)
    told = str(caught.value)
    assert "\n" not in told
    del caught  # its traceback refers to what TensorRT gave
    trt.gpu.assert_all_given_back()
    return told


@pytest.mark.parametrize(
    ("meta", "allowed"), [(META, False), (FROM_AMPERE_ON, False), (FOR_LATER_VERSIONS, True)]
)
def test_code_inside_an_engine_is_allowed_only_where_it_was_built_with_it(
    tmp_path, trt, meta, allowed
):
    TrtEngine(engine_file(tmp_path, "tensorrt 10.3.0", meta=meta)).close()
    assert trt.host_code_allowed is allowed


@pytest.mark.parametrize("holds", [b"some text\n", b"an eng", b""])
def test_a_file_that_is_no_whole_engine_is_refused_with_tensorrt_s_reason(tmp_path, trt, holds):
    path = engine_file(tmp_path, "tensorrt 10.3.0")
    path.write_bytes(holds)
    told = refused_by(trt, path, EngineError)
    assert "cannot load model.fp16.engine (magicTag does not match (in deserialize))" in told
    assert "p2p-export model.fp16.onnx" in told


def test_an_engine_of_another_length_than_its_contract_says_is_refused_unread(tmp_path, trt):
    meta = replace(META, build={"engine_bytes": 9})
    path = engine_file(tmp_path, "tensorrt 10.3.0", meta=meta)
    TrtEngine(path).close()
    path.write_bytes(b"an eng")
    trt.gpu.calls.clear()
    assert "has 6 bytes, its contract says 9" in refused_by(trt, path)
    assert trt.gpu.calls == []


def test_an_engine_of_other_bytes_than_its_contract_says_is_refused(tmp_path, trt):
    build = {"engine_bytes": 9, "engine_sha256": sha256(b"an engine").hexdigest()}
    path = engine_file(tmp_path, "tensorrt 10.3.0", meta=replace(META, build=build))
    TrtEngine(path).close()
    path.write_bytes(b"AN ENGINE")
    assert "is not the engine that its contract was written for" in refused_by(trt, path)


@pytest.mark.parametrize(
    ("shape", "meta"),
    [
        ((1, 64, 96, 3), META),
        ((2, 64, 64, 3), META),
        (ANY_SHAPE, META),
        ((4, 64, 64, 3), DYNAMIC),
        ((-1, 64, 64, 3), DYNAMIC),
        ((1, 3, 64, 64), META),
        ((1, 64, 64), META),
    ],
)
def test_an_engine_that_takes_other_frames_than_its_contract_says_is_refused(
    tmp_path, trt, shape, meta
):
    trt.gpu.shape = shape
    path = engine_file(tmp_path, "tensorrt 10.3.0", meta=meta)
    assert "says that it takes uint8" in refused_by(trt, path)


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("dtype", SimulatedTensorRT.DataType.FLOAT, "frames as FLOAT LINEAR"),
        ("layout", SimulatedTensorRT.TensorFormat.HWC8, "frames as UINT8 HWC8"),
        ("location", SimulatedTensorRT.TensorLocation.HOST, "frames in the host's memory"),
        ("tensors", ["frames", "translated", "mask"], "tensors called frames, translated, mask"),
        ("tensors", ["frames"], "tensors called frames"),
        ("tensors", ["image", "translated"], "tensors called image, translated"),
        ("given_shape", (1, 128, 128, 3), "[1, 64, 64, 3] in, [1, 128, 128, 3] out"),
        ("given_shape", (1, 64, 64, 1), "translated of the shape [1, 64, 64, 1]"),
    ],
)
def test_an_engine_with_other_tensors_is_refused(tmp_path, trt, attribute, value, told):
    setattr(trt, attribute, value)
    assert told in refused_by(trt, engine_file(tmp_path, "tensorrt 10.3.0"))


def test_an_engine_that_was_compared_with_nothing_says_so(tmp_path, trt):
    meta = replace(META, verified=False)
    engine = TrtEngine(engine_file(tmp_path, "tensorrt 10.3.0", meta=meta))
    assert engine.description.endswith("; not verified (--no-verify)")
    engine.close()


@pytest.mark.parametrize("holds", [b"some text\n" * 20, b"", b"ftrt" + bytes(3000)])
def test_the_real_tensorrt_rtx_refuses_what_is_no_engine_in_one_line(tmp_path, holds):
    """Deserialising needs no GPU up to where it refuses."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    path = engine_file(tmp_path, f"tensorrt_rtx {rtx.__version__}")
    path.write_bytes(holds)
    meta = meta_of_engine(path)
    with pytest.raises(EngineError, match=r"cannot load model.fp16.engine \(") as caught:
        trt_fit.loaded(rtx, path, meta, trt_fit.reasons_of(rtx))
    assert "\n" not in str(caught.value)
