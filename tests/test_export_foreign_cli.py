"""Checkpoints of other projects through the whole command, against their own modules' pictures."""

from __future__ import annotations

import re
import shutil

import cv2
import numpy as np
import onnx
import pytest
import reference_generators as reference
import torch
from commands import done, refused
from made_runs import pictures
from pairs import picture, write_side_by_side
from torch import nn

from export.cli import export
from export.eval_cli import evaluate
from runtime import Translator
from runtime.artifact import meta_of_onnx

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Pictures that are no pairs."""
    folder = tmp_path_factory.mktemp("data") / "few"
    folder.mkdir()
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(seed))
    return folder


def saved(network, path, side_px=128, channels=3, prefix=""):
    """The state dict of a network that draws something, as its project writes it."""
    reference.lively(network, pictures(1, side_px, channels))
    weights = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path)
    return path


def in_training_mode(network):
    """As test.py of pytorch-CycleGAN-and-pix2pix draws without --eval; without its dropout."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # drawing leaves the running statistics as they are
    return network


def theirs(network, frame, grey_in=False, grey_out=False):
    """What a network of theirs makes of a frame, as their own code scales it: uint8 BGR."""
    if grey_in:
        weights = np.array([0.114, 0.587, 0.299], np.float32)
        seen = np.rint((frame.astype(np.float32) * weights).sum(axis=2))[None]
    else:
        seen = frame[..., ::-1].transpose(2, 0, 1)
    x = torch.from_numpy(np.ascontiguousarray(seen, np.float32))[None]
    with torch.no_grad():
        drawn = network((x / 255 - 0.5) / 0.5)[0].numpy()
    levels = np.rint((drawn + 1) / 2 * 255)
    if grey_out:
        levels = np.repeat(levels, 3, axis=0)
    return levels[::-1].transpose(1, 2, 0)


def assert_one_grey_level(path, network, **grey):
    height, width = meta_of_onnx(path).frame_size_px
    with Translator.load(path) as translator:
        for seed in range(3):
            frame = picture(50 + seed, height, width)
            expected = theirs(network, frame, **grey)
            assert expected.std() > 20, "a plain picture would prove nothing"
            assert np.abs(translator(frame) - expected).max() <= 1


def kinds_in(path):
    return {node.op_type for node in onnx.load(str(path)).graph.node}


@pytest.fixture(scope="module")
def unet():
    return reference.unet(7, 2, "batch", dropout=True)


@pytest.fixture(scope="module")
def unet_file(unet, tmp_path_factory):
    return saved(unet, tmp_path_factory.mktemp("checkpoints") / "maps" / "latest_net_G.pth")


EXPORT = ("--no-engine", "--imgsz", "128")


def test_without_pairs_it_draws_as_its_own_test_script_draws(unet, unet_file, few, tmp_path):
    said = done(export, unet_file, "--images", few, *EXPORT, "--out", tmp_path)
    assert re.search(r"U-Net of pytorch-CycleGAN-and-pix2pix: ngf 2, batch norm", said)
    assert "as its own test.py draws without --eval" in said
    path = tmp_path / "model.onnx"
    assert meta_of_onnx(path).norm_stats == "batch"
    assert "InstanceNormalization" in kinds_in(path)
    assert_one_grey_level(path, in_training_mode(unet))


@pytest.mark.parametrize("asked", ["running", "batch"])
def test_statistics_that_are_asked_for(unet, unet_file, few, tmp_path, asked):
    said = done(
        export, unet_file, "--norm-stats", asked, "--images", few, *EXPORT, "--out", tmp_path
    )
    assert "as asked with --norm-stats" in said
    path = tmp_path / "model.onnx"
    assert meta_of_onnx(path).norm_stats == asked
    assert ("InstanceNormalization" in kinds_in(path)) is (asked == "batch")
    assert "BatchNormalization" not in kinds_in(path)
    assert_one_grey_level(path, unet.eval() if asked == "running" else in_training_mode(unet))


@pytest.mark.parametrize("best", ["running", "batch"])
def test_pairs_decide_and_both_errors_are_told(unet, unet_file, tmp_path, best):
    network = unet.eval() if best == "running" else in_training_mode(unet)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for seed in range(3):
        frame = picture(seed, 128, 128)
        target = theirs(network, frame).astype(np.uint8)
        cv2.imwrite(str(pairs / f"{seed}.png"), np.hstack([frame, target]))
    said = done(export, unet_file, "--images", pairs, *EXPORT, "--out", tmp_path / "out")
    other = "batch" if best == "running" else "running"
    found = re.search(
        rf"L1 (\S+) grey levels against (\S+) with {other} statistics, on 3 pairs", said
    )
    assert float(found[1]) < 0.5 < 2 < float(found[2])
    path = tmp_path / "out" / "model.onnx"
    assert meta_of_onnx(path).norm_stats == best
    assert_one_grey_level(path, network)


def test_a_folder_of_their_checkpoints_stands_for_its_newest_generator(unet_file, few, tmp_path):
    folder = tmp_path / "checkpoints" / "maps"
    folder.mkdir(parents=True)
    shutil.copy(unet_file, folder)
    (folder / "latest_net_D.pth").write_bytes(b"not looked at")
    said = done(export, folder, "--images", few, *EXPORT)
    assert f"{folder / 'latest_net_G.pth'}: U-Net" in said
    assert meta_of_onnx(folder / "model.onnx").source == "latest_net_G.pth"


