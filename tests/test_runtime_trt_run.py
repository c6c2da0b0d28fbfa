"""How frames cross a (simulated) GPU: what is queued up, what is kept, what is given back.

`simulated_gpu` says what it stands for; the same engine on a real GPU is in `test_gpu_trt.py`.
"""

from __future__ import annotations

import gc
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from simulated_gpu import SimulatedGpu
from simulated_tensorrt import (
    ANY_SHAPE,
    DYNAMIC,
    META,
    SimulatedTensorRT,
    engine_file,
    install,
    noise,
)

from runtime.engines.trt import Launches, TrtEngine
from runtime.errors import EngineError, FrameError, UserError

FRAMES = noise(1, 64, 64, 3)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens an engine with this contract on this GPU; in the end it is closed and all is back."""
    engines = []

    def open_on(gpu, meta=META, bindings=True, trt=None, **options):
        install(monkeypatch, gpu, trt or SimulatedTensorRT(gpu), bindings)
        path = engine_file(tmp_path, "tensorrt 10.3.0", meta=meta)
        engines.append((TrtEngine(path, **options), gpu))
        return engines[-1][0]

    yield open_on
    gc.collect(1)  # an exception that was caught keeps alive what its frames refer to
    for engine, gpu in engines:
        engine.close()
        engine.close()
        gpu.assert_all_given_back()


def steps_of_one_frame(gpu, engine, frames=FRAMES):
    """The calls that one `infer` makes."""
    gpu.calls.clear()
    assert np.array_equal(engine.infer(frames), 255 - frames)
    return [name for name, *_ in gpu.calls]


def test_a_frame_is_one_launch_of_a_captured_graph(opened):
    gpu = SimulatedGpu()
    engine = opened(gpu)
    assert steps_of_one_frame(gpu, engine) == ["push", "cuGraphLaunch", "synchronize"]
    assert (engine.graph, engine.launches) == ("captured", Launches(by_graph=1))
    assert engine.description == "tensorrt 10.3.0, Orin; CUDA graph captured"


def test_the_graph_is_captured_after_one_real_run_and_holds_the_copies(opened):
    gpu = SimulatedGpu()
    opened(gpu)
    ours = ("set_tensor_address", "memcpy_htod_async", "execute_async_v3", "memcpy_dtoh_async")
    capture = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate")
    queued = [name for name, *_ in gpu.named(*ours, *capture, "synchronize")]
    assert queued == [
        *("set_tensor_address", "set_tensor_address"),
        *("memcpy_htod_async", "execute_async_v3", "memcpy_dtoh_async", "synchronize"),
        "cuStreamBeginCapture",
        *("memcpy_htod_async", "execute_async_v3", "memcpy_dtoh_async"),
        *("cuStreamEndCapture", "cuGraphInstantiate"),
    ]


def test_work_goes_to_a_stream_that_waits_for_no_default_stream(opened):
    gpu = SimulatedGpu()
    opened(gpu)
    assert gpu.named("Stream") == [("Stream", 1)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("graph", [True, False])
def test_a_static_engine_translates_batch_after_batch(opened, batch, graph):
    gpu = SimulatedGpu((batch, 64, 64, 3))
    engine = opened(gpu, replace(META, batch=batch), graph=graph)
    for frames in (noise(batch, 64, 64, 3), np.zeros((batch, 64, 64, 3), np.uint8)):
        assert np.array_equal(engine.infer(frames), 255 - frames)
    assert not gpu.named("set_input_shape")


def test_without_a_graph_copies_and_run_are_queued_up_one_by_one(opened):
    gpu = SimulatedGpu()
    engine = opened(gpu, graph=False)
    assert steps_of_one_frame(gpu, engine) == [
        *("push", "memcpy_htod_async", "execute_async_v3", "memcpy_dtoh_async", "synchronize")
    ]
    assert (engine.graph, engine.launches) == ("off", Launches(by_enqueue=1))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("cuStreamBeginCapture", "CUDA_ERROR_UNKNOWN"),
        ("cuStreamEndCapture", "cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
        ("cuGraphInstantiate", "CUDA_ERROR_UNKNOWN"),
    ],
)
def test_a_refused_capture_is_told_and_the_frames_run_without(opened, step, reason):
    gpu = SimulatedGpu()
    gpu.fail = {step: 1}
    engine = opened(gpu)
    assert engine.graph == f"refused: {reason}"
    assert f"CUDA graph refused: {reason}" in engine.description
    assert "execute_async_v3" in steps_of_one_frame(gpu, engine)
    assert engine.launches == Launches(by_enqueue=1)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("execute_async_v3", "tensorrt 10.3.0 refused to run the engine (enqueue failed)"),
        ("memcpy_htod_async", "memcpy_htod_async failed: unspecified launch failure"),
    ],
)
def test_a_call_that_fails_inside_a_capture_ends_it(opened, step, reason):
    gpu = SimulatedGpu()
    gpu.fail, gpu.only_once = {step: 2}, True  # the first one is the run before the capture
    engine = opened(gpu)
    assert engine.graph == f"refused: {reason}"
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)


def test_an_error_that_tensorrt_only_logs_while_capturing_refuses_the_graph(opened):
    gpu = SimulatedGpu()
    trt = SimulatedTensorRT(gpu)
    trt.error_while_capturing = "operation not permitted when stream is capturing"
    engine = opened(gpu, trt=trt)
    assert engine.graph == f"refused: {trt.error_while_capturing}"
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)


def test_without_cuda_bindings_the_package_is_named(opened):
    engine = opened(SimulatedGpu(), bindings=False)
    assert engine.graph == "refused: the package cuda-bindings is not installed"
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)


def test_a_result_stays_as_it_is_when_the_next_batch_is_translated(opened):
    engine = opened(SimulatedGpu())
    result = engine.infer(FRAMES)
    engine.infer(255 - FRAMES)
    assert np.array_equal(result, 255 - FRAMES)


def test_a_result_that_nobody_holds_is_used_again(opened):
    engine = opened(SimulatedGpu())
    addresses = {engine.infer(FRAMES).ctypes.data for _ in range(10)}
    assert len(addresses) == 1


def test_a_view_of_frames_is_translated(opened):
    frames = noise(4, 64, 96, 3)[::2, :, ::-1]
    engine = opened(SimulatedGpu(ANY_SHAPE), DYNAMIC)
    assert np.array_equal(engine.infer(frames), 255 - frames)


def test_each_size_has_its_own_memory_and_graph_and_the_least_recently_used_one_goes(opened):
    gpu = SimulatedGpu(ANY_SHAPE)
    engine = opened(gpu, DYNAMIC)
    sizes = [(1, 32 * side, 64, 3) for side in range(1, 5)]  # beside the tuned one: five in all
    for shape in (*sizes, sizes[-1], sizes[0]):
        frames = noise(*shape)
        assert np.array_equal(engine.infer(frames), 255 - frames)
    told = [shape for _, shape in gpu.named("set_input_shape")]
    assert told == [(4, 64, 64, 3), *sizes], "each size is made once"
    assert gpu.held["launchable graph"] == gpu.held["execution context"] == 4
    engine.infer(noise(4, 64, 64, 3))  # went when the fifth size came
    engine.infer(noise(*sizes[1]))  # the least recently used of those left
    assert [shape for _, shape in gpu.named("set_input_shape")][5:] == [(4, 64, 64, 3), sizes[1]]
    assert engine.launches == Launches(by_graph=8)


def test_a_size_beyond_what_the_engine_was_built_for_is_refused_and_the_next_one_runs(opened):
    gpu = SimulatedGpu(ANY_SHAPE, largest=(4, 128, 128, 3))
    engine = opened(gpu, DYNAMIC)
    engine.infer(FRAMES)
    with pytest.raises(FrameError, match=re.escape("from [1, 32, 32, 3] to [4, 128, 128, 3]")):
        engine.infer(noise(1, 160, 64, 3))
    assert "create_execution_context" not in steps_of_one_frame(gpu, engine)


def test_where_memory_is_short_the_other_sizes_make_room(opened):
    tuned = 2 * 4 * 64 * 64 * 3
    gpu = SimulatedGpu(ANY_SHAPE, memory_bytes=tuned)
    engine = opened(gpu, DYNAMIC)
    frames = noise(1, 32, 32, 3)
    assert np.array_equal(engine.infer(frames), 255 - frames)
    assert gpu.taken_bytes == 2 * frames.size


@pytest.mark.parametrize("tensorrt_too", [False, True])
def test_too_little_memory_is_one_line_and_smaller_frames_still_run(opened, tensorrt_too):
    gpu = SimulatedGpu(ANY_SHAPE, memory_bytes=2 * 4 * 64 * 64 * 3)
    engine = opened(gpu, DYNAMIC)
    if tensorrt_too:
        gpu.fail = {"create_execution_context": 2}
    with pytest.raises(EngineError, match="no memory for frames of 1 MB") as caught:
        engine.infer(noise(4, 256, 256, 3))
    assert "\n" not in str(caught.value)
    gpu.fail = {}
    frames = noise(1, 32, 32, 3)
    assert np.array_equal(engine.infer(frames), 255 - frames)


@pytest.mark.parametrize(
    "frames",
    [noise(2, 64, 64, 3), noise(1, 64, 96, 3), np.zeros((1, 64, 64, 3), np.float32), "frames"],
)
def test_frames_that_an_engine_does_not_take_are_refused_before_the_gpu_sees_them(opened, frames):
    gpu = SimulatedGpu()
    engine = opened(gpu)
    gpu.calls.clear()
    with pytest.raises(FrameError, match=re.escape("expected uint8 [1, 64, 64, 3]")):
        engine.infer(frames)
    assert gpu.calls == []


def test_any_thread_may_translate_and_close(opened):
    gpu = SimulatedGpu()
    engine = opened(gpu)
    results = []

    def work():
        results.append(engine.infer(FRAMES))
        engine.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert np.array_equal(results[0], 255 - FRAMES)
    gpu.assert_all_given_back()


def test_a_closed_engine_says_so(opened):
    engine = opened(SimulatedGpu())
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(FRAMES)


@pytest.mark.parametrize("graph", [True, False])
def test_a_gpu_that_is_lost_in_mid_run_is_one_line_and_closing_still_ends(opened, graph):
    gpu = SimulatedGpu()
    engine = opened(gpu, graph=graph)
    engine.infer(FRAMES)
    gpu.lost = True
    with pytest.raises(EngineError, match=r"the GPU failed \(.+\); expected") as caught:
        engine.infer(FRAMES)
    assert "\n" not in str(caught.value)
    assert not gpu.stack


def test_a_run_that_tensorrt_refuses_is_one_line_with_its_reason(opened):
    gpu = SimulatedGpu()
    engine = opened(gpu, graph=False)
    gpu.fail = {"execute_async_v3": 1}
    with pytest.raises(EngineError, match=re.escape("refused to run the engine (enqueue failed)")):
        engine.infer(FRAMES)


# --- memory that the GPU shares with the host


@pytest.mark.parametrize(
    ("mapped_ms", "faster", "told"),
    [
        (2.25, "mapped", "mapped memory (2.25 ms, staged 2.50)"),
        (2.75, "staged", "staged memory (2.50 ms, mapped 2.75)"),
    ],
)
def test_on_a_gpu_with_the_host_s_memory_the_faster_way_stays(opened, mapped_ms, faster, told):
    gpu = SimulatedGpu(integrated=True, copy_ms=0.25, compute_ms=2.0, mapped_ms=mapped_ms)
    engine = opened(gpu)
    assert engine.memory == faster
    assert engine.description == f"tensorrt 10.3.0, Orin; CUDA graph captured; {told}"
    assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
    assert engine.launches == Launches(by_graph=1), "what was timed is not counted"


def test_mapped_memory_copies_nothing_and_is_read_after_the_gpu_is_done(opened):
    gpu = SimulatedGpu(integrated=True)
    engine = opened(gpu, memory="mapped", graph=False)
    steps = steps_of_one_frame(gpu, engine)  # checks the bytes: they lie there once it waited
    assert steps == ["push", "execute_async_v3", "synchronize"]
    assert {flags for _, flags in gpu.named("pagelocked_empty")} <= {2}
    assert gpu.held["device memory"] == 0


def test_over_a_bus_memory_is_staged_and_nothing_is_timed(opened):
    gpu = SimulatedGpu()
    assert opened(gpu).memory == "staged"
    assert not gpu.named("record", "get_device_pointer")


# --- times


@pytest.mark.parametrize("graph", [True, False])
def test_parts_are_timed_by_events_past_a_graph(opened, graph):
    gpu = SimulatedGpu(copy_ms=0.25, compute_ms=2.0)
    engine = opened(gpu, graph=graph)
    with engine.measured() as times:
        for _ in range(3):
            assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
    assert len(times) == 3
    for each in times:
        assert (each.h2d_ms, each.compute_ms, each.d2h_ms) == (0.25, 2.0, 0.25)
        assert (each.latency_ms, each.by_graph) == (2.5, False)
        assert each.enqueue_ms > 0
    assert engine.launches == Launches(by_enqueue=3)


def test_of_a_graph_only_the_whole_is_known(opened):
    gpu = SimulatedGpu(copy_ms=0.25, compute_ms=2.0)
    engine = opened(gpu)
    with engine.measured(parts=False) as times:
        assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
    (each,) = times
    assert (each.latency_ms, each.by_graph) == (2.5, True)
    assert (each.h2d_ms, each.compute_ms, each.d2h_ms) == (None, None, None)


def test_outside_a_measurement_nothing_is_recorded(opened):
    gpu = SimulatedGpu()
    engine = opened(gpu)
    with engine.measured() as times:
        pass
    assert "record" not in steps_of_one_frame(gpu, engine)
    assert times == []


# --- nothing leaks


def steps_of_opening(tmp_path, monkeypatch, integrated):
    gpu = SimulatedGpu(ANY_SHAPE, integrated=integrated)
    install(monkeypatch, gpu, SimulatedTensorRT(gpu))
    TrtEngine(engine_file(tmp_path, "tensorrt 10.3.0", meta=DYNAMIC)).close()
    names = [name for name, *_ in gpu.calls]
    return {name: names.count(name) for name in names if name != "push"}


def error_of_opening(path):
    """Why an engine does not open; None if it does. A refused graph is no error."""
    try:
        TrtEngine(path).close()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("integrated", [False, True])
def test_whichever_step_of_opening_fails_all_is_given_back(tmp_path, monkeypatch, integrated):
    """Each call that opening makes fails in its turn, once and for good."""
    failed = 0
    for name, count in steps_of_opening(tmp_path, monkeypatch, integrated).items():
        for number in range(1, count + 1):
            for only_once in (True, False):
                gpu = SimulatedGpu(ANY_SHAPE, integrated=integrated)
                gpu.fail, gpu.only_once = {name: number}, only_once
                install(monkeypatch, gpu, SimulatedTensorRT(gpu))
                path = engine_file(tmp_path, "tensorrt 10.3.0", meta=DYNAMIC)
                failed += error_of_opening(path) is not None
                gpu.assert_all_given_back()
    assert failed > 20


def refused(engine, frames):
    """Whether these frames are not translated."""
    try:
        engine.infer(frames)
    except (EngineError, FrameError):
        return True
    return False


def test_whichever_step_of_a_new_size_fails_the_sizes_before_run_on(opened):
    names = ("create_execution_context", "set_input_shape", "set_tensor_address", "mem_alloc")
    for name in (*names, "pagelocked_empty", "execute_async_v3", "synchronize"):
        gpu = SimulatedGpu(ANY_SHAPE)
        engine = opened(gpu, DYNAMIC)
        engine.infer(FRAMES)
        held = dict(+gpu.held)
        gpu.fail, gpu.only_once = {name: len(gpu.named(name)) + 1}, True
        if refused(engine, noise(1, 96, 96, 3)):
            assert dict(+gpu.held) == held
        assert np.array_equal(engine.infer(FRAMES), 255 - FRAMES)
