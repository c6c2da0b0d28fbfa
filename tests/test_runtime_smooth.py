"""Smoothing: flicker goes where nothing moves, and what moves leaves no ghost."""

from __future__ import annotations

import gc
import tracemalloc

import cv2
import numpy as np
import pytest
from pairs import picture

from benchmarks.smooth import judged
from runtime.errors import FrameError
from runtime.smooth import MOST_STRENGTH, STRENGTH, Smoother
from trainer.scenes import draw_clip

SIZE_PX = (96, 160)
STILL = picture(1, *SIZE_PX) // 2 + 40
S = 1_000_000_000


def noisy(image, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def boiling(image, seed, levels=12.0):
    """A translation with flicker: blotches of a few pixels, others in every frame."""
    height, width = image.shape[:2]
    blotches = np.random.default_rng(seed).normal(0, levels, (height // 4, width // 4, 3))
    large = cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(255.0 - image + large), 0, 255).astype(np.uint8)


def smoothed(originals, translations, **options):
    smoother = Smoother(**options)
    return [smoother.smooth(a, b) for a, b in zip(originals, translations, strict=True)]


def squares(count, step_px=3):
    """A bright square that crosses a still picture seen by a noisy camera."""
    frames = []
    for number in range(count):
        image = STILL.copy()
        image[30:60, 6 + step_px * number : 36 + step_px * number] = 230
        frames.append(noisy(image, 3, number))
    return frames


def test_flicker_of_a_still_scene_falls_to_a_fourth():
    originals = [noisy(STILL, 3, seed) for seed in range(30)]
    translations = [boiling(STILL, seed) for seed in range(30)]
    found = judged(originals, translations, smoothed(originals, translations))
    assert found.before.still_share > 0.95
    assert found.before.flicker > 5
    assert found.after.flicker < found.before.flicker / 4


def test_a_stronger_smoother_leaves_less_flicker_and_none_leaves_all_of_it():
    originals = [noisy(STILL, 3, seed) for seed in range(24)]
    translations = [boiling(STILL, seed) for seed in range(24)]
    left = [
        judged(
            originals, translations, smoothed(originals, translations, strength=s)
        ).after.flicker
        for s in (0.0, 0.5, STRENGTH, MOST_STRENGTH)
    ]
    assert left == sorted(left, reverse=True)
    untouched = smoothed(originals, translations, strength=0.0)
    assert all(map(np.array_equal, untouched, translations))


def test_a_drawn_street_flickers_half_as_much_and_what_moves_there_has_no_ghost():
    clip = draw_clip(3, 24, 25.0, 120, 160)
    originals = [noisy(day, 2, seed) for seed, (day, _) in enumerate(clip)]
    translations = [boiling(image, seed) for seed, image in enumerate(originals)]
    found = judged(originals, translations, smoothed(originals, translations))
    assert found.before.still_share > 0.05
    assert found.moving_share > 0.02
    assert found.after.flicker < found.before.flicker / 2
    assert found.ghost_levels < 1


@pytest.mark.parametrize("step_px", [1, 3, 20])
def test_a_moving_square_leaves_no_ghost_where_it_was(step_px):
    count = min(30, 110 // step_px)
    originals = squares(count, step_px)
    # The translation has no flicker, so that any difference is a ghost.
    translations = [255 - frame for frame in squares_without_noise(count, step_px)]
    result = smoothed(originals, translations)
    for image, translation in zip(result, translations, strict=True):
        assert np.abs(image.astype(int) - translation).max() <= 24, "of 150 between both"
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(result, translations, strict=True)]
    assert max(errors) < 0.3


def squares_without_noise(count, step_px):
    frames = []
    for number in range(count):
        image = STILL.copy()
        image[30:60, 6 + step_px * number : 36 + step_px * number] = 230
        frames.append(image)
    return frames


def test_an_object_slower_than_two_frames_can_tell_leaves_no_ghost_either():
    """A tenth of a pixel a frame: the difference of two frames is under the noise."""
    originals, translations = [], []
    for number in range(120):
        large = np.full((SIZE_PX[0] * 10, SIZE_PX[1], 3), 60, np.uint8)
        large[300 + number : 600 + number, 40:120] = 220
        image = cv2.resize(large, SIZE_PX[::-1], interpolation=cv2.INTER_AREA)
        originals.append(noisy(image, 2, number))
        translations.append(255 - image)
    result = smoothed(originals, translations)
    lag = np.abs(result[-1].astype(int) - translations[-1]).max()
    naive = np.full(translations[0].shape, 0, np.float32) + translations[0]
    for translation in translations[1:]:
        naive += 0.2 * (translation.astype(np.float32) - naive)
    naive_lag = np.abs(naive - translations[-1]).max()
    assert naive_lag > 40, "a plain mean over time lags"
    assert lag < 0.75 * naive_lag


def test_a_cut_is_shown_at_once():
    smoother = Smoother()
    for seed in range(5):
        smoother.smooth(noisy(STILL, 3, seed), boiling(STILL, seed))
    other = picture(7, *SIZE_PX)
    translation = boiling(other, 9)
    assert np.array_equal(smoother.smooth(other, translation), translation)


def test_a_light_that_the_camera_sees_is_shown_at_once():
    smoother = Smoother()
    for seed in range(8):
        smoother.smooth(noisy(STILL, 3, seed), 255 - STILL)
    lit = STILL.copy()
    lit[20:60, 40:90] += 60
    result = smoother.smooth(noisy(lit, 3, 9), 255 - lit)
    off = np.abs(result.astype(int) - (255 - lit))[20:60, 40:90]
    assert off.max() <= 2, "of 60: the edge of what changed is soft"


@pytest.mark.parametrize(("strength", "frames"), [(0.5, 9), (STRENGTH, 28), (MOST_STRENGTH, 122)])
def test_what_only_the_translation_changes_fades_in_and_nothing_of_the_old_remains(
    strength, frames
):
    smoother = Smoother(strength)
    dark, light = np.zeros_like(STILL), np.full_like(STILL, 255)
    for _ in range(3):
        smoother.smooth(STILL, dark)
    shown = [int(smoother.smooth(STILL, light).min()) for _ in range(frames)]
    assert shown == sorted(shown), "it fades in"
    assert shown[-1] == 255, "no rounding holds it up"
    expected = 255 * (1 - strength ** np.arange(1, frames + 1))
    assert np.abs(shown - expected).max() < 1.2


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_still_translation_stays_what_it_is_for_ever(level):
    image = np.full((16, 16, 3), level, np.uint8)
    smoother = Smoother(MOST_STRENGTH)
    results = [smoother.smooth(STILL[:16, :16], image) for _ in range(300)]
    assert all(np.array_equal(result, image) for result in results)


def test_another_size_starts_anew():
    smoother = Smoother()
    smoother.smooth(STILL, 255 - STILL)
    small = STILL[:50, :70]
    assert np.array_equal(smoother.smooth(small, small), small)


def test_a_long_gap_starts_anew_and_a_slow_source_is_no_gap():
    dark, light = np.zeros_like(STILL), np.full_like(STILL, 255)
    for stamps_s, kept in (
        ([0, 0.1, 0.2], True),
        ([0, 0.1, 2.3], False),
        ([0, 0.2, 3.0], False),
        ([0, 0.5, 3.0], True),
        ([0, 1.5, 4.0], True),
    ):
        smoother = Smoother()
        for stamp_s in stamps_s[:-1]:
            smoother.smooth(STILL, dark, int(stamp_s * S))
        result = smoother.smooth(STILL, light, int(stamps_s[-1] * S))
        assert (int(result.max()) < 255) is kept, stamps_s


@pytest.mark.parametrize("size_px", [(1, 1), (3, 2), (1, 200), (37, 53)])
def test_pictures_of_odd_sizes_are_smoothed(size_px):
    image = picture(0, *size_px)
    for result in smoothed([image] * 3, [255 - image] * 3):
        assert np.array_equal(result, 255 - image)


def test_a_view_into_a_larger_picture_is_smoothed_like_a_copy_of_it():
    views = [noisy(STILL, 3, seed)[10:70, 20:120] for seed in range(4)]
    drawn = [boiling(STILL, seed)[10:70, 20:120] for seed in range(4)]
    copies = smoothed([v.copy() for v in views], [d.copy() for d in drawn])
    assert all(map(np.array_equal, smoothed(views, drawn), copies))


def test_neither_input_is_written_to_and_a_held_result_is_never_written_over():
    smoother = Smoother()
    held = []
    for seed in range(12):
        original, translation = noisy(STILL, 3, seed), boiling(STILL, seed)
        before = original.copy(), translation.copy()
        result = smoother.smooth(original, translation)
        assert np.array_equal(original, before[0])
        assert np.array_equal(translation, before[1])
        assert not np.shares_memory(result, translation)
        held.append((result, result.copy()))
    assert all(np.array_equal(result, copy) for result, copy in held)


def test_nothing_of_a_pictures_size_is_allocated_per_frame():
    originals = [noisy(STILL, 3, seed) for seed in range(6)]
    smoother = Smoother()
    for image in originals[:3]:
        smoother.smooth(image, image)
    gc.collect()
    tracemalloc.start()
    try:
        for image in originals * 3:
            smoother.smooth(image, image)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < STILL.size / 2


def test_what_is_no_frame_and_two_sizes_are_refused():
    with pytest.raises(FrameError):
        Smoother().smooth(STILL[..., 0], STILL)
    with pytest.raises(ValueError, match="sizes differ"):
        Smoother().smooth(STILL, STILL[:50])
    for strength in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="strength"):
            Smoother(strength)
