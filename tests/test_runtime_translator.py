"""Models: what is loaded, what is refused, and what a frame becomes."""

import dataclasses
import re

import cv2
import numpy as np
import pytest
from onnx_models import write_cropping, write_float_image_model, write_negative

from runtime import Translator
from runtime.artifact import ArtifactMeta
from runtime.engines import open_engine
from runtime.errors import EngineError, FrameError, ModelError

META = ArtifactMeta(
    generator="unet_256",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="0" * 64,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def test_a_frame_of_the_models_size_is_translated_exactly(tmp_path, picture):
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96))) as translator:
        assert np.array_equal(translator(picture), 255 - picture)


@pytest.mark.parametrize("size_px", [(32, 48), (128, 192), (100, 33)])
def test_a_frame_of_another_size_comes_back_in_its_own_size(tmp_path, size_px):
    image = np.full((*size_px, 3), (10, 20, 30), np.uint8)
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96))) as translator:
        assert np.array_equal(translator(image), 255 - image)


def test_shrinking_averages_so_that_fine_stripes_become_grey_not_moire(tmp_path):
    stripes = np.zeros((128, 192, 3), np.uint8)
    stripes[:, ::2] = 200
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96))) as translator:
        assert np.all(translator.prepare(stripes) == 100)


def test_a_result_stays_as_it_is_when_the_next_frame_is_translated(tmp_path, picture):
    large = cv2.resize(picture, (200, 150))
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96))) as translator:
        for image in (picture, large):
            result = translator(image)
            before = result.copy()
            translator(255 - image)
            assert np.array_equal(result, before)


def test_a_view_into_a_larger_picture_is_translated(tmp_path, picture):
    wide = np.concatenate((picture, picture), axis=1)
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96))) as translator:
        assert np.array_equal(translator(wide[:, 50:146]), 255 - wide[:, 50:146])


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), "GRAY2BGR"),
        (np.zeros((8, 8, 4), np.uint8), "BGRA2BGR"),
        (np.zeros((0, 8, 3), np.uint8), "[0, 8, 3]"),
        ("photo.jpg", "str"),
    ],
)
def test_what_is_no_frame_is_refused_with_what_it_is(tmp_path, frame, told):
    translator = Translator.load(write_negative(tmp_path / "m.onnx"))
    with translator, pytest.raises(FrameError, match=re.escape(told)):
        translator(frame)


def test_our_own_model_tells_its_contract(tmp_path):
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96), META)) as translator:
        assert translator.meta == META


def test_a_strangers_model_is_accepted_when_it_takes_and_gives_frames(tmp_path):
    with Translator.load(write_negative(tmp_path / "m.onnx", (32, 48))) as translator:
        assert translator.meta.generator == "unknown"
        assert translator.meta.frame_size_px == (32, 48)


def test_the_engine_says_what_runs_where(tmp_path):
    with Translator.load(write_negative(tmp_path / "m.onnx"), threads=1) as translator:
        assert translator.description.startswith("ONNX Runtime ")
        assert "CPU, 1 thread" in translator.description or "CUDA" in translator.description


def test_a_float_model_is_refused_with_its_shapes_and_the_command_that_wraps_it(tmp_path):
    with pytest.raises(ModelError) as caught:
        open_engine(write_float_image_model(tmp_path / "m.onnx"))
    assert "frames: float [1, 3, 64, 96]" in str(caught.value)
    assert "p2p-export FILE.onnx" in str(caught.value)


def test_a_model_whose_output_has_another_size_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"8, 96, 3"):
        open_engine(write_cropping(tmp_path / "m.onnx"))


def test_metadata_that_does_not_fit_its_graph_is_refused(tmp_path):
    meta = dataclasses.replace(META, frame_size_px=(256, 256))
    with pytest.raises(ModelError, match=r"256.*64"):
        open_engine(write_negative(tmp_path / "m.onnx", (64, 96), meta))


@pytest.mark.parametrize("keep", [0, 20, 60, -1])
def test_a_cut_off_file_is_refused(tmp_path, keep):
    path = write_negative(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError):
        open_engine(path)


def test_a_text_file_a_folder_and_nothing_are_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("text.onnx", "folder.onnx", "nothing.onnx"):
        with pytest.raises(ModelError):
            open_engine(tmp_path / name)


def test_another_suffix_is_refused_with_the_accepted_ones(tmp_path):
    (tmp_path / "m.pth").touch()
    with pytest.raises(ModelError, match=r"\.onnx or \.engine"):
        open_engine(tmp_path / "m.pth")


def test_an_engine_that_does_not_fit_the_suffix_is_refused(tmp_path):
    with pytest.raises(EngineError, match="onnxruntime"):
        open_engine(write_negative(tmp_path / "m.onnx"), "tensorrt")
