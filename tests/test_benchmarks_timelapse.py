"""Mixed folders hold what they say, and what the pair maker made of them is counted rightly."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from benchmarks.timelapse import MARKERS, main, outcome_of
from benchmarks.timelapse_mix import (
    BLENDED,
    CUT,
    EMPTY,
    FOREIGN,
    GOOD,
    MOVED,
    TWICE,
    Mixer,
    Put,
    cameras_in,
)
from runtime.errors import UserError
from trainer.errors import DataError
from trainer.images import read_image
from trainer.scenes import draw_pair

HEIGHT, WIDTH = 144, 256


def taken(image, number):
    """Another exposure of the same view: gain, noise and something that passes by."""
    rng = np.random.default_rng(number)
    result = image * rng.uniform(0.93, 1.07)
    x, y = rng.integers(20, WIDTH - 60), rng.integers(HEIGHT // 2, HEIGHT - 30)
    result[y : y + 12, x : x + 26] = rng.uniform(20, 120, 3)
    return np.clip(result + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Five days and nights of three cameras: two told by the name, one by its folder."""
    root = tmp_path_factory.mktemp("cameras")
    for number, (place, seed) in enumerate((("train/one_", 4), ("val/two_", 11), ("three/", 23))):
        day, night = draw_pair(seed, HEIGHT, WIDTH)
        for date in range(1, 6):
            name = f"{place}201511{date:02d}_120{number}00_to_201511{date:02d}_220{number}00.png"
            (root / name).parent.mkdir(exist_ok=True)
            halves = [taken(day, 10 * date), taken(night, 10 * date + 1)]
            assert cv2.imwrite(str(root / name), np.hstack(halves))
    return root


def test_pairs_are_taken_apart_by_camera_and_date(pairs):
    cameras = cameras_in(pairs)
    assert [camera.name for camera in cameras] == ["one", "three", "two"]
    one = cameras[0]
    assert list(one.days) == [f"201511{date:02d}_120000" for date in range(1, 6)]
    assert list(one.nights) == [f"201511{date:02d}_220000" for date in range(1, 6)]
    assert min(i.mean() for i in one.days.values()) > max(i.mean() for i in one.nights.values())


def test_fewer_than_three_cameras_cannot_be_mixed(pairs):
    with pytest.raises(UserError, match=r"has 1 cameras .*three or more"):
        cameras_in(pairs / "three")


def test_a_mixed_folder_holds_what_it_says(pairs, tmp_path):
    mixer = Mixer(tmp_path / "mixed", seed=0)
    mixer.mix(cameras_in(pairs), 0)
    assert {path.name for path in (tmp_path / "mixed").iterdir()} == set(mixer.put)
    kinds = [one.kind for one in mixer.put.values()]
    assert [kinds.count(kind) for kind in (GOOD, MOVED, FOREIGN)] == [8, 2, 6]
    assert [kinds.count(kind) for kind in (EMPTY, CUT, BLENDED, TWICE)] == [3, 1, 3, 2]
    for name, one in mixer.put.items():
        path = tmp_path / "mixed" / name
        if one.kind == CUT:
            with pytest.raises(DataError):
                read_image(path)
        if one.copy_of:
            assert path.read_bytes() == (tmp_path / "mixed" / one.copy_of).read_bytes()
            assert mixer.put[one.copy_of].kind == GOOD
        assert np.array_equal(one.motion, np.eye(3)) == (one.kind != MOVED)


def write_tables(folder, mixed, pairs, dropped):
    folder.mkdir()
    mixed.mkdir()
    head = ["file", "day", "night", "shift_x_px", "shift_y_px", "turn_deg", "gap_s", "score"]
    for name, rows in (
        ("manifest.csv", [head, *pairs]),
        ("dropped.csv", [["file", "reason", "detail"], *dropped]),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    for pair in pairs:
        cv2.imwrite(str(mixed / pair[1]), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_wrong_pairs_lost_pictures_and_residuals_are_counted(tmp_path):
    shifted = np.array([[1, 0, 5.0], [0, 1, -3.0], [0, 0, 1]])
    middle = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    turned = np.vstack([cv2.getRotationMatrix2D(middle, 1.0, 1.0), [0, 0, 1]])
    put = {
        "a.png": Put(GOOD, "day"),
        "b.png": Put(MOVED, "night", shifted),
        "c.png": Put(MOVED, "day", turned),
        "d.png": Put(TWICE, "day", copy_of="a.png"),
        "e.png": Put(FOREIGN, "night"),
        "f.png": Put(GOOD, "night"),
        "g.png": Put(TWICE, "night", copy_of="f.png"),
    }
    made = [
        ("1", "a.png", "b.png", "5.00", "-3.00", "0.000", "0", "0.4"),
        ("2", "d.png", "e.png", "0.00", "0.00", "0.000", "0", "0.4"),
        ("3", "g.png", "e.png", "0.00", "0.00", "0.000", "0", "0.4"),
        # the day is turned by 1 degree, anticlockwise as OpenCV has it: the night lies clockwise
        ("4", "c.png", "e.png", "3.00", "4.00", "1.000", "0", "0.4"),
    ]
    write_tables(tmp_path / "pairs", tmp_path / "mixed", made, [("f.png", "dusk", "")])
    told = outcome_of("cam", put, tmp_path / "mixed", tmp_path / "pairs")
    assert told.put == {GOOD: 2, MOVED: 2, TWICE: 2, FOREIGN: 1}
    assert told.paired == {GOOD: 1, MOVED: 2, TWICE: 1, FOREIGN: 1}
    assert told.left_out == {"dusk": 1}
    assert (told.pairs, told.wrong_halves) == (4, 1)
    assert told.residuals_px[0] == pytest.approx((0, 0), abs=1e-9)
    assert told.residuals_px[1] == pytest.approx((5, 5), abs=1e-3)


@pytest.mark.slow
def test_the_pair_maker_is_run_and_told_in_table_and_file(pairs, tmp_path, capsys):
    docs, told = tmp_path / "pairs.md", tmp_path / "rows.json"
    docs.write_text("before\n{}\n{}\nafter\n".format(*MARKERS))
    command = [str(pairs), "--out", str(tmp_path / "out"), "--json", str(told)]
    assert main([*command, "--docs", str(docs)]) == 0
    cameras = json.loads(told.read_text())["cameras"]
    assert [camera["camera"] for camera in cameras] == ["one", "three", "two"]
    for camera in cameras:
        assert camera["refused"] is None
        assert camera["pairs"] >= 4
        assert camera["wrong_halves"] == 0
        assert set(camera["paired"]) <= {GOOD, MOVED, TWICE}
        assert max(middle for middle, _ in camera["residuals_px"]) < 2
        assert (tmp_path / "out" / camera["camera"] / "pairs" / "contact_sheet").is_dir()
    table = capsys.readouterr().out.strip()
    assert f"| {FOREIGN} | 18 | 0 |" in table
    assert table in docs.read_text()
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
