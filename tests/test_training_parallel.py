"""Two real processes, joined by gloo, train as one process with the doubled batch would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import done
from pairs import write_side_by_side

from trainer.checkpoint import load_generator, load_training
from trainer.cli import train

COMMAND = Path(sys.executable).with_name("p2p-train")
TINY = ("--netG", "unet_128", "--ngf", "4", "--ndf", "4", "--crop-size", "128", "--no-dropout")

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    write_side_by_side(root / "train", 10, 128, 128)
    write_side_by_side(root / "val", 2, 128, 128)
    return root


def torchrun(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", "2", "--no-python", str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": str(COMMAND.parent), "OMP_NUM_THREADS": "1"},
    )


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [[line[f"loss/{name}"] for name in ("g_l1", "g_gan", "d_loss")] for line in lines]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(
    data, tmp_path, accumulate
):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = (*TINY, "--norm", "none", "--norm-d", "none", "--steps", "20", "--lr", "1e-3")
    done(train, data, *settings, "--batch-size", 2 * accumulate, "--out", one)
    ended = torchrun(
        data, *settings, "--batch-size", "1", "--accumulate", accumulate, "--out", two
    )
    assert ended.returncode == 0, ended.stderr
    assert "in each of 2 processes" in ended.stderr
    assert ended.stderr.count("held out   L1") == 1, "the first process alone speaks"
    together, alone = losses(two), losses(one)
    assert len(alone) == len(together) == 20
    for ours, theirs in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert alone[0] != pytest.approx(alone[-1], rel=0.01), "it learns"
    load_generator(two)


def test_two_processes_with_batchnorm_stop_early_together_and_go_on(data, tmp_path):
    out = tmp_path / "run"
    settings = (*TINY, "--batch-size", "1", "--lr", "1e-9", "--patience", "1", "--epochs", "9")
    ended = torchrun(data, *settings, "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "no better for 1 epochs" in ended.stderr
    stopped_at = load_training(out).step
    assert stopped_at < 9 * 5
    ended = torchrun("--resume", out, "--steps", stopped_at + 1)
    assert ended.returncode == 0, ended.stderr
    assert load_training(out).step == stopped_at + 1


def test_what_the_user_can_mend_is_told_by_torchrun_too(data, tmp_path):
    ended = torchrun(tmp_path / "none", *TINY, "--out", tmp_path / "run")
    assert ended.returncode != 0
    assert "error: no such folder" in ended.stderr
