"""`python benchmarks/live.py`: the plain loop's queue, and a small run of the whole."""

import json
import time

import pytest
from conftest import decoded
from made_runs import write_run
from onnx_models import write_negative

from benchmarks.live import Rows, main
from benchmarks.peers.plain_loop import PlainNetwork, QueuedCamera, export_plainly, file_fps
from runtime import Translator
from runtime.sources.synthetic import SyntheticSource, index_in
from trainer.config import GeneratorConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_thread):
    """A run of a tiny generator; its exported form stands for what p2p-export makes."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, GeneratorConfig("unet_128", ngf=2))
    write_negative(folder / "model.onnx", (64, 96))
    return folder


def test_a_camera_with_a_queue_gives_old_frames_and_drops_new_ones():
    with QueuedCamera((48, 104), fps=100, waiting=3) as camera:
        time.sleep(0.5)
        waited = [camera.read().index for _ in range(3)]
        after = camera.read().index
    assert waited == [0, 1, 2]
    assert after > 10


def test_the_plain_network_draws_what_the_translator_draws(run, one_thread):
    """Ours takes and gives frames; the plain one of the same file must agree with it."""
    image = SyntheticSource((64, 96)).read().image
    with Translator.load(run / "model.onnx") as translate:
        assert (PlainNetwork(run / "model.onnx")(image) == translate(image)).all()


def test_the_plain_loop_runs_what_torch_exports_and_keeps_every_frame(run, tmp_path, clip):
    export_plainly(run, tmp_path / "plain.onnx")
    assert file_fps(PlainNetwork(tmp_path / "plain.onnx"), clip, tmp_path / "o.mp4", 12) > 0
    assert len(decoded(tmp_path / "o.mp4")) == 12


def test_the_plain_loop_translates_in_order(run, tmp_path, clip):
    file_fps(PlainNetwork(run / "model.onnx"), clip, tmp_path / "o.mp4", 12)
    assert [index_in(image) for image in decoded(tmp_path / "o.mp4")] == list(range(12))


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    rows = Rows("ms", {"a": [10.0, 30.0, 20.0], "b": [5.0, 5.0, 20.0]})
    assert rows.ratio("a", "b") == 2.0


def test_a_small_run_measures_everything_and_its_last_line_has_the_ratios(run, tmp_path, capfd):
    few = ["--rounds", "1", "--seconds", "2", "--frames", "4", "--file-frames", "8"]
    few += ["--steady", "2", "--soak", "3000", "--json", str(tmp_path / "live.json")]
    assert main([str(run), *few]) == 0
    result = json.loads((tmp_path / "live.json").read_text())
    assert set(result["age"]["rounds"]) == {"plain", "fp32"}
    assert result["steady fp32"]["p50_ms"] <= result["steady fp32"]["p99_ms"]
    assert set(result["way fp32"]["medians"]) == {"engine", "frame"}
    for mode in ("latency", "throughput"):
        first, last = result[f"soak {mode}"]
        assert first["frames"] < last["frames"] <= 3000
        assert first["threads"] == last["threads"]
    last_line = capfd.readouterr().out.splitlines()[-1]
    for name, ratio in result["ratios"].items():
        assert f"{name}: {ratio:.2f}" in last_line


@pytest.mark.parametrize("told", ["no run", "no place for the result"])
def test_bad_input_is_one_line_before_anything_is_measured(run, tmp_path, capfd, told):
    (tmp_path / "file").touch()
    wrong = {
        "no run": [tmp_path],
        "no place for the result": [run, "--json", tmp_path / "file" / "live.json"],
    }
    assert main([str(word) for word in wrong[told]]) == 2
    assert capfd.readouterr().err.count("\n") == 1, "no line of a measurement"
