"""A run learns, leaves what it promises, and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pairs import write_side_by_side

from trainer.checkpoint import load_generator, load_training
from trainer.cli import scenes, train
from trainer.config import GeneratorConfig, TrainConfig
from trainer.data import open_data
from trainer.errors import CheckpointError, TrainerError
from trainer.loop import Training, fit
from trainer.metrics import quality_of

TINY = ("--netG", "unet_128", "--ngf", "4", "--ndf", "4", "--crop-size", "128")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    write_side_by_side(root / "train", 8, 128, 128)
    write_side_by_side(root / "val", 3, 128, 128)
    return root


def run(*arguments):
    result = CliRunner().invoke(train, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    return lines[0]


@pytest.mark.slow
def test_training_learns_to_draw_the_negative(data):
    config = TrainConfig(
        data=str(data),
        generator=GeneratorConfig("unet_128", ngf=8),
        ndf=4,
        crop_size=128,
        load_size=128,
        lr=2e-3,
        ema_decay=0.9,
    )
    split = open_data(str(data), "AtoB")
    training = Training(config, 60, torch.device("cpu"))
    source, target = split.held_out.pair(0, 128)
    before = quality_of(training.draw(source), target).l1
    batches = [torch.from_numpy(np.stack([_sample(split.train, i) for i in range(4)]))]
    for _ in range(60):
        training.train_step(batches[0])
    after = quality_of(training.draw(source), target).l1
    assert after < before / 2


def _sample(pairs, index):
    both = np.concatenate([image[..., ::-1] for image in pairs.pair(index, 128)], axis=2)
    return np.ascontiguousarray(both.transpose(2, 0, 1))


@pytest.mark.slow
def test_a_run_leaves_checkpoint_metrics_samples_and_curves(data, tmp_path):
    out = tmp_path / "run"
    result = run(data, *TINY, "--epochs", "2", "--batch-size", "4", "--out", out)
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
def test_a_stopped_and_resumed_run_ends_with_the_weights_of_an_uncut_one(data, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(data, *TINY, "--steps", "5", "--batch-size", "3", "--out", whole).exit_code == 0
    config = load_training(whole).config
    split = open_data(str(data), "AtoB")
    training = Training(config, 5, torch.device("cpu"))
    stop = threading.Event()
    steps = fit(training, split, cut, stop=stop)
    for progress in steps:
        if progress.step == 2:
            stop.set()
    assert load_training(cut).step == 3
    torch.manual_seed(99)  # whatever happens in between
    assert run("--resume", cut).exit_code == 0
    for part in ("generator", "average", "discriminator"):
        resumed, uncut = (getattr(load_training(run), part) for run in (cut, whole))
        for name, value in uncut.items():
            assert torch.equal(value, resumed[name]), f"{part} {name}"
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_without_data_it_trains_on_drawn_scenes_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*TINY, "--steps", "1", "--batch-size", "1")
    assert result.exit_code == 0, result.output
    assert "street scenes drawn on the fly" in " ".join(result.output.split())
    assert load_generator(tmp_path / "runs" / "scenes")[1].data == "scenes"


def test_a_loss_that_is_no_number_stops_the_run(data):
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=2), ndf=2, crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    with torch.no_grad():
        next(training.generator.parameters()).fill_(float("nan"))
    with pytest.raises(TrainerError, match="step 1"):
        training.train_step(torch.zeros(1, 6, 128, 128, dtype=torch.uint8))


def test_the_generator_is_judged_without_dropout(data):
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=4), crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    source, _ = open_data(str(data), "AtoB").held_out.pair(0, 128)
    np.testing.assert_array_equal(training.draw(source), training.draw(source))


def test_learning_rate_is_constant_for_half_of_the_run_and_falls_to_zero():
    config = TrainConfig(generator=GeneratorConfig("unet_128", ngf=1), ndf=1, crop_size=128)
    training = Training(config, 10, torch.device("cpu"))
    rates = []
    for step in range(10):
        training.step = step
        training._set_learning_rate()
        rates.append(training.generator_optimiser.param_groups[0]["lr"] / config.lr)
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_bad_data_are_refused_before_a_run_is_made(tmp_path):
    out = tmp_path / "run"
    assert "no such folder" in refused(tmp_path / "none", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no pairs" in refused(tmp_path / "empty", "--out", out)
    broken = write_side_by_side(tmp_path / "broken", 12)
    last = broken / "011.png"
    last.write_bytes(last.read_bytes()[:200])
    assert "011.png is damaged or cut short" in refused(broken, "--out", out)
    assert not out.exists()


def test_a_run_is_not_overwritten(data, tmp_path):
    out = tmp_path / "run"
    assert run(data, *TINY, "--steps", "1", "--batch-size", "1", "--out", out).exit_code == 0
    before = (out / "generator.safetensors").read_bytes()
    assert "--resume" in refused(data, *TINY, "--steps", "1", "--out", out)
    assert (out / "generator.safetensors").read_bytes() == before
    assert "count from the start" in refused("--resume", out, "--steps", "1")
    assert "direction" in refused("--resume", out, "--direction", "BtoA")


def test_a_checkpoint_that_is_not_one_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_generator(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint of p2p-train"):
        load_generator(tmp_path)
    assert "no such checkpoint" in refused("--resume", tmp_path)


def test_unknown_devices_are_refused(data, tmp_path):
    assert "--device toaster" in refused(data, "--device", "toaster", "--out", tmp_path / "run")


def test_scenes_are_written_as_pairs_and_as_a_clip(tmp_path):
    runner = CliRunner()
    pairs, clip = tmp_path / "pairs", tmp_path / "day.mp4"
    assert runner.invoke(scenes, [str(pairs), "--pairs", "2", "--size", "96x64"]).exit_code == 0
    assert cv2.imread(str(pairs / "00001.png")).shape == (64, 192, 3)
    command = [str(clip), "--frames", "5", "--size", "96x64", "--fps", "12.5"]
    assert runner.invoke(scenes, command).exit_code == 0
    video = cv2.VideoCapture(str(clip))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    refused_size = runner.invoke(scenes, [str(clip), "--size", "huge"])
    assert refused_size.exit_code == 2
    assert refused_size.output.startswith("error: --size huge")


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_leaves_no_half_checkpoint(data, tmp_path):
    out = tmp_path / "run"
    arguments = [str(data), *TINY, "--steps", "2", "--batch-size", "1", "--out", str(out)]
    script = (
        "import resource, signal, sys\n"
        "from trainer.cli import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv = ['p2p-train', *{arguments}]\n"
        "train()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "generator.safetensors could not be written" in done.stderr.splitlines()[-1]
    assert not list(out.rglob("*.safetensors"))
