"""Real engines, built by the real TensorRT-RTX builder, which needs no GPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from made_runs import lively_generator
from onnx import TensorProto, helper, numpy_helper
from onnx_models import write_negative
from test_export_onnx import meta

import export.to_tensorrt as to_tensorrt
from export.engine_cache import engine_on_disk, why_stale
from export.engine_log import (
    in_a_thread,
    layers_in_inspection,
    layers_in_log,
    logger_of,
    progress_monitor_of,
)
from export.half import to_half
from export.to_onnx import onnx_from_generator, save_with_meta
from export.to_tensorrt import BuildOptions, engine_from_onnx, profile_of
from runtime import machine
from runtime.artifact import META_KEY, meta_of_engine, meta_of_onnx, sha256_of, sidecar_of
from runtime.engines.trt import TrtEngine
from runtime.errors import EngineError, ModelError
from trainer.config import GeneratorConfig

A100 = machine.Gpu("A100", "8.0")
PORTABLE = {"version_compatible": True, "hardware_compatible": True}

rtx = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")


def write_convolutions(path: Path, shape=(1, 64, 64, 3), channels=8, contract=None) -> Path:
    """Frame in, frame out through a Conv of stride 2 and a ConvTranspose, FP32 or (open) dynamic.

    Args:
        shape: of the frames; a name is an open side.
    """
    random = np.random.default_rng(0)
    weights = {
        "w_down": random.normal(0, 0.1, (channels, 3, 3, 3)),
        "w_mid": random.normal(0, 0.1, (channels, channels, 3, 3)),
        "w_up": random.normal(0, 0.1, (channels, 3, 4, 4)),
        "lowest": 0,
        "highest": 255,
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "w_down"], ["half"], "down", strides=[2, 2], pads=[1] * 4),
        node("Conv", ["half", "w_mid"], ["mid"], "mid", pads=[1] * 4),
        node("Relu", ["mid"], ["lit"]),
        node("ConvTranspose", ["lit", "w_up"], ["up"], "up", strides=[2, 2], pads=[1] * 4),
        node("Clip", ["up", "lowest", "highest"], ["clipped"]),
        node("Transpose", ["clipped"], ["pixels"], perm=[0, 2, 3, 1]),
        node("Cast", ["pixels"], ["translated"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    contract = contract or meta("fp32", (64, 64))
    helper.set_model_props(model, {META_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path):
    return write_convolutions(tmp_path / "model.onnx")


@pytest.fixture
def engine_path(tmp_path):
    return tmp_path / "model.engine"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """FP32 and FP16 engines of the whole U-Net 256, 54 M parameters."""
    folder = tmp_path_factory.mktemp("engines")
    generator = lively_generator(GeneratorConfig("unet_256", ngf=64))
    engines = {}
    onnx_from_generator(generator, folder / "fp32.onnx", meta("fp32"))
    in_half(folder / "fp32.onnx", folder / "fp16.onnx", meta("fp16"))
    for precision in ("fp32", "fp16"):
        onnx_path = folder / f"{precision}.onnx"
        engines[precision] = engine_from_onnx(onnx_path, folder / f"{precision}.engine")
    return engines


def in_half(source: Path, target: Path, contract) -> None:
    save_with_meta(to_half(onnx.load(str(source))), target, contract)


@pytest.mark.slow
def test_fp16_engine_is_about_half_the_bytes(built):
    ratio = built["fp16"].size_bytes / built["fp32"].size_bytes
    assert ratio == pytest.approx(0.5, abs=0.05)
    assert built["fp16"].size_bytes == built["fp16"].path.stat().st_size > 100e6


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "datatype"), [("fp32", "Float"), ("fp16", "Half")])
def test_convolutions_of_the_built_engine_compute_in_the_asked_type(built, precision, datatype):
    layers = built[precision].layers
    convolutions = [layer for layer in layers if layer.kind in ("correlation", "deconv")]
    assert len(convolutions) >= 15  # of 16: the last one may be fused into the way out
    for layer in convolutions:
        assert set(layer.input_types) == {datatype}, layer
    inside = {kind for layer in layers for kind in layer.output_types} - {"UInt8"}
    assert inside == {datatype}


@pytest.mark.slow
def test_contract_lies_beside_the_engine(built):
    engine = built["fp16"]
    contract = meta_of_engine(engine.path)
    assert contract == engine.meta
    assert contract.precision == "fp16"
    assert contract.engine_library == f"tensorrt_rtx {rtx.__version__}"
    assert contract.onnx_sha256 == sha256_of(engine.path.with_suffix(".onnx"))
    assert not list(engine.path.parent.glob(".*part*"))


@pytest.mark.slow
def test_frames_of_camera_size_build_too(tmp_path):
    generator = lively_generator(GeneratorConfig("unet_256", ngf=4))
    path = tmp_path / "wide.onnx"
    onnx_from_generator(generator, path, meta("fp32", (512, 768)))
    in_half(path, path, meta("fp16", (512, 768)))
    assert engine_from_onnx(path, tmp_path / "wide.engine").meta.frame_size_px == (512, 768)


def test_without_tensorrt_the_line_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(to_tensorrt, "LIBRARIES", ("tensorrt_that_is_not_here",))
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    with pytest.raises(EngineError, match=re.escape("pip install 'pix2pix-edge[rtx]'")):
        engine_from_onnx(path, tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_an_onnx_without_contract_is_refused(tmp_path):
    with pytest.raises(ModelError, match="p2p-export"):
        engine_from_onnx(write_negative(tmp_path / "model.onnx"), tmp_path / "model.engine")


def test_an_onnx_that_the_builder_refuses_gives_its_reason_and_no_file(tmp_path):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    model = onnx.load(str(path))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, str(path))
    with pytest.raises(EngineError, match="NoSuchOperator"):
        engine_from_onnx(path, tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_a_full_disk_leaves_no_engine(tmp_path, monkeypatch):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from export.to_tensorrt import engine_from_onnx\n"
        "from runtime.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"try: engine_from_onnx(Path({str(path)!r}), Path({str(tmp_path / 'm.engine')!r}))\n"
        "except UserError as error: sys.stdout.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "disk is full" in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def test_engine_building_needs_neither_torch_nor_onnx(tmp_path):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'safetensors', 'torchmetrics'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['p2p-export', {str(path)!r}]\n"
        "from export.cli import export\n"
        "export()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert meta_of_engine(tmp_path / "model.engine").onnx_sha256 == sha256_of(path)
    assert meta_of_onnx(path) is not None
    assert json.loads((tmp_path / "model.engine.json").read_text())["schema"] == 1


def test_options_profile_and_layers_are_in_the_contract(model, engine_path):
    engine = engine_from_onnx(model, engine_path, options=BuildOptions(workspace_mib=64))
    contract = meta_of_engine(engine_path)
    assert contract.build["workspace_mib"] == 64
    assert contract.build["library"] == f"tensorrt_rtx {rtx.__version__}"
    assert contract.build["profile"] is None
    kinds = {layer["name"].partition("_myl")[0]: layer["kind"] for layer in contract.layers}
    assert kinds["down"] == "correlation"
    assert {kind for layer in contract.layers for kind in layer["input_types"]} >= {"Float"}
    assert len(contract.layers) == len(engine.layers) >= 3


def test_an_engine_on_the_disk_is_known_as_when_it_was_built(model, engine_path):
    engine = engine_from_onnx(model, engine_path)
    assert engine_on_disk(engine_path) == engine
    engine_path.write_bytes(engine_path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="bytes, and its JSON says"):
        engine_on_disk(engine_path)


def test_progress_is_told_in_the_thread_of_the_caller(model, engine_path):
    told = []
    engine_from_onnx(
        model, engine_path, on_progress=lambda *told_: told.append((threading.get_ident(), *told_))
    )
    assert {ident for ident, *_ in told} == {threading.get_ident()}
    assert all(0 <= done <= total for _, _, done, total in told)
    outer = [(done, total) for _, phase, done, total in told if phase == told[0][1]]
    assert outer == sorted(outer)
    assert outer[0][0] == 0
    assert outer[-1][0] == outer[-1][1]


def test_ctrl_c_stops_the_build_and_leaves_nothing(model, engine_path):
    def pressed(_phase: str, _done: int, _total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(model, engine_path, on_progress=pressed)
    assert [path.name for path in engine_path.parent.iterdir()] == ["model.onnx"]
    assert threading.active_count() == before


def test_ctrl_c_is_heard_while_the_builder_tells_nothing():
    ended, listening = [], threading.Event()

    def work(post, stopped: threading.Event) -> None:
        post(listening.set)
        listening.wait()
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(stopped.wait(30))

    with pytest.raises(KeyboardInterrupt):
        in_a_thread(work)
    assert ended == [True]


def test_the_monitor_ends_the_builders_work_once_it_is_stopped(model):
    stopped = threading.Event()
    steps = []

    def told(phase: str, done: int, _total: int) -> None:
        steps.append((phase, done))
        if len(steps) == 5:
            stopped.set()

    logger = logger_of(rtx, lambda _message: None)
    monitor = progress_monitor_of(rtx, stopped, told)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(network, logger).parse_from_file(str(model))
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    assert builder.build_serialized_network(network, config) is None
    assert "cancel" in logger.reason.lower()
    assert len(steps) < 15


def test_a_workspace_that_is_too_small_names_the_flag_and_keeps_the_old_engine(
    tmp_path, engine_path
):
    model = write_convolutions(tmp_path / "model.onnx", channels=64)
    old = engine_from_onnx(model, engine_path)
    before = engine_path.read_bytes(), sidecar_of(engine_path).read_bytes()
    with pytest.raises(EngineError, match=r"--workspace 1.*--imgsz") as caught:
        engine_from_onnx(model, engine_path, options=BuildOptions(workspace_mib=1))
    assert "workspace" in caught.value.received
    assert (engine_path.read_bytes(), sidecar_of(engine_path).read_bytes()) == before
    assert engine_on_disk(engine_path) == old


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells its memory")
def test_out_of_memory_while_building_keeps_the_old_engine(tmp_path, engine_path):
    model = write_convolutions(tmp_path / "model.onnx", (1, 256, 256, 3), channels=256)
    engine_path.write_bytes(b"old")
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import export.to_tensorrt as to_tensorrt\n"
        "from runtime.errors import EngineError\n"
        "def limited(*arguments):\n"
        "    profile = add_profile(*arguments)\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "    limit = pages * resource.getpagesize() + (20 << 20)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "    return profile\n"
        "add_profile, to_tensorrt._add_profile = to_tensorrt._add_profile, limited\n"
        f"try: to_tensorrt.engine_from_onnx(Path({str(model)!r}), Path({str(engine_path)!r}))\n"
        "except EngineError as error: sys.stdout.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "could not build model.onnx" in done.stdout, done.stderr
    assert "set a --workspace below the memory that is free" in done.stdout
    assert "--imgsz" in done.stdout
    assert engine_path.read_bytes() == b"old"


def test_what_tensorrt_rtx_cannot_do_names_flag_and_library(model, engine_path):
    with pytest.raises(EngineError) as caught:
        engine_from_onnx(model, engine_path, options=BuildOptions(version_compatible=True))
    assert caught.value.received == f"--version-compatible with tensorrt_rtx {rtx.__version__}"
    assert not engine_path.exists()


def test_what_has_no_effect_is_told_once_and_makes_no_engine_stale(model, engine_path, tmp_path):
    told: list[str] = []
    idle = BuildOptions(timing_cache=tmp_path / "cache", hardware_compatible=True)
    engine_from_onnx(model, engine_path, options=idle, on_message=told.append)
    (line,) = [line for line in told if "no effect" in line]
    assert "--timing-cache" in line
    assert "--hardware-compatible" in line
    assert not (tmp_path / "cache").exists()
    assert why_stale(model, engine_path) is None
    assert why_stale(model, engine_path, idle) is None


def test_a_workspace_of_nothing_is_refused():
    with pytest.raises(EngineError, match="--workspace 0"):
        BuildOptions(workspace_mib=0)


def dynamic(batch=4, multiple=32, size_px=(64, 96)):
    return replace(meta("fp32", size_px), dynamic=True, batch=batch, size_multiple=multiple)


def test_a_dynamic_model_gets_its_profile(tmp_path, engine_path):
    model = write_convolutions(tmp_path / "model.onnx", ("N", "H", "W", 3), contract=dynamic())
    engine = engine_from_onnx(model, engine_path)
    sizes = {"min": [1, 32, 32, 3], "opt": [1, 64, 96, 3], "max": [4, 128, 192, 3]}
    assert engine.meta.build["profile"] == {"frames": sizes}
    assert why_stale(model, engine_path) is None


@pytest.mark.parametrize(
    ("contract", "shape", "sizes"),
    [
        (dynamic(), (1, 64, 96, 3), None),
        (dynamic(1, 256, (512, 768)), (-1, -1, -1, 3), ((1, 256), (1, 512), (1, 1024))),
        (dynamic(8, 4, (480, 640)), (-1, -1, -1, 3), ((1, 120), (1, 480), (8, 960))),
        (dynamic(8, 100, (480, 640)), (-1, -1, -1, 3), ((1, 200), (1, 480), (8, 1000))),
        (dynamic(8, 4, (480, 640)), (-1, 480, 640, 3), ((1, 480), (1, 480), (8, 480))),
        (meta("fp32", (480, 640)), (-1, 480, 640, 3), ((1, 480), (1, 480), (1, 480))),
    ],
)
def test_profiles_stay_multiples_from_a_quarter_to_twice_the_size(contract, shape, sizes):
    profile = profile_of(contract, shape)
    assert (profile and tuple((side[0], side[1]) for side in profile.values())) == sizes


def test_an_engine_beside_its_onnx_is_fresh_until_one_of_them_changes(model, engine_path):
    assert why_stale(model, engine_path) == "no engine yet"
    engine_from_onnx(model, engine_path)
    assert why_stale(model, engine_path) is None
    assert why_stale(model, engine_path, BuildOptions(workspace_mib=1024)) == (
        "built without --workspace, asked with --workspace 1024"
    )
    write_convolutions(model, channels=16)
    assert why_stale(model, engine_path) == "built from another model.onnx"
    sidecar_of(engine_path).write_text("{")
    assert "model.engine.json is damaged" in why_stale(model, engine_path)
    sidecar_of(engine_path).unlink()
    assert why_stale(model, engine_path) == "its model.engine.json is missing"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"engine_library": "tensorrt 10.3.0"},
            f"built by tensorrt 10.3.0, here is tensorrt_rtx {rtx.__version__}",
        ),
        ({"gpu": "Orin (compute 8.7)"}, "built on Orin (compute 8.7), here is no GPU"),
        ({"precision": "fp16"}, "built for precision fp16, asked fp32"),
        (
            {"build": {"workspace_mib": 512}},
            "built with --workspace 512, asked without --workspace",
        ),
        (
            {"build": {"version_compatible": True}},
            "built with --version-compatible, asked without --version-compatible",
        ),
        ({"layers": [{"name": "conv"}]}, "the metadata of model.engine.json is damaged"),
        ({"build": {"seconds": "?"}}, "the metadata of model.engine.json is damaged"),
        ({"build": None, "layers": None}, None),
    ],
)
def test_a_stale_engine_says_why(model, engine_path, monkeypatch, changed, why):
    monkeypatch.setattr(machine, "gpus", lambda: ([], "no NVIDIA driver"))
    engine = engine_from_onnx(model, engine_path)
    sidecar_of(engine_path).write_text(replace(engine.meta, **changed).to_json())
    found = why_stale(model, engine_path)
    assert found is None if why is None else found.startswith(why)


@pytest.mark.parametrize(
    ("changed", "library", "gpu", "fresh"),
    [
        (PORTABLE, "tensorrt 10.3.0", A100, True),
        (PORTABLE, "tensorrt 10.13.3.9", machine.Gpu("Orin", "8.7"), True),
        (PORTABLE, "tensorrt 10.2.0", A100, False),
        (PORTABLE, "tensorrt 10.3.0", machine.Gpu("T4", "7.5"), False),
        ({}, "tensorrt 10.3.0", A100, True),
        ({}, "tensorrt 10.13.3.9", A100, False),
        ({}, "tensorrt 10.3.0", machine.Gpu("Orin", "8.7"), False),
    ],
)
def test_an_engine_is_stale_exactly_where_the_loader_refuses_it(
    model, engine_path, monkeypatch, changed, library, gpu, fresh
):
    engine = engine_from_onnx(model, engine_path)
    build = {**(engine.meta.build or {}), **changed}
    contract = replace(engine.meta, build=build, engine_library="tensorrt 10.3.0", gpu=str(A100))
    sidecar_of(engine_path).write_text(contract.to_json())
    name, version = library.split()
    stand_in = SimpleNamespace(__version__=version, Builder=None)
    monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr(machine, "gpus", lambda: ([gpu], "driver for CUDA 12.6"))
    why = why_stale(model, engine_path, BuildOptions(**changed))
    with pytest.raises(EngineError) as caught:  # a loader that takes it gets as far as pycuda
        TrtEngine(engine_path)
    assert (why is None) == ("needs pycuda" in caught.value.received) == fresh, why


class FullConfig:
    """Stands for the builder's configuration of the full TensorRT, which cannot be installed here.

    Its timing cache is what it is given, when that is empty or begins with `good`; it refuses
    others, as TensorRT does with a cache of another GPU.
    """

    def __init__(self) -> None:
        self.flags: list[object] = []
        self.pools: dict[object, int] = {}
        self.cache: bytes | None = None

    def create_timing_cache(self, data: bytes):
        return None if data.startswith(b"damaged") else data

    def set_timing_cache(self, cache: bytes, _ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not cache or cache.startswith(b"good")

    def set_flag(self, flag: object) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: object, size_bytes: int) -> None:
        self.pools[pool] = size_bytes


@pytest.mark.parametrize(
    ("stored", "used", "told"),
    [(None, b"", 0), (b"good", b"good", 0), (b"damaged", b"", 1), (b"foreign", b"", 1)],
)
def test_a_timing_cache_is_read_or_told_and_started_anew(tmp_path, stored, used, told):
    path, messages, config = tmp_path / "cache", [], FullConfig()
    if stored:
        path.write_bytes(stored)
    logger = logger_of(rtx, messages.append)
    cache = to_tensorrt._configure(rtx, config, BuildOptions(timing_cache=path), logger)
    assert cache == config.cache == used
    assert len(messages) == told
    assert all(f"--timing-cache {path}" in message for message in messages)


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_a_timing_cache_is_written_back_and_read_again(model, engine_path, tmp_path, monkeypatch):
    # TensorRT-RTX still has the calls, and caches that hold nothing: they show the way there.
    monkeypatch.setattr(to_tensorrt, "in_effect", lambda options, _library, _say: options)
    told: list[str] = []
    options = BuildOptions(timing_cache=tmp_path / "caches" / "timing")
    for _ in range(2):
        engine_from_onnx(model, engine_path, options=options, on_message=told.append)
        assert options.timing_cache.stat().st_size > 100
    assert not [line for line in told if "--timing-cache" in line]


def test_a_timing_cache_that_cannot_be_read_is_refused(tmp_path):
    logger = logger_of(rtx, lambda _message: None)
    with pytest.raises(EngineError, match="--timing-cache"):
        to_tensorrt._configure(rtx, FullConfig(), BuildOptions(timing_cache=tmp_path), logger)


def test_the_full_tensorrt_gets_every_option():
    options = BuildOptions(64, version_compatible=True, hardware_compatible=True)
    assert to_tensorrt.in_effect(options, "tensorrt 10.3.0", lambda _line: None) is options
    config = FullConfig()
    assert to_tensorrt._configure(rtx, config, options, None) is None
    assert config.flags == [rtx.BuilderFlag.VERSION_COMPATIBLE]
    assert config.pools == {rtx.MemoryPoolType.WORKSPACE: 64 << 20}
    assert config.hardware_compatibility_level == rtx.HardwareCompatibilityLevel.AMPERE_PLUS


LOG_LINES = {
    "RTX 1.7 and TensorRT 11": (
        "Name: conv, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,3,8,8], "
        "Datatype: Half, Format: (NHWC) }], Constants: [ { Name: w, Datatype: Float }], "
        "Outputs: [ { Name: y, Dimensions: [1,8,4,4], Datatype: Int8, Format: (NHWC) }], "
        "TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv]",
        ("conv", "correlation", ("Half",), ("Int8",)),
    ),
    "TensorRT 10": (
        "Name: a + b, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, "
        "Dimensions: [1,3,8,8], Format/Datatype: Half }], Outputs: [ { Name: y, Location: "
        "Device, Dimensions: [1,8,4,4], Format/Datatype: Float }], ParameterType: Convolution, "
        'Kernel: [3,3], Weights: {"Type": "Half", "Count": 9}, StreamId: 0, Metadata: ',
        ("a + b", "CaskConvolution", ("Half",), ("Float",)),
    ),
    "TensorRT 10 with layouts": (
        "Name: a, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, Dimensions: "
        "[4,64,56,56], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format "
        "}], Outputs: [ { Name: y, Location: Device, Dimensions: [4,64,56,56], Format/Datatype: "
        "Channel major FP16 format where channel % 8 == 0 }, { Name: z, Location: Device, "
        "Dimensions: [1], Format/Datatype: Row major linear FP32 }]",
        ("a", "CaskConvolution", ("Int8",), ("Half", "Float")),
    ),
}


@pytest.mark.parametrize(("line", "expected"), LOG_LINES.values(), ids=LOG_LINES)
def test_layers_are_read_from_every_form_of_the_log(line, expected):
    (layer,) = layers_in_log(f"Layers:\n{line}\nI/O Tensors:\n")
    assert (layer.name, layer.kind, layer.input_types, layer.output_types) == expected


INSPECTIONS = {
    "10": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
    "11": [{"Name": "x", "Datatype": "Half", "Format": "Row major linear (kLINEAR)"}],
}


@pytest.mark.parametrize("tensors", INSPECTIONS.values(), ids=INSPECTIONS)
def test_layers_are_read_from_both_forms_of_the_inspector(tensors):
    layer = {"Name": "a", "LayerType": "CaskConvolution", "Inputs": tensors, "Outputs": tensors}
    named, bare = layers_in_inspection(json.dumps({"Layers": [layer, "only a name"]}))
    assert (named.kind, named.input_types, named.output_types) == (
        "CaskConvolution",
        ("Half",),
        ("Half",),
    )
    assert (bare.name, bare.kind, bare.input_types) == ("only a name", "", ())
