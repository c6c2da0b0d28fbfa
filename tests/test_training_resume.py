"""A run that was cut, killed or moved goes on as if nothing had happened, or says why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from commands import done, refused
from pairs import write_side_by_side

from trainer.checkpoint import load_generator, load_training, save_training
from trainer.cli import train
from trainer.data import open_data
from trainer.loop import fit
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
    "3",
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def assert_same_weights(one, other):
    ours, theirs = load_training(one), load_training(other)
    assert ours.step == theirs.step
    for kind in ("networks", "optimisers"):
        assert set(getattr(ours, kind)) == set(getattr(theirs, kind))
    for name, weights in ours.networks.items():
        for key, value in weights.items():
            assert torch.equal(value, theirs.networks[name][key]), f"{name} {key}"
    for name, optimiser in ours.optimisers.items():
        for number, slots in optimiser["state"].items():
            for slot, value in slots.items():
                other_value = theirs.optimisers[name]["state"][number][slot]
                assert torch.equal(value, other_value), f"{name} {number} {slot}"


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--gan-mode", "wgangp", "--accumulate", "2"),
        ("--gan-mode", "none", "--channels-last"),
        ("--precision", "fp16", "--ema", "0"),
    ],
    ids=["default", "wgangp-accumulated", "no-gan-channels-last", "fp16"],
)
def test_a_stopped_and_resumed_run_ends_with_the_weights_of_an_uncut_one(
    training_pairs, tmp_path, extra
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done(train, training_pairs, *TINY, *extra, "--steps", "5", "--out", whole)
    config = load_training(whole).config
    stop = threading.Event()
    for progress in fit(
        Training(config, 5, torch.device("cpu")),
        open_data(str(training_pairs), "AtoB"),
        cut,
        stop=stop,
    ):
        if progress.step == 2:
            stop.set()
    assert load_training(cut).step == 3
    torch.manual_seed(99)  # whatever happens in between
    done(train, "--resume", cut)
    assert_same_weights(whole, cut)
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("write", [3, 4], ids=["generator", "training"])
def test_a_run_killed_in_the_middle_of_writing_goes_on_from_the_save_before(
    training_pairs, tmp_path, write
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [str(training_pairs), *TINY, "--steps", "6", "--out"]
    done(train, *arguments, whole)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from trainer.cli import train\n"
        "writes = 0\n"
        "write_bytes = Path.write_bytes\n"
        "def half(path, data):\n"
        "    global writes\n"
        "    writes += path.suffix == '.safetensors'\n"
        f"    if path.suffix == '.safetensors' and writes == {write}:\n"
        "        write_bytes(path, data[: len(data) // 2])\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return write_bytes(path, data)\n"
        "Path.write_bytes = half\n"
        f"sys.argv = ['p2p-train', *{arguments}, {str(killed)!r}]\n"
        "train()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as `one_thread`: sums differ by threads
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert load_training(killed).step == 2
    load_generator(killed)
    assert list(killed.glob(".*.part*")), "the half-written file lies there"
    done(train, "--resume", killed)
    assert_same_weights(whole, killed)
    assert not list(killed.glob(".*.part*"))


def test_more_steps_are_counted_from_the_start(training_pairs, tmp_path):
    out = tmp_path / "run"
    done(train, training_pairs, *TINY, "--steps", "2", "--out", out)
    done(train, "--resume", out, "--steps", "3")
    assert load_training(out).step == 3
    assert "count from the start" in refused(train, "--resume", out, "--steps", "3")


def test_a_resumed_run_keeps_its_settings_and_its_data(training_pairs, tmp_path):
    out = tmp_path / "run"
    own = write_side_by_side(tmp_path / "own", 12, 128, 128)
    done(train, own, *TINY, "--steps", "1", "--out", out)
    assert "--lr together with --resume" in refused(train, "--resume", out, "--lr", "1")
    assert "--netG together with --resume" in refused(
        train, "--resume", out, "--netG", "unet_256", "--steps", "2"
    )
    (own / "000.png").unlink()
    assert "pairs to train on" in refused(train, "--resume", out, "--steps", "2")


def test_a_resume_from_weights_of_another_network_is_refused(training_pairs, tmp_path):
    out = tmp_path / "run"
    done(train, training_pairs, *TINY, "--steps", "1", "--out", out)
    state = load_training(out)
    config = replace(state.config, generator=replace(state.config.generator, ngf=8))
    save_training(out / "training.safetensors", replace(state, config=config))
    before = (out / "training.safetensors").read_bytes()
    assert "are not those of unet_128" in refused(train, "--resume", out, "--steps", "2")
    assert (out / "training.safetensors").read_bytes() == before


def test_weights_of_another_network_are_refused(training_pairs, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    done(train, training_pairs, *TINY, "--steps", "1", "--out", one)
    done(train, training_pairs, *TINY, "--ngf", "2", "--steps", "1", "--out", other)
    header = (other / "generator.safetensors").read_bytes()
    weights = (one / "generator.safetensors").read_bytes()
    length, other_length = (int.from_bytes(b[:8], "little") for b in (weights, header))
    ours, theirs = json.loads(weights[8 : 8 + length]), json.loads(header[8 : 8 + other_length])
    ours["__metadata__"] = theirs["__metadata__"]
    told = json.dumps(ours).encode()
    mixed = len(told).to_bytes(8, "little") + told + weights[8 + length :]
    (one / "generator.safetensors").write_bytes(mixed)
    with pytest.raises(Exception, match="are not those of unet_128"):
        load_generator(one)
