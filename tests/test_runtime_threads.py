"""How many CPU threads an inference gets, and the trial that finds it for small networks."""

import dataclasses
import time

import pytest
from onnx_models import write_negative

from runtime.artifact import ArtifactMeta
from runtime.engines import open_engine
from runtime.engines.threads import MOST_MS, is_small, one_is_enough, threads_each

META = ArtifactMeta(
    generator="unet_256",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="0" * 64,
    batch=4,
    dynamic=True,
    size_multiple=8,
)
LARGE_PX = (4320, 7680)


@pytest.fixture(autouse=True)
def three_cores(tmp_path, monkeypatch):
    """Three cores, however many are here."""
    monkeypatch.setattr("runtime.engines.threads.physical_cores", lambda: 3)
    monkeypatch.setenv("P2P_CACHE", str(tmp_path / "cache"))


class Network:
    """Takes its time; more of it for a frame that comes after a rest, where threads were slow to
    wake."""

    def __init__(self, ms, more_after_a_rest_ms=0.0):
        self._ms = ms
        self._more_ms = more_after_a_rest_ms
        self._ended_s = 0.0

    def __call__(self):
        rested = time.perf_counter() - self._ended_s > 0.003
        time.sleep((self._ms + self._more_ms * rested) / 1e3)
        self._ended_s = time.perf_counter()


def described(path, engine, threads=None, streams=1):
    opened = open_engine(path, engine, threads, streams)
    opened.close()
    return opened.description


def test_streams_share_the_cores_out_unless_threads_are_asked_for(monkeypatch):
    monkeypatch.setattr("runtime.engines.threads.physical_cores", lambda: 6)
    assert [threads_each(None, streams) for streams in (1, 2, 4, 9)] == [6, 3, 1, 1]
    assert threads_each(5, 2) == 5


@pytest.mark.parametrize(
    ("of_all", "of_one", "enough"),
    [
        (Network(2), Network(2), True),
        (Network(2), Network(6), False),
        (Network(2, more_after_a_rest_ms=8), Network(4), True),
        (Network(2, more_after_a_rest_ms=2), Network(12), False),
    ],
    ids=["as fast", "three times slower", "faster from a camera", "slower even from a camera"],
)
def test_one_thread_is_enough_where_it_is_no_slower_on_frames_with_rests_between(
    of_all, of_one, enough
):
    assert one_is_enough(of_all, of_one) is enough


def test_small_is_what_takes_a_few_milliseconds():
    assert is_small(Network(MOST_MS / 5))
    assert not is_small(Network(2 * MOST_MS))


def test_a_small_network_runs_on_one_thread_with_onnx_runtime(tmp_path):
    assert "CPU, 1 thread" in described(write_negative(tmp_path / "m.onnx"), "onnxruntime")


def test_a_large_network_has_all_cores(tmp_path):
    path = write_negative(tmp_path / "m.onnx", LARGE_PX)
    assert "CPU, 3 threads" in described(path, "onnxruntime")


def test_openvino_has_all_cores(tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert "CPU, 3 threads" in described(write_negative(tmp_path / "m.onnx"), "openvino")


def test_frames_of_any_size_may_be_large_ones(tmp_path):
    path = write_negative(tmp_path / "m.onnx", ("h", "w"), META, batch="n")
    assert "CPU, 3 threads" in described(path, "onnxruntime")
    fixed = dataclasses.replace(META, batch=1, dynamic=False, size_multiple=1)
    assert "CPU, 1 thread" in described(
        write_negative(tmp_path / "f.onnx", meta=fixed), "onnxruntime"
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("threads", "streams", "told"),
    [
        (1, 1, "CPU, 1 thread"),
        (2, 1, "CPU, 2 threads"),
        (2, 2, "CPU, 2 streams of 2 threads"),
        (None, 2, "CPU, 2 streams of 1 thread"),
    ],
)
def test_as_many_as_asked_for_and_as_the_streams_leave(engine, threads, streams, told, tmp_path):
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    assert told in described(write_negative(tmp_path / "m.onnx"), engine, threads, streams)
