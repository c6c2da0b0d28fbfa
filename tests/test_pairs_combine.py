"""`p2p-pairs combine`: two folders of pictures of the same names become side-by-side pairs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from commands import done, refused

from trainer.data import open_data
from trainer.pairs_cli import pairs

WIDTH, HEIGHT = 24, 16


def picture(level: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A horizontal ramp that starts at `level`: halves and their order can be told."""
    ramp = np.arange(width, dtype=np.uint8) + np.uint8(level)
    return np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=2)


def fill(folder, names, level, suffix=".png", **size):
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / f"{name}{suffix}"), picture(level, **size))


@pytest.fixture
def folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    fill(a, ["one", "two"], 10)
    fill(b, ["one", "two"], 200)
    return a, b, tmp_path / "out"


def test_a_is_left_and_b_is_right_to_the_pixel(folders):
    a, b, out = folders
    assert "2 side-by-side pairs" in done(pairs, "combine", a, b, out)
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "two.png"]
    joint = cv2.imread(str(out / "one.png"))
    np.testing.assert_array_equal(joint, np.hstack([picture(10), picture(200)]))


def test_names_match_whatever_the_files_end_in(tmp_path):
    fill(tmp_path / "a", ["one"], 10, ".png")
    fill(tmp_path / "b", ["one"], 200, ".bmp")
    done(pairs, "combine", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert (tmp_path / "out" / "one.png").is_file()


def test_the_splits_of_a_are_kept_and_the_trainer_reads_them(tmp_path):
    for split, names in (("train", ["x", "y"]), ("val", ["z"])):
        fill(tmp_path / "a" / split, names, 10)
        fill(tmp_path / "b" / split, names, 200)
    out = tmp_path / "out"
    assert "2 train, 1 val" in done(pairs, "combine", tmp_path / "a", tmp_path / "b", out)
    split = open_data(str(out), "AtoB")
    assert (len(split.train), len(split.held_out)) == (2, 1)
    day, night = split.train.pair(0, 16)
    assert day.mean() < 60 < 180 < night.mean()


def test_jpeg_keeps_the_colours_of_the_halves_apart(tmp_path):
    for name, colour in (("a", (0, 0, 255)), ("b", (255, 0, 0))):
        (tmp_path / name).mkdir()
        image = np.full((16, 23, 3), colour, np.uint8)
        cv2.imwrite(str(tmp_path / name / "one.png"), image)
    folders = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    done(pairs, "combine", *folders, "--format", "jpg")
    joint = cv2.imread(str(tmp_path / "out" / "one.jpg")).astype(int)
    assert joint[:, 22, 2].min() > 200
    assert joint[:, 23, 0].min() > 200


def test_a_lonely_picture_is_refused_by_name_and_nothing_is_written(folders):
    a, b, out = folders
    (b / "two.png").unlink()
    line = refused(pairs, "combine", a, b, out)
    assert "1 without a partner" in line
    assert str(a / "two.png") in line
    assert not out.exists()


def test_two_pictures_of_one_name_in_a_folder_are_told(folders):
    a, b, out = folders
    cv2.imwrite(str(b / "two.bmp"), picture(200))
    assert f"two.bmp and two.png in {b}" in refused(pairs, "combine", a, b, out)
    assert not out.exists()


def test_lonely_pictures_are_left_out_when_asked(folders):
    a, b, out = folders
    (a / "one.png").unlink()
    said = done(pairs, "combine", a, b, out, "--skip-lonely")
    assert str(b / "one.png") in said
    assert [p.name for p in out.iterdir()] == ["two.png"]


def test_pictures_beside_the_splits_count_as_lonely(tmp_path):
    for folder in ("a", "b"):
        fill(tmp_path / folder / "train", ["x"], 10)
    cv2.imwrite(str(tmp_path / "a" / "stray.png"), picture(1))
    line = refused(pairs, "combine", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert "stray.png" in line


def test_two_sizes_are_refused_and_joined_with_size(tmp_path):
    fill(tmp_path / "a", ["one"], 10)
    fill(tmp_path / "b", ["one"], 200, width=30, height=20)
    folders = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    line = refused(pairs, "combine", *folders)
    assert "24x16" in line
    assert "30x20" in line
    assert "--size" in line
    done(pairs, "combine", *folders, "--size", "32x18")
    assert cv2.imread(str(tmp_path / "out" / "one.png")).shape == (18, 64, 3)


def test_a_damaged_picture_is_named_before_anything_is_written(folders):
    a, b, out = folders
    whole = (b / "two.png").read_bytes()
    (b / "two.png").write_bytes(whole[: len(whole) // 2])
    assert str(b / "two.png") in refused(pairs, "combine", a, b, out)
    assert not out.exists()


def test_pairs_that_are_there_stay_unless_they_are_to_be_replaced(folders):
    a, b, out = folders
    done(pairs, "combine", a, b, out)
    cv2.imwrite(str(a / "one.png"), picture(90))
    assert "--overwrite" in refused(pairs, "combine", a, b, out)
    assert cv2.imread(str(out / "one.png"))[0, 0, 0] == 10
    done(pairs, "combine", a, b, out, "--overwrite")
    assert cv2.imread(str(out / "one.png"))[0, 0, 0] == 90


def test_old_pairs_of_other_names_do_not_stay_among_new_ones(folders):
    a, b, out = folders
    done(pairs, "combine", a, b, out)
    for folder in (a, b):
        (folder / "two.png").unlink()
    assert "two.png" in refused(pairs, "combine", a, b, out, "--overwrite")


def test_one_of_the_sources_is_no_place_to_write(folders):
    a, b, _ = folders
    assert "another folder" in refused(pairs, "combine", a, b, b)
    assert cv2.imread(str(b / "one.png")).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", ["0x0", "64", "64x", "axb"])
def test_a_size_that_is_none_is_refused(folders, size):
    assert "WIDTHxHEIGHT" in refused(pairs, "combine", *folders, "--size", size)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    line = refused(pairs, "combine", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert str(tmp_path / "a") in line
