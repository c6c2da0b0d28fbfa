"""The sliced Wasserstein distance: what it sees, at which level, and its arithmetic."""

from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np
import pytest

import trainer.wasserstein as wasserstein
from trainer.wasserstein import level_sides, sliced_wasserstein

SIDE_PX, PICTURES = 64, 24
FINE, COARSE = 64, 16


def textures(seed, count=PICTURES, side_px=SIDE_PX):
    """Pictures of one distribution: detail of every size, uint8 [N, side, side, 3]."""
    random = np.random.default_rng(seed)
    pictures = np.full((count, side_px, side_px, 3), 128, np.float32)
    for cells in (4, 16, side_px // 2, side_px):
        for image in pictures:
            small = random.normal(0, 16, (cells, cells, 3)).astype(np.float32)
            image += cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def targets():
    return textures(1)


@pytest.fixture(scope="module")
def floor(targets):
    """Between two samples of the same distribution."""
    return sliced_wasserstein(textures(2), targets)


def test_equal_pictures_are_at_distance_zero(targets):
    found = sliced_wasserstein(targets, targets)
    assert found.levels == {64: 0, 32: 0, 16: 0}
    assert found.mean == 0


def test_two_samples_of_one_distribution_are_near_and_nearer_the_more_there_are(targets, floor):
    other = sliced_wasserstein(255 - targets // 2, targets)
    assert 0 < floor.mean < 0.1 * other.mean
    few = sliced_wasserstein(textures(2, 4), targets[:4])
    assert few.mean > 1.5 * floor.mean


def test_a_blur_is_seen_at_the_fine_level_and_not_at_the_coarse_one(targets, floor):
    found = [
        sliced_wasserstein(np.stack([cv2.GaussianBlur(t, (0, 0), s) for t in targets]), targets)
        for s in (0.6, 1.2)
    ]
    assert floor.levels[FINE] * 5 < found[0].levels[FINE] < found[1].levels[FINE]
    assert max(blur.levels[COARSE] for blur in found) < floor.levels[COARSE]


def test_a_colour_cast_is_seen_at_the_coarse_level_and_not_at_the_fine_one(targets, floor):
    cast = np.clip(targets + np.array([0, 0, 25]), 0, 255).astype(np.uint8)
    found = sliced_wasserstein(cast, targets)
    assert found.levels[COARSE] > 3 * floor.levels[COARSE]
    assert found.levels[FINE] < 0.1 * found.levels[COARSE]
    hidden = sliced_wasserstein(cast, targets, own_scale=True)
    assert hidden.levels[COARSE] < 0.1 * found.levels[COARSE]


def test_it_is_about_the_same_both_ways_round(targets):
    drawn = textures(3)[:, ::-1].copy()
    drawn[:, :20] = 90
    there, back = sliced_wasserstein(drawn, targets), sliced_wasserstein(targets, drawn)
    assert there.mean == pytest.approx(back.mean, rel=0.3)
    both_ways = (drawn, targets), (targets, drawn)
    own = [sliced_wasserstein(*pair, own_scale=True) for pair in both_ways]
    assert own[0].mean == pytest.approx(own[1].mean, rel=1e-5)


def test_the_same_seed_gives_the_same_figure_and_another_one_nearly_so(targets):
    drawn = textures(4) // 2
    first, again = sliced_wasserstein(drawn, targets), sliced_wasserstein(drawn, targets)
    other = sliced_wasserstein(drawn, targets, seed=1)
    assert first == again
    assert other != first
    assert other.mean == pytest.approx(first.mean, rel=0.1)


def test_of_constant_pictures_it_is_the_mean_length_of_the_shift_along_a_direction():
    """Flat pictures 10 levels apart, on one level: each of the 147 coordinates differs by 10, and
    a random direction of 147 shows |N(0, 1)| * 10 of it on average."""
    a, b = (np.full((8, 16, 16, 3), level, np.uint8) for level in (60, 50))
    expected = 10 * np.sqrt(2 / np.pi)
    found = sliced_wasserstein(a, b)
    assert list(found.levels) == [16]
    assert found.mean / 1000 == pytest.approx(expected, rel=0.1)


def test_the_best_transport_is_the_one_that_a_search_over_all_pairings_finds():
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(5, 147)).astype(np.float32) for _ in range(2))
    found = wasserstein._distance(a, b, np.random.default_rng(7))
    again = np.random.default_rng(7)
    costs = []
    for _ in range(4):
        directions = again.standard_normal((128, 147)).astype(np.float32)
        for direction in directions / np.linalg.norm(directions, axis=1, keepdims=True):
            shadow_a, shadow_b = a @ direction, b @ direction
            pairings = (
                np.abs(shadow_a - shadow_b[list(p)]).mean() for p in permutations(range(5))
            )
            costs.append(min(pairings))
    assert found == pytest.approx(np.mean(costs), rel=1e-4)


def test_the_levels_of_the_pyramid_add_up_to_the_picture():
    picture = textures(5, 1)[0]
    bands = [wasserstein._band(picture, level, level == 2) for level in range(3)]
    assert [band.shape[0] for band in bands] == [64, 32, 16]
    image = bands[-1]
    for band in bands[-2::-1]:
        image = cv2.pyrUp(image) + band
    np.testing.assert_allclose(image, picture, atol=1e-3)


@pytest.mark.parametrize(
    ("side_px", "expected"),
    [(256, [256, 128, 64, 32, 16]), (31, [31]), (100, [100, 50, 25]), (33, [33, 17])],
)
def test_levels_are_halved_down_to_sixteen(side_px, expected):
    assert level_sides(side_px) == expected


def test_pictures_of_any_shape_are_measured():
    drawn = textures(3, 1, 128)[:, :100, :70]
    assert list(sliced_wasserstein(drawn, 255 - drawn).levels) == [70, 35, 18]


@pytest.mark.parametrize("shape", [(2, 15, 40, 3), (0, 32, 32, 3), (2, 32, 32)])
def test_what_is_no_set_of_pictures_is_refused(shape):
    empty = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError):
        sliced_wasserstein(empty, empty)
