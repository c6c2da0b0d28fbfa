"""The TensorRT engine on a real GPU: the real builder, the real pycuda, ONNX Runtime beside it.

Skipped where there is no GPU, no pycuda or no TensorRT; each reason is told.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from runtime import machine

gpus, why_none = machine.gpus()
if not gpus:
    pytest.skip(f"needs an NVIDIA GPU: {why_none}", allow_module_level=True)
pytest.importorskip("pycuda.driver", reason="needs pycuda", exc_type=ImportError)
pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")

from export.to_tensorrt import engine_from_onnx, tensorrt_library  # noqa: E402
from runtime.engines.ort import OrtEngine  # noqa: E402
from runtime.engines.trt import Launches, TrtEngine  # noqa: E402
from runtime.errors import EngineError, FrameError  # noqa: E402

WIDE = (128, 192)


def has_cuda_bindings() -> bool:
    try:
        importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An ONNX file with convolutions and its engine; the same for frames of any size."""
    from dataclasses import replace

    from test_export_engine import write_convolutions
    from test_export_onnx import meta

    folder = tmp_path_factory.mktemp("gpu")
    fixed = write_convolutions(folder / "fixed.onnx", (1, *WIDE, 3), 32, meta("fp32", WIDE))
    contract = replace(meta("fp32", WIDE), dynamic=True, size_multiple=2, batch=2)
    dynamic = write_convolutions(folder / "any.onnx", ("n", "h", "w", 3), 32, contract)
    try:
        for path in (fixed, dynamic):
            engine_from_onnx(path, path.with_suffix(".engine"))
    except EngineError as error:
        pytest.skip(f"{tensorrt_library()[1]} builds no engine here: {error}")
    return fixed, dynamic


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("P2P_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def fixed(models):
    onnx_path, _ = models
    try:
        TrtEngine(onnx_path.with_suffix(".engine")).close()
    except EngineError as error:
        pytest.skip(f"this GPU runs no engine of {tensorrt_library()[1]}: {error}")
    return onnx_path


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def translated(path, frames, **options):
    engine = TrtEngine(path.with_suffix(".engine"), **options)
    try:
        return [engine.infer(frames).copy() for _ in range(3)]
    finally:
        engine.close()


def test_it_draws_what_onnx_runtime_draws(fixed):
    frames = noise(1, *WIDE, 3)
    reference = OrtEngine(fixed).infer(frames).astype(int)
    for result in translated(fixed, frames):
        assert np.abs(result.astype(int) - reference).max() <= 2


@pytest.mark.parametrize("memory", ["staged", "mapped"])
def test_graph_or_none_and_either_memory_give_the_same_bytes(fixed, memory):
    frames = noise(1, *WIDE, 3)
    plain = translated(fixed, frames, graph=False, memory="staged")[0]
    for graph in (True, False):
        for result in translated(fixed, frames, graph=graph, memory=memory):
            assert np.array_equal(result, plain)


def test_a_graph_is_captured_where_it_can_be_and_launched(fixed):
    engine = TrtEngine(fixed.with_suffix(".engine"))
    frames = noise(1, *WIDE, 3)
    for _ in range(5):
        engine.infer(frames)
    if engine.graph == "by TensorRT-RTX":
        assert engine.launches == Launches(by_enqueue=5)
    elif has_cuda_bindings():
        assert (engine.graph, engine.launches) == ("captured", Launches(by_graph=5))
    else:
        assert engine.graph.startswith("refused: ")
    engine.close()


def test_times_are_positive_and_add_up(fixed):
    engine = TrtEngine(fixed.with_suffix(".engine"), memory="staged")
    frames = noise(1, *WIDE, 3)
    with engine.measured() as times:
        for _ in range(10):
            engine.infer(frames)
    with engine.measured(parts=False) as whole:
        engine.infer(frames)
    engine.close()
    for each in times:
        assert min(each.h2d_ms, each.compute_ms, each.d2h_ms, each.enqueue_ms) > 0
        parts_ms = each.h2d_ms + each.compute_ms + each.d2h_ms
        assert each.latency_ms == pytest.approx(parts_ms, abs=0.05)
    assert whole[0].latency_ms > 0


def test_sizes_that_come_and_go_are_each_translated(models, fixed):
    _, dynamic = models
    reference = OrtEngine(dynamic)
    engine = TrtEngine(dynamic.with_suffix(".engine"))
    sides = [(64, 64), (128, 192), (96, 64), (64, 128), (128, 128), (64, 64)]
    for count, side in enumerate(sides * 2):
        frames = noise(1 + count % 2, *side, 3)
        difference = engine.infer(frames).astype(int) - reference.infer(frames)
        assert np.abs(difference).max() <= 2
    with pytest.raises(FrameError):
        engine.infer(noise(1, 2048, 2048, 3))
    frames = noise(1, 64, 64, 3)
    assert engine.infer(frames).shape == frames.shape
    engine.close()


def test_opening_and_closing_again_and_again_gives_the_memory_back(fixed):
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    frames = noise(1, *WIDE, 3)
    free = []
    for _ in range(6):
        translated(fixed, frames)
        context.push()
        free.append(cuda.mem_get_info()[0])
        cuda.Context.pop()
    assert free[-1] >= free[1] - (8 << 20), "the first round loads the library's kernels"
