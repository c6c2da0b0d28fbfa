"""The README's figures are those of the committed files, and `--check` finds one that is not."""

import json
import re

import pytest
from made_results import made_result

from benchmarks import readme_table
from benchmarks.readme_figures import Line, at
from benchmarks.readme_latency import LATENCY
from benchmarks.readme_rows import LINES
from benchmarks.readme_table import MARKERS, README, RESULTS, Results, main, section

AGE = Line(
    what="age, {frames} frames",
    kind="live",
    got="{p50:.1f} ms | of one",
    figures={"frames": at("frames"), "p50": at("parts", {"name": "b"}, "p50")},
    again=("python benchmarks/live.py RUN",),
    machine="box",
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A README and a folder of results with one line declared; runs the command."""
    folder = tmp_path / "results"
    folder.mkdir()
    docs = tmp_path / "README.md"
    docs.write_text("before\n{}\n{}\nafter\n".format(*MARKERS))
    monkeypatch.setattr(readme_table, "LINES", (AGE,))

    class Project:
        path = docs

        @staticmethod
        def put(name, values):
            (folder / name).write_text(json.dumps(values))

        @staticmethod
        def run(*arguments):
            return main([*arguments, "--docs", str(docs), "--results", str(folder)])

    Project.put("2026-11-01-box-live.json", live(1.0))
    return Project


def live(p50):
    return {
        "frames": 60,
        "environment": {"cpu": "A CPU", "cpu_threads": 4},
        "parts": [{"name": "a", "p50": 9.0}, {"name": "b", "p50": p50}],
    }


def test_the_readme_of_this_project_says_what_its_files_say(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_every_line_of_this_project_has_its_figures_in_a_committed_file():
    told = section(Results(RESULTS))
    assert told.count("benchmarks/results/") >= len(LINES)
    for name in re.findall(r"\(benchmarks/results/([^)]+)\)", told):
        assert (RESULTS / name).is_file()
    assert "{" not in told
    assert README.read_text().count(MARKERS[0]) == 1


def test_figures_come_from_the_newest_file_of_the_kind_on_the_machine(project):
    project.put("2026-11-03-box-live.json", live(41.26))
    project.put("2026-11-02-box-live.json", live(2.0))
    project.put("2026-11-09-other-box-live.json", live(3.0))
    assert project.run() == 0
    told = project.path.read_text()
    assert told.startswith("before\n")
    assert told.endswith("\nafter\n")
    assert (
        "| age, 60 frames | 41.3 ms \\| of one | `python benchmarks/live.py RUN` | "
        "[2026-11-03](benchmarks/results/2026-11-03-box-live.json) |"
    ) in told
    assert "Measured on: A CPU, 4 threads." in told


def test_check_writes_nothing_and_shows_the_lines_that_differ(project, capsys):
    assert project.run() == 0
    before = project.path.read_text().replace("1.0 ms", "0.9 ms")
    project.path.write_text(before)
    capsys.readouterr()
    assert project.run("--check") == 1
    out = capsys.readouterr().out
    assert project.path.read_text() == before
    assert "\n-| age, 60 frames | 0.9 ms" in out
    assert "\n+| age, 60 frames | 1.0 ms" in out
    assert "python benchmarks/readme_table.py" in out
    assert project.run() == 0
    assert project.run("--check") == 0


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({**live(1.0), "parts": []}, "lacks /parts[name=b]/p50, which 'age, {frames} frames'"),
        ({**live(1.0), "parts": [{"name": "b", "p50": None}]}, "lacks /parts[name=b]/p50"),
        ({**live(1.0), "parts": [{"name": "b", "p50": "x"}]}, "cannot be told from"),
        ({"environment": {}}, "lacks /frames"),
        ([], "holds no JSON object"),
    ],
)
def test_a_field_that_is_missing_is_one_line_that_names_it(project, capsys, values, told):
    project.put("2026-11-01-box-live.json", values)
    before = project.path.read_text()
    assert project.run() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert told in err
    assert project.path.read_text() == before


def test_a_file_that_is_missing_and_docs_without_markers_are_one_line(
    project, tmp_path, capsys, monkeypatch
):
    project.path.write_text("no markers\n")
    assert project.run() == 2
    assert "has no <!-- measured:start -->" in capsys.readouterr().err
    (tmp_path / "results" / "2026-11-01-box-live.json").unlink()
    assert project.run("--check") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "results has no DATE-box-live.json" in err


ROWS = (
    ("model.onnx", "", 80.0),
    ("model.int8.cpu.onnx", "", 40.0),
    ("PyTorch", "torch", 60.0),
)


def test_the_latency_table_has_every_row_with_its_ratio_to_pytorch(project):
    result = made_result(ROWS)
    result["rows"][1]["roof"] = {"share": 0.418}
    del result["ratios"][-1]
    result["ratios"] = [
        {"slow": slow, "fast": fast, "of": of, "value": value, "low": low, "high": high}
        for slow, fast, of, value, low, high in (
            ("model.onnx", "PyTorch", "infer", 1.25, 1.0, 1.6),
            ("PyTorch", "model.int8.cpu.onnx", "infer", 1.5, 1.4, 1.7),
            ("PyTorch", "model.int8.cpu.onnx", "end_to_end", 9.0, 9.0, 9.0),
        )
    ]
    stages = result["rows"][1]["latency"]["stages_ms"]
    stages["infer"].update(p50=40.04, p99=43.21)
    stages["end_to_end"].update(p50=42.31, p99=45.48)
    result["rows"][1]["latency"]["fps"] = 23.42
    project.put("2026-11-01-big-box-latency.json", result)
    project.put("2026-11-02-box-latency.json", result)
    assert project.run() == 0
    told = project.path.read_text()
    assert told.count(LATENCY.title) == 2, "one table a machine"
    assert "Made-up CPU, 2 threads, Debian, Python 3.11, ONNX Runtime 1.31, PyTorch 2.13" in told
    assert (
        "| **model.int8.cpu.onnx** | unet | ONNX Runtime 1.31.1, CPU, 2 threads | fp32 | 40.0 | "
        "43.2 | 42.3 | 45.5 | 23.4 | 42 % | 1.50 (1.40 to 1.70) |"
    ) in told
    lines = {line.split(" | ")[0]: line for line in told.splitlines() if line.startswith("| ")}
    assert lines["| **model.onnx**"].endswith("| – | 0.80 (0.62 to 1.00) |")
    assert lines["| PyTorch"].endswith("| – | – |")


def test_a_latency_file_of_another_schema_or_without_a_field_is_one_line(project, capsys):
    project.put("2026-11-02-box-latency.json", {**made_result(ROWS), "schema": 1})
    assert project.run() == 2
    assert "is of schema 1; expected schema 2" in capsys.readouterr().err
    result = made_result(ROWS)
    del result["rows"][0]["latency"]["fps"]
    project.put("2026-11-02-box-latency.json", result)
    assert project.run() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "lacks the figure of 'fps' in its row 'model.onnx'" in err
