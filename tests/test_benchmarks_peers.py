"""`benchmarks.peers`: what else runs a generator draws the same picture, and says how.

trtexec needs a GPU and TensorRT's programs; a script that writes the file which trtexec's own
documentation describes stands for it here.
"""

from __future__ import annotations

import json
import stat
import sys

import cv2
import numpy as np
import pytest
import torch
from made_runs import write_run
from onnx_models import write_negative
from pairs import picture

from benchmarks.peers import PEERS, DeviceRow, peers_of
from benchmarks.peers import pytorch as peers_torch
from benchmarks.peers.plain_loop import PlainNetwork
from benchmarks.peers.rows import as_picture, as_planes
from benchmarks.rounds.rows import PEER, NotRun
from export.checkpoints import open_checkpoint
from export.norm_stats import with_batch_statistics
from export.to_onnx import onnx_from_generator
from runtime import Translator
from runtime.artifact import ArtifactMeta
from runtime.errors import EngineError, UserError
from trainer.config import GeneratorConfig

ON_THE_CPU = ("torch", "openvino", "onnxruntime_stock", "opencv_loop")
ROW = ("name", "role", "peer", "generator", "engine", "precision", "how", "load_ms")

pytestmark = pytest.mark.usefixtures("one_thread")


def meta_of(checkpoint, frame_size_px=None, norm_stats="running"):
    side = checkpoint.size_px
    return ArtifactMeta(
        generator=checkpoint.name,
        precision="fp32",
        frame_size_px=frame_size_px or (side, side),
        network_size_px=(side, side),
        opset=18,
        source=checkpoint.path.name,
        source_sha256=checkpoint.sha256,
        norm_stats=norm_stats,
    )


def exported(run, path, frame_size_px=None, norm_stats="running"):
    """Our FP32 export of a run, and its contract."""
    checkpoint = open_checkpoint(run)
    meta = meta_of(checkpoint, frame_size_px, norm_stats)
    generator = checkpoint.generator
    if norm_stats == "batch":
        generator = with_batch_statistics(generator)
    channels = {"input_channels": checkpoint.input_channels}
    channels["output_channels"] = checkpoint.output_channels
    onnx_from_generator(generator, path, meta, **channels)
    return path, meta


def drawn_by(row, image):
    return row.finish(row.infer(row.prepare(image)), image)


def opened(run, wanted, folder, **more):
    return peers_of(run, wanted, threads=1, folder=folder, device="cpu", **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), GeneratorConfig("edge_unet_s", ngf=8))


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stock")


@pytest.fixture(scope="module")
def rows(run, stock_folder):
    """All peers that a CPU runs without a compiler, of one run."""
    found = opened(run, ON_THE_CPU, stock_folder, generator="mine")
    yield dict(zip(ON_THE_CPU, found, strict=True))
    for row in found:
        row.close()


@pytest.fixture(scope="module")
def ours(run, tmp_path_factory):
    """Our FP32 export of that run."""
    path, _ = exported(run, tmp_path_factory.mktemp("ours") / "model.onnx")
    with Translator.load(path, threads=1) as translator:
        yield translator


# ------------------------------------------------------------------------------- what they draw


@pytest.mark.parametrize("peer", ON_THE_CPU)
def test_a_peer_draws_what_our_export_draws(rows, ours, peer):
    for size in ((64, 64), (96, 160)):
        image = picture(7, *size)
        result = drawn_by(rows[peer], image)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        expected = ours(image).astype(int)
        assert expected.std() > 10, "something was drawn"
        assert np.abs(result - expected).max() <= 2


@pytest.mark.parametrize(
    ("config", "frame_size_px", "norm_stats"),
    [
        (GeneratorConfig("edge_unet_s", ngf=4), None, "batch"),
        (
            GeneratorConfig("edge_unet_s", ngf=4, input_channels=1, output_channels=1),
            (72, 128),
            "",
        ),
        (GeneratorConfig("relight_s", ngf=4), (72, 128), ""),
    ],
    ids=["statistics of each picture", "grey, resized in the graph", "retouching"],
)
def test_a_peer_follows_the_export_that_it_is_compared_with(
    tmp_path, config, frame_size_px, norm_stats
):
    run = write_run(tmp_path / "run", config)
    path, meta = exported(run, tmp_path / "model.onnx", frame_size_px, norm_stats or "running")
    image = picture(3, *meta.frame_size_px)
    with Translator.load(path, threads=1) as ours:
        expected = ours(image).astype(int)
    for row in opened(run, ON_THE_CPU, tmp_path, like=meta):
        assert row.frame_size_px == meta.frame_size_px
        assert np.abs(drawn_by(row, image) - expected).max() <= 2, row.name
        row.close()


