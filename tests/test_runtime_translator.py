"""Models: what is loaded, what is refused, and what a frame becomes."""

import dataclasses
import re
import time

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import (
    write_adding_rows,
    write_cropping,
    write_float_image_model,
    write_negative,
)
from scripted_engines import FunctionEngine

from runtime import Translator, stream
from runtime.artifact import ArtifactMeta
from runtime.cli import live
from runtime.engines import open_engine
from runtime.errors import EngineError, FrameError, ModelError, UserError
from runtime.frame import resized

META = ArtifactMeta(
    generator="unet_256",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="0" * 64,
)
BATCH = dataclasses.replace(META, batch=3)
DYNAMIC = dataclasses.replace(META, batch=4, dynamic=True, size_multiple=8)
ANY_SIZE = ("h", "w")


@pytest.fixture
def picture():
    return noise((64, 96))


@pytest.fixture(scope="module")
def of_three(tmp_path_factory):
    """A translator whose model takes three frames of 64x96."""
    path = tmp_path_factory.mktemp("batch") / "m.onnx"
    with Translator.load(write_negative(path, (64, 96), BATCH, batch=3), threads=1) as translator:
        yield translator


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """A translator whose model takes one to four frames with sides that are multiples of 8."""
    path = tmp_path_factory.mktemp("dynamic") / "m.onnx"
    write_negative(path, ANY_SIZE, DYNAMIC, batch="n")
    with Translator.load(path, threads=1) as translator:
        yield translator


def noise(size_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_px, 3), np.uint8)


def refusal(kind, call, *args):
    """The one line that `call` is refused with."""
    with pytest.raises(kind) as caught:
        call(*args)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert "frames: float32 [1, 3, 64, 96]" in str(caught.value)
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


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_any_number_of_pictures_goes_through_a_model_of_batch_three(of_three, count):
    images = [noise((64, 96), seed) for seed in range(count)]
    negatives = of_three.batch(images)
    assert len(negatives) == count
    for image, negative in zip(images, negatives, strict=True):
        assert np.array_equal(negative, 255 - image)


def test_a_batch_of_pictures_of_other_sizes_comes_back_in_their_own_sizes(of_three):
    images = [np.full((*size, 3), size[0], np.uint8) for size in ((32, 48), (100, 33), (64, 96))]
    for image, negative in zip(images, of_three.batch(images), strict=True):
        assert np.array_equal(negative, 255 - image)


def test_three_pictures_cost_one_inference(of_three, monkeypatch, picture):
    seen = []
    infer = of_three.infer
    monkeypatch.setattr(
        of_three, "infer", lambda frames: seen.append(len(frames)) or infer(frames)
    )
    of_three.batch([picture] * 3)
    assert seen == [3]


def test_a_model_of_batch_three_takes_no_single_picture(of_three, picture):
    for call in (of_three, of_three.prepare):
        told = refusal(ModelError, call, picture)
        assert told.startswith("m.onnx takes batches of 3; expected batch 1 for one camera")
        assert "without --batch" in told


def test_a_single_frame_model_takes_pictures_one_after_another(tmp_path, picture):
    images = [picture, noise((40, 40)), picture[::2, ::2]]
    with Translator.load(write_negative(tmp_path / "m.onnx", (64, 96), META)) as translator:
        alone = [translator(image) for image in images]
        together = translator.batch(images)
    assert all(map(np.array_equal, together, alone))


def test_results_of_a_batch_stay_as_they_are_when_the_next_is_translated(of_three, dynamic):
    images = [noise((64, 96), seed) for seed in range(3)]
    for translator in (of_three, dynamic):
        results = translator.batch(images)
        translator.batch([255 - image for image in images])
        assert all(
            np.array_equal(r, 255 - image) for r, image in zip(results, images, strict=True)
        )


def test_what_is_no_picture_in_a_batch_is_refused(of_three, dynamic, picture):
    for translator in (of_three, dynamic):
        refusal(FrameError, translator.batch, [picture, picture[..., 0]])


