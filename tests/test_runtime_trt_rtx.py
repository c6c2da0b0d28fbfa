"""TensorRT-RTX: the kernels that it compiled are kept on disk, and its own CUDA graphs are used.

`simulated_gpu` stands for the library, which runs nothing without a GPU; that the installed one
has every name that is called here is in `test_tensorrt_api.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from simulated_gpu import SimulatedGpu
from simulated_tensorrt import (
    META,
    ORIN,
    SimulatedRtx,
    engine_file,
    install,
    noise,
)

from runtime import machine
from runtime.engines.trt import Launches, TrtEngine
from runtime.engines.trt_rtx import cache_path

FRAMES = noise(1, 64, 64, 3)
VERSION = "1.7.1"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens an engine with TensorRT-RTX; in the end it is closed and all is back."""
    monkeypatch.setenv("P2P_CACHE", str(tmp_path / "cache"))
    engines = []

    def open_with(trt=None, **options):
        gpu = SimulatedGpu() if trt is None else trt.gpu
        trt = trt or SimulatedRtx(gpu, VERSION)
        install(monkeypatch, gpu, trt)
        path = engine_file(tmp_path, f"tensorrt_rtx {trt.__version__}", meta=META)
        engines.append((TrtEngine(path, **options), gpu))
        return engines[-1][0]

    yield open_with
    for engine, gpu in engines:
        engine.close()
        gpu.assert_all_given_back()


@pytest.fixture
def kernels(tmp_path):
    """The files of the cache."""
    return lambda: sorted((tmp_path / "cache" / "tensorrt-rtx").glob("*"))


def test_compiled_kernels_are_kept_and_read_at_the_next_start(opened, kernels):
    opened().close()
    (kept,) = kernels()
    holds, written_ns = kept.read_bytes(), kept.stat().st_mtime_ns
    assert holds.startswith(b"kernels of this GPU")
    engine = opened()
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
    engine.close()
    assert kernels() == [kept]
    assert kept.stat().st_mtime_ns == written_ns, "what did not change is not written again"
    assert "kernels" not in engine.description


@pytest.mark.parametrize("holds", [b"", b"no cache", b"kernels of this GPU" + bytes(32)])
def test_a_cache_that_is_damaged_is_thrown_away_and_said(opened, kernels, holds):
    opened().close()
    (kept,) = kernels()
    whole = kept.read_bytes()
    kept.write_bytes(holds)
    engine = opened()
    assert "compiled kernels thrown away: damaged, or of another" in engine.description
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
    assert kept.read_bytes() == whole


def test_another_version_gpu_or_engine_has_a_cache_of_its_own(opened, kernels):
    opened()
    opened(SimulatedRtx(SimulatedGpu(), "1.8.0"))
    assert len(kernels()) == 2
    names = {
        cache_path(sha256, library, gpu)
        for sha256 in ("a", "b")
        for library in ("tensorrt_rtx 1.7.1", "tensorrt_rtx 1.8.0")
        for gpu in (str(ORIN), str(machine.Gpu("A100", "8.0")))
    }
    assert len(names) == 8


def test_a_disk_that_keeps_nothing_is_said_and_no_error(opened, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    engine = opened()
    assert "compiled kernels not" in engine.description
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)


def test_the_kernels_lie_in_the_cache_of_all_engines(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_CACHE", str(tmp_path))
    assert cache_path("sha", "tensorrt_rtx 1.7", "a GPU").parent == tmp_path / "tensorrt-rtx"


def test_its_own_cuda_graphs_are_preferred_to_ours(opened):
    engine = opened()
    assert engine.graph == "by TensorRT-RTX"
    assert "CUDA graph by TensorRT-RTX" in engine.description
    engine.infer(FRAMES)
    assert engine.launches == Launches(by_enqueue=1)


def test_without_graphs_the_library_is_not_asked_for_its_own(opened):
    assert opened(graph=False).graph == "off"


def test_a_version_without_graphs_of_its_own_gets_ours(opened, monkeypatch):
    monkeypatch.delattr(SimulatedRtx, "CudaGraphStrategy")
    engine = opened()
    engine.infer(FRAMES)
    assert (engine.graph, engine.launches) == ("captured", Launches(by_graph=1))