@pytest.mark.slow
def test_the_compiled_peer_draws_the_same_and_two_sizes_live_in_one_process(tmp_path):
    for width, size_px in ((2, 64), (4, 32)):
        config = GeneratorConfig("edge_unet_s", ngf=width)
        run = write_run(tmp_path / f"run{width}", config, size_px=size_px)
        path, meta = exported(run, tmp_path / f"model{width}.onnx")
        [row] = opened(run, ["torch_compile"], tmp_path, like=meta)
        image = picture(3, size_px, size_px)
        with Translator.load(path, threads=1) as ours:
            assert np.abs(drawn_by(row, image) - ours(image).astype(int)).max() <= 2
        assert "dynamic=False" in row.how
        row.close()
    assert not torch._inductor.config.freezing, "not for what this process compiles next"


def test_a_batch_may_be_inferred_again_and_a_result_outlives_the_next_picture(rows):
    first, second = picture(1, 64, 64), picture(2, 64, 64)
    for row in rows.values():
        batch = row.prepare(first)
        once = row.finish(row.infer(batch), first)
        kept = once.copy()
        assert (row.finish(row.infer(batch), first) == kept).all()
        assert not (drawn_by(row, second) == kept).all()
        assert (once == kept).all(), row.name


def test_planes_and_pictures_are_each_others_inverse():
    frame = picture(4, 24, 40)
    for in_order in (True, False):
        assert (as_picture(as_planes(frame, 3, in_order=in_order)) == frame).all()
    grey = as_picture(as_planes(frame, 1))
    assert (grey == cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None]).all()


# ------------------------------------------------------------------------------ how they are told


def test_every_row_says_what_it_is_and_which_documentation_set_it_up(rows, run):
    pages = {
        "torch": "Performance Tuning Guide",
        "openvino": "High-level Performance Hints",
        "onnxruntime_stock": "Thread management",
        "opencv_loop": "Python API of ONNX Runtime",
    }
    for peer, row in rows.items():
        told = {name: getattr(row, name) for name in ROW}
        assert told["peer"] == peer
        assert (told["role"], told["generator"], told["precision"]) == (PEER, "mine", "fp32")
        assert pages[peer] in told["how"]
        assert "1 thread" in told["engine"]
        assert told["load_ms"] > 0
        assert row.file.is_file()
        assert str(row.file.parent) not in json.dumps(told)
    assert len({row.name for row in rows.values()}) == len(rows)


def test_the_stock_graph_is_exported_once_and_of_other_weights_anew(
    rows, run, stock_folder, tmp_path
):
    file = rows["openvino"].file
    written = file.stat().st_mtime_ns
    again, loop = opened(run, ["onnxruntime_stock", "opencv_loop"], stock_folder)
    assert again.file == loop.file == file
    assert file.stat().st_mtime_ns == written
    other = write_run(tmp_path / "other", GeneratorConfig("edge_unet_s", ngf=2))
    [anew] = opened(other, ["onnxruntime_stock"], stock_folder)
    assert anew.file != file


def test_a_stock_graph_that_is_there_is_taken(rows, run, tmp_path):
    file = rows["openvino"].file
    [row] = opened(run, ["onnxruntime_stock"], tmp_path / "none", stock=file)
    assert row.file == file
    assert not (tmp_path / "none").exists()


def test_pytorch_draws_with_the_threads_of_its_own_row(rows):
    import torch

    torch.set_num_threads(2)
    row = rows["torch"]
    row.infer(row.prepare(picture(1, 64, 64)))
    assert torch.get_num_threads() == 1


# ------------------------------------------------------------------------------- what cannot run


def test_names_precisions_and_devices_that_there_are_not_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"no peer is called 'tensorflow'.*torch_compile"):
        opened(run, ["torch", "tensorflow"], tmp_path)
    with pytest.raises(UserError, match="'int4'"):
        opened(run, ["torch"], tmp_path, precision="int4")
    with pytest.raises(UserError, match="'tpu'"):
        peers_of(run, ["torch"], threads=1, folder=tmp_path, device="tpu")


