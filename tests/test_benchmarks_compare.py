"""What changed between runs: `latency.py --compare` and `agreement.py`, on results with given
figures. The files are those of real runs of a small model, with figures put in their place."""

import copy
import json

import pytest
from onnx_models import write_negative

from benchmarks import agreement, latency


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of two models, and the folder of the models."""
    folder = tmp_path_factory.mktemp("models")
    models = [str(write_negative(folder / name)) for name in ("a.onnx", "b.onnx")]
    path = folder / "run.json"
    assert latency.main([*models, "--frames", "5", "--warmup", "1", "--json", str(path)]) == 0
    return folder, json.loads(path.read_text(encoding="utf-8"))


def written(path, result):
    path.write_text(json.dumps(result), encoding="utf-8")
    return str(path)


def with_ratio(result, value, *, turned=False):
    changed = copy.deepcopy(result)
    for ratio in changed["ratios"]:
        ratio["slow"], ratio["fast"] = ("b.onnx", "a.onnx") if turned else ("a.onnx", "b.onnx")
        ratio["value"] = value
    return changed


def slower(result, factor):
    """The run as it would have been with other times of every row."""
    changed = copy.deepcopy(result)
    for row in changed["rows"]:
        for stage in row["latency"]["stages_ms"].values():
            stage["p50"] *= factor
    return changed


def test_runs_that_differ_less_than_the_tolerance_agree(measured, tmp_path, capsys):
    _, result = measured
    files = [
        written(tmp_path / f"{number}.json", with_ratio(result, value))
        for number, value in enumerate((2.0, 2.04, 2.08))
    ]
    out = tmp_path / "agreement.json"
    assert agreement.main([*files, "--json", str(out)]) == 0
    assert "greatest: 4.0 %" in capsys.readouterr().out
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["kind"] == "agreement"
    assert [ratio["apart_percent"] for ratio in told["ratios"]] == [4.0, 4.0]
    assert agreement.main([*files, "--tolerance", "3.9"]) == 1


def test_a_ratio_that_came_the_other_way_round_is_turned(measured, tmp_path, capsys):
    _, result = measured
    one = written(tmp_path / "1.json", with_ratio(result, 1.01))
    other = written(tmp_path / "2.json", with_ratio(result, 1.01, turned=True))
    assert agreement.main([one, other]) == 0
    assert "greatest: 2.0 %" in capsys.readouterr().out


def test_a_ratio_that_one_run_lacks_is_no_agreement(measured, tmp_path, capsys):
    _, result = measured
    lacking = copy.deepcopy(result)
    del lacking["ratios"][0]
    one, other = written(tmp_path / "1.json", result), written(tmp_path / "2.json", lacking)
    assert agreement.main([one, other]) == 1
    assert "not in 1" in capsys.readouterr().out


def refused(capsys, code):
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_other_power_modes_and_machines_are_refused(measured, tmp_path, capsys):
    _, result = measured
    one = written(tmp_path / "1.json", result)
    saving = copy.deepcopy(result)
    saving["environment"]["power_mode"] = "15W"
    other = written(tmp_path / "2.json", saving)
    assert "15W" in refused(capsys, agreement.main([one, other]))
    elsewhere = copy.deepcopy(result)
    elsewhere["environment"]["cpu"] = "another one"
    other = written(tmp_path / "3.json", elsewhere)
    assert "another one" in refused(capsys, agreement.main([one, other]))


def test_one_run_and_runs_of_another_schema_or_kind_are_refused(measured, tmp_path, capsys):
    _, result = measured
    one = written(tmp_path / "1.json", result)
    assert "1 run" in refused(capsys, agreement.main([one]))
    old = written(tmp_path / "old.json", {"schema": 1, "models": []})
    assert "schema 1" in refused(capsys, agreement.main([one, old]))
    roof = written(tmp_path / "roof.json", {**result, "kind": "roof"})
    assert "kind roof" in refused(capsys, agreement.main([one, roof]))


def compared(folder, old, *options):
    arguments = [str(folder / "a.onnx"), str(folder / "b.onnx"), "--frames", "5", "--warmup", "1"]
    arguments += ["--json", str(folder / "new.json"), "--compare", old]
    return latency.main([*arguments, *options])


def test_a_row_that_became_slower_is_exit_code_1_and_one_that_became_faster_is_not(
    measured, tmp_path, capsys
):
    folder, result = measured
    fast = written(tmp_path / "fast.json", slower(result, 1e-6))
    assert compared(folder, fast) == 1
    out = capsys.readouterr().out
    assert "against the older run" in out
    assert "4 of 6 figures worse by over 5 %" in out
    slow = written(tmp_path / "slow.json", slower(result, 1e6))
    assert compared(folder, slow) == 0
    assert "no figure worse" in capsys.readouterr().out


def test_another_machine_is_refused_before_anything_runs_unless_ratios_alone_decide(
    measured, tmp_path, capsys
):
    folder, result = measured
    elsewhere = slower(result, 1e-6)
    elsewhere["environment"]["cpu"] = "another one"
    old = written(tmp_path / "old.json", elsewhere)
    assert "--across-machines" in refused(capsys, compared(folder, old))
    assert compared(folder, old, "--across-machines") == 0


def test_a_damaged_figure_is_one_line(measured, tmp_path, capsys):
    _, result = measured
    one = written(tmp_path / "1.json", result)
    other = written(tmp_path / "2.json", with_ratio(result, 0))
    assert "damaged" in refused(capsys, agreement.main([one, other]))