@settings(max_examples=60, deadline=None)
@given(size_px=st.tuples(st.integers(1, 120), st.integers(1, 120)))
def test_a_dynamic_model_works_at_the_nearest_size_and_gives_back_the_pictures_own(
    dynamic, size_px
):
    image = noise(size_px)
    frames = dynamic.prepare(image)
    for worked, asked in zip(frames.shape[1:3], size_px, strict=True):
        assert worked % 8 == 0
        assert abs(worked - asked) <= 4 or (asked < 8 and worked == 8)
    shrunk_or_grown = resized(image, frames.shape[1:3])
    assert np.array_equal(frames[0], shrunk_or_grown)
    expected = resized(255 - shrunk_or_grown, size_px)
    assert np.array_equal(dynamic(image), expected)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=7))
def test_a_batch_through_a_dynamic_model_is_the_same_as_one_by_one(dynamic, sizes):
    images = [noise(size_px, seed) for seed, size_px in enumerate(sizes)]
    alone = [dynamic(image) for image in images]
    assert all(map(np.array_equal, dynamic.batch(images), alone))


def test_a_dynamic_model_gets_exactly_as_many_frames_as_there_are(dynamic, monkeypatch, picture):
    seen = []
    infer = dynamic.infer
    monkeypatch.setattr(
        dynamic, "infer", lambda frames: seen.append(frames.shape) or infer(frames)
    )
    dynamic.batch([picture] * 6 + [noise((31, 33))])
    assert seen == [(4, 64, 96, 3), (2, 64, 96, 3), (1, 32, 32, 3)]


def test_a_picture_whose_sides_fit_goes_into_a_dynamic_model_as_it_is(dynamic):
    image = noise((24, 200))
    assert np.shares_memory(dynamic.prepare(image), image)


def test_a_prepared_frame_is_written_over_only_when_nobody_holds_it(dynamic):
    first = dynamic.prepare(noise((50, 70), 1))
    before = first.copy()
    address = first.ctypes.data
    second = dynamic.prepare(noise((50, 70), 2))
    assert not np.shares_memory(first, second)
    assert np.array_equal(first, before)
    del first
    assert dynamic.prepare(noise((50, 70), 3)).ctypes.data == address


def test_a_translation_tells_what_was_translated_and_what_each_step_cost(of_three, picture):
    images = [picture, noise((100, 33)), picture]
    done = of_three.translate(images)
    assert all(map(np.array_equal, done.images, of_three.batch(images)))
    assert all(original is image for original, image in zip(done.originals, images, strict=True))
    assert min(done.in_ms, done.infer_ms, done.out_ms) > 0


def test_no_pictures_are_no_inference(dynamic):
    done = dynamic.translate([])
    assert (done.images, done.originals, done.infer_ms) == ([], [], 0)


def test_a_translator_that_cannot_be_made_gives_its_engine_back(tmp_path, monkeypatch):
    engine = FunctionEngine(lambda frames: frames, (64, 96), dynamic=True)
    monkeypatch.setattr("runtime.translator.open_engine", lambda *_, **__: engine)
    refusal(ModelError, lambda: Translator.load("m.onnx", fit="tile"))
    assert engine.closed


def test_an_engine_is_asked_for_the_streams_that_the_caller_wants(monkeypatch):
    asked = []

    def opened(*args, **options):
        asked.append((args, options))
        return FunctionEngine(lambda frames: frames, (64, 96))

    monkeypatch.setattr("runtime.translator.open_engine", opened)
    with Translator.load("m.onnx", threads=2, streams=3) as translator:
        assert translator.streams == FunctionEngine.streams
    assert asked == [(("m.onnx", "auto", 2), {"streams": 3})]


