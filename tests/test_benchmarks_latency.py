"""`python benchmarks/latency.py` as a user meets it: real models and videos, no timing claims."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_models import write_cropping, write_float_image_model, write_negative

from benchmarks.conditions.environment import environment, git_commit
from benchmarks.latency import main
from benchmarks.rounds.measure import AGE, END_TO_END, STAGES, Measured, Plan, measure
from benchmarks.rounds.models import models_in, newest_exported, short_names
from benchmarks.rounds.rows import NotRun, OurRow
from benchmarks.rounds.source import EndlessSource
from runtime.artifact import ArtifactMeta
from runtime.errors import EngineError, ModelError, SourceError
from runtime.sinks import NoSink
from runtime.sources.synthetic import index_in

REPOSITORY = Path(__file__).parent.parent
SCRIPT = REPOSITORY / "benchmarks" / "latency.py"

META = ArtifactMeta(
    generator="negative",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="ab" * 32,
)


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*"))


def test_one_model_gives_a_table_a_json_file_and_a_picture_beside_it(bench, tmp_path, clip):
    model = write_negative(make(tmp_path / "run") / "model.onnx", meta=META)
    code, out, err = bench(model, "--source", clip, "--frames", 12, "--threads", 1)
    assert (code, err) == (0, "")
    for told in (*STAGES, "age of frame", "end to end", "LATENCY", "THROUGHPUT", "p95", "p99"):
        assert told in out
    for told in ("pipeline / inference", "the stages explain", "measuring:", "outliers"):
        assert told in out
    assert files_below(tmp_path) == [
        "run/latency.html",
        "run/latency.json",
        "run/latency.png",
        "run/model.onnx",
    ]
    assert cv2.imread("run/latency.png") is not None

    values = read_json("run/latency.json")
    assert (values["schema"], values["kind"]) == (2, "latency")
    assert values["settings"]["threads"] == 1
    assert sum(values["settings"]["rounds"]) == values["settings"]["frames"] == 12
    assert values["settings"]["source_description"].startswith(clip.name)
    assert values["environment"]["cpu"]
    assert values["ratios"] == values["device_rows"] == []
    (told,) = values["rows"]
    assert (told["status"], told["role"], told["generator"]) == ("measured", "ours", "run")
    assert told["file"] == "model.onnx"
    assert told["meta"]["source_sha256"] == META.source_sha256
    assert "1 thread" in told["engine"]
    assert told["device_ms"] is None
    latency = told["latency"]
    assert set(latency["stages_ms"]) == {*STAGES, AGE, END_TO_END}
    for stage in latency["stages_ms"].values():
        assert stage["count"] == sum(stage["histogram"]["counts"]) == 12
        assert 0 <= stage["least"] <= stage["p50"] <= stage["p90"] <= stage["p95"] <= stage["p99"]
        assert stage["p99"] <= stage["most"]
        assert stage["p50_low"] <= stage["p50"] <= stage["p50_high"]
    assert told["throughput"]["frame_interval_ms"]["count"] == 12
    assert told["throughput"]["fps"] > 0
    assert told["inference_alone_ms"]["count"] == 12
    cost = told["pipeline_over_inference"]
    assert cost["least"] <= cost["value"] <= cost["most"]
    assert cost["goal"] == 1.10
    assert told["measuring"]["per_frame_ms"] > 0
    for stage, samples in told["samples_ms"]["latency"].items():
        assert max(samples) == pytest.approx(latency["stages_ms"][stage]["most"], abs=1e-3)
    stages_ms = told["samples_ms"]["latency"]
    summed_ms = sum(sum(stages_ms[stage]) for stage in STAGES)
    assert latency["explained"] == pytest.approx(summed_ms / sum(stages_ms[END_TO_END]), abs=1e-3)
    assert str(tmp_path) not in Path("run/latency.json").read_text(encoding="utf-8")


def test_end_to_end_holds_all_stages_of_the_frame(bench, tmp_path, clip):
    model = write_negative(tmp_path / "model.onnx")
    assert bench(model, "--source", clip, "--frames", 15)[0] == 0
    samples = read_json("latency.json")["rows"][0]["samples_ms"]["latency"]
    for frame, end_to_end in enumerate(samples[END_TO_END]):
        assert end_to_end >= sum(samples[stage][frame] for stage in STAGES) - 0.01


@pytest.mark.parametrize("called", [[str(SCRIPT)], ["-m", "benchmarks.latency"]])
def test_it_works_at_once_after_an_export_in_any_folder(tmp_path, called):
    for age_s, name in ((100, "old"), (0, "new")):
        path = write_negative(make(tmp_path / "runs" / name) / "model.onnx")
        os.utime(path, (time.time() - age_s,) * 2)
    write_negative(tmp_path / "runs" / "new" / "model.fp16.onnx")
    (tmp_path / "runs" / "new" / "model.fp16.engine").write_bytes(b"built for another machine")
    ran = subprocess.run(
        [sys.executable, *called, "--frames", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    values = read_json(tmp_path / "runs" / "new" / "latency.json")
    assert [(told["file"], told["status"]) for told in values["rows"]] == [
        ("model.onnx", "measured"),
        ("model.fp16.onnx", "measured"),
        ("model.fp16.engine", "not run"),
    ]
    assert "built-in video" in values["settings"]["source_description"]
    assert "640x480" in values["settings"]["source_description"]
    assert "model.fp16.engine: " in ran.stdout
    assert values["rows"][2]["why"]
    assert not (tmp_path / "runs" / "old" / "latency.json").exists()


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_missing_model_among_others_is_a_row_that_says_why_and_exit_code_1(bench, tmp_path):
    model = write_negative(tmp_path / "model.onnx")
    code, out, err = bench("gone.onnx", model, "--frames", 2)
    assert (code, err) == (1, "")
    assert "no such model: gone.onnx" in " ".join(out.split())
    told = read_json("latency.json")["rows"]
    assert [row["status"] for row in told] == ["not run", "measured"]
    assert "no such model" in told[0]["why"]


def test_an_engine_in_a_named_folder_that_cannot_run_here_is_no_failure(bench, tmp_path):
    write_negative(tmp_path / "model.onnx")
    (tmp_path / "model.engine").write_bytes(b"built for another machine")
    code, out, _ = bench(".", "--frames", 2)
    assert code == 0
    assert "not run  model.engine: " in out
    assert bench("model.onnx", "model.engine", "--frames", 2)[0] == 1


def test_models_of_the_same_name_are_told_apart(tmp_path):
    paths = [tmp_path / run / "model.onnx" for run in ("a", "b")]
    assert short_names(paths) == ["a/model.onnx", "b/model.onnx"]
    assert short_names([tmp_path / "x.onnx", tmp_path / "y.onnx"]) == ["x.onnx", "y.onnx"]


def test_models_come_in_falling_precision_and_onnx_before_engines(tmp_path):
    names = ["model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.fp16.engine"]
    for name in [*reversed(names), "model.fp16.engine.json", "parity.json"]:
        (tmp_path / name).touch()
    assert [path.name for path in models_in(tmp_path)] == names


def test_the_newest_run_is_the_one_with_the_newest_onnx(tmp_path):
    for age_s, name in ((5, "a"), (1, "b"), (9, "c")):
        path = make(tmp_path / name) / "model.onnx"
        path.touch()
        os.utime(path, (time.time() - age_s,) * 2)
    make(tmp_path / "trained-later-and-not-exported")
    assert newest_exported(tmp_path) == [tmp_path / "b" / "model.onnx"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "p2p-train, then p2p-export"),
        (["gone.onnx"], "no such model: gone.onnx"),
        (["notes.txt"], ".onnx or .engine"),
        (["empty"], "no model in the folder empty"),
        (["float.onnx"], "p2p-export FILE.onnx"),
        (["crops.onnx"], "output of the same shape"),
        (["good.onnx", "--frames", "0"], "--frames"),
        (["good.onnx", "--frames", "many"], "--frames"),
        (["good.onnx", "--duration", "0"], "--duration"),
        (["good.onnx", "--duration", "-3"], "--duration"),
        (["good.onnx", "--duration", "nan"], "--duration"),
        (["good.onnx", "--duration", "5", "--frames", "5"], "--frames and --duration"),
        (["good.onnx", "--peers", "abacus"], "abacus"),
        (["good.onnx", "--compare", "gone.json"], "gone.json"),
        (["good.onnx", "--compare", "old.json"], "schema 1"),
        (["gone.pth"], "gone.pth"),
        (["good.onnx", "--warmup", "-1"], "--warmup"),
        (["good.onnx", "--threads", "0"], "--threads"),
        (["good.onnx", "--engine", "abacus"], "abacus"),
        (["good.onnx", "--engine", "tensorrt"], "good.onnx"),
        (["good.onnx", "--source", "gone.mp4"], "no such source"),
        (["good.onnx", "--source", "rtps://x"], "unknown source rtps://x"),
        (["good.onnx", "--source", "97"], "/dev/video97"),
        (["good.onnx", "--sink", "out.gif"], ".gif"),
        (["good.onnx", "--sink", "fax://0"], "unknown sink"),
        (["good.onnx", "--sink", "display://0"], "no screen"),
        (["good.onnx", "--json", "notes.txt/latency.json"], "notes.txt"),
        (["good.onnx", "--json", "empty"], "empty"),
        (["good.onnx", "--plot", "plot.docx"], "plot.docx"),
        (["good.onnx", "--unknown"], "--unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(
    bench, tmp_path, monkeypatch, args, told
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    write_negative(tmp_path / "good.onnx")
    write_float_image_model(tmp_path / "float.onnx")
    write_cropping(tmp_path / "crops.onnx")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "old.json").write_text('{"schema": 1, "models": []}')
    (tmp_path / "empty").mkdir()
    before = files_below(tmp_path)
    code, out, err = bench(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err
    assert files_below(tmp_path) == before


def test_what_a_measured_sink_wrote_is_removed_and_what_was_there_stays(bench, tmp_path, clip):
    model = write_negative(tmp_path / "model.onnx")
    before = (tmp_path / "mine.mp4").write_bytes(b"a film of mine")
    code, _, _ = bench(model, "--source", clip, "--frames", 4, "--sink", "mine.mp4")
    assert code == 0
    assert len((tmp_path / "mine.mp4").read_bytes()) == before
    assert files_below(tmp_path) == [
        "latency.html",
        "latency.json",
        "latency.png",
        "mine.mp4",
        "model.onnx",
    ]
    told = read_json("latency.json")
    assert told["settings"]["sink"] == "mine.mp4"
    assert told["rows"][0]["latency"]["stages_ms"]["sink"]["p50"] > 0


def test_pictures_that_a_measured_folder_would_overwrite_stay_as_they_are(bench, tmp_path):
    model = write_negative(tmp_path / "model.onnx")
    photos = make(tmp_path / "photos")
    cv2.imwrite(str(photos / "a.png"), np.full((20, 20, 3), 9, np.uint8))
    before = (photos / "a.png").read_bytes()
    assert bench(model, "--source", photos, "--frames", 3, "--sink", photos)[0] == 0
    assert (photos / "a.png").read_bytes() == before
    assert files_below(photos) == ["a.png"]


def test_a_live_source_has_a_latency_and_no_throughput_of_its_own(bench, tmp_path):
    model = write_negative(tmp_path / "model.onnx")
    code, out, _ = bench(
        model, "--source", "synthetic://?size=96x64&fps=100", "--frames", 4, "--warmup", 0
    )
    assert code == 0
    assert "newest frame of a live source" in out
    assert "THROUGHPUT" not in out
    (told,) = read_json("latency.json")["rows"]
    assert told["throughput"] is None
    assert told["pipeline_over_inference"] is None
    samples = told["samples_ms"]["latency"]
    assert len(samples[END_TO_END]) == 4


def test_without_matplotlib_the_numbers_are_written_and_the_missing_extra_is_named(
    bench, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "benchmarks.plot", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model = write_negative(tmp_path / "model.onnx")
    code, _, err = bench(model, "--frames", 2)
    assert code == 0
    assert err == "no picture: matplotlib is not installed; pip install 'pix2pix-edge[bench]'\n"
    assert files_below(tmp_path) == ["latency.html", "latency.json", "model.onnx"]


def test_a_source_that_ends_starts_again_and_its_frames_keep_counting(clip):
    source = EndlessSource(str(clip))
    frames = [source.read() for _ in range(65)]
    source.let_go()
    assert [frame.index for frame in frames] == list(range(65))
    assert [index_in(frame.image) for frame in frames] == [number % 30 for number in range(65)]


def test_a_source_that_breaks_ends_the_benchmark(tmp_path, negative_onnx):
    folder = make(tmp_path / "in")
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(folder / name), np.zeros((9, 9, 3), np.uint8))
    source = EndlessSource(str(folder))
    (folder / "2.png").write_bytes(b"")
    row = OurRow(negative_onnx)
    with pytest.raises(SourceError, match=r"2\.png"):
        measure([row], source, NoSink(), Plan(2, None, 0))
    row.close()


class FailsLater(OurRow):
    """Stands for a device that fails in the midst of a run, which no test can have."""

    left = 8

    def infer(self, batch):
        self.left -= 1
        if self.left < 0:
            raise EngineError("the device is gone", "one that stays", "start again")
        return super().infer(batch)


def test_models_that_cannot_run_stop_neither_each_other_nor_the_rest(
    tmp_path, negative_onnx, clip
):
    gone = NotRun("gone", ModelError("gone", "there", "bring it"))
    row = OurRow(negative_onnx)
    fails = FailsLater(negative_onnx, name="fails")
    rounds = []
    source = EndlessSource(str(clip))
    results = measure(
        [gone, row, fails],
        source,
        NoSink(),
        Plan(40, None, 1),
        lambda done, of: rounds.append((done, of)),
    )
    source.let_go()
    for opened in (row, fails):
        opened.close()
    assert [type(result) for result in results] == [NotRun, Measured, NotRun]
    assert results[0] is gone
    assert results[2].name == "fails"
    assert rounds == [(done, 40) for done in range(1, 41)]
    measured = results[1]
    assert [len(part) for part in measured.stages_ms["infer"]] == [1] * 40
    assert [len(part) for part in measured.overlapped_ms] == [20, 20]
    assert len(measured.cost_ratios) == 2


def test_the_environment_names_what_numbers_depend_on_and_is_json():
    told = json.loads(json.dumps(environment()))
    assert told["cpu"]
    assert told["cpu_threads"] >= 1
    assert told["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert told["libraries"]["numpy"]
    assert "onnxruntime" in told["libraries"] or "onnxruntime-gpu" in told["libraries"]
    assert {"gpus", "jetson", "power_mode", "os", "git_commit", "load_average_1m"} <= set(told)


def test_the_environment_imports_nothing_heavy():
    script = (
        "import sys, benchmarks.conditions.environment as e; e.environment()\n"
        "heavy = {'torch', 'onnxruntime', 'cv2', 'numpy', 'tensorrt', 'tensorrt_rtx', 'pycuda'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_told_of_a_clone_and_of_nothing_else(tmp_path):
    assert git_commit(tmp_path) is None
    run = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*run, "init", "-q"], check=True)
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    assert git_commit(make(tmp_path / "inside")) is None


def test_on_a_terminal_a_bar_is_shown_and_in_a_pipe_none(tmp_path):
    write_negative(tmp_path / "model.onnx")
    command = [sys.executable, str(SCRIPT), "model.onnx", "--frames", "20"]
    main_end, terminal = pty.openpty()
    a_terminal = {**os.environ, "TERM": "xterm-256color"}
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=a_terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = _all_of(main_end)
    printed, _ = running.communicate()
    assert running.returncode == 0
    assert "measuring" in shown
    assert "rounds" in shown
    assert "\x1b" not in printed
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True)
    assert "\x1b" not in piped.stderr


def _all_of(terminal: int) -> str:
    """What is written to a terminal until its other end closes."""
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # how Linux tells that the other end is closed
        pass
    finally:
        os.close(terminal)
    return shown.decode()
