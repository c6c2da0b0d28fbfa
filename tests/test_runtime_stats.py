"""Statistics: counts, rates and percentiles."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.stats import STAGES, Histogram, Statistics

COST = dict.fromkeys(STAGES[:-1], 1.0)


@given(
    st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=400),
    st.sampled_from([50, 90, 99]),
)
def test_a_percentile_is_numpys_nearest_rank_to_one_percent(latencies_ms, percent):
    histogram = Histogram()
    for latency_ms in latencies_ms:
        histogram.add(latency_ms)
    expected = np.percentile(latencies_ms, percent, method="inverted_cdf")
    assert histogram.percentile_ms(percent) == pytest.approx(expected, rel=0.0101)


def test_memory_of_an_endless_run_is_bounded():
    histogram = Histogram()
    for latency_ms in np.random.default_rng(0).lognormal(3, 1, 20_000):
        histogram.add(float(latency_ms))
    assert len(histogram._counts) < 1500


def test_a_latency_of_zero_counts():
    histogram = Histogram()
    histogram.add(0.0)
    assert histogram.percentile_ms(50) == 0.0


def test_nothing_measured_is_zero_not_an_error():
    summary = Statistics().summary()
    assert set(summary.values()) == {0}


def test_n_stamps_are_n_minus_1_intervals():
    stats = Statistics()
    for index in range(5):
        stats.came_in()
        stats.went_out(index, 0, 1_000_000_000 + index * 100_000_000, COST)
    assert stats.fps == pytest.approx(10.0)


def test_one_frame_has_no_rate():
    stats = Statistics()
    stats.went_out(0, 0, 1_000_000_000, COST)
    assert stats.fps == 0.0


def test_age_is_from_captured_to_done():
    stats = Statistics(keep_samples=True)
    stats.went_out(7, 1_000_000, 6_000_000, COST)
    assert stats.samples[0]["stages_ms"]["age"] == 5.0
    assert stats.samples[0]["index"] == 7
    assert stats.percentile_ms("age", 50) == 5.0


def test_samples_are_kept_only_when_asked_for():
    stats = Statistics()
    stats.went_out(0, 0, 1, COST)
    assert stats.samples == []


def test_the_summary_has_every_stage():
    names = set(Statistics().summary())
    assert {f"{stage}_p{p}_ms" for stage in STAGES for p in (50, 90, 99)} < names
    assert {"frames_in", "frames_out", "dropped", "fps", "duration_s"} < names


def test_what_never_went_out_was_dropped():
    stats = Statistics()
    for _ in range(5):
        stats.came_in()
    stats.was_dropped()
    stats.went_out(0, 0, 1, COST)
    stats.ended()
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (5, 1, 4)


def test_no_count_is_lost_between_threads():
    stats = Statistics()

    def count():
        for _ in range(2000):
            stats.came_in()
            stats.went_out(0, 0, 1, COST)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stats.frames_in, stats.frames_out) == (8000, 8000)