def test_around_the_engine_a_stretched_frame_costs_next_to_nothing_but_its_two_resizes():
    """640x480 through 256x256; the best of many, so that a busy machine does not count."""
    drawn = np.zeros((1, 256, 256, 3), np.uint8)
    translator = Translator(FunctionEngine(lambda frames: drawn, (256, 256)))
    image = noise((480, 640))
    small, large = np.empty_like(drawn[0]), np.empty_like(image)
    whole_ms, resizes_ms = [], []
    for _ in range(60):
        started_ns = time.perf_counter_ns()
        translator.translate([image])
        done_ns = time.perf_counter_ns()
        resized(image, (256, 256), into=small)
        resized(drawn[0], (480, 640), into=large)
        resizes_ms.append((time.perf_counter_ns() - done_ns) / 1e6)
        whole_ms.append((done_ns - started_ns) / 1e6)
    assert min(whole_ms) - min(resizes_ms) < 1


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 64, 96, 3), np.uint8),
        np.zeros((4, 64, 96, 3), np.uint8),
        np.zeros((3, 96, 64, 3), np.uint8),
        np.zeros((3, 64, 96, 1), np.uint8),
        np.zeros((64, 96, 3), np.uint8),
        np.zeros((3, 64, 96, 3), np.float32),
        "frames",
    ],
)
def test_frames_that_a_batch_model_does_not_take_are_refused(of_three, frames):
    told = refusal(FrameError, of_three.infer, frames)
    assert "expected uint8 [3, 64, 96, 3]" in told
    assert str(list(getattr(frames, "shape", ()))) in told or "str" in told


@pytest.mark.parametrize(
    "shape",
    [(0, 64, 96, 3), (5, 64, 96, 3), (1, 64, 97, 3), (1, 0, 96, 3), (1, 64, 96, 4), (64, 96, 3)],
)
def test_frames_that_a_dynamic_model_does_not_take_are_refused(dynamic, shape):
    told = refusal(FrameError, dynamic.infer, np.zeros(shape, np.uint8))
    assert "expected uint8 [1 to 4, H, W, 3], H and W multiples of 8" in told
    assert str(list(shape)) in told


def test_a_view_of_frames_is_taken_by_an_engine(dynamic):
    frames = np.stack([noise((64, 96), seed) for seed in range(4)])
    assert np.array_equal(dynamic.infer(frames[::2, :32]), 255 - frames[::2, :32])


@pytest.mark.parametrize(
    ("meta", "size_px", "batch"),
    [
        (META, (64, 96), 3),
        (BATCH, (64, 96), 1),
        (BATCH, (64, 64), 3),
        (META, ANY_SIZE, 1),
        (META, (64, "w"), 1),
        (DYNAMIC, (64, 96), 4),
        (DYNAMIC, (64, 96), "n"),
        (DYNAMIC, ("h", 96), "n"),
        (DYNAMIC, ANY_SIZE, 4),
        (dataclasses.replace(DYNAMIC, frame_size_px=(60, 96)), ANY_SIZE, "n"),
        (dataclasses.replace(DYNAMIC, size_multiple=0), ANY_SIZE, "n"),
        (dataclasses.replace(META, batch=0), (64, 96), "n"),
    ],
)
def test_a_contract_that_its_graph_does_not_keep_is_refused(tmp_path, meta, size_px, batch):
    path = write_negative(tmp_path / "m.onnx", size_px, meta, batch)
    told = refusal(ModelError, open_engine, path)
    assert told.startswith("m.onnx says that it takes uint8 [")
    assert "its graph takes [" in told


def test_a_graph_that_leaves_only_its_number_of_frames_open_keeps_a_fixed_contract(tmp_path):
    path = write_negative(tmp_path / "m.onnx", (64, 96), BATCH, "n")
    with Translator.load(path) as translator:
        assert translator.batch([noise((64, 96))])[0].shape == (64, 96, 3)


