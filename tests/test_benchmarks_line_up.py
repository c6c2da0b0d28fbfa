"""Which rows a benchmark has: models, engines, checkpoints and peers, of one generator or two."""

import json
import shutil
from contextlib import ExitStack, nullcontext

import pytest
from made_runs import write_run
from onnx_models import write_negative

from benchmarks import latency
from benchmarks.conditions.energy_turns import TURNS, energy_turns
from benchmarks.conditions.power import PowerMeter
from benchmarks.conditions.rails import WATTS, Rail, Rails
from benchmarks.rounds.device_times import device_times
from benchmarks.rounds.line_up import line_up
from benchmarks.rounds.measure import Plan, measure
from benchmarks.rounds.overhead import ours_ms, peer_ms
from benchmarks.rounds.rows import NotRun, OurRow
from benchmarks.rounds.source import EndlessSource
from runtime.artifact import ArtifactMeta, sha256_of
from runtime.engines.trt_times import DeviceTimes
from runtime.sinks import NoSink
from trainer.config import GeneratorConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose folder also holds a model that says it was exported from it."""
    folder = tmp_path_factory.mktemp("small")
    write_run(folder, GeneratorConfig(name="resnet_6blocks", ngf=8))
    write_negative(folder / "model.onnx", meta=meta_from(folder / "generator.safetensors"))
    return folder


def meta_from(checkpoint):
    return ArtifactMeta(
        generator="resnet_6blocks",
        precision="fp32",
        frame_size_px=(64, 96),
        network_size_px=(64, 96),
        opset=18,
        source=checkpoint.name,
        source_sha256=sha256_of(checkpoint),
    )


def rows_of(paths, asked, engines=("auto",), peers=("torch",)):
    """What is lined up with peers that are never opened: each call is noted in `asked`."""

    def peers_of(checkpoint, wanted, like, models):
        asked.append((checkpoint, tuple(wanted), like, list(models)))
        return []

    with ExitStack() as opened:
        return line_up(paths, opened, engines=engines, peers=peers, peers_of=peers_of, threads=1)


def test_the_peers_of_a_model_are_made_of_the_checkpoint_beside_it(run):
    asked = []
    rows_of([run / "model.onnx"], asked)
    [(checkpoint, wanted, like, models)] = asked
    assert checkpoint == run / "generator.safetensors"
    assert wanted == ("torch",)
    assert like.frame_size_px == (64, 96)
    assert models == [run / "model.onnx"]


def test_without_peers_only_a_checkpoint_that_was_named_is_run_by_torch(run):
    asked = []
    rows_of([run / "model.onnx"], asked, peers=())
    assert asked == []
    rows_of([run / "generator.safetensors", run / "model.onnx"], asked, peers=())
    assert [(one[0], one[1]) for one in asked] == [(run / "generator.safetensors", ("torch",))]


def test_a_checkpoint_that_moved_on_since_the_export_is_told(run, tmp_path):
    shutil.copy(run / "model.onnx", tmp_path / "model.onnx")
    write_run(tmp_path, GeneratorConfig(name="resnet_6blocks", ngf=4))
    told = rows_of([tmp_path / "model.onnx"], [])
    assert "exported from other weights" in " ".join(told.warnings)
    assert rows_of([run / "model.onnx"], []).warnings == []


def test_models_of_two_generators_in_one_folder_are_not_mixed(run, tmp_path):
    shutil.copy(run / "model.onnx", tmp_path / "a.onnx")
    write_negative(tmp_path / "b.onnx")
    told = rows_of([tmp_path / "a.onnx", tmp_path / "b.onnx"], [])
    assert len({row.generator for row in told.rows}) == 2


def test_of_several_engines_each_file_is_run_with_those_that_load_it(run, tmp_path):
    (tmp_path / "model.engine").write_bytes(b"built for another machine")
    told = rows_of(
        [run / "model.onnx", tmp_path / "model.engine"],
        [],
        engines=("onnxruntime", "openvino", "tensorrt"),
        peers=(),
    )
    names = [row.name for row in told.rows]
    assert [name.rpartition("/")[2] for name in names] == [
        "model.onnx (onnxruntime)",
        "model.onnx (openvino)",
        "model.engine",
    ]
    assert isinstance(told.rows[2], NotRun)


def test_a_model_and_torch_are_measured_in_the_same_rounds(run, tmp_path, capsys):
    path = tmp_path / "run.json"
    asked = ["--peers", "torch", "--threads", "1", "--frames", "10", "--warmup", "1"]
    asked += ["--source", "synthetic://?size=64x64&frames=9", "--json", str(path)]
    code = latency.main([str(run / "model.onnx"), *asked])
    out = capsys.readouterr().out
    assert code == 0, out
    result = json.loads(path.read_text(encoding="utf-8"))
    assert [row["role"] for row in result["rows"]] == ["ours", "peer"]
    assert len({row["generator"] for row in result["rows"]}) == 1
    ours, torch = result["rows"]
    assert torch["throughput"] is None
    assert torch["latency"]["stages_ms"]["infer"]["count"] == 10
    assert {ratio["of"] for ratio in result["ratios"]} == {"infer", "end_to_end"}
    for ratio in result["ratios"]:
        assert len(ratio["rounds"]) == 10
        assert ratio["value"] >= 1
        assert {ratio["slow"], ratio["fast"]} == {ours["name"], torch["name"]}
    for name in (ours["name"], torch["name"]):
        assert name in out


def test_a_duration_measures_two_rounds_however_short_it_is(run, tmp_path):
    path = tmp_path / "run.json"
    model = str(run / "model.onnx")
    assert latency.main([model, "--duration", "0.001", "--json", str(path)]) == 0
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    assert settings["rounds"] == [1, 1]
    assert (settings["frames"], settings["duration_s"]) == (None, 0.001)


def test_power_on_a_machine_that_tells_none_is_one_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.conditions.rails.rails", lambda *_, **__: Rails((), ()))
    path = tmp_path / "run.json"
    assert latency.main([str(run / "model.onnx"), "--power", "--json", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not path.exists()


def test_energy_is_measured_in_turns_long_enough_for_the_sensor(negative_onnx):
    row = OurRow(negative_onnx)
    source = EndlessSource("synthetic://?size=64x64&frames=50")
    results = measure([row], source, NoSink(), Plan(5, None, 1))
    # No machine here has a sensor: this one always tells 2 W.
    rail = Rail("board", "test", WATTS, lambda: 2.0)
    with PowerMeter(Rails((rail,), ("board",)), every_ms=1.0) as meter:
        [told] = energy_turns(results, source, NoSink(), meter).values()
    source.let_go()
    row.close()
    assert told["turns"] == TURNS
    assert told["watts"]["board"]["mean"] == pytest.approx(2.0, abs=1e-3)
    assert told["mj_per_frame_total"] > 0


class Device:
    """Stands for TensorRT on a GPU, which no machine here has: tells times that it is given."""

    def __init__(self):
        self._times = None
        self._parts = True

    def measured(self, parts=True):
        self._times, self._parts = [], parts
        return nullcontext(self._times)

    def infer(self):
        number = float(len(self._times))
        parts = (1.0, 2.0 + number, 3.0) if self._parts else (None, None, None)
        self._times.append(DeviceTimes(7.0 + number, 0.5, not self._parts, *parts))


def test_device_times_have_trtexecs_words_and_leave_the_first_of_each_way_out():
    device = Device()
    assert device_times(device, device.infer, 2) == {
        "h2d": [1, 1],
        "gpu_compute": [3, 4],
        "d2h": [3, 3],
        "enqueue": [0.5, 0.5],
        "latency": [8, 9],
    }


def test_what_measuring_costs_is_a_time():
    assert peer_ms() > 0
    assert ours_ms() > 0