CASES = {
    "parallel": (
        lambda: reference.resnet(6, 2, "batch", dropout=True),
        "ResNet of .*6 blocks: ngf 2, batch norm, trained with dropout",
        {"prefix": "module."},
        {},
    ),
    "nine blocks": (
        lambda: reference.resnet(9, 2, "instance"),
        "ResNet of .*9 blocks: ngf 2, instance norm",
        {},
        {},
    ),
    "grey": (
        lambda: reference.resnet(6, 2, "instance", inputs=1, outputs=1),
        "grey to grey",
        {"channels": 1},
        {"grey_in": True, "grey_out": True},
    ),
    "grey to colour": (
        lambda: reference.resnet(6, 2, "instance", inputs=1),
        "grey to RGB",
        {"channels": 1},
        {"grey_in": True},
    ),
    "pix2pixHD global": (
        lambda: reference.hd_global(2, 3, 2, "instance"),
        "global generator of pix2pixHD, 2 blocks, 3 halvings",
        {},
        {},
    ),
    "pix2pixHD local": (
        lambda: reference.HdLocal(1, 1, 2, 2, 2, "instance"),
        "local enhancer of pix2pixHD",
        {},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_draws_what_its_own_module_draws(case, few, tmp_path):
    build, told, how, grey = CASES[case]
    network = build()
    path = saved(network, tmp_path / "latest_net_G.pth", 64, **how)
    options = ("--images", few, "--no-engine", "--imgsz", "64x96", "--norm-stats", "running")
    assert re.search(told, done(export, path, *options, "--out", tmp_path / "out"))
    assert_one_grey_level(tmp_path / "out" / "model.onnx", network.eval(), **grey)


def test_fp16_and_int8_of_a_grey_generator_pass_the_gate(few, tmp_path):
    network = reference.unet(7, 2, "batch", 1, 1)
    path = saved(network, tmp_path / "latest_net_G.pth", 128, 1)
    lower = ("--calibration-method", "minmax", "--calibration", few)
    said = done(
        export,
        path,
        "--fp16",
        "--int8",
        *lower,
        "--images",
        few,
        *EXPORT,
        "--out",
        tmp_path / "out",
    )
    assert said.count(": draws the same picture") == 4
    with Translator.load(tmp_path / "out" / "model.int8.cpu.onnx") as translator:
        drawn = translator(picture(1, 128, 128))
    assert (drawn == drawn[..., :1]).all(), "grey stays grey"


def test_the_side_it_was_trained_at_is_taken_where_none_is_asked_for(few, tmp_path):
    path = saved(reference.resnet(6, 2, "none"), tmp_path / "latest_net_G.pth", 64)
    done(export, path, "--images", few, "--no-engine", "--no-verify", "--out", tmp_path)
    assert meta_of_onnx(tmp_path / "model.onnx").frame_size_px == (256, 256)


def test_eval_measures_a_foreign_checkpoint(tmp_path):
    path = saved(reference.resnet(6, 2, "instance"), tmp_path / "latest_net_G.pth", 64)
    data = write_side_by_side(tmp_path / "pairs", 2)
    assert "mean target" in done(evaluate, path, data)


# -------------------------------------------------------------------------- what is no generator


def discriminator():
    chain = [nn.Conv2d(6, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 1, 1)]
    return reference.Named(nn.Sequential(*chain)).state_dict()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (discriminator, "is a discriminator.*name the .*_net_G.pth"),
        (lambda: nn.Conv2d(3, 3, 3), "pickled objects or code"),
        (
            lambda: torch.optim.Adam(nn.Conv2d(3, 3, 3).parameters()).state_dict(),
            "is the state of an optimizer",
        ),
        (lambda: {"features.0.weight": torch.ones(8, 3, 3, 3)}, "features.0.weight 8x3x3x3"),
        (
            lambda: reference.resnet(6, 2, "batch", inputs=4).state_dict(),
            "takes 4 channels",
        ),
    ],
    ids=["discriminator", "pickled object", "optimizer", "another network", "four channels"],
)
def test_what_is_no_generator_is_named_and_nothing_is_written(tmp_path, make, told):
    path = tmp_path / "latest_net_X.pth"
    torch.save(make(), path)
    assert re.search(told, refused(export, path))
    assert re.search(told, refused(evaluate, path, tmp_path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_truncated_and_an_empty_file(unet_file, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(unet_file.read_bytes()[:-1000])
    assert "latest_net_G.pth is damaged or cut off" in refused(export, path)
    path.write_bytes(b"")
    assert "latest_net_G.pth is empty" in refused(export, path)
    assert "no such" in refused(export, tmp_path / "other_net_G.pth")


def test_a_size_that_it_cannot_take_names_the_multiple(unet_file, tmp_path):
    line = refused(export, unet_file, "--imgsz", "100", "--out", tmp_path)
    assert "--imgsz 100x100 for unet_128; expected height and width in multiples of 128" in line
    assert "use --imgsz 128x128, and --frame-size 100x100 for the frames" in line
