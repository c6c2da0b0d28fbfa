"""A data set is read as it lies on disk: each layout, what is held out, and what is refused."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from pairs import picture, write_photos, write_side_by_side, write_two_folders

from trainer.data import open_data, open_pairs
from trainer.errors import DataError
from trainer.layouts import find_pair_files, find_photos, photos_in


def refused(data, task="pairs", opens=open_data) -> str:
    with pytest.raises(DataError) as caught:
        opens(str(data), "AtoB", task=task)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_layout(root, kind, phase, count):
    """`count` pairs of `phase` in one of the layouts."""
    if kind == "side by side":
        write_side_by_side(root / phase, count)
    elif kind == "phase/A + phase/B":
        write_two_folders(root / phase, count)
    elif kind == "A/phase + B/phase":
        write_two_folders(root, count, (f"A/{phase}", f"B/{phase}"))
    else:
        ends = {"trainA": ("A", "B"), "train_A": ("_A", "_B"), "train_label": ("_label", "_img")}
        write_two_folders(root, count, tuple(f"{phase}{end}" for end in ends[kind]))


LAYOUTS = (
    "side by side",
    "phase/A + phase/B",
    "A/phase + B/phase",
    "trainA",
    "train_A",
    "train_label",
)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("held_out", ["val", "test"])
def test_every_layout_gives_the_same_pairs(tmp_path, kind, held_out):
    write_layout(tmp_path, kind, "train", 4)
    write_layout(tmp_path, kind, held_out, 2)
    split = open_data(str(tmp_path), "AtoB")
    assert (len(split.train), len(split.held_out)) == (4, 2)
    for pairs in (split.train, split.held_out):
        for index in range(len(pairs)):
            source, target = pairs.pair(index, 64)
            np.testing.assert_array_equal(source, picture(index))
            np.testing.assert_array_equal(target, 255 - source)
    assert "4 pairs of" in split.note
    assert "2 held out in" in split.note


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_without_a_val_holds_every_tenth_pair_out(tmp_path, kind):
    write_layout(tmp_path, kind, "train", 20)
    split = open_data(str(tmp_path), "AtoB")
    assert (len(split.train), len(split.held_out)) == (18, 2)
    assert "no val/ or test/" in split.note


def test_val_is_held_out_before_test(tmp_path):
    for phase, count in (("train", 3), ("val", 2), ("test", 1)):
        write_layout(tmp_path, "trainA", phase, count)
    assert len(open_data(str(tmp_path), "AtoB").held_out) == 2


def test_a_folder_that_is_itself_train_has_its_val_beside_it(tmp_path):
    write_side_by_side(tmp_path / "train", 4)
    write_side_by_side(tmp_path / "val", 2)
    split = open_data(str(tmp_path / "train"), "AtoB")
    assert (len(split.train), len(split.held_out)) == (4, 2)


def test_combined_pictures_are_chosen_over_the_folders_they_were_combined_from(tmp_path):
    write_two_folders(tmp_path, 5, ("A/train", "B/train"))
    write_side_by_side(tmp_path / "train", 3)
    split = open_data(str(tmp_path), "AtoB")
    assert f"of {tmp_path / 'train'}" in split.note
    assert len(split.train) + len(split.held_out) == 3


def test_what_is_evaluated_is_the_folder_itself_or_the_held_out_part_of_a_root(tmp_path):
    write_layout(tmp_path, "trainA", "train", 5)
    write_layout(tmp_path, "trainA", "test", 2)
    assert len(open_pairs(str(tmp_path), "AtoB")) == 2
    write_side_by_side(tmp_path / "val", 3)
    assert len(open_pairs(str(tmp_path / "val"), "AtoB")) == 3


# ---------------------------------------------------------------------------------- pix2pixHD


def test_names_that_differ_by_an_ending_are_paired_by_the_rest(tmp_path):
    endings = ("_000019_gtFine_labelIds", "_000019_leftImg8bit")
    write_two_folders(tmp_path, 12, ("train_label", "train_img"), endings)
    split = open_data(str(tmp_path), "AtoB")
    assert "without _000019_gtFine_labelIds and _000019_leftImg8bit" in split.note
    for index in range(len(split.train)):
        source, target = split.train.pair(index, 64)
        np.testing.assert_array_equal(target, 255 - source)


def test_a_missing_half_is_found_behind_the_endings(tmp_path):
    write_two_folders(tmp_path, 4, ("train_label", "train_img"), ("_ids", "_photo"))
    (tmp_path / "train_img" / "001_photo.png").unlink()
    text = refused(tmp_path)
    assert str(tmp_path / "train_label" / "001_ids.png") in text
    assert "001_photo" in text


def test_one_picture_missing_on_each_side_is_not_paired_by_order(tmp_path):
    write_two_folders(tmp_path, 4, ("train_label", "train_img"))
    (tmp_path / "train_img" / "001.png").unlink()
    (tmp_path / "train_label" / "002.png").unlink()
    assert "no partner" in refused(tmp_path)


def test_pix2pixhd_folders_of_other_names_are_paired_by_order_and_say_so(tmp_path):
    write_two_folders(tmp_path, 3, ("train_A", "train_B"))
    for path in sorted((tmp_path / "train_B").iterdir(), reverse=True):
        path.rename(path.with_stem(f"photo{int(path.stem) + 5}"))
    split = open_data(str(tmp_path), "AtoB")
    assert "paired by their order: 000.png goes with photo5.png" in split.note
    source, target = split.train.pair(1, 64)
    np.testing.assert_array_equal(target, 255 - source)


def test_unpaired_data_are_refused_not_paired_by_order(tmp_path):
    write_two_folders(tmp_path, 3, ("trainA", "trainB"))
    for path in sorted((tmp_path / "trainB").iterdir(), reverse=True):
        path.rename(path.with_stem(f"zebra{path.stem}"))
    assert "CycleGAN" in refused(tmp_path)


def test_numbers_are_not_taken_for_endings(tmp_path):
    for folder, stems in (("A", ("10", "20")), ("B", ("15", "25"))):
        (tmp_path / folder).mkdir()
        for stem in stems:
            cv2.imwrite(str(tmp_path / folder / f"{stem}.png"), picture(0))
    assert "no picture of" in refused(tmp_path)


def test_instance_maps_and_label_ids_are_remarked_on(tmp_path):
    write_two_folders(tmp_path, 3, ("train_label", "train_img"))
    (tmp_path / "train_inst").mkdir()
    assert "label ids" not in open_data(str(tmp_path), "AtoB").note
    ids = np.random.default_rng(0).integers(0, 34, (64, 64), np.uint8)
    cv2.imwrite(str(tmp_path / "train_label" / "000.png"), ids)
    note = open_data(str(tmp_path), "AtoB").note
    assert "train_inst/ (instance maps) is not used" in note
    assert "train_label/ looks like label ids (grey levels up to 33)" in note


# ------------------------------------------------------------------------------------ refused


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for task in ("pairs", "edges"):
        assert f"no such folder: {tmp_path / 'nowhere'}" in refused(tmp_path / "nowhere", task)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), picture(0))
    assert "1.png is a file" in refused(tmp_path / "1.png")


def test_what_a_wrong_folder_holds_is_told_with_the_layouts_that_are_known(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "trainA").mkdir()
    text = refused(tmp_path)
    assert f"no pairs in {tmp_path}: it holds trainA/, 1 file (.txt)" in text
    assert "train_label/ + train_img/" in text
    assert f"no photos in {tmp_path}: it holds trainA/, 1 file (.txt)" in refused(
        tmp_path, "edges"
    )


def test_an_empty_train_or_val_folder_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    assert f"no pairs in {tmp_path / 'train'}: it holds nothing" in refused(tmp_path)
    write_side_by_side(tmp_path / "train", 2)
    (tmp_path / "val").mkdir()
    assert f"no pairs in {tmp_path / 'val'}: it holds nothing" in refused(tmp_path)


@pytest.mark.parametrize("missing", ["A", "B"])
def test_an_unpaired_image_is_named(tmp_path, missing):
    folder = write_two_folders(tmp_path, 3)
    (folder / missing / "001.png").unlink()
    present = "B" if missing == "A" else "A"
    text = refused(folder)
    assert str(folder / present / "001.png") in text
    assert "no partner" in text


def test_two_pictures_of_one_name_in_a_folder_are_told(tmp_path):
    write_two_folders(tmp_path, 2)
    cv2.imwrite(str(tmp_path / "A" / "001.jpg"), picture(0))
    text = refused(tmp_path)
    assert "001.jpg" in text
    assert "001.png" in text


@pytest.mark.parametrize("names", [("A", "B"), ("trainA", "trainB"), ("train_A", "train_B")])
def test_one_half_of_the_pairs_is_not_cut_in_two(tmp_path, names):
    write_two_folders(tmp_path, 2, names)
    for name, opens in zip(names, (open_data, open_pairs), strict=True):
        assert f"name {tmp_path}" in refused(tmp_path / name, opens=opens)


def test_a_single_pair_cannot_be_divided(tmp_path):
    assert "at least 2" in refused(write_side_by_side(tmp_path, 1))


def test_pictures_that_look_plain_are_remarked_on(tmp_path):
    assert "--task" not in open_data(str(write_side_by_side(tmp_path / "ab", 2)), "AtoB").note
    note = open_data(str(write_photos(tmp_path / "photos", 2, 64, 96)), "AtoB").note
    assert "000.png is 96x64, so each half is 48x64" in note
    assert "--task" in note


def test_hidden_files_and_capital_suffixes(tmp_path):
    write_side_by_side(tmp_path, 2)
    (tmp_path / "._000.png").write_bytes(b"resource fork")
    shutil.copy(tmp_path / "000.png", tmp_path / "002.PNG")
    assert [file.a.name for file in find_pair_files(tmp_path)] == ["000.png", "001.png", "002.PNG"]


# ------------------------------------------------------------------------------------- photos


def test_photos_are_found_in_folders_inside(tmp_path):
    write_photos(tmp_path / "2023" / "may", 2)
    write_photos(tmp_path / ".thumbnails", 2)
    write_photos(tmp_path, 1)
    found = photos_in(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in found.files]
    assert names == ["000.png", "2023/may/000.png", "2023/may/001.png"]


def test_photos_of_val_are_held_out_wherever_it_lies(tmp_path):
    write_photos(tmp_path / "val", 2)
    write_photos(tmp_path / "cats", 3)
    train, held_out = find_photos(tmp_path)
    assert {path.parent.name for path in train.files} == {"cats"}
    assert held_out is not None
    assert len(held_out.files) == 2
    (tmp_path / "cats").rename(tmp_path / "train")
    for data in (tmp_path, tmp_path / "train"):
        train, held_out = find_photos(data)
        assert held_out is not None
        assert (len(train.files), len(held_out.files)) == (3, 2)


def test_pairs_that_are_read_as_photos_are_remarked_on(tmp_path):
    write_photos(tmp_path / "photos", 2, 64, 96)
    assert "leave --task out" not in open_data(str(tmp_path / "photos"), "", task="edges").note
    note = open_data(str(write_side_by_side(tmp_path / "ab", 2)), "AtoB", task="edges").note
    assert "000.png is twice as wide as high" in note
    assert "leave --task out" in note


def test_a_val_folder_alone_is_no_training_data(tmp_path):
    write_photos(tmp_path / "val", 2)
    assert "no photos in" in refused(tmp_path, "edges")


def test_folders_of_pairs_are_not_mixed_into_photos(tmp_path):
    write_two_folders(tmp_path, 2, ("trainA", "trainB"))
    text = refused(tmp_path, "colourise")
    assert "holds pairs: trainA/ and trainB/" in text
    assert len(photos_in(tmp_path / "trainB").files) == 2
