"""The benchmark of smoothing: a real model, a real clip, figures that can be checked by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from commands import done
from onnx_models import write_negative
from pairs import picture

from benchmarks.smooth import MOVING_LEVELS, judged, main, moving_pixels, smooth

STILL = picture(1, 64, 96) // 2 + 40


@pytest.fixture
def noisy_clip(tmp_path):
    """A folder of 14 pictures of a still scene with the noise of a camera."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(14):
        noise = np.random.default_rng(number).normal(0, 3, STILL.shape)
        image = np.clip(np.rint(STILL + noise), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


def test_it_tells_flicker_ghost_and_cost_of_a_real_model_on_a_real_clip(tmp_path, noisy_clip):
    model = write_negative(tmp_path / "m.onnx", (64, 96))
    told = tmp_path / "smooth.json"
    sheet = tmp_path / "sheet.png"
    output = done(
        smooth, model, "--source", noisy_clip, "--json", told, "--picture", sheet, "--threads", 1
    )
    assert "flicker" in output
    result = json.loads(told.read_text())
    assert (result["model"], result["source"], result["frames"]) == ("m.onnx", "clip", 14)
    # The negative flickers as its input does: noise of sigma 3 differs by 2 * 3 / sqrt(pi).
    assert result["flicker_before"]["flicker"] == pytest.approx(3.4, rel=0.1)
    assert result["factor"] > 3
    assert result["moving_share"] == 0
    assert 0 < result["smooth_ms"]["p50"] <= result["smooth_ms"]["p99"]
    assert str(tmp_path) not in told.read_text()
    assert cv2.imread(str(sheet)).shape == (128, 288, 3)


def test_without_smoothing_nothing_is_gained_and_nothing_is_a_ghost(tmp_path, noisy_clip):
    model = write_negative(tmp_path / "m.onnx", (64, 96))
    told = tmp_path / "smooth.json"
    done(smooth, model, "--source", noisy_clip, "--json", told, "--strength", 0)
    result = json.loads(told.read_text())
    assert (result["factor"], result["ghost_levels"]) == (1, 0)


def test_a_ghost_is_the_difference_where_the_input_surely_moves():
    moved = STILL.copy()
    moved[10:30, 20:50] += 60
    originals = [STILL] * 9 + [moved]
    translations = [255 - image for image in originals]
    haunted = [image.copy() for image in translations]
    haunted[-1][10:30, 20:50] += 7
    found = judged(originals, translations, haunted)
    moving = moving_pixels(STILL, moved)
    assert found.moving_share == moving.mean()
    assert found.ghost_levels == pytest.approx(7 * moving[10:30, 20:50].sum() / moving.sum())
    assert 5 < found.ghost_levels < 7


def test_a_change_below_what_compression_does_is_no_motion():
    assert not moving_pixels(STILL, STILL + np.uint8(MOVING_LEVELS)).any()
    assert moving_pixels(STILL, STILL + np.uint8(MOVING_LEVELS + 1)).all()


def test_a_clip_that_is_too_short_a_missing_folder_and_no_model_are_one_line(
    tmp_path, noisy_clip, capsys
):
    model = write_negative(tmp_path / "m.onnx", (64, 96))
    for file in sorted(noisy_clip.iterdir())[5:]:
        file.unlink()

    def told(model, *options):
        assert main([str(a) for a in (model, "--source", noisy_clip, *options)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert told(model).startswith("error: 5 frames came from the source; expected 10 or more")
    assert "no folder" in told(model, "--json", tmp_path / "nowhere" / "a.json")
    assert "no such model" in told(tmp_path / "n.onnx")
