"""Engines on the CPU: ONNX Runtime and OpenVINO keep one contract; which one runs, and why."""

import dataclasses
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    write_cropping,
    write_float_image_model,
    write_negative,
)

from runtime import machine
from runtime.artifact import META_KEY, ArtifactMeta
from runtime.engines import ENGINES, choose_engine, open_engine
from runtime.engines.openvino_engine import compile_options
from runtime.errors import EngineError, FrameError, ModelError, UserError

META = ArtifactMeta(
    generator="unet_256",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="0" * 64,
)
DYNAMIC = dataclasses.replace(META, batch=4, dynamic=True, size_multiple=8)
ANY_SIZE = ("h", "w")
INT8 = dataclasses.replace(META, precision="int8")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request):
    """The name of an engine that is installed."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return request.param


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def refusal(kind, call, *args):
    """The one line that `call` is refused with."""
    with pytest.raises(kind) as caught:
        call(*args)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_engine_gives_the_negative_exactly(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", (64, 96), META), engine)
    frames = noise((1, 64, 96, 3))
    assert np.array_equal(opened.infer(frames), 255 - frames)
    assert opened.meta == META
    opened.close()
    opened.close()


def test_a_dynamic_model_takes_every_number_and_size_of_its_contract(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", ANY_SIZE, DYNAMIC, "n"), engine)
    for shape in ((1, 64, 96, 3), (4, 8, 16, 3), (2, 128, 8, 3), (1, 64, 96, 3)):
        frames = noise(shape)
        assert np.array_equal(opened.infer(frames), 255 - frames)
    refusal(FrameError, opened.infer, noise((5, 64, 96, 3)))
    opened.close()


def test_frames_that_lie_apart_in_memory_are_translated(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", ANY_SIZE, DYNAMIC, "n"), engine)
    frames = noise((4, 64, 96, 3))[::2, :32]
    assert np.array_equal(opened.infer(frames), 255 - frames)
    opened.close()


def test_a_result_is_never_written_over_while_someone_holds_it(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", (64, 96), META), engine)
    frames = [noise((1, 64, 96, 3), seed) for seed in range(12)]
    results = [opened.infer(each) for each in frames]
    opened.close()
    for each, result in zip(frames, results, strict=True):
        assert np.array_equal(result, 255 - each)


def test_results_that_are_forgotten_give_their_memory_to_later_ones(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", (64, 96), META), engine)
    frames = noise((1, 64, 96, 3))
    places = {opened.infer(frames).ctypes.data for _ in range(20)}
    opened.close()
    assert len(places) <= 3


def test_three_streams_in_three_threads_each_give_their_own_frames(engine, tmp_path):
    path = write_negative(tmp_path / "m.onnx", (64, 96), META)
    opened = open_engine(path, engine, streams=3)
    wrong = []

    def translate(seed):
        for number in range(40):
            frames = noise((1, 64, 96, 3), 1000 * seed + number)
            if not np.array_equal(opened.infer(frames), 255 - frames):
                wrong.append((seed, number))

    threads = [threading.Thread(target=translate, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened.streams == 3
    assert "3 streams of " in opened.description
    opened.close()
    assert wrong == []


def test_no_stream_at_all_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="streams is 0"):
        open_engine(write_negative(tmp_path / "m.onnx"), streams=0)


def test_a_closed_engine_takes_no_frames(engine, tmp_path):
    opened = open_engine(write_negative(tmp_path / "m.onnx", (64, 96), META), engine)
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened.infer(noise((1, 64, 96, 3)))


def test_a_text_file_a_cut_off_file_and_an_empty_one_are_refused(engine, tmp_path):
    whole = write_negative(tmp_path / "whole.onnx").read_bytes()
    for name, content in (
        ("text", b"hello"),
        ("cut", whole[:-1]),
        ("head", whole[:60]),
        ("", b""),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        assert path.name in refusal(ModelError, open_engine, path, engine)


def test_an_operator_that_nobody_knows_is_refused_with_the_library(engine, tmp_path):
    shape = [1, 64, 96, 3]
    graph = helper.make_graph(
        [helper.make_node("Wavelet", ["frames"], ["translated"])],
        "test",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
    )
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "m.onnx")
    told = refusal(ModelError, open_engine, tmp_path / "m.onnx", engine)
    library = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[engine]
    assert told.startswith(library)
    assert "cannot load m.onnx" in told


def test_a_float_model_is_refused_with_its_types_and_shapes(engine, tmp_path):
    path = write_float_image_model(tmp_path / "m.onnx")
    told = refusal(ModelError, open_engine, path, engine)
    assert "frames: float32 [1, 3, 64, 96]" in told
    assert "p2p-export FILE.onnx" in told


@pytest.mark.parametrize(
    ("meta", "size_px", "batch"),
    [
        (META, (64, 96), 3),
        (META, (32, 96), 1),
        (META, ANY_SIZE, 1),
        (DYNAMIC, (64, 96), "n"),
        (DYNAMIC, ANY_SIZE, 4),
    ],
)
def test_a_contract_that_its_graph_does_not_keep_is_refused(
    engine, tmp_path, meta, size_px, batch
):
    path = write_negative(tmp_path / "m.onnx", size_px, meta, batch)
    told = refusal(ModelError, open_engine, path, engine)
    assert told.startswith("m.onnx says that it takes uint8 [")
    assert "its graph takes [" in told


def test_a_strangers_model_of_any_size_is_refused(engine, tmp_path):
    path = write_negative(tmp_path / "m.onnx", ANY_SIZE)
    assert "H and W fixed" in refusal(ModelError, open_engine, path, engine)


def test_a_graph_that_crops_is_refused_with_both_sizes(engine, tmp_path):
    path = write_cropping(tmp_path / "m.onnx")
    told = refusal(ModelError, open_engine, path, engine)
    assert "8, 96, 3" in told


def test_a_dynamic_graph_that_crops_is_refused_at_the_size_where_it_does(engine, tmp_path):
    meta = dataclasses.replace(DYNAMIC, batch=1)
    path = write_cropping(tmp_path / "m.onnx", 64, ANY_SIZE, meta)
    opened = open_engine(path, engine)
    frames = noise((1, 64, 96, 3))
    assert np.array_equal(opened.infer(frames), frames)
    told = refusal(ModelError, opened.infer, noise((1, 128, 96, 3)))
    assert "[1, 128, 96, 3] into [1, 64, 96, 3]" in told
    assert np.array_equal(opened.infer(frames), frames)
    opened.close()


def write_needing_64_rows(path, meta):
    """Declares frames of any size and gives them back, but adds up 64 rows on its way.

    The sum counts for nothing and has one element: no library knows the height before it runs.
    """
    constants = [
        helper.make_tensor("rows", TensorProto.FLOAT, [1, 64, 1, 1], [0.0] * 64),
        helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["levels", "rows"], ["sums"]),
        helper.make_node("ReduceMean", ["sums"], ["mean"]),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["levels", "zero"], ["same"]),
        helper.make_node("Cast", ["same"], ["translated"], to=TensorProto.UINT8),
    ]
    shape = [1, "h", "w", 3]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {META_KEY: meta.to_json()})
    onnx.save(model, path)
    return path


def test_a_size_that_breaks_inside_a_graph_is_one_line_and_the_engine_lives_on(engine, tmp_path):
    meta = dataclasses.replace(DYNAMIC, batch=1)
    opened = open_engine(write_needing_64_rows(tmp_path / "m.onnx", meta), engine)
    frames = noise((1, 64, 96, 3))
    assert np.array_equal(opened.infer(frames), frames)
    told = refusal(ModelError, opened.infer, noise((1, 40, 96, 3)))
    assert "cannot run m.onnx: " in told
    assert "uint8 [1, 40, 96, 3]" in told
    assert told.endswith("or give it frames nearer to 96x64")
    assert np.array_equal(opened.infer(frames), frames)
    opened.close()


def test_int8_for_tensorrt_is_told_to_be_slow_here(engine, tmp_path):
    for target, slow in (("tensorrt", True), ("cpu", False)):
        meta = dataclasses.replace(INT8, target=target)
        opened = open_engine(write_negative(tmp_path / "m.int8.onnx", (64, 96), meta), engine)
        assert ("m.int8.cpu.onnx is the fast one here" in opened.description) is slow
        opened.close()


def quantised_convolution(path, meta):
    """A convolution in Q/DQ form with weights of all eight bits, as it is written for TensorRT."""
    rng = np.random.default_rng(0)
    weights = rng.integers(90, 128, (3, 96, 3, 3)).astype(np.int8)
    weights *= rng.choice([-1, 1], (3, 1, 1, 1)).astype(np.int8)
    spread = rng.uniform(0.2, 1, (96, 3, 1, 1)).astype(np.float32)
    constants = {
        "spread": spread,
        "step": np.float32(2),
        "zero": np.int8(0),
        "weights": weights,
        "weight_step": np.full(3, 1e-5, np.float32),
        "zeros": np.zeros(3, np.int8),
        "middle": np.float32(128),
        "low": np.float32(0),
        "high": np.float32(255),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "spread"], ["many"]),
        helper.make_node("QuantizeLinear", ["many", "step", "zero"], ["many_q"]),
        helper.make_node("DequantizeLinear", ["many_q", "step", "zero"], ["many_dq"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_step", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["many_dq", "w"], ["few"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["few", "middle"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Transpose", ["rounded"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["translated"], to=TensorProto.UINT8),
    ]
    shape = [1, 64, 96, 3]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {META_KEY: meta.to_json()})
    onnx.save(model, path)
    return path


def test_openvino_draws_the_same_picture_as_onnx_runtime_from_int8_for_tensorrt(tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    meta = dataclasses.replace(INT8, target="tensorrt")
    path = quantised_convolution(tmp_path / "m.int8.onnx", meta)
    frames = noise((1, 64, 96, 3))
    drawn = []
    for name in ("onnxruntime", "openvino"):
        opened = open_engine(path, name)
        drawn.append(opened.infer(frames).astype(int))
        opened.close()
    assert np.ptp(drawn[0]) > 50
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


def test_openvino_computes_in_fp32_and_in_int8_only_what_is_written_for_the_cpu():
    for target, transformed in (("cpu", True), ("tensorrt", False), (None, False)):
        options = compile_options(dataclasses.replace(INT8, target=target), 2, 3)
        assert options["INFERENCE_PRECISION_HINT"] == "f32"
        assert ("LP_TRANSFORMS_MODE" not in options) is transformed
        assert (options["INFERENCE_NUM_THREADS"], options["NUM_STREAMS"]) == (6, 3)
    assert compile_options(None, 1, 1)["LP_TRANSFORMS_MODE"] == "NO"


def test_auto_says_why_it_takes_onnx_runtime(tmp_path, monkeypatch):
    path = write_negative(tmp_path / "m.onnx")
    monkeypatch.setattr(machine, "gpus", lambda: ([], "no NVIDIA driver"))
    choice = choose_engine(path)
    assert choice.engine == "onnxruntime"
    assert choice.reason == (
        "ONNX Runtime on the CPU: an .onnx file, and no NVIDIA GPU is here (no NVIDIA driver)"
    )


def test_auto_tells_of_a_gpu_that_stays_idle_and_how_to_use_it(tmp_path, monkeypatch):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    gpu = machine.Gpu("NVIDIA Orin", "8.7")
    monkeypatch.setattr(machine, "gpus", lambda: ([gpu], ""))
    reason = choose_engine(write_negative(tmp_path / "m.onnx")).reason
    assert "no CUDA provider" in reason
    assert reason.endswith("for the NVIDIA Orin here build an engine with: p2p-export m.onnx")


def test_auto_takes_what_is_installed(tmp_path, monkeypatch):
    path = write_negative(tmp_path / "m.onnx")
    installed = {"openvino"}
    monkeypatch.setattr(
        "runtime.engines.find_spec", lambda name: name if name in installed else None
    )
    choice = choose_engine(path)
    assert choice.engine == "openvino"
    assert "onnxruntime is not installed" in choice.reason
    installed.clear()
    assert "pip install 'pix2pix-edge[cpu]'" in refusal(EngineError, choose_engine, path)


def test_auto_never_changes_the_file(tmp_path):
    meta = dataclasses.replace(INT8, target="tensorrt")
    path = write_negative(tmp_path / "m.int8.onnx", (64, 96), meta)
    write_float_image_model(tmp_path / "m.int8.cpu.onnx")  # would be refused
    opened = open_engine(path)
    assert opened.meta == meta
    opened.close()


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_there_is_refused_and_nothing_else_runs(tmp_path, engine):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    told = refusal(EngineError, open_engine, write_negative(tmp_path / "m.onnx"), engine)
    assert told.startswith(f"engine {engine} cannot run m.onnx: the ONNX Runtime ")
    assert "pix2pix-edge[gpu]" in told


@pytest.mark.parametrize(
    ("engine", "extra"), [("openvino", "openvino"), ("onnxruntime", "cpu"), ("auto", "cpu")]
)
def test_a_library_that_is_not_installed_is_refused_with_its_extra(
    tmp_path, monkeypatch, engine, extra
):
    path = write_negative(tmp_path / "m.onnx")
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # as import sees a module that is not there
    assert f"pix2pix-edge[{extra}]" in refusal(EngineError, open_engine, path, engine)


@pytest.mark.parametrize(
    ("suffix", "engine"),
    [(".onnx", "tensorrt"), (".engine", "openvino"), (".engine", "onnxruntime-cuda")],
)
def test_an_engine_that_does_not_load_such_files_is_refused_with_those_that_do(
    tmp_path, suffix, engine
):
    path = tmp_path / f"m{suffix}"
    path.touch()
    told = refusal(EngineError, choose_engine, path, engine)
    assert ("onnxruntime or " in told) is (suffix == ".onnx")
    assert "--engine auto" in told


def test_an_engine_file_goes_to_tensorrt(tmp_path):
    (tmp_path / "m.engine").touch()
    choice = choose_engine(tmp_path / "m.engine")
    assert (choice.engine, choice.reason) == ("tensorrt", "TensorRT: an .engine file")


def test_every_engine_can_be_asked_for_by_name(tmp_path):
    for name in ENGINES[1:]:
        path = tmp_path / ("m.engine" if name == "tensorrt" else "m.onnx")
        path.touch()
        assert choose_engine(path, name).engine == name