def test_a_dynamic_contract_of_one_frame_fits_a_graph_of_one_frame(tmp_path, picture):
    meta = dataclasses.replace(DYNAMIC, batch=1)
    with Translator.load(write_negative(tmp_path / "m.onnx", ANY_SIZE, meta)) as translator:
        assert np.array_equal(translator(picture[:40]), 255 - picture[:40])


def test_a_strangers_model_of_batch_three_is_known_to_be_one(tmp_path, picture):
    with Translator.load(write_negative(tmp_path / "m.onnx", batch=3)) as translator:
        assert (translator.meta.batch, translator.meta.dynamic) == (3, False)
        assert np.array_equal(translator.batch([picture])[0], 255 - picture)


@pytest.mark.parametrize("size_px", [ANY_SIZE, (64, "w"), (0, 96)])
def test_a_strangers_model_of_open_or_no_size_is_refused(tmp_path, size_px):
    path = write_negative(tmp_path / "m.onnx", size_px)
    assert "H and W fixed" in refusal(ModelError, open_engine, path)


def test_a_size_that_breaks_inside_a_dynamic_graph_is_one_line(tmp_path, picture):
    meta = dataclasses.replace(DYNAMIC, batch=1)
    with Translator.load(write_adding_rows(tmp_path / "m.onnx", meta)) as translator:
        assert np.array_equal(translator(picture), picture)
        told = refusal(ModelError, translator, picture[:40])
    assert told.startswith("ONNX Runtime cannot run m.onnx: ")
    assert "uint8 [1, 40, 96, 3]" in told
    assert told.endswith("or give it frames nearer to 96x64")


def test_a_dynamic_graph_that_gives_another_size_is_refused_when_it_does(tmp_path, picture):
    meta = dataclasses.replace(DYNAMIC, batch=1)
    path = write_cropping(tmp_path / "m.onnx", 64, ANY_SIZE, meta)
    with Translator.load(path) as translator:
        translator(picture)
        told = refusal(ModelError, translator, noise((128, 96)))
    assert "[1, 128, 96, 3] into [1, 64, 96, 3]" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"precision": "int8", "target": "cpu"}, None),
        (
            {"precision": "int8", "target": "tensorrt"},
            "INT8 in TensorRT's form: model.int8.cpu.onnx is the fast one here",
        ),
        ({"verified": False}, "not verified (--no-verify)"),
    ],
)
def test_the_description_tells_what_is_slow_or_unchecked(tmp_path, changes, told):
    meta = dataclasses.replace(META, **changes)
    with Translator.load(write_negative(tmp_path / "model.int8.onnx", (64, 96), meta)) as model:
        if "CUDA" in model.description:
            pytest.skip("INT8 in TensorRT's form is not told to be slow on a GPU")
        notes = model.description.split("; ")[1:]
    assert notes == ([told] if told else [])


def test_p2p_live_refuses_a_model_of_batch_three_before_it_takes_a_frame(tmp_path):
    path = write_negative(tmp_path / "m.onnx", (64, 96), BATCH, batch=3)
    result = CliRunner().invoke(live, [str(path), "--source", "synthetic://", "--sink", "none"])
    assert result.exit_code == 2
    assert result.output.startswith("error: m.onnx takes batches of 3; expected batch 1")
    assert result.output.count("\n") == 1


def test_p2p_live_tells_that_a_model_takes_any_size(tmp_path):
    path = write_negative(tmp_path / "m.onnx", ANY_SIZE, DYNAMIC, "n")
    source = "synthetic://?size=100x60&frames=3"
    result = CliRunner().invoke(live, [str(path), "--source", source, "--sink", "none"])
    assert result.exit_code == 0, result.output
    assert "any size in steps of 8, tuned for 96x64" in result.output


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_stream_through_a_dynamic_model_keeps_its_size(dynamic, mode):
    frames = list(stream("synthetic://?size=104x64&frames=4", dynamic, mode=mode))
    assert len(frames) == 4
    for frame in frames:
        assert np.array_equal(frame.image, 255 - frame.original)
