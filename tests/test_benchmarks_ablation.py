"""The ablations use the real commands, go on after a stop, and write the table."""

from __future__ import annotations

import json
import os

import cv2
import pytest
from pairs import write_side_by_side

from benchmarks.ablation import MARKERS, RECIPES, Source, main
from runtime.errors import UserError

TINY = ("--steps", "2", "--ngf", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    write_side_by_side(root / "train", 4, 256, 256)
    write_side_by_side(root / "val", 5, 256, 256)
    return root


def test_a_source_has_a_name_a_folder_and_a_direction():
    assert Source.of("a=b/c") == Source("a", "b/c", "AtoB")
    assert Source.of("a=b:c:BtoA") == Source("a", "b:c", "BtoA")
    for wrong in ("folder", "=folder", "name="):
        with pytest.raises(UserError, match="NAME=FOLDER"):
            Source.of(wrong)


def test_the_recipes_differ_in_what_they_vary():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert len({recipe.options for recipe in RECIPES}) == len(RECIPES)


@pytest.mark.slow
def test_rows_are_trained_measured_written_and_not_trained_again(data, tmp_path, capsys):
    docs = tmp_path / "quality.md"
    docs.write_text("before\n{}\n{}\nafter\n".format(*MARKERS))
    told, out = tmp_path / "rows.json", tmp_path / "out"
    command = [f"--data=drawn={data}:BtoA", "--out", out, "--only", "unet-patch-1", *TINY]
    command = [*map(str, command), "--json", str(told), "--docs", str(docs)]
    assert main(command) == 0
    rows = json.loads(told.read_text())["rows"]
    assert [row["recipe"] for row in rows] == ["unet-patch-1"]
    assert rows[0]["options"][-4:] == ["--direction", "BtoA", "--patch", "1"]
    assert rows[0]["measured"]["model"]["swd"] > 0
    page = docs.read_text()
    assert page.startswith("before")
    assert page.endswith("after\n")
    assert "| U-Net, L1 + cGAN, patch 1 |" in page
    assert "| the mean target |" in page
    assert cv2.imread(str(out / "drawn.png")).shape[1] == 3 * 164 - 4
    weights = out / "drawn-unet-patch-1" / "generator.safetensors"
    os.utime(weights, (1, 1))
    assert main(command) == 0
    assert weights.stat().st_mtime == 1, "the row is taken as it is"
    assert json.loads(told.read_text())["rows"][0] == rows[0]
    assert "error" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_fails_is_told_in_one_line(data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code = main([f"--data=x={tmp_path / 'empty'}", "--out", str(tmp_path / "out"), *TINY])
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "no pairs in" in lines[0]
