"""Pairs stay pairs: found, read, cropped and mirrored alike, or refused by name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pairs import picture, write_side_by_side, write_two_folders

from trainer.batches import AugmentedPairs, StepSampler
from trainer.config import GeneratorConfig, TrainConfig
from trainer.data import (
    FolderPairs,
    find_pair_files,
    open_data,
    open_pairs,
    read_image,
)
from trainer.errors import DataError

SMALL = TrainConfig(
    generator=GeneratorConfig("unet_128"), load_size=150, crop_size=128, batch_size=2
)


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


def test_crop_and_mirror_are_the_same_for_both_halves(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 2, 150, 150)), "AtoB")
    samples = AugmentedPairs(pairs, SMALL, len(pairs))
    seen = set()
    for epoch in range(8):
        both = samples[(epoch, 0)].numpy().astype(int)
        assert both.shape == (6, 128, 128)
        np.testing.assert_array_equal(both[:3], 255 - both[3:])
        seen.add(both.tobytes())
    assert len(seen) > 4, "crops and mirrors hardly vary"


def test_network_sees_rgb(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 2] = 255  # BGR
    cv2.imwrite(str(tmp_path / "1.png"), np.hstack([red, red]))
    sample = AugmentedPairs(open_pairs(str(tmp_path), "AtoB"), SMALL, 1)[(0, 0)]
    assert sample[0].min() == 255
    assert sample[2].max() == 0


def test_a_resumed_sampler_goes_on_where_an_uncut_one_would_be():
    whole = list(StepSampler(10, 3, seed=4, first_step=0, last_step=12))
    rest = list(StepSampler(10, 3, seed=4, first_step=5, last_step=12))
    assert rest == whole[5:]
    first_epoch = [index for batch in whole[:3] for _, index in batch]
    assert len(set(first_epoch)) == 9
    assert [index for batch in whole[3:6] for _, index in batch] != first_epoch


def test_a_val_folder_is_held_out(tmp_path):
    write_side_by_side(tmp_path / "train", 4)
    write_side_by_side(tmp_path / "val", 2)
    for data in (tmp_path, tmp_path / "train"):
        split = open_data(str(data), "AtoB")
        assert (len(split.train), len(split.held_out)) == (4, 2)


def test_without_a_val_folder_every_tenth_pair_is_held_out(tmp_path):
    split = open_data(str(write_side_by_side(tmp_path, 20)), "AtoB")
    assert (len(split.train), len(split.held_out)) == (18, 2)
    trained = {split.train.name(i) for i in range(18)}
    assert trained.isdisjoint(split.held_out.name(i) for i in range(2))


def test_drawn_scenes_never_repeat_and_are_not_those_held_out():
    split = open_data("scenes", "AtoB")
    config = TrainConfig(generator=GeneratorConfig("unet_128"), crop_size=128, epoch_scenes=2)
    samples = AugmentedPairs(split.train, config, config.epoch_scenes)
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    drawn = {samples[key].numpy().tobytes() for key in keys}
    assert len(drawn) == 4
    assert split.held_out.name(0) not in {split.train.name(i) for i in range(10_000)}


def test_pairs_are_decoded_once(tmp_path):
    folder = write_side_by_side(tmp_path, 1)
    pairs = FolderPairs(find_pair_files(folder), "AtoB", "")
    first = pairs.pair(0, 32)
    (folder / "000.png").unlink()
    np.testing.assert_array_equal(pairs.pair(0, 32)[0], first[0])


def refused(folder, read=False) -> str:
    def open_and_read():
        pairs = open_pairs(str(folder), "AtoB")
        for index in range(len(pairs) if read else 0):
            pairs.pair(index, 64)

    with pytest.raises(DataError) as caught:
        open_and_read()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_a_folder_without_pairs_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert f"no pairs in {tmp_path}" in refused(tmp_path)


@pytest.mark.parametrize("missing", ["A", "B"])
def test_an_unpaired_image_is_named(tmp_path, missing):
    folder = write_two_folders(tmp_path, 3)
    (folder / missing / "001.png").unlink()
    present = "B" if missing == "A" else "A"
    text = refused(folder)
    assert str(folder / present / "001.png") in text
    assert "no partner" in text


def test_an_odd_width_is_told(tmp_path):
    cv2.imwrite(str(tmp_path / "odd.png"), np.zeros((8, 17, 3), np.uint8))
    assert "17 pixels wide" in refused(tmp_path, read=True)


def test_halves_of_different_size_are_told(tmp_path):
    folder = write_two_folders(tmp_path, 1)
    cv2.imwrite(str(folder / "B" / "000.png"), picture(0, 32, 48))
    assert "48x32" in refused(folder, read=True)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0, 10, 300, -10])
def test_a_truncated_picture_is_refused_wherever_it_is_cut(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    whole = path.read_bytes()
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(whole[:kept])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_image(path)


def test_a_jpeg_with_a_whole_preview_but_a_cut_picture_is_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    _, preview = cv2.imencode(".jpg", noise[:16, :16])
    data = b"Exif\0\0" + preview.tobytes()
    segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    with_preview = whole[:2] + segment + whole[2:]
    path.write_bytes(with_preview)
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(with_preview[:-200])
    with pytest.raises(DataError, match="cut short"):
        read_image(path)
