"""Inputs made of a photo: each task gives what it says, the same each time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pairs import picture

from trainer.config import TASKS
from trainer.tasks import blurred, drawn_edges, grey_form, made_input, quarter_size

MADE = [task for task in TASKS if task != "pairs"]


def photo(seed: int = 0, size_px: int = 128) -> np.ndarray:
    """Houses of random colours before a sky, with a little noise: uint8 [S, S, 3]."""
    random = np.random.default_rng(seed)
    image = picture(seed, size_px, size_px) // 4 + 150
    for left in range(0, size_px, size_px // 4):
        top = int(random.integers(size_px // 4, size_px // 2))
        colour = random.integers(20, 200, 3).tolist()
        cv2.rectangle(image, (left, top), (left + size_px // 5, size_px), colour, -1)
    noisy = image + random.normal(0, 2, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def ink(drawn: np.ndarray) -> float:
    """Part of the pixels that are black."""
    return float((drawn == 0).mean())


@pytest.mark.parametrize("task", MADE)
@pytest.mark.parametrize("size_px", [1, 5, 64, 143])
def test_an_input_has_the_size_of_its_photo_and_is_the_same_each_time(task, size_px):
    image = photo(1, 160)[:size_px, :size_px]
    before = image.copy()
    first = made_input(task, image, "cats/1")
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(made_input(task, image, "cats/1"), first)
    np.testing.assert_array_equal(image, before)


def test_the_grey_form_is_luma_in_three_equal_channels():
    bgr = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert grey_form(bgr)[0].tolist() == [[29] * 3, [150] * 3, [76] * 3, [255] * 3]


def test_edges_are_thin_black_lines_on_white_where_the_photo_changes():
    image = np.full((128, 128, 3), 200, np.uint8)
    cv2.rectangle(image, (32, 32), (95, 95), (40, 60, 80), -1)
    drawn = drawn_edges(image)
    assert set(np.unique(drawn)) == {0, 255}
    rows, columns = np.nonzero(drawn[..., 0] == 0)
    nearest = np.abs(np.stack([rows - 31.5, rows - 95.5, columns - 31.5, columns - 95.5])).min(0)
    assert nearest.max() <= 2, "lines elsewhere than on the border of the square"
    assert 0.8 * 4 * 64 < len(rows) < 1.5 * 4 * 64, "lines are one pixel wide, all the way round"


def test_edges_between_colours_of_equal_luma_are_drawn():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = (0, 76, 0)
    image[:, 32:] = (0, 0, 150)
    assert np.ptp(grey_form(image)) <= 1
    assert ink(drawn_edges(image)) > 0.01


def test_bright_dark_and_dull_photos_get_about_as_many_lines():
    image = photo(3)
    full = ink(drawn_edges(image))
    assert full > 0.01
    dark = (image * 0.4).astype(np.uint8)
    dull = (image * 0.4 + 150).astype(np.uint8)
    for other in (dark, dull, 255 - image):
        assert 0.6 * full < ink(drawn_edges(other)) < 1.6 * full


def test_noise_and_clear_sky_are_no_edges():
    sky = np.linspace(120, 200, 256)[:, None, None] * np.ones((1, 256, 3))
    noisy = np.clip(sky + np.random.default_rng(0).normal(0, 3, sky.shape), 0, 255)
    assert ink(drawn_edges(noisy.astype(np.uint8))) == 0


def test_specks_are_left_out():
    image = np.full((256, 256, 3), 100, np.uint8)
    cv2.line(image, (20, 20), (200, 150), (255, 255, 255), 3)
    with_line = ink(drawn_edges(image))
    image[200:202, 40:42] = 255
    assert ink(drawn_edges(image)) == pytest.approx(with_line, rel=0.02)


def test_superres_keeps_the_coarse_and_loses_the_fine():
    smooth = picture(4, 128, 128)
    assert np.abs(quarter_size(smooth).astype(int) - smooth).mean() < 2
    board = np.repeat((np.indices((128, 128)).sum(0) % 2 * 255)[..., None], 3, 2)
    assert np.ptp(quarter_size(board.astype(np.uint8))) <= 2


@pytest.mark.parametrize("size_px", [128, 143])
def test_superres_does_not_shift_the_picture(size_px):
    image = picture(5, size_px, size_px)
    mirrored = quarter_size(np.ascontiguousarray(image[::-1, ::-1]))
    difference = mirrored[::-1, ::-1].astype(int) - quarter_size(image)
    assert np.abs(difference).max() <= 2


def test_blur_depends_on_the_name_and_keeps_the_light():
    image = np.full((128, 128, 3), 90, np.uint8)
    assert abs(blurred(image, "grey").mean() - 90) < 0.5
    speckled = np.random.default_rng(6).integers(0, 256, (64, 64, 3), np.uint8)
    image = cv2.resize(speckled, (256, 256), interpolation=cv2.INTER_CUBIC)
    forms = [blurred(image, f"photo{i}") for i in range(12)]
    assert len({form.tobytes() for form in forms}) == 12
    for form in forms:
        assert form.std() < 0.9 * image.std()
        assert form.std() > 0.1 * image.std()


def test_names_give_both_round_and_straight_blur_in_many_directions():
    dot = np.zeros((257, 257, 3), np.uint8)
    dot[127:130, 127:130] = 255
    angles = []
    round_ones = 0
    for number in range(60):
        spread = blurred(dot, str(number))[..., 1].astype(int)
        y, x = np.nonzero(spread > spread.max() / 2)
        assert abs(y.mean() - 128) < 0.6, "the blur moves the picture"
        assert abs(x.mean() - 128) < 0.6, "the blur moves the picture"
        values, vectors = np.linalg.eigh(np.cov(np.stack([x, y])))
        if values[1] < 1.5 * values[0]:
            round_ones += 1
        else:
            angles.append(np.arctan2(vectors[1, 1], vectors[0, 1]) % np.pi)
    assert 15 < round_ones < 45
    assert np.histogram(angles, 4, (0, np.pi))[0].min() > 0
