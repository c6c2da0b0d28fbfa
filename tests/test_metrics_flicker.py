"""Flicker: found where the input stands still, and not where it moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pairs import picture

from trainer.flicker import STILL_LEVELS, change_between, flicker_of, still_pixels

STILL = picture(1, 64, 96)


def noisy(image, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def moving(frame):
    """A bright square that moves over a picture that stands still."""
    image = STILL.copy()
    image[20:40, 10 + 12 * frame : 26 + 12 * frame] = 255
    return image


def measured(inputs, outputs):
    pairs = zip(inputs, inputs[1:], outputs, outputs[1:], strict=False)
    return flicker_of([change_between((a, b), (c, d)) for a, b, c, d in pairs])


def test_a_still_input_drawn_alike_has_no_flicker():
    found = measured([STILL] * 3, [255 - STILL] * 3)
    assert (found.flicker, found.input_change, found.still_share) == (0, 0, 1)
    assert found.changes == 2


def test_noise_of_the_output_is_found_with_its_size():
    """Two independent Gaussians of sigma s differ by 2 s / sqrt(pi) on average."""
    grey = np.full((64, 96, 3), 128, np.uint8)
    found = measured([grey] * 5, [noisy(grey, 6, seed) for seed in range(5)])
    assert found.flicker == pytest.approx(2 * 6 / np.sqrt(np.pi), rel=0.02)
    assert found.input_change == 0


def test_noise_of_a_camera_counts_as_still_and_is_told_beside_the_output():
    frames = [noisy(STILL // 2 + 60, 4, seed) for seed in range(4)]
    found = measured(frames, [255 - frame for frame in frames])
    assert found.still_share > 0.95
    assert found.flicker == pytest.approx(found.input_change)
    assert found.input_change == pytest.approx(2 * 4 / np.sqrt(np.pi), rel=0.05)


def test_what_moves_is_left_out_however_it_is_drawn():
    frames = [moving(number) for number in range(4)]
    drawn = [frame.copy() for frame in frames]
    for image, frame in zip(drawn, frames, strict=True):
        image[frame == 255] = 0
    found = measured(frames, drawn)
    assert found.flicker < 0.05
    assert 0.5 < found.still_share < 0.9


def test_a_slow_change_of_light_is_no_stillness_once_it_passes_the_threshold():
    for step, still in ((int(STILL_LEVELS), True), (int(STILL_LEVELS) + 1, False)):
        brighter = (STILL // 2 + step).astype(np.uint8)
        assert still_pixels(STILL // 2, brighter).all() == still
        assert still_pixels(brighter, STILL // 2).any() == still


def test_one_channel_that_changes_is_enough_to_move():
    redder = cv2.add(STILL // 2, np.array([0, 0, 9, 0], np.float64))
    assert not still_pixels(STILL // 2, np.asarray(redder)).any()


def test_each_still_pixel_counts_alike():
    """A frame that stands still in one half, and one that stands still everywhere."""
    shaken = STILL.copy()
    shaken[:, 48:] = 255 - STILL[:, 48:]
    brighter = [np.full_like(STILL, level) for level in (50, 60, 62)]
    found = flicker_of(
        [
            change_between((STILL, shaken), tuple(brighter[:2])),
            change_between((STILL, STILL), tuple(brighter[1:])),
        ]
    )
    half = still_pixels(STILL, shaken).sum()
    expected = (10 * half + 2 * STILL[..., 0].size) / (half + STILL[..., 0].size)
    assert found.flicker == pytest.approx(expected)
    assert found.still_share == pytest.approx((half / STILL[..., 0].size + 1) / 2)


def test_a_video_in_which_nothing_stands_still_has_no_figure():
    found = measured([STILL // 2, STILL // 2 + 90], [STILL, STILL])
    assert (found.flicker, found.input_change, found.still_share) == (None, None, 0)
