"""What is shown of a frame: which picture where, what is drawn on it, and whose memory it is."""

import cv2
import numpy as np
import pytest

from runtime.frame import Translated
from runtime.view import VIEWS, View

BLUE, GREEN = (200, 0, 0), (0, 200, 0)
NOTE = "camera lost, opening again in 1.5 s"


def frame(size_px=(60, 100), original_size_px=None, note=""):
    translated = np.full((*size_px, 3), GREEN, np.uint8)
    original = np.full((*(original_size_px or size_px), 3), BLUE, np.uint8)
    return Translated(translated, 7, translated=translated, original=original, note=note)


def mark(image, frame):
    image[:5, :5] = frame.index


def all_of(image, colour):
    return bool((image == colour).all())


def test_one_picture_with_nothing_on_it_is_not_copied():
    shown = frame()
    assert View().picture(shown) is shown.translated
    assert View("original").picture(shown) is shown.original


def test_side_by_side_has_the_original_on_the_left():
    picture = View("side-by-side").picture(frame())
    assert picture.shape == (60, 200, 3)
    assert all_of(picture[:, :100], BLUE)
    assert all_of(picture[:, 100:], GREEN)


@pytest.mark.parametrize(("split_at", "column"), [(0.5, 50), (0.25, 25), (0.0, 0), (1.0, 100)])
def test_split_has_the_original_left_of_a_line(split_at, column):
    picture = View("split", split_at=split_at).picture(frame())
    assert picture.shape == (60, 100, 3)
    assert all_of(picture[:, : max(0, column - 4)], BLUE)
    assert all_of(picture[:, column + 4 :], GREEN)
    near = picture[:, max(0, column - 4) : column + 4]
    assert (near == 255).all(axis=2).all(axis=0).any(), "a line from top to bottom"


def test_the_line_stays_on_the_picture_wherever_it_is_put():
    view = View("split")
    view.split_at = -3
    assert view.split_at == 0
    view.split_at = 1.5
    assert view.split_at == 1


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("original_size_px", [(30, 50), (61, 99), (240, 400)])
def test_an_original_of_another_size_is_brought_to_the_translations(view, original_size_px):
    shown = frame(original_size_px=original_size_px)
    picture = View(view).picture(shown)
    assert picture.shape == View(view).picture(frame()).shape
    assert np.array_equal(picture, View(view).picture(frame()))


@pytest.mark.parametrize("view", VIEWS)
def test_overlays_are_drawn_in_order_and_never_onto_the_frame(view):
    def again(image, frame):
        image[:2, :2] = 99

    shown = frame()
    picture = View(view, [mark, again]).picture(shown)
    assert all_of(picture[:2, :2], 99)
    assert all_of(picture[2:5, 2:5], 7)
    assert all_of(shown.translated, GREEN)
    assert all_of(shown.original, BLUE)


def test_overlays_that_are_hidden_are_not_drawn():
    view = View(overlays=[mark])
    view.overlays_shown = False
    shown = frame()
    assert view.picture(shown) is shown.translated


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size_px", [(240, 320), (480, 640), (1080, 1920)])
def test_a_note_stands_whole_on_a_dimmed_picture(view, size_px):
    shown = frame(size_px, note=NOTE)
    picture = View(view).picture(shown)
    bare = View(view).picture(frame(size_px))
    height, width = picture.shape[:2]
    top = picture[: height // 2].mean()
    assert 0.5 < top / bare[: height // 2].mean() < 0.9
    lit = np.argwhere((picture[height // 2 :] > 150).all(axis=2))
    letters = lit[np.abs(lit[:, 1] - width / 2) > 12] if view == "split" else lit
    assert len(letters) > 100
    assert letters[:, 1].min() > 0
    assert letters[:, 1].max() < width - 1
    assert letters[:, 0].max() < height // 2 - 2
    lines_px = letters[:, 0].max() - letters[:, 0].min()
    assert lines_px > height / 40, "letters that can be read"
    assert all_of(shown.translated, GREEN)
    assert all_of(shown.original, BLUE)


@pytest.mark.parametrize("size_px", [(240, 320), (64, 64), (16, 16), (1, 1)])
def test_a_long_note_is_broken_and_never_fails(size_px):
    note = (
        "rtsp://camera-with-a-long-name.example.org:554/stream1 did not answer, \u00e9t\u00e9 " * 3
    )
    picture = View().picture(frame(size_px, note=note))
    assert picture.shape == (*size_px, 3)


def test_pictures_that_are_held_are_not_drawn_onto_and_memory_is_used_again():
    view = View("side-by-side")
    first = view.picture(frame())
    copy = first.copy()
    second = view.picture(Translated(np.zeros((60, 100, 3), np.uint8), 1))
    assert np.array_equal(first, copy)
    place = second.ctypes.data
    del second
    assert view.picture(frame()).ctypes.data == place


def test_a_frame_with_neither_original_nor_translation_shows_its_image():
    image = np.full((10, 20, 3), 5, np.uint8)
    for name in VIEWS:
        picture = View(name, split_at=0.5).picture(Translated(image, 0))
        assert cv2.countNonZero(cv2.inRange(picture, (5, 5, 5), (5, 5, 5))) >= 10 * (20 - 6)


def test_views_follow_each_other_in_a_circle():
    view = View()
    seen = []
    for _ in VIEWS:
        seen.append(view.view)
        view.to_next()
    assert tuple(seen) == VIEWS
    assert view.view == VIEWS[0]


def test_an_unknown_view_is_refused():
    with pytest.raises(ValueError, match="split"):
        View("upside-down")
