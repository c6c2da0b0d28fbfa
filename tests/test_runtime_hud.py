"""The figures on the picture: right, steady, and only where they belong."""

import itertools
import statistics
import time

import numpy as np
import pytest

from runtime.frame import Translated
from runtime.hud import Hud, HudFigures
from runtime.panel import Letters, label

MACHINE = {"cpu_percent": 143.0, "gpu_percent": 87.0, "power_w": 14.2, "temperature_c": 61.5}
FIGURES = HudFigures("ONNX Runtime CPU", "int8", dropped=12, reopened=1, machine=MACHINE)
ORANGE, WARNING = (60, 165, 240), (90, 140, 255)


class Stream:
    """A stream on a clock of its own, and the HUD that watches it."""

    def __init__(self, figures=FIGURES, size_px=(480, 640), ground=0):
        self.now_ns = 10**12
        self.size_px, self.ground = size_px, ground
        self.hud = Hud(figures, clock_ns=lambda: self.now_ns)

    def shown(self, after_ms=33.0, age_ms=40.0, infer_ms=20.0, in_ms=4.0, out_ms=1.0):
        self.now_ns += int(after_ms * 1e6)
        image = np.full((*self.size_px, 3), self.ground, np.uint8)
        captured_at_ns = self.now_ns - int(age_ms * 1e6)
        times = {"in_ms": in_ms, "infer_ms": infer_ms, "out_ms": out_ms}
        self.hud(image, Translated(image, 0, captured_at_ns, **times))
        return image

    def play(self, frames, **times):
        for _ in range(frames):
            image = self.shown(**times)
        return image


def box(image, ground=0):
    """Top, left, bottom, right of what was drawn."""
    rows, columns = np.nonzero((image != ground).any(axis=2))
    return rows.min(), columns.min(), rows.max(), columns.max()


def near(image, colour, by=12):
    return (np.abs(image.astype(int) - colour) <= by).all(axis=2)


@pytest.mark.parametrize("size_px", [(240, 320), (480, 640), (1080, 1920), (2160, 3840)])
def test_the_panel_scales_with_the_picture_and_leaves_most_of_it_alone(size_px):
    image = Stream(size_px=size_px, ground=200).play(3)
    top, left, bottom, right = box(image, 200)
    assert 0 < top < size_px[0] / 20
    assert 0 < left < size_px[1] / 20
    assert size_px[0] / 5 < bottom < size_px[0] / 2.3
    assert size_px[1] / 5 < right < size_px[1] * 0.6


@pytest.mark.parametrize("size_px", [(1, 1), (16, 16), (60, 80), (100, 60), (64, 2000)])
def test_a_picture_that_is_too_small_cuts_the_panel_off(size_px):
    assert Stream(size_px=size_px, ground=90).play(2).shape == (*size_px, 3)


def test_letters_stand_out_on_a_white_picture_too():
    image = Stream(ground=255).play(3)
    top, left, bottom, right = box(image, 255)
    inside = image[top : bottom + 1, left : right + 1].max(axis=2)
    assert np.median(inside) < 110
    assert (inside > 200).mean() > 0.02


def test_it_draws_into_a_part_of_a_larger_picture():
    stream = Stream()
    whole = np.full((500, 700, 3), 50, np.uint8)
    frame = Translated(whole, 0, stream.now_ns)
    stream.hud(whole[10:490, 20:660], frame)
    top, left, _, _ = box(whole, 50)
    assert top >= 10
    assert left >= 20


def test_the_rate_is_that_of_the_last_second():
    stream = Stream()
    stream.play(60, after_ms=20.0)
    assert stream.hud.fps == pytest.approx(50)
    stream.play(40, after_ms=40.0)
    assert stream.hud.fps == pytest.approx(25)


def test_a_stream_of_one_frame_in_three_seconds_has_a_rate():
    stream = Stream()
    stream.play(1)
    assert stream.hud.fps == 0
    stream.play(3, after_ms=3000.0)
    assert stream.hud.fps == pytest.approx(1 / 3)


