"""`python benchmarks/export_table.py` as a user meets it: a real export, no timing claims."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import done
from made_runs import write_run
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from pairs import write_side_by_side

import benchmarks.export_table as export_table
import benchmarks.exports.rows as export_rows
from benchmarks.export_table import main
from benchmarks.exports.report import MARKERS
from benchmarks.paths import without_paths
from export.cli import export
from export.graph import Graph
from runtime.errors import EngineError
from runtime.images import read_image
from trainer.config import GeneratorConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "export_table.py"
FILES = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8.cpu": "model.int8.cpu.onnx",
}
BEFORE, AFTER = "# Export\r\n\r\nwords\n\n", "\n\nmore | words\n"
DOCS = f"{BEFORE}{MARKERS[0]}\nan older table\n{MARKERS[1]}{AFTER}"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """As few pictures as INT8 is calibrated on."""
    return write_side_by_side(tmp_path_factory.mktemp("data") / "few", 8, 128, 128)


@pytest.fixture(scope="module")
def exported(few, tmp_path_factory):
    """All forms of a small U-Net; the goal is such that INT8 has to leave something out."""
    out = tmp_path_factory.mktemp("exports") / "mine"
    run = write_run(out.parent / "run", GeneratorConfig("unet_128", ngf=4), str(few))
    pictures = ("--images", few, "--calibration", few, "--calibration-method", "minmax")
    done(export, run, "--fp16", "--int8", *pictures, "--min-psnr", 36, "--no-engine", "--out", out)
    return out


@pytest.fixture
def bench(capfd):
    """Run the command: its exit code, stdout in one line, and stderr."""

    def run(*args):
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, " ".join(out.split()), err

    return run


@pytest.fixture(scope="module")
def table(exported, few, tmp_path_factory):
    """Everything at once: the exit code, the JSON, the Markdown."""
    folder = tmp_path_factory.mktemp("table")
    docs = folder / "export.md"
    docs.write_bytes(DOCS.encode())
    pictures = ("--images", few, "--calibration", few)
    outputs = ("--json", folder / "new" / "table.json", "--docs", docs)
    code = main([str(a) for a in (exported, *pictures, "--rounds", 7, *outputs)])
    values = json.loads((folder / "new" / "table.json").read_text("utf-8"))
    return code, values, docs.read_bytes().decode()


@pytest.fixture(scope="module")
def rows(table):
    (told,) = table[1]["exports"]
    return {row["form"]: row for row in told["rows"]}


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the export, to spoil."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture
def no_builds(monkeypatch):
    """Engines have been seen: they are not built in this test."""
    monkeypatch.setattr(export_table, "build_engines", lambda *_args: None)


def rows_in(path):
    (told,) = json.loads(path.read_text("utf-8"))["exports"]
    return {row["form"]: row for row in told["rows"]}


def test_a_complete_export_succeeds_with_a_row_for_each_form_and_naive_int8(table, rows):
    code, values, _ = table
    assert code == 0
    assert values["schema"] == 1
    assert values["settings"]["rounds"] == 7
    assert values["environment"]["cpu"]
    assert list(rows) == [*FILES, "naive"]
    (told,) = values["exports"]
    assert told["generator"] == "unet_128"
    assert told["title"].startswith("unet_128, frames of 128x128, trained on ")
    assert told["title"].endswith("few AtoB, 10 steps")
    assert not any(row["lacks"] for row in rows.values())


def test_bytes_and_parity_are_those_of_the_export(exported, rows):
    report = json.loads((exported / "parity.json").read_text("utf-8"))
    compared = {entry["file"]: entry for entry in report["artifacts"]}
    for form, file in FILES.items():
        row = rows[form]
        assert row["file"] == file
        assert row["onnx_bytes"] == (exported / file).stat().st_size
        expected = {name: compared[file][name] for name in ("psnr_db", "ssim")}
        assert row["quality"] == expected


def test_the_share_in_higher_precision_is_that_of_the_convolutions_that_were_kept(exported, rows):
    assert rows["fp32"]["higher_macs_share"] is None
    assert rows["fp16"]["higher_macs_share"] == 0
    for form, precision in (("int8", "fp16"), ("int8.cpu", "fp32")):
        model = onnx.load(str(exported / FILES[form]))
        graph = Graph(model)
        macs = {n.name: graph.macs(n) for n in model.graph.node if n.op_type == "Conv"}
        kept = rows[form]["kept"][precision]
        share = sum(macs[name] for name in kept) / sum(macs.values())
        assert 0 < share < 0.5, "else this proves nothing"
        assert rows[form]["higher_macs_share"] == pytest.approx(share)


def test_each_engine_is_built_three_times_and_its_convolutions_counted_by_type(rows):
    kept = len(rows["int8"]["kept"]["fp16"])
    expected = {
        "fp32": {"Float": 14},
        "fp16": {"Half": 14},
        "int8": {"Int8": 14 - kept, "Half": kept},
    }
    for form, counts in expected.items():
        engine = rows[form]["engine"]
        assert engine["convolutions"] == counts
        assert len(engine["builds_s"]) == 3
        assert engine["build_s"] == sorted(engine["builds_s"])[1]
        assert engine["size_bytes"] > rows[form]["onnx_bytes"] / 2
        assert engine["library"].startswith("tensorrt")
    assert rows["int8.cpu"]["engine"] is None
    assert rows["naive"]["engine"] is None


def test_times_are_those_of_interleaved_rounds_and_ratios_are_taken_within_a_round(rows):
    fp32_ms = rows["fp32"]["samples_ms"]
    for row in rows.values():
        samples, told = row["samples_ms"], row["frame_ms"]
        assert told["count"] == len(samples) == 7
        assert told["p50"] == pytest.approx(sorted(samples)[3], abs=1e-3)
        assert 0 < told["least"] <= told["p5"] <= told["p50"] <= told["p95"] <= told["most"]
        ratios = [slow / fast for slow, fast in zip(fp32_ms, samples, strict=True)]
        assert row["speedup"] == pytest.approx(median(ratios), rel=1e-3)
    assert rows["fp32"]["speedup"] == 1


class InputHalves(CalibrationDataReader):
    def __init__(self, frames):
        self.frames = iter(frames)

    def get_next(self):
        return next(({"frames": frame[None]} for frame in self.frames), None)


def test_naive_int8_is_what_the_quantiser_of_onnx_runtime_makes_by_default(
    exported, few, rows, tmp_path
):
    frames = [read_image(path)[:, :128] for path in sorted(few.iterdir())]
    assert {frame.shape for frame in frames} == {(128, 128, 3)}
    logging.disable(logging.WARNING)
    fp32, naive = exported / "model.onnx", tmp_path / "naive.onnx"
    quantize_static(str(fp32), str(naive), InputHalves(frames))
    logging.disable(logging.NOTSET)
    drawn = []
    for path in (fp32, naive):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        drawn.append([session.run(None, {"frames": frame[None]})[0] for frame in frames])
    errors = [
        np.square(ours.astype(float) - theirs).mean() for ours, theirs in zip(*drawn, strict=True)
    ]
    row = rows["naive"]
    assert row["quality"]["psnr_db"] == pytest.approx(10 * np.log10(255**2 / max(errors)), abs=0.1)
    assert row["onnx_bytes"] == pytest.approx(naive.stat().st_size, rel=1e-3)
    assert "calibrated on 8 of " in row["notes"][0]
    assert len(row["notes"]) == 1, "compared on the gate's own pictures"


def test_the_docs_get_the_table_between_the_markers_and_keep_the_rest(table, rows):
    text = table[2]
    assert text.startswith(BEFORE + MARKERS[0])
    assert text.endswith(MARKERS[1] + AFTER)
    assert "an older table" not in text
    lines = text.splitlines()
    assert "### " + table[1]["exports"][0]["title"] in lines
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ]
    assert len(cells) == 2 + len(rows)
    assert {len(row) for row in cells} == {10}
    by_title = {row[0]: row for row in cells}
    fp16 = by_title["FP16"]
    assert fp16[1] == f"{rows['fp16']['onnx_bytes'] / 1e6:.1f}"
    assert fp16[4] == f"{rows['fp16']['quality']['psnr_db']:.1f}"
    assert fp16[7] == "14 Half"
    assert by_title["INT8 for CPU"][2:4] == ["–", "–"], "which has no engine"
    assert by_title["INT8 for CPU"][9] == f"{rows['int8.cpu']['speedup']:.2f}"
    assert "(1) onnxruntime.quantization.quantize_static with its defaults" in text
    assert "naive INT8 (1)" in by_title


def test_no_absolute_path_is_told(table, exported, few):
    for text in (json.dumps(table[1]["exports"]), table[2]):
        for folder in (exported, few):
            assert str(folder) not in text
            assert str(folder.parent) not in text


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("# no markers\n", "has no <!-- export-table:start --> and <!-- export-table:end -->"),
        (f"{MARKERS[0]}\n", "has no <!-- export-table:end -->"),
        (f"{MARKERS[1]}\n", "has no <!-- export-table:start -->"),
        (f"{MARKERS[1]}\n{MARKERS[0]}\n", "not once in order"),
        (f"{MARKERS[0]}\n{MARKERS[0]}\n{MARKERS[1]}\n", "not once in order"),
        (None, "cannot be read"),
    ],
)
def test_docs_without_their_markers_are_refused_in_one_line_before_anything_runs(
    bench, exported, tmp_path, text, lacking
):
    docs = tmp_path / "export.md"
    if text is not None:
        docs.write_text(text, encoding="utf-8")
    code, out, err = bench(exported, "--docs", docs, "--json", tmp_path / "table.json")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert lacking in err
    assert (docs.read_text("utf-8") if docs.exists() else None) == text
    assert not (tmp_path / "table.json").exists()


def test_one_folder_of_pictures_alone_is_refused(bench, exported, few):
    code, _, err = bench(exported, "--images", few)
    assert code == 2
    assert err == "error: naive INT8 needs both --calibration and --images\n"


@pytest.mark.usefixtures("no_builds")
def test_a_missing_form_and_a_missing_folder_are_rows_that_say_why_and_the_rest_runs(
    bench, copied, tmp_path
):
    (copied / "model.fp16.onnx").unlink()
    (copied / "model.int8.onnx").write_bytes(b"cut short")
    json_path = tmp_path / "table.json"
    code, out, _ = bench(tmp_path / "gone", copied, "--rounds", 1, "--json", json_path)
    assert code == 1
    assert "(1) no such folder: gone" in out
    assert str(tmp_path) not in out.replace(str(json_path), "")
    gone, rest = json.loads(json_path.read_text("utf-8"))["exports"]
    assert gone["title"] == "gone"
    for row in gone["rows"]:
        assert row["lacks"] == ["no such folder: gone"]
        assert row["onnx_bytes"] is row["quality"] is row["frame_ms"] is row["speedup"] is None
    rows = {row["form"]: row for row in rest["rows"]}
    assert rows["fp16"]["lacks"] == ["no model.fp16.onnx here: p2p-export RUN --fp16 makes it"]
    assert rows["int8"]["lacks"][0].startswith("model.int8.onnx is neither an ONNX file nor")
    for form in ("fp16", "int8"):
        assert rows[form]["onnx_bytes"] is rows[form]["frame_ms"] is None
    for form in ("fp32", "int8.cpu"):
        assert rows[form]["lacks"] == []
        assert rows[form]["frame_ms"]["count"] == 1


@pytest.mark.usefixtures("no_builds")
def test_without_fp32_nothing_is_compared_with_it(bench, copied, few, tmp_path):
    (copied / "model.onnx").unlink()
    pictures = ("--images", few, "--calibration", few)
    code, _, _ = bench(copied, *pictures, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 1
    rows = rows_in(tmp_path / "table.json")
    assert rows["naive"]["lacks"] == ["no FP32 to quantise"]
    assert rows["int8.cpu"]["frame_ms"]["count"] == 1
    assert rows["int8.cpu"]["speedup"] is None


def spoilt(report, how):
    entry = next(e for e in report["artifacts"] if e["file"] == "model.fp16.onnx")
    if how == "older":
        entry["psnr_db"] -= 1
    elif how == "other":
        report["artifacts"].remove(entry)
    elif how == "not run":
        entry.update(psnr_db=None, ssim=None, engine="no ONNX Runtime here")
    return json.dumps(report)


@pytest.mark.usefixtures("no_builds")
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("older", "parity.json is not of this file"),
        ("other", "parity.json does not name the file"),
        ("not run", "no ONNX Runtime here"),
        ("damaged", "parity.json is damaged"),
        ("gone", "parity.json: No such file"),
    ],
)
def test_parity_that_is_not_of_this_file_is_not_told(bench, copied, tmp_path, how, why):
    path = copied / "parity.json"
    report = json.loads(path.read_text("utf-8"))
    if how == "gone":
        path.unlink()
    else:
        path.write_text('{"artifacts": [' if how == "damaged" else spoilt(report, how), "utf-8")
    code, _, _ = bench(copied, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 1
    rows = rows_in(tmp_path / "table.json")
    assert rows["fp16"]["quality"] is None
    assert rows["fp16"]["lacks"][0].startswith("no parity: ")
    assert why in rows["fp16"]["lacks"][0]
    assert rows["fp16"]["frame_ms"], "the rest is told"
    assert (rows["fp32"]["quality"] is None) == (how in ("damaged", "gone"))


@pytest.mark.usefixtures("no_builds")
def test_what_the_quantiser_refuses_is_told_in_one_line_and_is_no_failure(
    bench, exported, few, tmp_path, monkeypatch
):
    def refuses(*_args, **_kwargs):
        raise IndexError("list index\nout of range")

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", refuses)
    pictures = ("--images", few, "--calibration", few)
    code, out, _ = bench(exported, *pictures, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 0
    row = rows_in(tmp_path / "table.json")["naive"]
    refusal = "quantize_static refused model.onnx: IndexError: list index out of range"
    assert row["notes"][0].startswith(refusal)
    assert refusal in out
    assert row["quality"] is row["frame_ms"] is row["onnx_bytes"] is None


@pytest.mark.usefixtures("no_builds")
def test_too_few_pictures_to_calibrate_on_are_told_in_the_row_of_naive_int8(
    bench, exported, few, tmp_path
):
    three = tmp_path / "three"
    three.mkdir()
    for path in sorted(few.iterdir())[:3]:
        shutil.copy(path, three)
    pictures = ("--images", few, "--calibration", three)
    code, _, _ = bench(exported, *pictures, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 1
    rows = rows_in(tmp_path / "table.json")
    assert rows["naive"]["lacks"][0].startswith("3 pictures of the 3 in ")
    assert str(tmp_path) not in rows["naive"]["lacks"][0]
    assert rows["fp32"]["frame_ms"]


@pytest.mark.usefixtures("no_builds")
def test_naive_int8_that_was_compared_on_other_pictures_says_so(bench, exported, few, tmp_path):
    others = write_side_by_side(tmp_path / "others", 9)
    pictures = ("--images", others, "--calibration", few)
    assert bench(exported, *pictures, "--rounds", 1, "--json", tmp_path / "table.json")[0] == 0
    _, note = rows_in(tmp_path / "table.json")["naive"]["notes"]
    assert note.startswith("the other rows were compared on other pictures: 8 of ")


def test_an_engine_that_the_builder_refuses_is_a_dash_and_the_others_are_built(
    bench, exported, tmp_path, monkeypatch
):
    build = export_rows.engine_from_onnx

    def refuses_fp16(onnx_path, engine_path):
        if onnx_path.name == "model.fp16.onnx":
            raise EngineError(f"cannot build {onnx_path}", "less", "make it smaller")
        return build(onnx_path, engine_path)

    monkeypatch.setattr(export_rows, "engine_from_onnx", refuses_fp16)
    monkeypatch.setattr(export_rows, "BUILDS", 2)
    code, _, _ = bench(exported, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 1
    rows = rows_in(tmp_path / "table.json")
    assert rows["fp16"]["engine"] is None
    assert rows["fp16"]["lacks"] == [
        "no engine: cannot build model.fp16.onnx; expected less; make it smaller"
    ]
    assert [len(rows[form]["engine"]["builds_s"]) for form in ("fp32", "int8")] == [2, 2]


def test_where_there_is_no_tensorrt_engines_are_dashes_and_one_line_says_why(
    bench, exported, tmp_path, monkeypatch
):
    def missing():
        raise EngineError("no TensorRT here", "a package", "install it")

    monkeypatch.setattr(export_table, "tensorrt_library", missing)
    code, out, _ = bench(exported, "--rounds", 1, "--json", tmp_path / "table.json")
    assert code == 0
    assert out.count("no TensorRT here") == 1
    rows = rows_in(tmp_path / "table.json")
    assert all(row["engine"] is None and not row["lacks"] for row in rows.values())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("/home/me/data/day/train AtoB, 3 steps", "day/train AtoB, 3 steps"),
        ("20 of ../shared/data/val, the left half", "20 of data/val, the left half"),
        ("~/x/y.pth: no", "x/y.pth: no"),
        ("runs/mine/generator.safetensors", "runs/mine/generator.safetensors"),
        ("and/or 1 / 2,\nscenes", "and/or 1 / 2, scenes"),
        ("/given/model.onnx is cut", "model.onnx is cut"),
    ],
)
def test_paths_in_words_are_cut(told, expected):
    assert without_paths(told, [Path("/given")]) == expected


def test_it_is_called_as_a_file_from_any_folder(tmp_path):
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "gone", "--rounds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "no such folder: gone" in ran.stdout
    assert list(tmp_path.iterdir()) == []
