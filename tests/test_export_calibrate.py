"""Ranges of activations: what was seen, without the rarest values, and with most information."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from test_export_subpixel import model_of

from export.calibrate import BINS, PERCENTILE, Histogram, Range, histograms_of
from export.settings import METHODS

TAIL = (100 - PERCENTILE) / 2


def histogram_of(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def ranges_of(*parts):
    histogram = histogram_of(*parts)
    return {method: histogram.range(method) for method in METHODS}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    reaches=st.lists(st.floats(0.01, 1e4), min_size=1, max_size=6),
    shift=st.floats(-1, 1),
)
def test_many_pictures_in_any_order_give_numpys_range_and_percentile(seed, reaches, shift):
    random = np.random.default_rng(seed)
    parts = [((random.normal(size=2000) + shift) * reach).astype(np.float32) for reach in reaches]
    values = np.concatenate(parts).astype(np.float64)
    found = ranges_of(*parts)
    assert found["minmax"] == Range(min(values.min(), 0.0), max(values.max(), 0.0))
    # The first picture's reach doubles until the widest fits: at most 2 * max / BINS a bin.
    width = 2 * np.abs(values).max() / BINS
    ends = np.percentile(values, [TAIL, 100 - TAIL], method="inverted_cdf")
    low, high = found["percentile"].low, found["percentile"].high
    assert low == pytest.approx(min(ends[0], 0.0), abs=width)
    assert high == pytest.approx(max(ends[1], 0.0), abs=width)
    assert (found["minmax"].low, high) <= (low, found["minmax"].high), "inside of what was seen"


def test_a_range_that_grows_by_doubling_keeps_every_count():
    small, large = np.linspace(-1, 1, 9999), np.linspace(-100, 100, 101)
    grown, at_once = histogram_of(small, large), histogram_of(large, small)
    width = 2 * 128 / (2 * BINS)
    for method in ("minmax", "percentile"):
        one, other = grown.range(method), at_once.range(method)
        assert one.low == pytest.approx(other.low, abs=2 * width)
        assert one.high == pytest.approx(other.high, abs=2 * width)
    assert grown.range("percentile").high > 90, "one in a hundred is not rare"


def test_percentile_cuts_what_is_rarer_than_one_in_ten_thousand():
    usual = np.linspace(-1, 1, 100_000)
    few, enough = np.full(2, 50.0), np.full(50, 50.0)
    assert ranges_of(usual, few)["percentile"].high == pytest.approx(1.0, abs=0.05)
    assert ranges_of(usual, few)["minmax"].high == 50.0
    assert ranges_of(usual, enough)["percentile"].high == pytest.approx(50.0, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_always_zero_has_an_empty_range(method):
    assert ranges_of(np.zeros(100), np.zeros(7))[method] == Range(0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_before_the_first_value_do_no_harm(method):
    values = np.linspace(0, 5, 20_000)
    assert ranges_of(np.zeros(100), values)[method].high == pytest.approx(5.0, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
def test_one_sided_values_keep_zero_as_an_end(sign, method):
    rectified = np.maximum(np.random.default_rng(0).normal(size=50_000), 0) * sign
    found = ranges_of(rectified)[method]
    assert (found.low if sign > 0 else found.high) == 0.0
    assert found.largest > 2


@pytest.mark.parametrize("method", METHODS)
def test_values_far_from_zero_still_have_zero_in_their_range(method):
    found = ranges_of(np.linspace(5, 6, 10_000))[method]
    assert found.low == 0.0
    assert found.high == pytest.approx(6.0, rel=0.01)


def test_entropy_cuts_a_far_outlier_but_keeps_an_even_spread():
    random = np.random.default_rng(0)
    bell = random.normal(size=100_000)
    assert ranges_of(bell, [300.0])["entropy"].high < 30
    assert ranges_of(bell, [300.0])["minmax"].high == 300.0
    even = random.uniform(-4, 4, 100_000)
    found = ranges_of(even)["entropy"]
    assert -found.low == pytest.approx(4.0, rel=0.02)
    assert found.high == pytest.approx(4.0, rel=0.02)


def test_entropy_is_not_misled_by_the_zeros_that_relu_makes():
    values = np.random.default_rng(0).uniform(0, 4, 10_000)
    found = ranges_of(np.concatenate([values, np.zeros(1_000_000)]))["entropy"]
    assert found.high == pytest.approx(4.0, rel=0.02)


def test_ranges_are_those_of_the_named_tensors_on_all_pictures():
    nodes = [
        helper.make_node("Cast", ["x"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "grey"], ["centred"]),
        helper.make_node("Relu", ["centred"], ["lit"]),
        helper.make_node("Cast", ["lit"], ["y"], to=TensorProto.UINT8),
    ]
    model = model_of(nodes, {"grey": np.float32(100)}, (2, 4, 5, 3))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    frames = [np.full((4, 5, 3), level, np.uint8) for level in (60, 180, 120)]
    found = histograms_of(model, ["centred", "lit"], iter(frames))
    assert {name: h.range("minmax") for name, h in found.items()} == {
        "centred": Range(-40.0, 80.0),
        "lit": Range(0.0, 80.0),
    }
