"""The picture of a run, drawn from its file."""

import copy
import json
import sys
from pathlib import Path

import cv2
import pytest
from made_results import made_result

from benchmarks.plot import draw, main
from benchmarks.result_file import groups, own_name, ratios_in, shares_done, stage_ms
from runtime.errors import UserError

SIXTEEN = (
    ("model.onnx", "", 80.0),
    ("model.fp16.onnx", "", 105.0),
    ("model.int8.cpu.onnx", "", 40.0),
    ("PyTorch, eager", "torch", 110.0),
    ("torch.compile", "torch_compile", 98.0),
    ("OpenVINO", "openvino", 76.0),
    ("ONNX Runtime, as torch exports it", "onnxruntime_stock", 83.0),
    ("plain OpenCV loop", "opencv_loop", 400.0),
)


def written(path, result):
    path.write_text(json.dumps(result), encoding="utf-8")
    return path


def test_a_committed_file_is_drawn_again_and_more_rows_make_a_higher_picture(tmp_path, capsys):
    small = written(tmp_path / "small.json", made_result())
    large = written(tmp_path / "large.json", made_result(SIXTEEN, generators=("unet", "edge")))
    for path in (small, large):
        assert main([str(path), str(path.with_suffix(".png"))]) == 0
    assert "small.png" in capsys.readouterr().out
    low, high = (cv2.imread(str(path.with_suffix(".png"))) for path in (small, large))
    assert low.shape[1] == high.shape[1]
    assert low.shape[0] < high.shape[0]
    assert low.std() > 10


def test_a_run_without_ratios_is_drawn_too(tmp_path):
    draw(made_result((("model.onnx", "", 80.0),)), tmp_path / "one.svg")
    told = (tmp_path / "one.svg").read_text()
    assert told.startswith("<?xml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 1}, "is of schema 1, kind latency; expected schema 2, kind latency"),
        ({"kind": "scaling"}, "is of schema 2, kind scaling"),
        ({"rows": None}, None),
        ({"ratios": [{"slow": "a"}]}, "lacks ratios[0].fast"),
        ({"settings": {}}, "lacks settings.rounds"),
    ],
)
def test_another_schema_or_a_damaged_file_is_one_line(tmp_path, capsys, change, told):
    result = made_result()
    if told is None:
        del result["rows"][1]["latency"]["stages_ms"]["infer"]["p99"]
        told = "is damaged: it lacks rows[1].latency.stages_ms.infer.p99"
    else:
        result.update(change)
    path = written(tmp_path / "result.json", result)
    assert main([str(path), str(tmp_path / "out.png")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert told in err
    assert not (tmp_path / "out.png").exists()


def test_no_file_no_json_and_an_unknown_kind_of_picture_are_one_line(tmp_path, capsys):
    (tmp_path / "text.json").write_text("hello")
    good = written(tmp_path / "good.json", made_result())
    for source, out, told in (
        (tmp_path / "gone.json", "a.png", "cannot be read"),
        (tmp_path / "text.json", "a.png", "is no JSON"),
        (good, "a.docx", "cannot draw into a.docx"),
    ):
        assert main([str(source), str(tmp_path / out)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert told in err


def test_without_matplotlib_the_missing_extra_is_named(tmp_path, monkeypatch, capsys):
    good = written(tmp_path / "good.json", made_result())
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(good), str(tmp_path / "a.png")]) == 2
    assert "pip install 'pix2pix-edge[bench]'" in capsys.readouterr().err


def test_a_run_in_which_nothing_was_measured_is_refused():
    result = made_result()
    for row in result["rows"]:
        row["status"] = "not run"
    with pytest.raises(UserError, match="nothing was measured"):
        draw(result, Path("never.png"))


def test_waiting_for_a_camera_is_no_part_of_the_bar():
    result = made_result()
    row = result["rows"][0]
    assert stage_ms(result, row, "capture") == row["latency"]["stages_ms"]["capture"]["p50"] > 0
    live = copy.deepcopy(result)
    live["settings"]["live"] = True
    assert stage_ms(live, row, "capture") == 0
    assert stage_ms(live, row, "infer") > 0


def test_shares_are_those_of_the_histogram_and_the_percentiles_and_never_fall():
    told = {
        "histogram": {"edges_ms": [10.0, 20.0, 30.0, 90.0], "counts": [5, 4, 1]},
        **{"p50": 18.0, "p90": 29.0, "p99": 88.0},
    }
    ms, shares = shares_done(told)
    assert ms == [10.0, 18.0, 20.0, 29.0, 30.0, 88.0, 90.0]
    assert shares == [0.0, 0.5, 0.5, 0.9, 0.9, 0.99, 1.0]


def test_rows_are_grouped_by_generator_ours_first_and_ratios_stay_in_their_group():
    result = made_result(
        (("PyTorch", "torch", 50.0), ("model.onnx", "", 80.0)), generators=("unet", "edge")
    )
    first, second = groups(result)
    assert [row["name"] for row in first.rows] == ["unet/model.onnx", "PyTorch, unet"]
    assert [own_name(row["name"], "edge") for row in second.rows] == ["model.onnx", "PyTorch"]
    ((ratio, lost),) = ratios_in(result, first, "infer")
    assert (ratio["slow"], ratio["fast"], lost) == ("unet/model.onnx", "PyTorch, unet", True)
