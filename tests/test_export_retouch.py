"""A retouching generator looks at a small copy, and what it changes is the frame itself."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from made_runs import lively_generator, write_run
from pairs import picture
from test_export_onnx import meta
from torch.nn import functional

from export.checkpoints import open_checkpoint
from export.resampling import Resampling
from export.settings import ExportSettings
from export.subjects import subject_of_checkpoint, torch_draws
from export.to_onnx import frame_in_frame_out, onnx_from_generator
from export.to_tensorrt import engine_from_onnx
from runtime import Translator
from trainer.config import GeneratorConfig
from trainer.generators.retouch import Layer, Retouch, RetouchingGenerator

pytestmark = pytest.mark.usefixtures("one_thread")
NETWORK_PX, FRAME_PX = (64, 96), (180, 320)
RELIGHT = GeneratorConfig("relight_s", 8, input_norm=True, frame_norm=True)


def noise(height, width, channels=3):
    return np.random.default_rng(0).random((height, width, channels), dtype=np.float32)


def resample(image, to_px):
    colours = torch.eye(image.shape[2])
    return Resampling(image.shape[:2], to_px, colours)(torch.from_numpy(image[None]))[0].numpy()


@pytest.mark.parametrize("to_px", [(64, 96), (64, 48), (90, 192)])
def test_channels_are_mixed_on_the_way_whether_the_width_changes_or_not(to_px):
    image = noise(64, 96, 2)
    colours = torch.tensor([[0.5, 0.0], [1.0, -1.0], [0.0, 3.0]])
    mixed = Resampling((64, 96), to_px, colours)(torch.from_numpy(image[None]))[0].numpy()
    np.testing.assert_allclose(mixed, resample(image, to_px) @ colours.T.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("size_px", "to_px"), [((180, 320), (64, 96)), ((64, 64), (32, 64)), ((45, 60), (15, 20))]
)
def test_a_smaller_picture_has_the_averages_of_what_it_covers(size_px, to_px):
    image = noise(*size_px)
    expected = cv2.resize(image, to_px[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(resample(image, to_px), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size_px", "to_px"), [((64, 96), (180, 320)), ((64, 64), (64, 160)), ((16, 32), (480, 640))]
)
def test_a_larger_picture_is_interpolated_between_centres(size_px, to_px):
    image = noise(*size_px)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = functional.interpolate(planes, size=to_px, mode="bilinear")[0].permute(1, 2, 0)
    np.testing.assert_allclose(resample(image, to_px), expected.numpy(), atol=1e-5)


def test_one_axis_may_shrink_while_the_other_grows():
    rows, columns = np.meshgrid(np.arange(64.0), np.arange(32.0), indexing="ij")
    ramp = (rows + 100 * columns)[..., None].astype(np.float32)
    made = resample(ramp, (32, 64))[..., 0]
    assert made.shape == (32, 64)
    np.testing.assert_allclose(np.diff(made, axis=0), 2, atol=1e-3)
    np.testing.assert_allclose(np.diff(made[:, 1:-1], axis=1), 50, atol=1e-3)


@pytest.mark.parametrize("size_px", [(607, 1077), (1079, 1366)])
def test_sizes_without_a_short_period_stay_within_a_pixel_of_the_small_picture(size_px):
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in size_px), indexing="ij")
    ramp = np.stack([rows, columns], axis=2).astype(np.float32)
    small = resample(ramp, (64, 96))
    expected = cv2.resize(ramp, (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small - expected).max() < 1 / 64
    back = resample(small, size_px)
    assert back.shape == ramp.shape
    assert np.abs(back - ramp).max() < 1.5 / 64
    assert resample(np.ones((*size_px, 1), np.float32), (64, 96)) == pytest.approx(1, abs=1e-5)


class Fixed(RetouchingGenerator):
    """Gives one gain for all colours and the same offset everywhere, and keeps what it saw."""

    def __init__(self, gain, offset):
        super().__init__()
        self.gain, self.offset, self.seen = gain, offset, None

    def retouch(self, x):
        self.seen = x
        one = torch.ones_like(x[:, :1])
        colours = torch.tensor(self.offset, dtype=torch.float32)[:, None]
        return Retouch(
            Layer(self.gain * one[..., :16, :16], torch.ones(3, 1)),
            (Layer(torch.zeros_like(x)), Layer(0.5 * one, 2 * colours)),
        )


def drawn(generator, frame, network_px=NETWORK_PX):
    wrapped = frame_in_frame_out(generator, frame.shape[:2], network_px)
    with torch.no_grad():
        return wrapped(torch.from_numpy(frame[None]))[0].numpy()


def test_the_frame_keeps_detail_that_the_small_copy_cannot_show():
    frame = np.random.default_rng(1).integers(0, 256, (*FRAME_PX, 3), np.uint8)
    np.testing.assert_array_equal(drawn(Fixed(1.0, (0, 0, 0)), frame), frame)
    negative = drawn(Fixed(-1.0, (0, 0, 0)), frame)
    np.testing.assert_array_equal(negative, 255 - frame)


def test_gain_and_offset_are_of_rgb_and_what_leaves_the_range_is_cut():
    frame = np.full((*FRAME_PX, 3), 100, np.uint8)
    made = drawn(Fixed(0.5, (1.0, 0.0, -1.0)), frame)  # red up, blue down
    assert made[0, 0].tolist() == [0, 114, 241]
    assert drawn(Fixed(9.0, (0.5, 8.0, -9.0)), frame)[5, 7].tolist() == [0, 255, 0]


def test_the_generator_sees_averages_in_rgb():
    generator = Fixed(1.0, (0, 0, 0))
    frame = np.indices(FRAME_PX).sum(axis=0) % 2 * np.uint8(255)  # grey from afar
    drawn(generator, np.stack([frame, frame * 0, frame * 0 + 255], axis=2).astype(np.uint8))
    assert generator.seen.shape == (1, 3, *NETWORK_PX)
    red, green, blue = generator.seen[0]
    assert float((red - 1).abs().max()) < 1e-5
    assert float((green + 1).abs().max()) < 1e-5
    assert float(blue.abs().max()) < 0.15, "the pattern must not come back as stripes"


@pytest.fixture(scope="module")
def generator():
    return lively_generator(RELIGHT)


@pytest.fixture(scope="module")
def exported(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("retouch") / "model.onnx"
    contract = replace(meta(size_px=FRAME_PX), network_size_px=NETWORK_PX, batch=2)
    onnx_from_generator(generator, path, contract)
    return path


def as_the_definition_says(generator, frame, copy_px=NETWORK_PX):
    """gain * frame + offset, with the steps around done by OpenCV and torch."""
    height, width = frame.shape[:2]
    small = cv2.resize(frame.astype(np.float32), copy_px[::-1], interpolation=cv2.INTER_AREA)
    planes = torch.from_numpy(small[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    x = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        retouch = generator.retouch(planes)
        gain, *offsets = (
            in_full(layer, (height, width)) for layer in (retouch.gain, *retouch.offsets)
        )
        levels = ((gain * x + sum(offsets)) * 127.5 + 127.5).clamp(0, 255)
    return levels[0].flip(0).permute(1, 2, 0).numpy()


def in_full(layer, size_px):
    large = functional.interpolate(layer.values, size=size_px, mode="bilinear")
    return large if layer.colours is None else torch.einsum("nkhw,ck->nchw", large, layer.colours)


def test_the_exported_file_draws_what_the_definition_says_at_the_frames_size(exported, generator):
    frames = [picture(seed, *FRAME_PX) for seed in range(2)]
    expected = [as_the_definition_says(generator, frame) for frame in frames]
    assert min(e.std() for e in expected) > 10
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"frames": np.stack(frames)})
    assert np.abs(made - np.stack(expected)).max() <= 1


@pytest.mark.parametrize("frame_px", [(64, 128), (180, 320)])
@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig("relight_s", 8, reduction=2),
        GeneratorConfig("pyramid", 8, reduction=2),
        GeneratorConfig("relight_s", 8, reduction=2, input_norm=True, frame_norm=True),
        GeneratorConfig("edge_unet_s", 8, reduction=2, input_norm=True, frame_norm=True),
    ],
    ids=lambda config: f"{config.name}{'-frame-norm' * config.frame_norm}",
)
def test_one_with_a_reduction_looks_at_as_small_a_copy_as_in_training(config, frame_px, tmp_path):
    generator = lively_generator(config)
    path = tmp_path / "model.onnx"
    contract = replace(meta(size_px=frame_px), network_size_px=(64, 128))
    onnx_from_generator(generator, path, contract)
    frame = picture(3, *frame_px)
    expected = as_the_definition_says(generator, frame, (32, 64))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"frames": frame[None]})
    assert expected.std() > 10
    assert np.abs(made[0] - expected).max() <= 1
    if frame_px == (64, 128):
        planes = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            drawn = generator(planes)[0].numpy()[::-1].transpose(1, 2, 0) * 127.5 + 127.5
        assert np.abs(made[0] - np.clip(drawn, 0, 255)).max() <= 1, "as it draws in training"


def test_tensorrt_builds_an_engine_of_it(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    built = engine_from_onnx(exported, tmp_path / "model.engine")
    assert built.size_bytes > 0


def subject(folder, **settings):
    checkpoint = open_checkpoint(folder)
    asked = ExportSettings(verify=False, **settings)
    return checkpoint, subject_of_checkpoint(checkpoint, asked, lambda _line: None)


@pytest.mark.parametrize(
    ("frame_px", "network_px"),
    [
        ((180, 320), (64, 128)),
        ((320, 180), (128, 64)),
        ((128, 128), (64, 64)),
        ((240, 320), (64, 96)),
        ((70, 500), (64, 448)),
    ],
)
def test_the_size_of_the_frames_alone_picks_a_network_of_their_aspect(
    tmp_path, frame_px, network_px
):
    write_run(tmp_path, RELIGHT)  # trained at 64
    _, found = subject(tmp_path, frame_size_px=frame_px)
    assert (found.meta.frame_size_px, found.meta.network_size_px) == (frame_px, network_px)


def test_other_generators_work_at_the_size_that_they_were_trained_at(tmp_path):
    write_run(tmp_path, GeneratorConfig("unet_128", 2))
    _, found = subject(tmp_path, frame_size_px=(180, 320))
    assert found.meta.network_size_px == (128, 128)


def test_the_reference_of_the_gate_and_the_runtime_draw_the_same_without_a_resize(tmp_path):
    write_run(tmp_path, RELIGHT)
    checkpoint, found = subject(tmp_path, frame_size_px=FRAME_PX)
    found.write(tmp_path / "model.onnx")
    frame = picture(3, *FRAME_PX)
    with Translator.load(tmp_path / "model.onnx") as translator:
        assert translator.prepare(frame)[0].shape == frame.shape
        assert np.shares_memory(translator.prepare(frame), frame), "the camera's own frame"
        made = translator(frame).astype(int)
    assert np.abs(made - found.reference(frame)).max() <= 1
    at_own_size = torch_draws(checkpoint, checkpoint.generator)
    assert at_own_size(picture(1, 64, 64)).shape == (64, 64, 3)
