"""The drawn streets: repeatable, paired, lit as they should be, and continuous in time."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from commands import done, refused
from numpy.typing import NDArray

from trainer.scenes import Street, draw_clip, draw_pair
from trainer.scenes_cli import scenes

SEEDS = range(12)


def _luma(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)


def _strong_edges(image: NDArray[np.uint8], share: float) -> NDArray[np.bool_]:
    luma = np.log(_luma(image) + 8.0)
    slope = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    return slope > np.quantile(slope, 1.0 - share)


def _mean_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(np.float32) - second).mean())


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 1])
def test_a_seed_always_gives_the_same_pixels(seed: int) -> None:
    first = draw_pair(seed, 96, 96)
    np.random.seed(3)  # the global state must not matter
    draw_pair(seed + 1, 96, 96)
    second = draw_pair(seed, 96, 96)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_drawing_one_moment_leaves_the_next_unchanged() -> None:
    street = Street(5, 96, 128)
    before = street.draw(4.0)
    street.draw(31.0)
    after = street.draw(4.0)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_every_seed_gives_another_street() -> None:
    days = [draw_pair(seed, 96, 96)[0] for seed in SEEDS]
    for index, day in enumerate(days):
        for other in days[:index]:
            assert _mean_difference(day, other) > 12.0


@pytest.mark.parametrize(
    ("height_px", "width_px"), [(64, 64), (256, 256), (360, 640), (480, 640), (301, 99), (65, 400)]
)
def test_both_pictures_have_the_size_asked_for(height_px: int, width_px: int) -> None:
    for image in draw_pair(11, height_px, width_px):
        assert image.shape == (height_px, width_px, 3)
        assert image.dtype == np.uint8
        assert image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("seed", SEEDS)
def test_night_is_dark_with_bright_lights_and_day_is_bright(seed: int) -> None:
    day, night = (_luma(image) for image in draw_pair(seed, 128, 128))
    assert day.mean() > 95.0
    assert night.mean() < 0.8 * day.mean()
    assert np.quantile(night, 0.25) < 75.0
    assert np.quantile(night, 0.995) > 190.0
    assert np.quantile(night, 0.02) > 4.0  # dark, yet never black


@pytest.mark.parametrize("seed", SEEDS)
def test_day_and_night_share_their_edges(seed: int) -> None:
    day, night = draw_pair(seed, 192, 192)
    edges = _strong_edges(day, 0.08)
    near_night_edges = cv2.dilate(_strong_edges(night, 0.2).astype(np.uint8), np.ones((3, 3))) > 0
    shifted = np.roll(near_night_edges, 24, axis=1)
    found, by_chance = near_night_edges[edges].mean(), shifted[edges].mean()
    assert found > 0.75
    assert found > by_chance + 0.1


def test_a_clip_moves_in_small_steps() -> None:
    frames = list(draw_clip(3, 14, 25.0, 120, 160))
    assert len(frames) == 14
    for part in (0, 1):
        steps = [_mean_difference(a[part], b[part]) for a, b in pairwise(frames)]
        travelled = _mean_difference(frames[0][part], frames[-1][part])
        assert 0.0 < max(steps) < 6.0
        assert travelled > 1.5 * float(np.mean(steps))


def test_a_clip_shows_the_street_of_its_seed() -> None:
    first = next(draw_clip(9, 3, 30.0, 96, 128))
    np.testing.assert_array_equal(first[0], Street(9, 96, 128).draw(0.0)[0])


def test_no_moment_of_a_long_clip_fails() -> None:
    for seed in (0, 1, 12, 13):
        street = Street(seed, 64, 96)
        for time_s in np.linspace(0.0, 3600.0, 25):
            day, night = street.draw(float(time_s))
            assert day.std() > 10.0
            assert night.std() > 5.0


def test_scenes_are_written_as_pairs_and_as_a_clip(tmp_path):
    pairs, clip = tmp_path / "pairs", tmp_path / "day.mp4"
    done(scenes, pairs, "--pairs", "2", "--size", "96x64")
    assert cv2.imread(str(pairs / "00001.png")).shape == (64, 192, 3)
    done(scenes, clip, "--frames", "5", "--size", "96x64", "--fps", "12.5")
    video = cv2.VideoCapture(str(clip))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert refused(scenes, clip, "--size", "huge").startswith("error: --size huge")
