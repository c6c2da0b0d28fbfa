"""Percentiles, intervals and rounds, as a reader of a benchmark understands them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.timing import (
    Distribution,
    intervals_ms,
    percentile,
    rate_per_s,
    rotated,
    round_sizes,
)

latencies = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=300)


@given(latencies, st.integers(1, 100))
def test_a_percentile_is_the_smallest_sample_that_so_many_do_not_exceed(samples, percent):
    found = percentile(samples, percent)
    assert found in samples
    assert sum(sample <= found for sample in samples) * 100 >= percent * len(samples)
    assert sum(sample < found for sample in samples) * 100 < percent * len(samples)


def test_the_p99_of_a_hundred_samples_leaves_one_above_it():
    samples = [float(number) for number in range(100, 0, -1)]
    told = Distribution.of(samples)
    assert (told.count, told.p50, told.p90, told.p99) == (100, 50, 90, 99)
    assert (told.least, told.most) == (1, 100)


def test_no_samples_have_no_percentile():
    with pytest.raises(ValueError, match="no samples"):
        Distribution.of([])


@given(st.lists(st.integers(0, 10**15), max_size=50).map(sorted))
def test_n_stamps_are_n_minus_1_intervals_which_add_up_to_the_whole(stamps_ns):
    intervals = intervals_ms(stamps_ns)
    assert len(intervals) == max(0, len(stamps_ns) - 1)
    if intervals:
        assert sum(intervals) == pytest.approx((stamps_ns[-1] - stamps_ns[0]) / 1e6)


def test_a_rate_counts_intervals_over_their_whole_time():
    assert rate_per_s(intervals_ms([0, 10_000_000, 40_000_000])) == pytest.approx(50)
    assert rate_per_s([]) is None


@given(st.integers(1, 5000))
def test_rounds_hold_every_frame_in_at_most_ten_nearly_equal_parts(count):
    sizes = round_sizes(count)
    assert sum(sizes) == count
    assert len(sizes) <= 10
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == 1 or min(sizes) >= 10


def test_each_round_starts_with_another_model():
    assert [rotated("abc", by)[0] for by in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated("abc", 2)) == ["a", "b", "c"]
    assert rotated([], 3) == []
