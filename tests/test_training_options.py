"""Every choice of `p2p-train` trains, is told in the metrics, and a wrong one is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from commands import done, refused, typed
from pairs import picture, write_side_by_side
from torch import nn
from vgg_weights import random_vgg

from trainer.checkpoint import load_generator, load_training
from trainer.cli import train
from trainer.compiler import check_compiler
from trainer.config import (
    GENERATORS,
    DiscriminatorConfig,
    GeneratorConfig,
    ObjectiveConfig,
    TrainConfig,
)
from trainer.data import open_data
from trainer.errors import ConfigError
from trainer.loop import fit, other_statistics
from trainer.training import Training

TINY = (
    "--netG",
    "unet_128",
    "--ngf",
    "4",
    "--ndf",
    "4",
    "--crop-size",
    "128",
    "--batch-size",
    "2",
)

pytestmark = pytest.mark.usefixtures("one_thread")


def terms_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    return {name.removeprefix("loss/") for name in lines[-1] if name.startswith("loss/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "terms"),
    [
        (("--gan-mode", "lsgan", "--patch", "16", "--unconditional"), set()),
        (("--gan-mode", "hinge", "--spectral-norm", "--norm-d", "none", "--patch", "1"), set()),
        (("--gan-mode", "wgangp", "--beta1", "0", "--lambda-gp", "5"), set()),
        (("--gan-mode", "none", "--lambda-l1", "0", "--lambda-l2", "50"), {"g_l2"}),
        (("--lambda-l1", "0", "--lambda-feat", "10"), {"g_feat"}),
        (("--lambda-l1", "0", "--lambda-swd", "5"), {"g_swd"}),
        (("--precision", "bf16", "--upsample", "resize", "--channels-last"), set()),
        (("--precision", "fp16", "--upsample", "subpixel", "--norm", "instance"), set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_train_and_their_terms_are_told(training_pairs, tmp_path, options, terms):
    out = tmp_path / "run"
    done(train, training_pairs, *TINY, *options, "--steps", "2", "--out", out)
    assert terms_of(out) == {"g_gan", "g_l1", "d_loss"} | terms
    assert load_training(out).step == 2


@pytest.mark.slow
def test_the_perceptual_distance_is_a_term_when_its_weights_are_given(training_pairs, tmp_path):
    weights = tmp_path / "vgg19.pth"
    torch.save(random_vgg(), weights)
    out = tmp_path / "run"
    given = ("--lambda-vgg", "10", "--vgg-weights", weights)
    done(train, training_pairs, *TINY, *given, "--steps", "1", "--out", out)
    assert "g_vgg" in terms_of(out)
    line = refused(train, training_pairs, *TINY, "--lambda-vgg", "10", "--out", tmp_path / "other")
    assert "--vgg-weights" in line


@pytest.mark.slow
def test_compiled_networks_learn_what_plain_ones_learn(training_pairs, tmp_path):
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    settings = (*TINY, "--no-dropout", "--steps", "2", "--out")
    try:
        check_compiler()
    except ConfigError as error:
        pytest.skip(str(error))
    done(train, training_pairs, *settings, plain)
    done(train, training_pairs, "--compile", *settings, compiled)
    ours, theirs = (load_training(run).networks["generator"] for run in (plain, compiled))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-3, msg=name)


def test_without_a_compiler_the_option_that_needs_one_is_refused(
    training_pairs, tmp_path, monkeypatch
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused(train, training_pairs, *TINY, "--compile", "--out", tmp_path / "run")
    assert "--compile without a C++ compiler" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder_decoder", "dense_unet", "mobilenet_unet"])
def test_every_generator_trains(training_pairs, tmp_path, name):
    out = tmp_path / "run"
    size = "256" if name == "encoder_decoder" else "64"
    settings = ("--netG", name, "--ngf", "8", "--ndf", "4", "--batch-size", "2", "--steps", "1")
    done(train, training_pairs, *settings, "--crop-size", size, "--out", out)
    assert load_generator(out)[1].config.name == name


def training_in_double(dropout):
    config = TrainConfig(
        generator=GeneratorConfig("unet_128", ngf=2, norm="none", dropout=dropout),
        discriminator=DiscriminatorConfig(ndf=2, norm="none"),
        crop_size=128,
    )
    training = Training(config, 10, torch.device("cpu"))
    for network in (training.generator, training.average, training.discriminator):
        network.double()
    return training


def test_accumulated_batches_give_the_step_of_one_large_batch():
    pairs = torch.randint(0, 256, (4, 6, 128, 128), dtype=torch.uint8)
    two, one = training_in_double(0), training_in_double(0)
    losses = [two.train_step(list(pairs.split(2))), one.train_step([pairs])]
    assert losses[0].to_dict() == pytest.approx(losses[1].to_dict(), rel=1e-12)
    for network in ("generator", "discriminator"):
        expected = getattr(one, network).state_dict()
        for name, value in getattr(two, network).state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9, msg=name)


def test_accumulated_batches_are_drawn_with_the_same_noise_for_both_networks():
    training = training_in_double(0.5)
    drawn = []
    training.generator.register_forward_hook(lambda _m, _i, out: drawn.append(out.detach()))
    same = torch.randint(0, 256, (1, 6, 128, 128), dtype=torch.uint8)
    training.train_step([same, same])
    assert len(drawn) == 4
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1]), "but each batch has its own"


def test_patience_ends_a_run_that_is_no_better(training_pairs, tmp_path):
    out = tmp_path / "run"
    settings = (*TINY, "--lr", "1e-9", "--patience", "2", "--epochs", "50")
    told = done(train, training_pairs, *settings, "--out", out)
    assert "no better for 2 epochs" in told
    assert load_training(out).step < 50 * 4


def test_the_user_is_told_when_running_statistics_are_not_true(training_pairs):
    config = TrainConfig(
        data=str(training_pairs),
        generator=GeneratorConfig("unet_128", ngf=4, dropout=0),
        objective=ObjectiveConfig(gan_mode="none"),
        crop_size=128,
        lr=5e-3,
        ema_decay=0,
    )
    split = open_data(str(training_pairs), "AtoB")
    training = Training(config, 10_000, torch.device("cpu"))
    for module in training.generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # they stay what they were at the start
    pairs = [
        np.concatenate([image[..., ::-1] for image in split.train.pair(i, 128)], 2) for i in (0, 1)
    ]
    batch = torch.from_numpy(np.stack(pairs).transpose(0, 3, 1, 2).copy())
    for _ in range(60):
        training.train_step([batch])
    before = {name: value.clone() for name, value in training.average.state_dict().items()}
    remarks = other_statistics(training, split.held_out)
    assert len(remarks) == 1
    assert "--norm-stats batch" in remarks[0]
    for name, value in training.average.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), "judging changes nothing"
    assert not training.average.training


def test_a_collapsed_generator_is_remarked(training_pairs, tmp_path):
    config = TrainConfig(
        data=str(training_pairs),
        generator=GeneratorConfig("unet_128", ngf=2),
        objective=ObjectiveConfig(gan_mode="none"),
        crop_size=128,
        load_size=128,
        batch_size=8,
        lr=1e-9,
        steps=400,
    )
    training = Training(config, 400, torch.device("cpu"))
    training.step = 395
    with torch.no_grad():
        for weights in (*training.generator.parameters(), *training.average.parameters()):
            weights.zero_()
    split = open_data(str(training_pairs), "AtoB")
    remarks = [r for p in fit(training, split, tmp_path / "run") for r in p.remarks]
    assert any("has collapsed" in remark for remark in remarks), remarks


def test_all_generators_are_listed():
    told = done(train, "--list-models")
    for name in GENERATORS:
        assert f"`{name}`" in told


@pytest.mark.slow
def test_a_task_makes_its_inputs_from_plain_photos(tmp_path):
    for number in range(6):
        photo = tmp_path / "photos" / f"{number}.png"
        photo.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(photo), picture(number, 140, 160))
    out = tmp_path / "run"
    settings = (*TINY, "--task", "colourise", "--steps", "1")
    done(train, tmp_path / "photos", *settings, "--out", out)
    assert load_generator(out)[1].task == "colourise"
    grid = cv2.imread(str(out / "samples" / "epoch-0001.png"))
    source = grid[30:150, :128].astype(int)
    assert np.ptp(source, axis=2).max() == 0, "the input is grey"
    assert np.ptp(grid[30:150, 2 * 132 :].astype(int), axis=2).max() > 30, "the target is not"


@pytest.mark.slow
def test_one_damaged_pair_among_many_is_named_and_left_out(tmp_path):
    data = write_side_by_side(tmp_path / "train", 120, 32, 32)
    write_side_by_side(tmp_path / "val", 2, 32, 32)
    broken = data / "050.png"
    broken.write_bytes(broken.read_bytes()[:80])
    out = tmp_path / "run"
    told = done(train, data, *TINY, "--steps", "1", "--out", out)
    assert "050.png" in told
    assert load_training(out).samples == 119
    line = refused(train, data, *TINY, "--bad-pairs", "0", "--out", tmp_path / "strict")
    assert "050.png" in line
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--gan-mode", "wgangp", "--norm-d", "batch"), "--norm-d instance"),
        (("--crop-size", "100"), "a multiple of 128"),
        (("--lambda-feat", "1", "--gan-mode", "none"), "--lambda-feat 1"),
        (("--gan-mode", "none", "--lambda-l1", "0"), "no term to minimise"),
        (("--accumulate", "0"), "--accumulate 0"),
        (("--ema", "1"), "--ema 1"),
        (("--patience", "0"), "--patience 0"),
        (("--bad-pairs", "2"), "--bad-pairs 2"),
        (("--lambda-vgg", "1", "--vgg-weights", "none.pth"), "none.pth"),
        (("--netG", "mobilenet_unet", "--crop-size", "64", "--patch", "286"), "smaller --patch"),
        (("--netG", "unet_128", "--reduction", "2"), "leave --reduction out"),
        (("--netG", "relight_s", "--reduction", "3"), "one of 1, 2, 4, 8"),
        (("--netG", "relight_s", "--reduction", "2", "--crop-size", "96"), "a multiple of 64"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_contradictions_are_refused(training_pairs, tmp_path, options, told):
    out = tmp_path / "run"
    assert told in refused(train, training_pairs, *TINY, *options, "--steps", "1", "--out", out)
    assert not out.exists()


def test_a_patch_that_does_not_exist_is_refused(training_pairs):
    result = typed(train, training_pairs, "--patch", "33")
    assert result.exit_code == 2
    assert "'1', '16', '70', '286'" in result.output