def test_the_bar_shows_each_stage_by_its_share_of_the_age():
    image = Stream().play(40, age_ms=40.0, in_ms=4.0, infer_ms=20.0, out_ms=1.0)
    orange = near(image, ORANGE)
    row = orange.sum(axis=1).argmax()
    bar = (image[row] > 100).any(axis=1)
    assert orange[row].sum() / bar.sum() == pytest.approx(20 / 40, abs=0.03)
    waits = near(image[row : row + 1], (175, 175, 175))
    assert waits.sum() / bar.sum() == pytest.approx(15 / 40, abs=0.03)


def test_one_late_frame_does_not_move_the_bar():
    stream = Stream()
    before = stream.play(40)
    after = stream.shown(after_ms=300.0, age_ms=900.0, infer_ms=850.0)
    row = near(before, ORANGE).sum(axis=1).argmax()
    assert near(before, ORANGE)[row].sum() == near(after, ORANGE)[row].sum()


def test_numbers_change_four_times_a_second_and_not_with_every_frame():
    stream = Stream()
    stream.play(3)
    pictures = [stream.shown(after_ms=10.0, age_ms=30.0 + 7 * n) for n in range(50)]
    changes = sum(bool((a != b).any()) for a, b in itertools.pairwise(pictures))
    assert 1 <= changes <= 3


def test_no_figure_changes_the_size_or_the_place_of_anything():
    times = ((100.0, 3.0), (2.0, 9.0), (33.0, 4321.0))
    pictures = [
        Stream(ground=255).play(60, after_ms=after_ms, age_ms=age_ms, infer_ms=age_ms / 2)
        for after_ms, age_ms in times
    ]
    assert len({box(picture, 255) for picture in pictures}) == 1
    top, left, bottom, right = box(pictures[0], 255)
    line = [picture[top : top + (bottom - top) // 5, left:right] for picture in pictures]
    same = (line[0] == line[1]) & (line[1] == line[2]) & (line[0] > 150)
    assert same.all(axis=2).sum() > 40  # "fps" and "ms age now" stand where they stood


def test_a_line_that_came_once_stays_when_its_figures_do_not_come():
    stream = Stream(ground=255)
    full = box(stream.play(2), 255)
    stream.hud.figures = HudFigures("ONNX Runtime CPU", "int8")
    assert box(stream.shown(after_ms=300.0), 255) == full
    assert box(Stream(HudFigures(), ground=255).play(2), 255)[2] < full[2]


def test_a_throttled_machine_is_shown_in_another_colour():
    calm = Stream().play(2)
    throttled = HudFigures(machine={**MACHINE, "throttled": 1.0})
    assert not near(calm, WARNING).any()
    assert near(Stream(throttled).play(2), WARNING).sum() > 20


def test_what_the_machine_does_not_tell_is_not_shown():
    with_gpu = Stream(HudFigures(machine={"cpu_percent": 50.0, "gpu_percent": 50.0})).play(2)
    without = Stream(HudFigures(machine={"cpu_percent": 50.0})).play(2)
    assert (with_gpu > 200).sum() > (without > 200).sum()


def test_a_change_of_size_makes_a_new_layout_at_once():
    stream = Stream(size_px=(240, 320), ground=200)
    small = box(stream.play(2), 200)
    stream.size_px = (960, 1280)
    assert box(stream.shown(after_ms=1.0), 200)[3] > 2 * small[3]


def test_a_frame_costs_little_at_640x480():
    stream = Stream()
    took_ms = []
    for _ in range(120):
        start_ns = time.perf_counter_ns()
        stream.shown()
        took_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    assert statistics.median(took_ms) < 10


def test_a_label_is_cut_to_its_place_and_takes_letters_that_cannot_be_drawn():
    assert label("a very long name of a camera", 12, 100).size_px[1] <= 100
    assert label("Küche", 12, 400).size_px[1] == label("K?che", 12, 400).size_px[1]
    letters = Letters(12)
    assert letters.fitted("front", 1000) == "front"
    assert letters.fitted("front door", letters.width_px("front ..")) == "front.."
