"""What is told of many timings, on given numbers: percentile, interval, outlier, ratio."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.distributions import Ratio, histogram, median_interval, outliers, to_json
from benchmarks.timing import balanced, percentile

some_ms = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=200)


@given(some_ms)
def test_every_sample_is_in_one_bin_and_the_edges_are_the_least_and_the_most(samples):
    told = histogram(samples)
    assert sum(told["counts"]) == len(samples)
    assert len(told["edges_ms"]) == len(told["counts"]) + 1 <= 42
    assert told["edges_ms"][0] == pytest.approx(min(samples), abs=1e-5)
    assert told["edges_ms"][-1] == pytest.approx(max(samples), abs=1e-5)


def test_what_lies_far_beyond_the_quartiles_is_an_outlier_and_has_a_bin_of_its_own():
    samples = [10 + number / 100 for number in range(100)] + [50.0, 60.0]
    assert outliers(samples) == 2
    told = histogram(samples)
    assert told["counts"][-1] == 2
    assert told["edges_ms"][-1] == 60
    assert to_json([samples])["most"] == 60  # counted all the same
    assert outliers([1.0] * 50) == 0


@given(st.lists(some_ms, min_size=1, max_size=10))
def test_the_interval_holds_the_median_and_is_always_the_same(rounds):
    low, high = median_interval(rounds)
    assert low <= percentile([ms for part in rounds for ms in part], 50) <= high
    assert (low, high) == median_interval(rounds)


def test_rounds_that_differ_widen_the_interval_more_than_frames_that_do():
    apart = [[10.0] * 5] * 5 + [[20.0] * 5] * 6
    mixed = [[10.0, 10.0, 20.0, 20.0, 20.0]] * 11
    low, high = median_interval(apart)
    assert (low, high) == (10, 20)
    assert median_interval(mixed) == (20, 20)


def test_about_95_of_100_intervals_hold_the_true_median():
    chance = random.Random(7)
    held = 0
    for _ in range(200):
        samples = [[chance.gauss(10, 1)] for _ in range(40)]
        low, high = median_interval(samples)
        held += low <= 10 <= high
    assert 180 <= held <= 199


def test_no_samples_have_no_distribution():
    with pytest.raises(ValueError, match="no samples"):
        to_json([[], []])


def test_a_ratio_is_the_median_of_the_rounds_so_that_a_drift_of_both_cancels_out():
    fast = [[1.0, 1.1, 1.0], [2.0, 2.0, 9.0], [4.0, 4.0, 4.0]]
    slow = [[3.0, 3.0, 8.0], [6.0, 6.0, 6.0], [12.0, 12.1, 12.0]]
    told = Ratio.of(slow, fast)
    assert told.rounds == [3, 3, 3]
    assert (told.low, told.value, told.high) == (3, 3, 3)
    with pytest.raises(ValueError, match="zip"):
        Ratio.of(slow, fast[:2])


@pytest.mark.parametrize("count", range(2, 9))
def test_over_the_rounds_each_row_has_every_place_and_every_predecessor_equally_often(count):
    rounds = count if count % 2 == 0 else 2 * count
    orders = [balanced(range(count), number) for number in range(rounds)]
    followed = Counter(pair for order in orders for pair in pairwise(order))
    places = Counter(place for order in orders for place in enumerate(order))
    assert len(followed) == count * (count - 1)
    assert len(set(followed.values())) == 1
    assert len(places) == count * count
    assert len(set(places.values())) == 1
    assert balanced(range(count), rounds) == orders[0]


def test_one_row_or_none_has_one_order():
    assert balanced(["a"], 5) == ["a"]
    assert balanced([], 5) == []
