"""Starts: real processes of the real command on small models; sizes of what is installed here."""

import json
import os
from importlib import metadata
from pathlib import Path

import pytest
from commands import done
from made_runs import write_run

from benchmarks.starts.install_size import install_sizes
from benchmarks.starts.page_cache import can_drop, drop
from benchmarks.starts.runs import STAGES, Starts, Subject
from benchmarks.startup import MEANINGS, main, row_json, startup
from runtime.errors import ModelError, UserError
from trainer.config import GeneratorConfig


@pytest.fixture(scope="module")
def sizes():
    return {size.name: size for size in install_sizes()}


def measured(state="warm"):
    starts = Starts(Subject("model.onnx", "ours", Path("x/model.onnx")), state)
    for number in (1.0, 3.0, 2.0):
        for stage in STAGES:
            starts.stages_ms[stage].append(number)
        starts.to_first_frame_ms.append(4 * number)
        starts.command_ms.append(10 * number)
        starts.memory_mb.append({"at_rest": {"rss": number}, "at_the_end": {"peak": 9.0}})
    return starts


def test_a_row_tells_each_stage_and_their_sum_without_a_path():
    row = row_json(measured())
    assert row["total_ms"] == {"count": 3, "p50": 8, "p90": 12, "least": 4, "most": 12}
    assert row["command_ms"]["p50"] == 20
    assert row["memory_mb"]["at_rest"]["rss"] == 2
    assert row["file"] == "model.onnx"
    assert "x/model" not in json.dumps(row)
    assert set(STAGES) <= set(MEANINGS)


def test_a_start_that_failed_says_why_and_no_times():
    starts = measured()
    starts.error = ModelError("broken", "a model", "export it again")
    row = row_json(starts)
    assert (row["status"], row["why"]) == ("not run", "broken; expected a model; export it again")
    assert "stages_ms" not in row


@pytest.mark.slow
def test_models_and_peers_start_in_processes_of_their_own(negative_onnx, tmp_path, capsys):
    run = write_run(tmp_path / "run", GeneratorConfig(name="unet_128", ngf=8), size_px=128)
    numbers = tmp_path / "startup.json"
    missing = tmp_path / "missing.onnx"
    arguments = [negative_onnx, missing, "--checkpoint", run, "--json", numbers]
    arguments += ["--runs", 1, "--state", "cold", "--threads", 1]
    assert main([str(argument) for argument in arguments]) == 1, capsys.readouterr().err
    told = json.loads(numbers.read_text())
    assert (told["schema"], told["kind"]) == (2, "startup")
    rows = {(row["name"], row["state"]): row for row in told["rows"]}
    assert len(rows) == len(told["rows"])
    for row in told["rows"]:
        if missing.name in row["name"]:
            assert row["status"] == "not run"
            assert "missing.onnx" in row["why"]
            continue
        assert row["status"] == "measured", row
        stages = [row["stages_ms"][stage]["p50"] for stage in STAGES[:-1]]
        assert row["total_ms"]["p50"] == pytest.approx(sum(stages), abs=0.01)
        assert (row["command_ms"] is not None) == (row["role"] == "ours")
        memory = row["memory_mb"]
        assert 0 < memory["at_rest"]["rss"] <= memory["at_the_end"]["peak"]
        assert (row["page_cache"] is not None) == (row["state"] == "cold" and can_drop())
    assert {row["peer"] for row in told["rows"]} == {"", "torch", "onnxruntime_plain"}
    assert str(tmp_path) not in json.dumps(told["rows"])


def test_models_that_are_all_missing_end_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.onnx"), "--no-peers", "--runs", "1"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "none.onnx" in line]
    assert line.startswith("error: no such model")


@pytest.mark.skipif(not can_drop(), reason="this system drops no pages on request")
def test_what_is_dropped_and_what_stays_adds_up_to_the_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1_000_000))
    told = drop([file, tmp_path / "not there", tmp_path])
    assert told.dropped_bytes + told.kept_bytes == 1_000_000
    file.read_bytes()
    assert drop([]).kept_bytes == 0


def test_an_extra_holds_what_it_brings_and_the_total_what_it_stands_on(sizes):
    assert sizes["cpu"].total_bytes == sizes["base"].total_bytes + sizes["cpu"].own_bytes
    assert "onnxruntime" in sizes["cpu"].distributions
    assert "numpy" in sizes["base"].distributions
    assert "numpy" not in sizes["cpu"].distributions
    onnxruntime = metadata.distribution("onnxruntime")
    library = next(f for f in onnxruntime.files if "pybind11_state" in f.name)
    assert sizes["cpu"].own_bytes > library.locate().stat().st_size > 1e6


def test_an_extra_that_is_not_installed_says_what_is_missing(sizes):
    gpu = sizes["gpu"]
    for name in ("pycuda", "onnxruntime-gpu"):
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version(name)
        assert name in gpu.missing


def test_a_package_that_is_not_installed_is_one_line():
    with pytest.raises(UserError, match="no-such-package is not installed"):
        install_sizes("no-such-package")


def test_sizes_alone_need_no_model(tmp_path):
    numbers = tmp_path / "sizes.json"
    said = done(startup, "--install-size", "--json", numbers)
    assert "not installed" in said
    told = json.loads(numbers.read_text())
    assert told["rows"] == []
    assert {"base", "cpu", "train"} <= {size["extra"] for size in told["install_size"]}
