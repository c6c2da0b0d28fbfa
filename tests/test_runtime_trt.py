"""What the TensorRT engine refuses, and the order of its calls: all that can be known of it
without a GPU.

`Device` stands for pycuda and TensorRT together. It shows that buffers, shapes and addresses fit
each other; that the real libraries take these calls, only a GPU can show.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import runtime.engines.trt as trt_engine
from runtime import Translator, machine
from runtime.artifact import BUILT_AHEAD, ArtifactMeta, sidecar_of
from runtime.engines.trt import TrtEngine, runs_on, runs_with
from runtime.errors import EngineError, FrameError, ModelError

ORIN = machine.Gpu("Orin", "8.7")


class Library:
    """Stands for an installed TensorRT of this version: only its version is asked."""

    __version__ = "10.3.0"


META = ArtifactMeta("unet_256", "fp16", (64, 64), (64, 64), 18, "g", "0", gpu=BUILT_AHEAD)
DYNAMIC = replace(META, batch=4, dynamic=True, size_multiple=32)


class OutOfMemoryError(Exception):
    """Stands for `pycuda.driver.MemoryError`."""


class Device:
    """A GPU with TensorRT whose engine gives the negative, 255 - x: no real one is needed to
    follow the bytes. Memory is dealt out by address, and may run short.

    Args:
        shape: what the engine says that it takes; -1 where it takes any size.
        largest: the largest batch that it was built for.
        memory_bytes: how much may be held at once.
    """

    def __init__(self, shape, largest=(4, 256, 256, 3), memory_bytes=1 << 30):
        self.shape, self.largest, self.memory_bytes = shape, largest, memory_bytes
        self.memory = {}
        self.contexts = 0
        self.calls = []
        self.addresses = {}
        self.set_shape = None if -1 in shape else shape

    @property
    def held_bytes(self):
        return sum(map(len, self.memory.values()))

    @property
    def pycuda_driver(self):
        return SimpleNamespace(
            Device=lambda _index: self,
            Context=self,
            Stream=lambda: SimpleNamespace(handle=7, synchronize=lambda: None),
            MemoryError=OutOfMemoryError,
            pagelocked_empty=self.pagelocked_empty,
            mem_alloc=self.mem_alloc,
            memcpy_htod_async=self.memcpy_htod_async,
            memcpy_dtoh_async=self.memcpy_dtoh_async,
        )

    def retain_primary_context(self):
        return self

    def push(self):
        self.contexts += 1

    def pop(self):
        self.contexts -= 1

    def detach(self):
        assert self.contexts == 0

    def pagelocked_empty(self, size, dtype):
        assert self.contexts == 1
        return np.empty(size, dtype)

    def mem_alloc(self, size):
        assert self.contexts == 1
        if self.held_bytes + size > self.memory_bytes:
            raise OutOfMemoryError("out of memory")
        address = 1000 + len(self.calls)
        self.calls.append("mem_alloc")
        self.memory[address] = np.empty(size, np.uint8)
        return Allocation(self.memory, address)

    def memcpy_htod_async(self, there, here, _stream):
        assert self.contexts == 1
        assert here.flags.c_contiguous
        self.memory[int(there)][: here.nbytes] = here.ravel()

    def memcpy_dtoh_async(self, here, there, _stream):
        assert here.flags.c_contiguous
        here.ravel()[:] = self.memory[int(there)][: here.nbytes]

    # TensorRT: engine and execution context
    def create_execution_context(self):
        return self

    def get_tensor_shape(self, _name):
        return self.shape

    def get_tensor_profile_shape(self, _name, _profile):
        return [(1, 32, 32, 3), (1, 64, 64, 3), self.largest]

    def set_input_shape(self, _name, shape):
        self.calls.append(("set_input_shape", shape))
        if any(size > most for size, most in zip(shape, self.largest, strict=True)):
            return False
        self.set_shape = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, handle):
        assert handle == 7
        self.calls.append("execute")
        size = int(np.prod(self.set_shape))
        taken, given = (self.memory[self.addresses[name]] for name in ("frames", "translated"))
        given[:size] = 255 - taken[:size]
        return True


class Allocation:
    def __init__(self, memory, address):
        self._memory, self._address = memory, address

    def __int__(self):
        return self._address

    def free(self):
        del self._memory[self._address]


def engine_file(
    folder: Path, library: str, gpu: str = BUILT_AHEAD, meta: ArtifactMeta = META
) -> Path:
    path = folder / "model.fp16.engine"
    path.write_bytes(b"an engine")
    meta = replace(meta, engine_library=library, gpu=gpu)
    sidecar_of(path).write_text(meta.to_json())
    return path


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def refusal(path: Path) -> str:
    with pytest.raises(EngineError) as caught:
        Translator.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def with_tensorrt(monkeypatch):
    monkeypatch.setattr(trt_engine.importlib, "import_module", lambda name: Library)


@pytest.fixture
def opened(tmp_path, with_tensorrt, monkeypatch):
    """Opens an engine with this contract on this device."""

    def open_on(device, meta):
        monkeypatch.setattr(machine, "gpus", lambda: ([ORIN], "driver for CUDA 12.6"))
        monkeypatch.setattr(trt_engine, "_pycuda", lambda _path: device.pycuda_driver)
        monkeypatch.setattr(trt_engine, "_deserialized", lambda _trt, _path, _meta: device)
        return TrtEngine(engine_file(tmp_path, "tensorrt 10.3.0", meta=meta))

    return open_on


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


@pytest.mark.parametrize(
    ("meta", "allowed"), [(META, False), (FROM_AMPERE_ON, False), (FOR_LATER_VERSIONS, True)]
)
def test_code_inside_an_engine_is_allowed_only_where_it_was_built_with_it(tmp_path, meta, allowed):
    seen = []

    class Runtime:
        engine_host_code_allowed = False

        def deserialize_cuda_engine(self, data):
            seen.append((data, self.engine_host_code_allowed))
            return "engine"

    trt = SimpleNamespace(Runtime=lambda _logger: Runtime(), Logger=lambda _severity: None)
    trt.Logger.ERROR = 1
    path = engine_file(tmp_path, "tensorrt 10.3.0", meta=meta)
    assert trt_engine._deserialized(trt, path, meta) == "engine"
    assert seen == [(b"an engine", allowed)]


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


@pytest.mark.parametrize("batch", [1, 3])
def test_a_static_engine_translates_its_batch_without_a_word_on_shapes(opened, batch):
    device = Device((batch, 64, 64, 3))
    engine = opened(device, replace(META, batch=batch))
    for frames in (noise(batch, 64, 64, 3), np.zeros((batch, 64, 64, 3), np.uint8)):
        assert np.array_equal(engine.infer(frames), 255 - frames)
    engine.close()
    engine.close()
    assert device.calls == ["mem_alloc"] * 2 + ["execute"] * 2
    assert (device.memory, device.contexts) == ({}, 0)


def test_a_result_stays_as_it_is_when_the_next_batch_is_translated(opened):
    engine = opened(Device((1, 64, 64, 3)), META)
    frames = noise(1, 64, 64, 3)
    result = engine.infer(frames)
    engine.infer(255 - frames)
    assert np.array_equal(result, 255 - frames)


def test_a_dynamic_engine_is_told_each_new_shape_once_and_its_memory_only_grows(opened):
    device = Device((-1, -1, -1, 3))
    engine = opened(device, DYNAMIC)
    held = [device.held_bytes]
    shapes = [(1, 64, 64, 3), (1, 64, 64, 3), (2, 32, 96, 3), (1, 256, 256, 3), (1, 32, 32, 3)]
    for shape in shapes:
        frames = noise(*shape)
        assert np.array_equal(engine.infer(frames), 255 - frames)
        held.append(device.held_bytes)
    tuned, large = 2 * 4 * 64 * 64 * 3, 2 * 256 * 256 * 3
    assert held == [tuned] * 4 + [large] * 2
    told = [call[1] for call in device.calls if call[0] == "set_input_shape"]
    assert told == [(4, 64, 64, 3), *dict.fromkeys(shapes)]


def test_a_view_of_frames_is_translated(opened):
    frames = noise(4, 64, 96, 3)[::2, :, ::-1]
    assert np.array_equal(opened(Device((-1, -1, -1, 3)), DYNAMIC).infer(frames), 255 - frames)


def test_a_size_beyond_what_the_engine_was_built_for_is_refused_and_the_next_one_runs(opened):
    device = Device((-1, -1, -1, 3), largest=(4, 128, 128, 3))
    engine = opened(device, DYNAMIC)
    before = noise(1, 64, 64, 3)
    engine.infer(before)
    with pytest.raises(FrameError, match=re.escape("from [1, 32, 32, 3] to [4, 128, 128, 3]")):
        engine.infer(noise(1, 160, 64, 3))
    assert np.array_equal(engine.infer(before), 255 - before)
    assert device.contexts == 0


def test_too_little_memory_is_one_line_and_smaller_frames_still_run(opened):
    device = Device((-1, -1, -1, 3), memory_bytes=2 * 4 * 64 * 64 * 3)
    engine = opened(device, DYNAMIC)
    with pytest.raises(EngineError, match="no memory for frames of 1 MB") as caught:
        engine.infer(noise(4, 256, 256, 3))
    assert "\n" not in str(caught.value)
    assert device.memory == {}
    frames = noise(1, 32, 32, 3)
    assert np.array_equal(engine.infer(frames), 255 - frames)
    engine.close()
    assert device.memory == {}


@pytest.mark.parametrize(
    "frames",
    [noise(2, 64, 64, 3), noise(1, 64, 96, 3), np.zeros((1, 64, 64, 3), np.float32), "frames"],
)
def test_frames_that_an_engine_does_not_take_are_refused_before_the_gpu_sees_them(opened, frames):
    device = Device((1, 64, 64, 3))
    with pytest.raises(FrameError, match=re.escape("expected uint8 [1, 64, 64, 3]")):
        opened(device, META).infer(frames)
    assert "execute" not in device.calls


@pytest.mark.parametrize(
    ("shape", "meta"),
    [
        ((1, 64, 96, 3), META),
        ((2, 64, 64, 3), META),
        ((-1, -1, -1, 3), META),
        ((4, 64, 64, 3), DYNAMIC),
        ((-1, 64, 64, 3), DYNAMIC),
    ],
)
def test_an_engine_that_takes_other_frames_than_its_contract_says_is_refused(opened, shape, meta):
    with pytest.raises(ModelError, match="says that it takes uint8"):
        opened(Device(shape), meta)


def test_an_engine_that_was_compared_with_nothing_says_so(opened):
    device = Device((1, 64, 64, 3))
    assert opened(device, META).description == "tensorrt 10.3.0, Orin"
    unverified = opened(device, replace(META, verified=False))
    assert unverified.description.endswith("; not verified (--no-verify)")
