"""The perceptual distance is that of VGG-19's layers, and a wrong file is named in one line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from vgg_weights import CONVOLUTIONS, random_vgg

from trainer.errors import CheckpointError, ConfigError
from trainer.perceptual import Perceptual

pytestmark = pytest.mark.usefixtures("one_thread")

POOL_AFTER = {"conv1_2", "conv2_2", "conv3_4", "conv4_4"}
WEIGHTS = {"conv1_1": 1 / 32, "conv2_1": 1 / 16, "conv3_1": 1 / 8, "conv4_1": 1 / 4, "conv5_1": 1}


@pytest.fixture(scope="module")
def vgg():
    return random_vgg()


@pytest.fixture(scope="module")
def file(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19-random.pth"
    torch.save(vgg, path)
    return path


@pytest.fixture(scope="module")
def perceptual(file, one_thread):
    return Perceptual(file)


def pictures(side_px: int = 32):
    random = torch.Generator().manual_seed(9)
    return [torch.rand(2, 3, side_px, side_px, generator=random) * 2 - 1 for _ in "ab"]


def distance_written_out(vgg, drawn, target):
    """The same formula, in float64, layer after layer from the weights."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x, y = (
        torch.from_numpy(
            (image.double().numpy() * 0.5 + 0.5 - mean[:, None, None]) / std[:, None, None]
        )
        for image in (drawn, target)
    )
    total = 0.0
    for position, name, _, _ in CONVOLUTIONS:
        kernels = vgg[f"features.{position}.weight"].double()
        bias = vgg[f"features.{position}.bias"].double()
        x, y = (functional.conv2d(z, kernels, bias, padding=1).clamp(min=0) for z in (x, y))
        total += WEIGHTS.get(name, 0) * np.abs(x.numpy() - y.numpy()).mean()
        if name in POOL_AFTER:
            x, y = (functional.max_pool2d(z, 2) for z in (x, y))
    return total


def test_distance_is_that_of_a_computation_written_out_layer_by_layer(vgg, perceptual):
    drawn, target = pictures()
    expected = distance_written_out(vgg, drawn, target)
    assert expected > 0.1
    assert perceptual(drawn, target).item() == pytest.approx(expected, rel=1e-4)


def test_a_picture_has_no_distance_to_itself(perceptual):
    drawn, _ = pictures()
    assert perceptual(drawn, drawn.clone()).item() == 0


def test_gradient_goes_to_the_drawn_picture_alone(perceptual):
    drawn, target = (picture.requires_grad_(True) for picture in pictures())
    perceptual(drawn, target).backward()
    assert drawn.grad.abs().sum() > 0
    assert target.grad is None
    assert all(p.grad is None and not p.requires_grad for p in perceptual.parameters())


def test_a_step_down_the_gradient_brings_the_pictures_closer(perceptual):
    drawn, target = pictures()
    drawn.requires_grad_(True)
    before = perceptual(drawn, target)
    before.backward()
    assert perceptual(drawn - 0.05 * drawn.grad.sign(), target) < before


def test_safetensors_are_read_as_well(vgg, perceptual, tmp_path):
    path = tmp_path / "vgg19.safetensors"
    save_file(vgg, path)
    drawn, target = pictures()
    assert torch.equal(Perceptual(path)(drawn, target), perceptual(drawn, target))


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.pth"
    with pytest.raises(CheckpointError, match=r"nowhere\.pth; expected .*vgg19-dcbb9e9d\.pth"):
        Perceptual(path)


@pytest.mark.parametrize("missing", ["features.16.weight", "features.28.bias"])
def test_file_of_another_network_names_the_missing_layer(vgg, tmp_path, missing):
    path = tmp_path / "other.pth"
    torch.save({name: value for name, value in vgg.items() if name != missing}, path)
    with pytest.raises(CheckpointError, match=f"no layer {missing}; expected .*vgg19-dcbb9e9d"):
        Perceptual(path)


def test_layer_of_another_shape_is_named(vgg, tmp_path):
    path = tmp_path / "narrow.pth"
    torch.save({**vgg, "features.5.weight": torch.zeros(64, 64, 3, 3)}, path)
    message = r"features\.5\.weight .* has the shape \(64, 64, 3, 3\), not \(128, 64, 3, 3\)"
    with pytest.raises(CheckpointError, match=message):
        Perceptual(path)


class Touches:
    """A pickled object whose loading makes a file, as an attacker's would run a program."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["text", "empty", "cut off", "list"])
def test_a_file_that_holds_no_weights_ends_in_one_line(file, tmp_path, suffix, kind):
    path = tmp_path / f"wrong{suffix}"
    if kind == "list":
        torch.save([1, 2], path)
    else:
        content = {"text": b"<html>404</html>", "empty": b"", "cut off": b""}[kind]
        path.write_bytes(file.read_bytes()[:100_000] if kind == "cut off" else content)
    with pytest.raises(CheckpointError, match=r"wrong.*vgg19-dcbb9e9d") as error:
        Perceptual(path)
    assert "\n" not in str(error.value)


def test_a_pickled_object_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    with path.open("wb") as file:
        pickle.dump(Touches(trace), file, protocol=2)  # what torch.save writes
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        Perceptual(path)
    assert not trace.exists()


@pytest.mark.parametrize(("channels", "side_px"), [(1, 32), (3, 15)])
def test_pictures_that_vgg_cannot_judge_are_refused(perceptual, channels, side_px):
    picture = torch.zeros(1, channels, side_px, side_px)
    with pytest.raises(ConfigError, match="expected RGB of at least 16x16 pixels"):
        perceptual(picture, picture)


def test_sixteen_pixels_are_enough(perceptual):
    drawn, target = pictures(16)
    assert perceptual(drawn, target) > 0
