"""The plain loop is pix2pix, the two take turns, and the file tells what was measured."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.training_speed import Runner, main, plain_loop, take_turns
from trainer.config import GeneratorConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_plain_loop_learns():
    step = plain_loop(GeneratorConfig("unet_128", ngf=4), 4, 1, 128, torch.device("cpu"))
    losses = [step() for _ in range(40)]
    assert losses[-1] < losses[0]


def test_runners_take_turns_after_warming_up():
    order = []
    runners = [Runner(n, 1, lambda n=n: order.append(n)) for n in "ab"]
    take_turns(runners, rounds=2, steps=2, device=torch.device("cpu"))
    assert "".join(order) == "aabb" + "aabb" + "bbaa"
    assert [len(runner.rounds_s) for runner in runners] == [2, 2]


def test_a_ratio_is_of_images_and_not_of_steps():
    one, four = Runner("one", 1, lambda: None, [1.0, 2.0]), Runner("four", 4, lambda: None, [2, 2])
    assert four.over(one) == [2.0, 4.0]
    assert four.images_per_s == 2.0


@pytest.mark.slow
def test_the_file_has_a_row_for_each_and_every_round(tmp_path, capsys):
    told = tmp_path / "speed.json"
    tiny = ["--netG", "unet_128", "--ngf", "2", "--size", "128", "--rounds", "3", "--steps", "1"]
    assert main([*tiny, "--batch-size", "2", "--json", str(told)]) == 0
    rows = json.loads(told.read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "plain loop, batch 1",
        "plain loop, batch 2",
        "p2p-train, batch 1, fp32",
        "p2p-train, batch 2, fp32",
    ]
    assert all(len(row["rounds_s"]) == 3 for row in rows)
    assert rows[1]["over_plain_of_the_same_batch"] == [1.0, 1.0, 1.0]
    assert "images/s" in capsys.readouterr().out


def test_no_rounds_are_refused(capsys):
    assert main(["--rounds", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: 0 rounds")
