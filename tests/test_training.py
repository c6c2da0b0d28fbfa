"""A run learns, leaves what it promises, and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from commands import done, refused, typed
from pairs import write_side_by_side

from trainer.checkpoint import load_generator
from trainer.cli import train
from trainer.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from trainer.data import open_data
from trainer.errors import CheckpointError, TrainerError
from trainer.metrics import quality_of
from trainer.training import Training

TINY = ("--netG", "unet_128", "--ngf", "4", "--ndf", "4", "--crop-size", "128")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_training_learns_to_draw_the_negative(training_pairs):
    config = TrainConfig(
        data=str(training_pairs),
        generator=GeneratorConfig("unet_128", ngf=8),
        discriminator=DiscriminatorConfig(ndf=4),
        crop_size=128,
        load_size=128,
        lr=2e-3,
        ema_decay=0.9,
    )
    split = open_data(str(training_pairs), "AtoB")
    training = Training(config, 60, torch.device("cpu"))
    source, target = split.held_out.pair(0, 128)
    before = quality_of(training.draw(source), target).l1
    batches = [torch.from_numpy(np.stack([_sample(split.train, i) for i in range(4)]))]
    for _ in range(60):
        training.train_step(batches)
    after = quality_of(training.draw(source), target).l1
    assert after < before / 2


def _sample(pairs, index):
    both = np.concatenate([image[..., ::-1] for image in pairs.pair(index, 128)], axis=2)
    return np.ascontiguousarray(both.transpose(2, 0, 1))


@pytest.mark.slow
def test_a_run_leaves_checkpoint_metrics_samples_and_curves(training_pairs, tmp_path):
    out = tmp_path / "run"
    result = typed(
        train, training_pairs, *TINY, "--epochs", "2", "--batch-size", "4", "--out", out
    )
    assert result.exit_code == 0, result.output
    generator, info = load_generator(out)
    assert info.config == GeneratorConfig("unet_128", ngf=4)
    assert info.step == 4
    assert set(info.quality) == {"l1", "psnr", "ssim"}
    assert not generator.training
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert "held_out/ssim" in lines[1]
    assert "held_out/ssim" in lines[3]
    grid = cv2.imread(str(out / "samples" / "epoch-0002.png"))
    assert grid.shape[1] == 3 * 128 + 2 * 4
    assert list((out / "tensorboard").iterdir())
    assert not list(out.rglob("*.part*"))


@pytest.mark.slow
def test_without_data_it_trains_on_drawn_scenes_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = typed(train, *TINY, "--steps", "1", "--batch-size", "1")
    assert result.exit_code == 0, result.output
    assert "street scenes drawn on the fly" in " ".join(result.output.split())
    assert load_generator(tmp_path / "runs" / "scenes")[1].data == "scenes"


def test_a_loss_that_is_no_number_stops_the_run(training_pairs):
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=2), crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    with torch.no_grad():
        next(training.generator.parameters()).fill_(float("nan"))
    with pytest.raises(TrainerError, match="step 1"):
        training.train_step([torch.zeros(1, 6, 128, 128, dtype=torch.uint8)])


def test_the_generator_is_judged_without_dropout(training_pairs):
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=4), crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    source, _ = open_data(str(training_pairs), "AtoB").held_out.pair(0, 128)
    np.testing.assert_array_equal(training.draw(source), training.draw(source))


def test_learning_rate_is_constant_for_half_of_the_run_and_falls_to_zero():
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=1), crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    rates = []
    for step in range(10):
        training.step = step
        training._set_learning_rate()
        rates.append(training.generator_optimiser.param_groups[0]["lr"] / config.lr)
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_bad_data_are_refused_before_a_run_is_made(tmp_path):
    out = tmp_path / "run"
    assert "no such folder" in refused(train, tmp_path / "none", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no pairs" in refused(train, tmp_path / "empty", "--out", out)
    broken = write_side_by_side(tmp_path / "broken", 12)
    last = broken / "011.png"
    last.write_bytes(last.read_bytes()[:200])
    assert "011.png is damaged or cut short" in refused(train, broken, "--out", out)
    assert not out.exists()


def test_a_run_is_not_overwritten(training_pairs, tmp_path):
    out = tmp_path / "run"
    done(train, training_pairs, *TINY, "--steps", "1", "--batch-size", "1", "--out", out)
    before = (out / "generator.safetensors").read_bytes()
    assert "--resume" in refused(train, training_pairs, *TINY, "--steps", "1", "--out", out)
    assert (out / "generator.safetensors").read_bytes() == before
    assert "count from the start" in refused(train, "--resume", out, "--steps", "1")
    assert "direction" in refused(train, "--resume", out, "--direction", "BtoA")


def test_a_checkpoint_that_is_not_one_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_generator(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint of p2p-train"):
        load_generator(tmp_path)
    assert "no such checkpoint" in refused(train, "--resume", tmp_path)


def test_unknown_devices_are_refused(training_pairs, tmp_path):
    assert "--device toaster" in refused(
        train, training_pairs, "--device", "toaster", "--out", tmp_path / "run"
    )


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_leaves_no_half_checkpoint(training_pairs, tmp_path):
    out = tmp_path / "run"
    settings = ("--steps", "2", "--batch-size", "1")
    arguments = [str(training_pairs), *TINY, *settings, "--out", str(out)]
    script = (
        "import resource, signal, sys\n"
        "from trainer.cli import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv = ['p2p-train', *{arguments}]\n"
        "train()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "generator.safetensors could not be written" in ended.stderr.splitlines()[-1]
    assert not list(out.rglob("*.safetensors"))
