"""Several cameras in one picture: each in its own cell, and nothing in a neighbour's."""

import statistics
import time

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.frame import Translated
from runtime.grid import Grid, arrangement

NAMES = ("front", "back", "left", "video0")
GROUND = 20


def frame(source, grey, size_px=(120, 160), captured_at_ns=0, note="", original=None):
    image = np.full((*size_px, 3), grey, np.uint8)
    before = np.full((*size_px, 3), grey // 2 if original is None else original, np.uint8)
    return Translated(
        image,
        7,
        captured_at_ns,
        translated=image,
        original=before,
        source=source,
        note=note,
        infer_ms=3.0,
    )


def cell(picture, number, columns=2, size_px=(120, 160)):
    row, column = divmod(number, columns)
    height, width = size_px
    return picture[row * height : (row + 1) * height, column * width : (column + 1) * width]


def middle(picture, number):
    return cell(picture, number)[50:70, 70:90]


def test_each_source_is_drawn_in_its_own_cell_of_both_mosaics():
    grid = Grid(NAMES)
    for number, name in enumerate(NAMES):
        shown = grid.update(frame(name, 100 + 20 * number))
    assert shown.image is shown.translated
    assert shown.image.shape == shown.original.shape == (240, 320, 3)
    for number in range(4):
        assert (middle(shown.translated, number) == 100 + 20 * number).all()
        assert (middle(shown.original, number) == 50 + 10 * number).all()


def test_only_the_cell_of_the_source_changes():
    grid = Grid(NAMES)
    before = grid.update(frame("front", 100))
    after = grid.update(frame("video0", 200))
    for number in range(3):
        assert (cell(before.image, number) == cell(after.image, number)).all()
    assert (middle(after.image, 3) == 200).all()


def test_a_source_without_a_frame_has_a_cell_that_waits_for_it():
    shown = Grid(("a", "b")).update(frame("a", 100))
    waiting = cell(shown.image, 1)
    assert (waiting > 200).any()
    assert (waiting[:20] == GROUND).all()
    assert (waiting == cell(shown.original, 1)).all()


def test_a_name_stands_in_the_lower_left_corner_alone():
    grid = Grid(NAMES)
    shown = cell(grid.update(frame("front", 100)).image, 0)
    changed = (shown != 100).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 90
    assert rows.max() == 119
    assert columns.min() == 0
    assert columns.max() < 80
    assert (shown > 200).any()


def test_what_was_handed_out_is_never_drawn_over():
    grid = Grid(NAMES)
    held = [grid.update(frame(NAMES[n % 4], 60 + n)) for n in range(30)]
    kept = [(one.image.copy(), one.original.copy()) for one in held]
    for n in range(30):
        grid.update(frame(NAMES[n % 4], 200))
    for one, (image, original) in zip(held, kept, strict=True):
        assert (one.image == image).all()
        assert (one.original == original).all()


def test_memory_is_used_again_when_nobody_holds_it():
    grid = Grid(NAMES)
    places = set()
    for n in range(40):
        shown = grid.update(frame(NAMES[n % 4], 60 + n))
        places |= {one.__array_interface__["data"][0] for one in (shown.image, shown.original)}
    assert len(places) <= 4


def test_a_picture_of_another_aspect_keeps_it_on_a_dark_ground():
    grid = Grid(("a", "b"), cell_size_px=(100, 200))
    grid.update(frame("a", 250, (100, 200)))
    shown = cell(grid.update(frame("a", 150, (80, 80))).image, 0, size_px=(100, 200))
    assert (shown[5:70, 51:149] == 150).all()
    assert (shown[5:70, :49] == GROUND).all()
    assert (shown[5:70, 151:] == GROUND).all()
    wide = cell(grid.update(frame("a", 150, (10, 400))).image, 0, size_px=(100, 200))
    assert (wide[48:52] == 150).all()
    assert (wide[:40] == GROUND).all()


def test_the_labels_on_a_letterboxed_cell_do_not_grow_darker_with_each_frame():
    grid = Grid(("a", "b"), cell_size_px=(100, 200))
    first = grid.update(frame("a", 150, (80, 80), note="no picture"))
    for _ in range(20):
        last = grid.update(frame("a", 150, (80, 80), note="no picture"))
    assert (first.image == last.image).all()


def test_a_note_stands_in_its_own_cell_until_it_is_over():
    grid = Grid(NAMES)
    for name in NAMES:
        plain = grid.update(frame(name, 100))
    noted = grid.update(frame("back", 100, note="camera stopped"))
    assert noted.note == ""
    assert noted.source == ""
    differs = (noted.image != plain.image).any(axis=2)
    assert cell(differs, 1)[50:70].any()
    assert not any(cell(differs, number).any() for number in (0, 2, 3))
    other = grid.update(frame("back", 100, note="opening it again"))
    assert (other.image != noted.image).any()
    assert (grid.update(frame("back", 100)).image == plain.image).all()


def test_the_index_counts_and_the_time_is_that_of_the_newest_frame():
    grid = Grid(NAMES)
    shown = [
        grid.update(frame(name, 100, captured_at_ns=at_ns))
        for name, at_ns in (("front", 500), ("back", 300), ("left", 900))
    ]
    assert [one.index for one in shown] == [0, 1, 2]
    assert [one.captured_at_ns for one in shown] == [500, 500, 900]
    assert shown[0].infer_ms == 3.0


def test_a_frame_without_its_parts_is_shown_as_it_is():
    image = np.full((120, 160, 3), 130, np.uint8)
    shown = Grid(NAMES).update(Translated(image, 0, 0, source="front"))
    assert (middle(shown.translated, 0) == 130).all()
    assert (middle(shown.original, 0) == 130).all()


@pytest.mark.parametrize(
    ("count", "aspect", "expected"),
    [
        (1, 4 / 3, (1, 1)),
        (2, 4 / 3, (1, 2)),
        (2, 4.0, (2, 1)),
        (3, 4 / 3, (2, 2)),
        (3, 9 / 16, (1, 3)),
        (4, 16 / 9, (2, 2)),
        (5, 4 / 3, (2, 3)),
        (6, 16 / 9, (2, 3)),
        (7, 9 / 16, (2, 4)),
        (9, 16 / 9, (3, 3)),
    ],
)
def test_cells_are_arranged_so_that_they_are_largest_on_a_wide_screen(count, aspect, expected):
    assert arrangement(count, aspect) == expected


def test_four_full_hd_cameras_make_a_full_hd_grid():
    shown = Grid(NAMES).update(frame("front", 100, (1080, 1920)))
    assert shown.image.shape == (1080, 1920, 3)


def test_a_chosen_cell_size_holds_whatever_comes():
    shown = Grid(NAMES, cell_size_px=(480, 640)).update(frame("front", 100, (1080, 1920)))
    assert shown.image.shape == (960, 1280, 3)


def test_two_sources_with_one_name_and_a_cell_of_nothing_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"two sources are called 'a'.*--source"):
        Grid(("a", "b", "a"))
    with pytest.raises(UserError, match="a cell of 0x480 pixels"):
        Grid(("a", "b"), cell_size_px=(480, 0))
    with pytest.raises(ValueError, match="'c'"):
        Grid(("a", "b")).update(frame("c", 1))


def test_four_cameras_of_640x480_cost_little():
    grid = Grid(NAMES)
    took_ms = []
    for n in range(60):
        one = frame(NAMES[n % 4], 100, (480, 640))
        start_ns = time.perf_counter_ns()
        grid.update(one)
        took_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    assert statistics.median(took_ms) < 30
