"""Pairs stay pairs: read from disk, made of photos or drawn; damaged ones are named."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from pairs import (
    jpeg_with_orientation,
    picture,
    write_photos,
    write_side_by_side,
    write_two_folders,
)

from trainer import data
from trainer.data import (
    FolderPairs,
    PhotoPairs,
    drop_damaged,
    find_pair_files,
    open_data,
    open_pairs,
    planes_of,
)
from trainer.errors import DataError
from trainer.tasks import made_input


def test_side_by_side_and_two_folders_hold_the_same_pairs(tmp_path):
    beside = open_pairs(str(write_side_by_side(tmp_path / "ab", 3)), "AtoB")
    apart = open_pairs(str(write_two_folders(tmp_path / "two", 3)), "AtoB")
    assert len(beside) == len(apart) == 3
    for index in range(3):
        for one, other in zip(beside.pair(index, 64), apart.pair(index, 64), strict=True):
            np.testing.assert_array_equal(one, other)


def test_direction_says_which_half_is_the_input(tmp_path):
    folder = str(write_side_by_side(tmp_path, 1))
    a, b = open_pairs(folder, "AtoB").pair(0, 64)
    np.testing.assert_array_equal(a, picture(0))
    input_of_b, target_of_b = open_pairs(folder, "BtoA").pair(0, 64)
    np.testing.assert_array_equal(input_of_b, b)
    np.testing.assert_array_equal(target_of_b, a)


def test_planes_are_the_pair_in_rgb_with_the_input_first(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 1)), "AtoB")
    source, target = pairs.pair(0, 32)
    both = np.concatenate([source[..., ::-1], target[..., ::-1]], axis=2).transpose(2, 0, 1)
    np.testing.assert_array_equal(pairs.planes(0, 32), both)
    np.testing.assert_array_equal(planes_of((source, target)), both)


def test_without_a_val_folder_every_tenth_pair_is_held_out(tmp_path):
    for count, held_out in ((2, 1), (9, 1), (10, 1), (20, 2)):
        folder = write_side_by_side(tmp_path / str(count), count)
        split = open_data(str(folder), "AtoB")
        assert (len(split.train), len(split.held_out)) == (count - held_out, held_out)
        trained = {split.train.name(i) for i in range(count - held_out)}
        tested = {split.held_out.name(i) for i in range(held_out)}
        assert len(trained | tested) == count


def test_pairs_are_decoded_once(tmp_path):
    folder = write_side_by_side(tmp_path, 1)
    pairs = FolderPairs(find_pair_files(folder), "AtoB", "")
    first = pairs.pair(0, 32)
    (folder / "000.png").unlink()
    np.testing.assert_array_equal(pairs.pair(0, 32)[0], first[0])


def test_the_cache_keeps_no_more_than_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CACHE_BYTES", 2 * 6 * 32 * 32)
    folder = write_side_by_side(tmp_path, 3)
    pairs = open_pairs(str(folder), "AtoB")
    assert list(pairs.read_all(32)) == [None] * 3
    for path in folder.iterdir():
        path.unlink()
    pairs.pair(0, 32)
    pairs.pair(1, 32)
    with pytest.raises(DataError, match="could not be read"):
        pairs.pair(2, 32)


def test_pairs_go_to_another_process_without_their_pictures(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 2)), "AtoB")
    list(pairs.read_all(64))
    sent = pickle.dumps(pairs)
    assert len(sent) < 5000
    np.testing.assert_array_equal(pickle.loads(sent).pair(1, 64)[0], pairs.pair(1, 64)[0])


# ------------------------------------------------------------------------------------- photos


def test_a_photo_is_the_target_and_its_input_is_made_of_it(tmp_path):
    write_photos(tmp_path / "train", 3, 64, 96)
    write_photos(tmp_path / "val" / "cats", 2, 96, 64)
    for task in ("colourise", "edges", "superres", "deblur"):
        split = open_data(str(tmp_path), "BtoA", task=task)
        assert (len(split.train), len(split.held_out)) == (3, 2)
        assert "3 photos of" in split.note
        assert task in split.note
        source, target = split.train.pair(1, 64)
        np.testing.assert_array_equal(target, picture(1, 64, 96)[:, 16:80])
        np.testing.assert_array_equal(source, made_input(task, target, "001"))
        assert split.held_out.name(1) == "cats_001"


def test_what_a_photo_becomes_does_not_depend_on_the_others(tmp_path):
    folder = write_photos(tmp_path, 3)
    before = open_pairs(str(folder), "AtoB", "deblur").pair(2, 64)
    (folder / "000.png").unlink()
    after = open_pairs(str(folder), "AtoB", "deblur").pair(1, 64)
    np.testing.assert_array_equal(before[0], after[0])


def test_the_held_out_photos_of_a_root_are_evaluated(tmp_path):
    write_photos(tmp_path / "train", 3)
    write_photos(tmp_path / "test", 2)
    assert len(open_pairs(str(tmp_path), "AtoB", "edges")) == 2
    assert len(open_pairs(str(tmp_path / "train"), "AtoB", "edges")) == 3


def test_a_photo_from_a_phone_stands_upright(tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg_with_orientation(picture(0, 64, 64), 6))
    target = PhotoPairs([tmp_path / "1.jpg"], tmp_path, "colourise").pair(0, 64)[1]
    assert np.abs(target.astype(int) - np.rot90(picture(0, 64, 64), -1)).mean() < 4


# -------------------------------------------------------------------------------------- drawn


def test_drawn_scenes_held_out_are_never_trained_on():
    split = open_data("scenes", "AtoB")
    assert split.held_out.name(0) not in {split.train.name(i) for i in range(10_000)}


def test_with_a_task_the_scene_by_day_is_the_photo():
    day, _ = open_pairs("scenes", "AtoB").pair(0, 64)
    source, target = open_pairs("scenes", "BtoA", "colourise").pair(0, 64)
    np.testing.assert_array_equal(target, day)
    np.testing.assert_array_equal(source, made_input("colourise", day, ""))


# ------------------------------------------------------------------------------------ damaged


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def test_an_odd_width_and_halves_of_different_size_are_told_by_name(tmp_path):
    cv2.imwrite(str(tmp_path / "odd.png"), np.zeros((8, 17, 3), np.uint8))
    with pytest.raises(DataError, match=r"odd\.png is 17 pixels wide"):
        open_pairs(str(tmp_path), "AtoB").pair(0, 64)
    folder = write_two_folders(tmp_path / "two", 1)
    cv2.imwrite(str(folder / "B" / "000.png"), picture(0, 32, 48))
    with pytest.raises(DataError, match=r"A/000\.png is 64x64 and .*B/000\.png is 48x32"):
        open_pairs(str(folder), "AtoB").pair(0, 64)


def test_a_damaged_pair_among_many_is_named_and_left_out(tmp_path):
    folder = write_side_by_side(tmp_path, 120, 16, 16)
    damage(folder / "007.png")
    pairs = open_pairs(str(folder), "AtoB")
    lines: list[str] = []
    shown: list[int] = []
    whole = drop_damaged(
        pairs, 16, 0.01, lines.append, lambda x: (shown.append(i) or i for i in x)
    )
    assert lines == [
        f"{folder / '007.png'} is damaged or cut short",
        "1 of 120 pairs cannot be read, 119 can",
    ]
    assert shown == list(range(120))
    names = [whole.name(i) for i in range(len(whole))]
    assert names == [f"{i:03d}" for i in range(120) if i != 7]
    for index in (6, 7, 118):
        original = int(whole.name(index))
        np.testing.assert_array_equal(whole.pair(index, 16)[0], picture(original, 16, 16))


def test_reading_fills_the_cache(tmp_path):
    folder = write_side_by_side(tmp_path, 120, 16, 16)
    damage(folder / "007.png")
    whole = drop_damaged(open_pairs(str(folder), "AtoB"), 16, 0.5, lambda _: None)
    for path in folder.iterdir():
        path.unlink()
    np.testing.assert_array_equal(whole.pair(100, 16)[0], picture(101, 16, 16))


def test_more_damaged_pairs_than_allowed_fail_in_one_line(tmp_path):
    folder = write_side_by_side(tmp_path, 30, 16, 16)
    damage(folder / "011.png")
    pairs = open_pairs(str(folder), "AtoB")
    lines: list[str] = []
    with pytest.raises(DataError) as caught:
        drop_damaged(pairs, 16, 0.01, lines.append)
    text = str(caught.value)
    assert "1 of 30 pairs cannot be read" in text
    assert "011.png is damaged or cut short" in text
    assert "--bad-pairs" in text
    assert "\n" not in text
    assert lines == []
    with pytest.raises(DataError):
        drop_damaged(pairs, 16, 0.0, lines.append)
    assert len(drop_damaged(pairs, 16, 0.04, lines.append)) == 29


def test_at_most_ten_damaged_pairs_are_named(tmp_path):
    folder = write_side_by_side(tmp_path, 20, 16, 16)
    for number in range(13):
        damage(folder / f"{number:03d}.png")
    pairs = open_pairs(str(folder), "AtoB")
    left_out: list[str] = []
    assert len(drop_damaged(pairs, 16, 0.9, left_out.append)) == 7
    named = [f"{folder / f'{number:03d}.png'} is damaged or cut short" for number in range(10)]
    assert left_out == [*named, "and 3 more", "13 of 20 pairs cannot be read, 7 can"]
    unreadable: list[str] = []
    with pytest.raises(DataError, match="13 of 20 pairs cannot be read"):
        drop_damaged(pairs, 16, 0.1, unreadable.append)
    assert unreadable == [*named, "and 3 more"]


def test_nothing_is_left_over_when_all_are_damaged(tmp_path):
    folder = write_side_by_side(tmp_path, 2, 16, 16)
    for path in folder.iterdir():
        damage(path)
    with pytest.raises(DataError, match="2 of 2 pairs"):
        drop_damaged(open_pairs(str(folder), "AtoB"), 16, 1.0, lambda _: None)


def test_whole_data_and_drawn_scenes_are_returned_as_they_are(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 3)), "AtoB")
    assert drop_damaged(pairs, 16, 0.0, pytest.fail) is pairs
    scenes = open_pairs("scenes", "AtoB")
    assert drop_damaged(scenes, 16, 0.0, pytest.fail) is scenes