def test_without_a_checkpoint_each_peer_says_so(tmp_path):
    (tmp_path / "generator.safetensors").write_bytes(b"damaged")
    for path, why in ((None, "none belongs"), (tmp_path, "safetensors")):
        results = opened(path, ["torch", "openvino"], tmp_path, generator="mine")
        assert [(row.peer, row.generator, row.role) for row in results] == [
            ("torch", "mine", PEER),
            ("openvino", "mine", PEER),
        ]
        assert all(isinstance(row, NotRun) and why in row.why for row in results)


def test_without_a_compiler_the_compiled_peer_is_not_run_in_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    [row] = opened(run, ["torch_compile"], tmp_path)
    assert isinstance(row, NotRun)
    assert "no C++ compiler" in row.why
    assert "apt-get install g++" in row.why
    assert "\n" not in row.why


def test_a_package_that_is_missing_costs_its_own_row_alone(run, stock_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(
        "benchmarks.peers.onnx_graphs._core", lambda: __import__("openvino").Core()
    )
    first, second = opened(run, ["openvino", "opencv_loop"], stock_folder)
    assert isinstance(first, NotRun)
    assert "pip install 'pix2pix-edge[openvino]'" in first.why
    assert drawn_by(second, picture(1, 64, 64)).any()


def test_half_precision_on_a_cpu_and_cuda_where_there_is_none_are_not_run(run, stock_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    for row in opened(run, ON_THE_CPU, stock_folder, precision="fp16"):
        assert isinstance(row, NotRun)
        assert "FP16" in row.why
        assert row.name.endswith("FP16")
    for row in peers_of(run, ON_THE_CPU, threads=1, folder=stock_folder, device="cuda"):
        assert isinstance(row, NotRun)
        assert "CUDA" in row.why


def test_what_a_library_throws_becomes_one_short_line(run, tmp_path, monkeypatch):
    def breaks(*_args, **_more):
        raise RuntimeError("lots\nof lines " * 1000)

    monkeypatch.setattr(peers_torch, "_prepared", breaks)
    [row] = opened(run, ["torch"], tmp_path)
    assert isinstance(row, NotRun)
    assert "RuntimeError: lots of lines" in row.why
    assert len(row.why) < 600
    assert "\n" not in row.why


# --------------------------------------------------------------------------------- the plain loop


def test_the_plain_network_in_three_steps_is_the_plain_network(tmp_path):
    network = PlainNetwork(write_negative(tmp_path / "model.onnx"), threads=1)
    image = picture(5, 80, 120)
    batch = network.prepare(image)
    assert (batch.shape, batch.dtype) == ((1, 64, 96, 3), np.uint8)
    assert (network.finish(network.infer(batch), image) == network(image)).all()


# ----------------------------------------------------------------------------------------- trtexec

STANDS_FOR_TRTEXEC = """#!{python}
import json, sys
options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
if "--help" in options:
    print("  --stronglyTyped   Create a strongly typed network")
    sys.exit(0)
open({log!r}, "w").write(json.dumps(options))
print("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] # trtexec")
if {fails}:
    print("[I] reading\\n[E] Error[1]: no CUDA-capable device is detected")
    sys.exit(1)
times = []
for number in range(int(options["--iterations"])):
    start = 10.0 * number
    times.append({{
        "startEnqMs": start, "endEnqMs": start + 0.25,
        "startH2dMs": start + 1, "endH2dMs": start + 1.5,
        "startComputeMs": start + 1.5, "endComputeMs": start + 4.5 + number,
        "startD2hMs": start + 4.5 + number, "endD2hMs": start + 5.25 + number,
        "h2dMs": 0.5, "computeMs": 3.0 + number, "d2hMs": 0.75, "latencyMs": 4.25 + number,
    }})
open(options["--exportTimes"], "w").write({times})
print("[I] === Performance summary ===\\n[I] Throughput: 123.5 qps")
"""


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """Put a script that stands for trtexec on the PATH; give what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "called.json"

    def put(fails=False, times="json.dumps(times)"):
        text = STANDS_FOR_TRTEXEC.format(
            python=sys.executable, log=str(log), fails=fails, times=times
        )
        program = folder / "trtexec"
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return lambda: json.loads(log.read_text())

    return put


def ours_at(path, **changed):
    values = {
        "generator": "negative",
        "precision": "fp16",
        "frame_size_px": (64, 96),
        "network_size_px": (64, 96),
        "opset": 18,
        "source": "generator.safetensors",
        "source_sha256": "",
        **changed,
    }
    return write_negative(path, meta=ArtifactMeta(**values))


def test_trtexec_runs_our_file_and_tells_the_devices_times(tmp_path, trtexec):
    called = trtexec()
    path = ours_at(tmp_path / "model.fp16.onnx")
    [row] = peers_of(
        None, ["trtexec"], threads=1, folder=tmp_path, models=[path], generator="mine"
    )
    assert isinstance(row, DeviceRow)
    told = (row.peer, row.role, row.generator, row.precision, row.frame_size_px)
    assert told == ("trtexec", PEER, "mine", "fp16", (64, 96))
    figures = row.measure(3)
    assert figures.fps == 123.5
    assert [one.compute_ms for one in figures.samples] == [3.0, 4.0, 5.0]
    assert [one.latency_ms for one in figures.samples] == [4.25, 5.25, 6.25]
    first = figures.samples[0]
    assert (first.h2d_ms, first.d2h_ms, first.enqueue_ms) == (0.5, 0.75, 0.25)
    assert row.engine == "trtexec, TensorRT 10.13.3"
    assert "Performance Benchmarking" in row.how
    options = called()
    assert options["--onnx"] == str(path)
    assert {"--stronglyTyped", "--useCudaGraph", "--useSpinWait"} <= set(options)
    assert "--shapes" not in options


def test_an_engine_is_loaded_not_built(tmp_path, trtexec):
    called = trtexec()
    meta = ArtifactMeta.from_json(_meta_text(tmp_path), "x")
    engine = tmp_path / "model.fp16.engine"
    engine.write_bytes(b"plan")
    engine.with_name(engine.name + ".json").write_text(meta.to_json())
    [row] = peers_of(None, ["trtexec"], threads=1, folder=tmp_path, models=[engine])
    assert len(row.measure(2).samples) == 2
    options = called()
    assert options["--loadEngine"] == str(engine)
    assert "--stronglyTyped" not in options


def _meta_text(folder):
    from runtime.artifact import meta_of_onnx

    return meta_of_onnx(ours_at(folder / "of.onnx")).to_json()


def test_a_model_of_any_size_is_given_one(tmp_path, trtexec):
    called = trtexec()
    path = ours_at(tmp_path / "model.onnx", dynamic=True, batch=4, size_multiple=32)
    [row] = peers_of(None, ["trtexec"], threads=1, folder=tmp_path, models=[path])
    row.measure(1)
    assert called()["--shapes"] == "frames:1x64x96x3"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"fails": True}, "no CUDA-capable device"),
        ({"times": "'[]'"}, "no times in it"),
        ({"times": "'[{\"startEnqMs\": 1}]'"}, "KeyError"),
        ({"times": "json.dumps(times)[:9]"}, "JSONDecodeError"),
        ({"times": "json.dumps(times).replace('0.5', 'NaN')"}, "no number"),
    ],
    ids=["it fails", "no times", "other names", "cut off", "no number"],
)
def test_a_trtexec_that_tells_nothing_is_told_in_one_line(tmp_path, trtexec, how, told):
    trtexec(**how)
    path = ours_at(tmp_path / "model.onnx")
    [row] = peers_of(None, ["trtexec"], threads=1, folder=tmp_path, models=[path])
    with pytest.raises(EngineError, match=told) as error:
        row.measure(2)
    assert "\n" not in str(error.value)


def test_without_trtexec_its_rows_say_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = ours_at(tmp_path / "model.onnx")
    [row] = peers_of(None, ["trtexec"], threads=1, folder=tmp_path, models=[path])
    assert isinstance(row, NotRun)
    assert row.file == path
    assert "/usr/src/tensorrt/bin" in row.why


def test_the_names_of_the_peers_are_those_of_the_results():
    assert list(PEERS) == [
        "torch",
        "torch_compile",
        "openvino",
        "onnxruntime_stock",
        "opencv_loop",
        "trtexec",
    ]
