"""The table and the page of an evaluation."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pairs import picture
from rich.console import Console

from export.eval_report import (
    Evaluation,
    PairsRow,
    VideoRow,
    best_median_worst,
    change_example,
    heat_map,
    pair_example,
    terminal_table,
    write_html,
    write_json,
)

ROW = PairsRow(20.0, 17.5, 0.5, 0.6, 0.8, 50.0, {"64": 60.0, "32": 40.0})


@pytest.fixture
def evaluation():
    images = [picture(seed, 32, 32) for seed in range(3)]
    return Evaluation(
        "runs/<mine>",
        "4 pairs of [data]",
        {
            "model": ROW,
            "identity": replace(ROW, l1=90.0, gradient_energy=1.1, swd_levels={"64": 9, "32": 9}),
            "mean_target": replace(ROW, l1=30.0, psnr=18.0, gradient_energy=0.1),
        },
        ["a note & more"],
        [pair_example("Best: 001", *images)],
    )


def shown(evaluation, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(evaluation, "model [a] on [b]"))
    return console.export_text()


def test_the_table_has_a_line_a_measure_and_fits_a_terminal(evaluation):
    full = {
        k: replace(r, lpips=0.5, fid=101.5, inception_score=1.5)
        for k, r in evaluation.rows.items()
    }
    lines = shown(replace(evaluation, rows=full)).splitlines()
    assert "model [a] on [b]" in lines[0]
    names = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert names == [
        "L1", "PSNR", "SSIM", "MS-SSIM", "LPIPS", "gradient energy", "SWD", "64 px", "32 px",
        "FID", "Inception Score",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


def test_what_is_not_known_is_a_dash(evaluation):
    rows = {name: replace(row, ms_ssim=None) for name, row in evaluation.rows.items()}
    line = next(s for s in shown(replace(evaluation, rows=rows)).splitlines() if "MS-SSIM" in s)
    assert line.count("–") == 3


def cells_of(page, name):
    line = next(s for s in page.splitlines() if f"<td>{name}<td" in s)
    return re.findall(r"<td class='n( best)?'>([^<]*)", line)


def test_the_best_of_each_line_is_marked_by_what_it_aims_at(evaluation, tmp_path):
    write_html(tmp_path / "page.html", evaluation)
    page = (tmp_path / "page.html").read_text()
    measures = ("L1", "PSNR", "gradient energy", "64 px")
    marked = {name: [bool(best) for best, _ in cells_of(page, name)] for name in measures}
    assert marked["L1"] == [True, False, False], "the lowest"
    assert marked["PSNR"] == [False, False, True], "the highest"
    assert marked["gradient energy"] == [False, True, False], "nearest to 1"
    assert marked["64 px"] == [False, True, False]
    assert not any(best for best, _ in cells_of(page, "SSIM")), "all alike"


def test_the_page_needs_nothing_beside_itself_and_shows_the_pictures(evaluation, tmp_path):
    write_html(tmp_path / "page.html", evaluation)
    page = (tmp_path / "page.html").read_text()
    assert "://" not in page
    assert "runs/&lt;mine&gt;" in page
    assert "a note &amp; more" in page
    sources = re.findall(r"src='data:image/png;base64,([^']*)'", page)
    images = [
        cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        for text in sources
    ]
    assert len(images) == 4
    for seed in range(3):
        np.testing.assert_array_equal(images[seed], picture(seed, 32, 32))


def test_the_page_of_a_video_asks_about_flicker(evaluation, tmp_path):
    rows = {"model": VideoRow(1.5, 0.5, 9), "identity": VideoRow(0.5, 0.5, 9)}
    write_html(tmp_path / "page.html", replace(evaluation, rows=rows))
    page = (tmp_path / "page.html").read_text()
    assert "Does its video flicker?" in page
    assert "mean target" not in page
    assert [text for _, text in cells_of(page, "flicker")] == ["1.500", "0.500"]


def test_a_heat_map_is_black_for_equal_and_white_for_far_pictures():
    difference = np.zeros((2, 3, 3), np.uint8)
    difference[0, 1], difference[0, 2] = 64, 200
    heat = heat_map(difference, 64)
    assert heat[0, 0].tolist() == [0, 0, 0]
    assert heat[0, 1].tolist() == heat[0, 2].tolist() == [255, 255, 255]


def test_the_picture_of_a_change_hides_what_moves():
    still = np.zeros((32, 32), bool)
    still[:, :16] = True
    before, now = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 200, np.uint8)
    heat = change_example("Worst", now, (before, now), still).pictures[-1][1]
    assert (heat[:, :16] == 255).all()
    assert (heat[:, 16:] == 96).all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([3.0], [("The only one", 0)]),
        ([3.0, 1.0], [("Best", 1), ("Worst", 0)]),
        ([3.0, 1.0, 2.0], [("Best", 1), ("Median", 2), ("Worst", 0)]),
        ([1.0, 1.0, 1.0, 1.0], [("Best", 0), ("Median", 2), ("Worst", 3)]),
    ],
)
def test_the_best_the_median_and_the_worst_are_chosen_once_each(errors, expected):
    assert best_median_worst(errors) == expected


def test_json_with_a_value_that_is_no_number_is_not_written(evaluation, tmp_path):
    rows = {"model": replace(ROW, l1=float("nan"))}
    with pytest.raises(ValueError):
        write_json(tmp_path / "q.json", replace(evaluation, rows=rows))
    assert list(tmp_path.iterdir()) == []
