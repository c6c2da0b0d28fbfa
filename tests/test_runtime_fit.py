"""Fit: pictures of any size through a network of one size, and back without bars and seams."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import picture
from scripted_engines import FunctionEngine

from runtime.errors import ModelError, UserError
from runtime.fit import FITS, fit_maker
from runtime.tiles import axis_of
from runtime.translator import Translator

NETWORK_PX = (64, 96)
SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def identity(frames):
    return frames.copy()


def translator(function=identity, fit="tile", batch=1, size_px=NETWORK_PX, **options):
    engine = FunctionEngine(function, size_px, batch)
    return Translator(engine, "m.onnx", fit, **options)


@settings(max_examples=60, deadline=None)
@given(size_px=SIZES, fit=st.sampled_from(FITS))
def test_a_result_has_the_size_of_what_was_translated(size_px, fit):
    done = translator(fit=fit).translate([picture(0, *size_px)])
    assert done.images[0].shape == done.originals[0].shape
    if fit != "crop":
        assert done.images[0].shape == (*size_px, 3)


@settings(max_examples=60, deadline=None)
@given(size_px=SIZES, batch=st.integers(1, 5))
def test_tiles_of_a_network_that_changes_nothing_are_the_picture_exactly(size_px, batch):
    if size_px[0] < NETWORK_PX[0] and size_px[1] < NETWORK_PX[1]:
        size_px = (size_px[0] + NETWORK_PX[0], size_px[1])
    image = picture(0, *size_px)
    assert np.array_equal(translator(batch=batch)(image), image)


@pytest.mark.parametrize("size_px", [(150, 400), (64, 200), (200, 96), (65, 97)])
@pytest.mark.parametrize("constants", [(0, 255), (40, 90)])
def test_tiles_that_disagree_leave_no_step_above_what_the_ramp_implies(size_px, constants):
    """Each tile is drawn in one grey, its neighbours in another: the worst that can happen."""
    drawn = iter(range(1000))

    def greys(frames):
        return np.full_like(frames, constants[next(drawn) % 2])

    result = translator(greys)(picture(0, *size_px)).astype(int)
    ramp_px = NETWORK_PX[0] // 8
    most = 1.5 * abs(constants[1] - constants[0]) / ramp_px + 1  # a smoothstep, and the rounding
    for axis, length in enumerate(size_px):
        if length > 1:
            assert np.abs(np.diff(result, axis=axis)).max() <= most
    assert result.min() >= min(constants)
    assert result.max() <= max(constants)


def test_without_a_ramp_the_step_would_be_found():
    """That the test above could fail: a ramp of one pixel is a hard edge."""
    drawn = iter(range(1000))
    hard = translator(lambda frames: np.full_like(frames, 255 * (next(drawn) % 2)), overlap_px=1)
    result = hard(picture(0, 64, 200)).astype(int)
    assert np.abs(np.diff(result, axis=1)).max() >= 127


def test_the_outermost_pixels_of_a_tile_are_not_seen_where_another_tile_has_them():
    def framed(frames):
        drawn = np.zeros_like(frames)
        drawn[:, 0] = drawn[:, -1] = drawn[:, :, 0] = drawn[:, :, -1] = 255
        return drawn

    inside = translator(framed, overlap_px=16)(picture(0, 200, 400))[1:-1, 1:-1]
    assert inside.max() <= 255 * 0.01 + 1


@settings(max_examples=200, deadline=None)
@given(length_px=st.integers(1, 2000), tile_px=st.integers(8, 300), overlap_px=st.integers(1, 400))
def test_tiles_lie_evenly_cover_all_and_overlap_enough(length_px, tile_px, overlap_px):
    axis = axis_of(length_px, tile_px, overlap_px)
    if length_px <= tile_px:
        assert len(axis.spans) == 1
        return
    starts = [span.start for span in axis.spans]
    assert (starts[0], starts[-1]) == (0, length_px - tile_px)
    steps = np.diff(starts)
    assert steps.max() - steps.min() <= 1
    assert steps.max() <= tile_px - axis.ramp_px
    assert axis.ramp_px == min(overlap_px, tile_px // 3)
    fewest = -(-(length_px - axis.ramp_px) // (tile_px - axis.ramp_px))
    assert len(starts) == fewest
    for before, span in zip(axis.spans, axis.spans[1:], strict=False):
        assert before.end == span.ramp_to
        assert span.start <= span.ramp_from < span.ramp_to <= before.start + tile_px


@pytest.mark.parametrize(
    ("batch", "pictures", "inferences"), [(1, 1, 6), (4, 1, 2), (6, 1, 1), (4, 2, 3), (16, 2, 1)]
)
def test_tiles_share_inferences_also_those_of_several_pictures(batch, pictures, inferences):
    engine = FunctionEngine(lambda frames: 255 - frames, (256, 256), batch)
    images = [picture(seed, 480, 640) for seed in range(pictures)]
    done = Translator(engine, fit="tile").translate(images)
    assert engine.shapes == [(batch, 256, 256, 3)] * inferences
    for image, negative in zip(images, done.images, strict=True):
        assert np.array_equal(negative, 255 - image)


def test_a_letterboxed_frame_keeps_the_aspect_and_mirrors_the_picture_into_the_rest():
    image = picture(0, 100, 300)
    frame = translator(fit="letterbox").prepare(image)[0]
    inner = cv2.resize(image, (96, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(frame[16:48], inner)
    assert np.array_equal(frame[:16], inner[16:0:-1])
    assert np.array_equal(frame[48:], inner[-2:-18:-1])


def test_bars_of_a_letterbox_are_cut_off():
    def white_bars(frames):
        drawn = np.zeros_like(frames)
        drawn[:, :16] = drawn[:, 48:] = 255
        return drawn

    assert translator(white_bars, "letterbox")(picture(0, 100, 300)).max() == 0


@pytest.mark.parametrize(
    ("size_px", "rows", "columns"),
    [((100, 300), (0, 100), (75, 225)), ((300, 96), (118, 182), (0, 96))],
)
def test_a_crop_is_the_largest_middle_part_of_the_networks_aspect(size_px, rows, columns):
    image = picture(0, *size_px)
    done = translator(fit="crop").translate([image])
    part = image[slice(*rows), slice(*columns)]
    assert np.array_equal(done.originals[0], part)
    if part.shape[:2] == NETWORK_PX:
        assert np.array_equal(done.images[0], part)
    else:
        assert done.images[0].shape == part.shape


def test_a_picture_smaller_than_a_tile_is_enlarged_and_shrunk_again():
    image = np.full((20, 30, 3), (10, 20, 30), np.uint8)
    tiled = translator(lambda frames: 255 - frames)
    assert tiled.prepare(image).shape == (1, *NETWORK_PX, 3)
    assert np.array_equal(tiled(image), 255 - image)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("batch", [1, 4])
def test_the_three_steps_draw_what_translate_draws(fit, batch):
    image = picture(0, 150, 240)
    model = translator(lambda frames: 255 - frames, fit, batch)
    if batch > 1 and fit != "tile":
        with pytest.raises(ModelError, match="takes batches of 4"):
            model.prepare(image)
        return
    drawn = model.finish(model.infer(model.prepare(image)), (150, 240))
    assert np.array_equal(drawn, model.translate([image]).images[0])


@pytest.mark.parametrize("fit", FITS)
def test_pictures_of_several_cameras_come_back_in_order_and_size(fit):
    images = [np.full((40 + 50 * n, 300 - 60 * n, 3), 20 * n, np.uint8) for n in range(4)]
    done = translator(lambda frames: 255 - frames, fit, 3).translate(images)
    for image, original, negative in zip(images, done.originals, done.images, strict=True):
        assert np.shares_memory(original, image)
        assert np.array_equal(negative, 255 - original)
    assert min(done.in_ms, done.infer_ms, done.out_ms) > 0


def test_a_model_of_any_size_is_not_tiled_and_says_so_in_one_line():
    with pytest.raises(ModelError) as caught:
        Translator(FunctionEngine(identity, NETWORK_PX, dynamic=True), "m.onnx", "tile")
    assert isinstance(caught.value, UserError)
    assert "m.onnx" in str(caught.value)
    assert "--fit tile" in str(caught.value)


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_a_model_of_any_size_keeps_the_aspect_at_its_working_size(fit):
    engine = FunctionEngine(lambda frames: 255 - frames, NETWORK_PX, dynamic=True)
    image = np.full((101, 203, 3), 7, np.uint8)
    done = Translator(engine, fit=fit).translate([image])
    assert engine.shapes == [(1, 104, 200, 3)]
    assert np.array_equal(done.images[0], 255 - done.originals[0])


def test_no_such_fit_and_no_overlap_are_refused():
    with pytest.raises(ValueError, match="none of"):
        fit_maker("squeeze")
    with pytest.raises(ValueError, match="below 1"):
        translator(overlap_px=0)


@pytest.mark.parametrize("fit", FITS)
def test_nothing_is_allocated_per_frame_in_steady_state(fit):
    """The engine's output, which is not the translator's, is one array here."""
    drawn = np.zeros((1, *NETWORK_PX, 3), np.uint8)
    model = translator(lambda frames: drawn, fit)
    images = [picture(seed, 150, 240) for seed in range(2)]
    model.translate(images)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(5):
            model.translate(images)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 150 * 240 * 3 / 2, "less than half of one picture"


@pytest.mark.parametrize("fit", FITS)
def test_threads_that_translate_at_once_do_not_disturb_each_other(fit):
    model = translator(lambda frames: 255 - frames, fit)
    sizes = [(150, 240), (64, 96), (90, 300)]
    wrong = []

    def work(number):
        image = np.full((*sizes[number % 3], 3), 10 * number, np.uint8)
        for _ in range(40):
            done = model.translate([image])
            if not np.array_equal(done.images[0], 255 - done.originals[0]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("fit", FITS)
def test_a_result_that_is_held_is_never_written_over(fit):
    model = translator(lambda frames: 255 - frames, fit)
    held = [model(np.full((150, 240, 3), level, np.uint8)) for level in range(20)]
    for level, image in enumerate(held):
        assert np.all(image == 255 - level)


def test_ever_new_sizes_do_not_fill_the_memory():
    model = translator(fit="tile")
    gc.collect()
    tracemalloc.start()
    try:
        for side in range(200, 260):
            model(np.zeros((side, 300, 3), np.uint8))
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 20 * 260 * 300 * 3
