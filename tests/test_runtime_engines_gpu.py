"""ONNX Runtime's providers on a GPU: what they are asked for, and how they are refused."""

import dataclasses
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
from onnx_models import write_negative

from runtime import machine
from runtime.artifact import ArtifactMeta
from runtime.engines import choose_engine, open_engine
from runtime.engines.ort_session import CPU, CUDA, TENSORRT
from runtime.errors import EngineError, ModelError, UserError

META = ArtifactMeta(
    generator="unet_256",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="0" * 64,
)


class RecordedSession:
    """Stands for a session on a GPU, which no machine of the tests has.

    It records the providers that it was asked for and says that the first of them runs; the
    graph really runs, in a session on the CPU.
    """

    asked: ClassVar[list] = []
    starts = True
    fails = ""

    def __init__(self, path, options, providers, enable_fallback):
        RecordedSession.asked.append((providers, enable_fallback))
        if self.fails and providers != [CPU]:
            raise RuntimeError(self.fails)
        self.real = REAL_SESSION(path, options, providers=[CPU])
        self.names = [name if isinstance(name, str) else name[0] for name in providers]

    def get_providers(self):
        return self.names if self.starts else [CPU]

    def __getattr__(self, name):
        return getattr(self.real, name)

    def run_with_iobinding(self, binding):
        self.real.run_with_iobinding(binding)


REAL_SESSION = onnxruntime.InferenceSession
REAL_VALUE = onnxruntime.OrtValue


class DeviceValues:
    """Stands for memory on a GPU: makes it on the CPU, and counts."""

    made: ClassVar[list] = []

    @staticmethod
    def ortvalue_from_shape_and_type(shape, kind, device, number):
        assert (device, number) == ("cuda", 0)
        DeviceValues.made.append(tuple(shape))
        return REAL_VALUE.ortvalue_from_shape_and_type(list(shape), kind, "cpu", 0)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """An onnxruntime-gpu with all its providers, as far as our code sees."""
    monkeypatch.setenv("P2P_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(RecordedSession, "asked", [])
    monkeypatch.setattr(DeviceValues, "made", [])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", RecordedSession)
    monkeypatch.setattr(onnxruntime, "OrtValue", DeviceValues)
    return RecordedSession


def refusal(call, *args):
    with pytest.raises(EngineError) as caught:
        call(*args)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cuda_translates_through_device_memory_that_is_made_once_for_a_shape(gpu, tmp_path):
    meta = dataclasses.replace(META, batch=2, dynamic=True, size_multiple=8)
    path = write_negative(tmp_path / "m.onnx", ("h", "w"), meta, "n")
    engine = open_engine(path, "onnxruntime-cuda", streams=4)
    rng = np.random.default_rng(0)
    for shape in ((1, 64, 96, 3), (1, 64, 96, 3), (2, 8, 8, 3), (2, 8, 8, 3)):
        frames = rng.integers(0, 256, shape, np.uint8)
        assert np.array_equal(engine.infer(frames), 255 - frames)
    assert DeviceValues.made == [(1, 64, 96, 3), (2, 8, 8, 3)]
    assert engine.streams == 1
    assert engine.description.endswith(", CUDA")
    engine.close()


def test_cuda_that_is_asked_for_must_start(gpu, tmp_path):
    engine = open_engine(write_negative(tmp_path / "m.onnx"), "onnxruntime-cuda")
    engine.close()
    ((providers, fallback),) = gpu.asked
    assert fallback is False
    assert [providers[0][0], providers[1]] == [CUDA, CPU]
    assert providers[0][1]["cudnn_conv_algo_search"] == "EXHAUSTIVE"


@pytest.mark.parametrize(
    ("changes", "fp16", "int8"),
    [
        ({"precision": "fp32"}, "0", "0"),
        ({"precision": "fp16"}, "1", "0"),
        ({"precision": "int8", "target": "tensorrt"}, "0", "1"),
        ({"precision": "int8", "kept": {"fp16": ["up.0"]}}, "1", "1"),
        (None, "0", "0"),
    ],
)
def test_tensorrt_gets_no_other_precision_than_the_files(gpu, tmp_path, changes, fp16, int8):
    meta = None if changes is None else dataclasses.replace(META, **changes)
    path = write_negative(tmp_path / "m.onnx", (64, 96), meta)
    engine = open_engine(path, "onnxruntime-tensorrt")
    assert "TensorRT provider" in engine.description
    engine.close()
    ((providers, fallback),) = gpu.asked
    (name, options), (cuda, _), last = providers
    assert (name, cuda, last, fallback) == (TENSORRT, CUDA, CPU, False)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)


def test_tensorrt_keeps_engines_and_timings_in_the_models_own_folder(gpu, tmp_path):
    folders = []
    for name in ("a.onnx", "b.onnx", "a.onnx"):
        path = tmp_path / name
        open_engine(
            path if path.exists() else write_negative(path), "onnxruntime-tensorrt"
        ).close()
        options = gpu.asked[-1][0][0][1]
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
        folders.append(options["trt_engine_cache_path"])
    assert folders[0] == folders[2] != folders[1]
    assert (tmp_path / "cache" / "tensorrt-provider").is_dir()


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_does_not_start_is_refused_when_it_was_asked_for(
    gpu, tmp_path, monkeypatch, engine
):
    path = write_negative(tmp_path / "m.onnx")
    monkeypatch.setattr(gpu, "starts", False)
    assert "did not start (its library does not load)" in refusal(open_engine, path, engine)
    monkeypatch.setattr(gpu, "fails", "CUDA failure 100:\nno CUDA-capable device")
    told = refusal(open_engine, path, engine)
    assert "did not start (CUDA failure 100: no CUDA-capable device)" in told
    assert "p2p-doctor" in told


@pytest.mark.parametrize("way", [{"starts": False}, {"fails": "CUDA failure 100"}])
def test_auto_goes_on_on_the_cpu_and_says_so(gpu, tmp_path, monkeypatch, way):
    for name, value in way.items():
        monkeypatch.setattr(gpu, name, value)
    engine = open_engine(write_negative(tmp_path / "m.onnx"), "auto", threads=1)
    assert "CPU, 1 thread" in engine.description
    assert "CUDA provider is installed but did not start: p2p-doctor" in engine.description
    frames = np.zeros((1, 64, 96, 3), np.uint8)
    assert np.all(engine.infer(frames) == 255)
    engine.close()


def test_auto_takes_cuda_where_a_gpu_is(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: ([machine.Gpu("NVIDIA A2", "8.6")], ""))
    path = write_negative(tmp_path / "m.onnx")
    assert choose_engine(path).reason == (
        "ONNX Runtime with CUDA: an .onnx file, and an NVIDIA A2 is here"
    )
    engine = open_engine(path)
    assert engine.description.endswith(", CUDA")
    engine.close()


def test_a_broken_model_is_not_blamed_on_the_provider(gpu, tmp_path):
    path = write_negative(tmp_path / "m.onnx")
    content = path.read_bytes().replace(b"Sub", b"Sob")
    path.write_bytes(content)
    for engine in ("onnxruntime-cuda", "auto"):
        with pytest.raises(ModelError, match=r"cannot load m\.onnx"):
            open_engine(path, engine)
