"""Two real processes, joined by gloo, train as one process with the doubled batch would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import done
from pairs import write_training_pairs
from team_member import STEPS, losses_in_double

from trainer.checkpoint import load_generator, load_training
from trainer.cli import train

COMMAND = Path(sys.executable).with_name("p2p-train")
MEMBER = (sys.executable, Path(__file__).with_name("team_member.py"))
TINY = ("--netG", "unet_128", "--ngf", "4", "--ndf", "4", "--crop-size", "128", "--no-dropout")

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten pairs, which batches of two divide."""
    return write_training_pairs(tmp_path_factory.mktemp("pairs"), 10, 2)


def torchrun(*arguments, program=(COMMAND,)) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--no-python"]
    return subprocess.run(
        [*command, *map(str, program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            "PATH": str(COMMAND.parent),
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",  # a process that aborts says where
        },
    )


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [[line[f"loss/{name}"] for name in ("g_l1", "g_gan", "d_loss")] for line in lines]


def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = (*TINY, "--norm", "none", "--norm-d", "none", "--steps", "20", "--lr", "1e-3")
    done(train, data, *settings, "--batch-size", 2, "--out", one)
    ended = torchrun(data, *settings, "--batch-size", "1", "--out", two)
    assert ended.returncode == 0, ended.stderr
    assert "in each of 2 processes" in ended.stderr
    assert ended.stderr.count("held out   L1") == 1, "the first process alone speaks"
    together, alone = losses(two), losses(one)
    assert len(alone) == len(together) == 20
    for ours, theirs in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert alone[0] != pytest.approx(alone[-1], rel=0.01), "it learns"
    load_generator(two)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_fixed_statistics_batchnorm_keeps_that_promise_too(data, tmp_path, accumulate):
    alone = losses_in_double(data, tmp_path / "one", 2 * accumulate, 1)
    two = tmp_path / "two"
    ended = torchrun("losses", data, two, 1, accumulate, program=MEMBER)
    assert ended.returncode == 0, ended.stderr
    together = torch.load(two / "losses.pt")
    assert len(alone) == len(together) == STEPS
    for ours, theirs in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    assert min(g_l1 for g_l1, _, _ in alone[-5:]) < 0.9 * alone[0][0], "it learns"


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


def test_every_process_fixes_the_same_statistics_though_each_draws_its_own_noise(tmp_path):
    ended = torchrun("statistics", tmp_path, program=MEMBER)
    assert ended.returncode == 0, ended.stderr
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(one["statistics"]) == 22
    for name, value in one["statistics"].items():
        assert torch.equal(value, other["statistics"][name]), name
    assert not torch.equal(one["noise"], other["noise"])


def test_what_the_user_can_mend_is_told_by_torchrun_too(data, tmp_path):
    ended = torchrun(tmp_path / "none", *TINY, "--out", tmp_path / "run")
    assert ended.returncode != 0
    assert "error: no such folder" in ended.stderr
