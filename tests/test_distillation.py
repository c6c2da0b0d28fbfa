"""A student learns from its teacher as the formulas say, resumes exactly, and forgets neither."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import done, refused
from made_runs import lively_generator, pictures, write_run
from torch import nn

from trainer.batches import to_unit_range
from trainer.checkpoint import (
    GENERATOR_FILE,
    TRAINING_FILE,
    load_generator,
    load_training,
    save_generator,
    save_training,
)
from trainer.cli import train
from trainer.compiler import check_compiler
from trainer.config import (
    GENERATORS,
    DiscriminatorConfig,
    GeneratorConfig,
    ObjectiveConfig,
    TeacherConfig,
    TrainConfig,
    to_dict,
    train_config_from,
)
from trainer.data import open_data
from trainer.distill import (
    Distillation,
    chosen_norm_stats,
    matched_layers,
    open_teacher,
    sha256_of,
    teacher_config_of,
)
from trainer.drawing import draw_picture
from trainer.errors import CheckpointError, ConfigError, TrainerError
from trainer.features import Tapped, decoder_blocks, feature_layers
from trainer.generators import build_generator
from trainer.loop import fit
from trainer.losses import feature_distillation
from trainer.norm_stats import normalise_each_picture, own_statistics
from trainer.optimising import adam
from trainer.training import Training

CPU = torch.device("cpu")
STUDENT = ("--netG", "edge_unet_s", "--ngf", "8", "--ndf", "4", "--crop-size", "64")
SMALL = (*STUDENT, "--load-size", "64", "--batch-size", "2")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run's folder with a mobilenet_unet that draws something."""
    folder = tmp_path_factory.mktemp("teacher")
    return write_run(folder, GeneratorConfig("mobilenet_unet", ngf=8), size_px=64)


def config_with(teacher: Path, norm_stats="running", **changes) -> TrainConfig:
    """A small student of `teacher` in pictures of 64 pixels."""
    made = TrainConfig(
        generator=GeneratorConfig("edge_unet_s", ngf=8, dropout=0.0),
        discriminator=DiscriminatorConfig(ndf=4, receptive_field_px=16),
        objective=ObjectiveConfig(lambda_distill=10, lambda_distill_feat=2),
        teacher=teacher_config_of(teacher, norm_stats),
        crop_size=64,
        load_size=64,
    )
    return replace(made, **changes)


def batch(count=2, side_px=64, seed=0):
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 6, side_px, side_px), dtype=torch.uint8, generator=made)


def side_of(*configs: GeneratorConfig) -> int:
    return max(config.size_multiple for config in configs)


# ------------------------------------------------------------------------------------ features


@pytest.mark.parametrize("input_norm", [False, True], ids=["plain", "input-norm"])
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_has_features_at_a_quarter_of_the_size_before_it_has_pixels(
    name, input_norm
):
    config = GeneratorConfig(name, ngf=8, input_norm=input_norm)
    side = 2 * config.size_multiple
    layers = feature_layers(config, side)
    assert 4 in layers
    assert list(layers) == sorted(layers, reverse=True), "coarse to fine"
    if not name.startswith("resnet"):
        assert {16, 8} <= set(layers)
    pixels = {config.output_channels * factor**2 for factor in (1, 2, 4)}
    assert all(layer.channels not in pixels for layer in layers.values())


@pytest.mark.parametrize("name", ["unet_128", "resnet_6blocks", "dense_unet", "relight_s"])
def test_taken_features_decide_on_the_picture_and_have_the_promised_shapes(name):
    config = GeneratorConfig(name, ngf=8, input_norm=True)
    generator = lively_generator(config)
    x = pictures(2, 128)
    plain = generator(x)
    layers = feature_layers(config, 128)
    blocks = decoder_blocks(generator)
    tapped = Tapped(generator, [blocks[layer.block] for layer in layers.values()])
    drawn, features = tapped(x)
    assert torch.equal(drawn, plain)
    shapes = {(2, la.channels, 128 // la.scale, 128 // la.scale) for la in layers.values()}
    assert {tuple(taken.shape) for taken in features} == shapes
    for taken in features:
        (slope,) = torch.autograd.grad(drawn.square().sum(), taken, retain_graph=True)
        assert slope.abs().max() > 0


@pytest.mark.parametrize("student", ["edge_unet_s", "relight_s", "unet_128"])
@pytest.mark.parametrize("big", ["unet_128", "resnet_9blocks", "dense_unet", "pyramid"])
def test_any_family_teaches_any_other(student, big):
    ours, theirs = GeneratorConfig(student, ngf=8), GeneratorConfig(big, ngf=16, input_norm=True)
    for one, other in matched_layers(ours, theirs, side_of(ours, theirs)):
        assert one.scale == other.scale


def test_a_generator_whose_layers_are_unknown_is_told_of_in_a_line():
    with pytest.raises(ConfigError, match="--lambda-distill-feat 0"):
        decoder_blocks(nn.Sequential(nn.Conv2d(3, 3, 1)))


# --------------------------------------------------------------------------------- the formulas


def test_the_loss_of_features_is_the_sum_of_the_mean_squares():
    teacher = [torch.full((1, 2, 4, 4), 1.0), torch.full((1, 3, 2, 2), -1.0)]
    student = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 3, 2, 2), 0.0)]
    assert feature_distillation(teacher, student).item() == pytest.approx(4 + 1)
    half = [feature.half() for feature in student]
    assert feature_distillation(teacher, half).dtype == torch.float32


def test_the_terms_are_those_of_the_formulas_and_move_the_generator_by_their_weights(teacher):
    config = config_with(teacher, objective=ObjectiveConfig("none", lambda_l1=0, lambda_distill=3))
    config = replace(
        config, objective=replace(config.objective, lambda_distill_feat=5), channels_last=False
    )
    training = Training(config, 10, CPU)
    first = {name: value.clone() for name, value in training.generator.named_parameters()}
    adapters = [
        (a.weight.clone(), a.bias.clone()) for a in training.adapters if isinstance(a, nn.Conv2d)
    ]
    told = training.train_step([batch()])

    own = build_generator(config.generator)
    own.load_state_dict(first, strict=False)
    own.train()
    network, _ = load_generator(teacher)
    source, _ = to_unit_range(batch(), CPU)
    taken: dict[str, list] = {"student": [], "teacher": []}
    # By hand: what the two decoders give at 1/16, 1/8 and 1/4.
    for block in own.trunk.up:
        block.register_forward_hook(lambda _m, _i, out: taken["student"].append(out))
    for block in list(network.up)[:3]:
        block.register_forward_hook(lambda _m, _i, out: taken["teacher"].append(out))
    drawn = own(source)
    with torch.no_grad():
        wanted = network(source)
    l1 = (drawn - wanted).abs().mean()
    feature = sum(
        ((torch.einsum("oc,nchw->nohw", w[:, :, 0, 0], s) + b[:, None, None] - t) ** 2).mean()
        for (w, b), s, t in zip(adapters, taken["student"], taken["teacher"], strict=True)
    )
    assert len(adapters) == 3
    assert told.g_distill == pytest.approx(l1.item() * 127.5, rel=1e-5)
    assert told.g_distill_feat == pytest.approx(feature.item(), rel=1e-5)

    optimiser = adam(own, config.lr, config.beta1)
    (3 * l1 + 5 * feature).backward()
    optimiser.step()
    now = dict(training.generator.named_parameters())
    moved = 0.0
    for name, value in own.named_parameters():
        torch.testing.assert_close(now[name], value, rtol=0, atol=2e-5, msg=name)
        moved = max(moved, (value - first[name]).abs().max().item())
    assert moved > 1e-4
    for adapter, (weight, _) in zip(training.adapters, adapters, strict=True):
        assert (adapter.weight - weight).abs().max() > 1e-5, "the adapters learn too"


def test_a_student_comes_closer_to_its_teacher(teacher):
    objective = ObjectiveConfig("none", lambda_l1=0, lambda_distill=100, lambda_distill_feat=1)
    training = Training(config_with(teacher, objective=objective, lr=2e-3), 60, CPU)
    told = [training.train_step([batch()]) for _ in range(30)]
    assert told[-1].g_distill < 0.75 * told[0].g_distill
    assert told[-1].g_distill_feat < 0.9 * told[0].g_distill_feat


def test_accumulated_batches_give_the_step_of_one_large_batch(teacher):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        config = config_with(
            teacher,
            generator=GeneratorConfig("edge_unet_s", ngf=8, norm="none", dropout=0.0),
            discriminator=DiscriminatorConfig(ndf=4, receptive_field_px=16, norm="none"),
        )
        two, one = Training(config, 10, CPU), Training(config, 10, CPU)
        pairs = batch(4)
        losses = [two.train_step(list(pairs.split(2))), one.train_step([pairs])]
    finally:
        torch.set_default_dtype(before)
    assert losses[0].to_dict() == pytest.approx(losses[1].to_dict(), rel=1e-10)
    for name in ("generator", "adapters"):
        expected = getattr(one, name).state_dict()
        for key, value in getattr(two, name).state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-9)


def test_the_teacher_draws_once_for_each_batch_and_stays_as_it_is(teacher, monkeypatch):
    training = Training(config_with(teacher), 10, CPU)
    network = training.distillation.teacher
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calls = []
    network.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    training.train_step([batch(seed=1), batch(seed=2)])
    assert calls == [False, False]
    assert not any(module.training for module in network.network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_first_weights_of_the_networks_do_not_depend_on_the_teacher(teacher):
    config = config_with(teacher)
    alone = replace(config, teacher=None, objective=ObjectiveConfig())
    with_teacher, without = Training(config, 10, CPU), Training(alone, 10, CPU)
    for name in ("generator", "discriminator"):
        expected = getattr(without, name).state_dict()
        for key, value in getattr(with_teacher, name).state_dict().items():
            assert torch.equal(value, expected[key])


# ------------------------------------------------------------------------ the teacher's BatchNorm


def test_each_picture_is_normalised_alone_whatever_batch_it_is_in():
    # In double: layers of four pixels magnify what two orders of one sum differ by.
    generator = lively_generator(GeneratorConfig("mobilenet_unet", ngf=8)).double()
    x = pictures(3, 64).double()
    running = generator(x)
    with own_statistics(generator):
        alone = torch.cat([generator(picture[None]) for picture in x])
        together = generator(x)
    normalise_each_picture(generator)
    torch.testing.assert_close(generator(x), alone, atol=1e-8, rtol=1e-8)
    assert (alone - together).abs().max() > 0.01, "a batch's statistics are others"
    assert (alone - running).abs().max() > 0.01
    assert torch.isfinite(generator(x[..., :32, :32])).all(), "one pixel is deepest"


def test_the_statistics_are_those_that_draw_the_held_out_pairs_better(
    teacher, training_pairs, tmp_path
):
    network, _ = load_generator(teacher)
    held_out = open_data(str(training_pairs), "AtoB").held_out
    sources = [held_out.pair(index, 64)[0] for index in range(len(held_out))]

    class DrawnBy:
        """Held-out pairs whose targets are what a generator makes of the inputs."""

        def __init__(self, draws: nn.Module) -> None:
            self.draws = draws

        def __len__(self) -> int:
            return len(sources)

        def pair(self, index, size_px):
            return sources[index], draw_picture(self.draws, sources[index])

    config = config_with(teacher)
    better, why = chosen_norm_stats(config, DrawnBy(network), CPU)
    assert better == "running"
    assert "running statistics: L1 0.0" in why
    alone, _ = load_generator(teacher)
    normalise_each_picture(alone)
    better, why = chosen_norm_stats(config, DrawnBy(alone), CPU)
    assert better == "batch"
    assert "each picture's own statistics: L1 0.0" in why
    opened, _ = open_teacher(config_with(teacher, "batch"))
    torch.testing.assert_close(opened(pictures(2, 64)), alone(pictures(2, 64)))


# ------------------------------------------------------------------------------------ the command


def terms_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {name.removeprefix("loss/") for name in lines[-1] if name.startswith("loss/")}


def assert_same_run(one, other):
    ours, theirs = load_training(one), load_training(other)
    assert (ours.step, set(ours.networks)) == (theirs.step, set(theirs.networks))
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
        ("--gan-mode", "none", "--accumulate", "2", "--fixed-stats", "--channels-last"),
        ("--precision", "fp16", "--lambda-distill", "0"),
    ],
    ids=["default", "accumulated-no-gan", "fp16-features-only"],
)
def test_a_resumed_student_ends_with_the_weights_of_an_uncut_one(
    teacher, training_pairs, tmp_path, extra
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = (training_pairs, *SMALL, "--teacher", teacher, *extra, "--seed", "5")
    said = done(train, *settings, "--steps", "4", "--out", whole)
    assert "its BatchNorm takes" in said
    # The learning rate of the cut run is that of four steps: it is stopped, not ended, at two.
    state = load_training(whole)
    training = Training(replace(state.config, steps=4), 4, CPU)
    split = open_data(str(training_pairs), "AtoB", 5)
    steps = fit(training, split, cut)
    for progress in steps:
        if progress.step == 2:
            save_training(cut / TRAINING_FILE, training.state())
            break
    steps.close()
    assert load_training(cut).step == 2
    torch.manual_seed(99)  # whatever happens in between
    assert f"teacher    {teacher}" in done(train, "--resume", cut)
    assert_same_run(whole, cut)
    assert {"g_distill", "g_distill_feat"} <= terms_of(cut)
    assert set(load_training(cut).networks["adapters"]) == {
        f"{layer}.{part}" for layer in range(3) for part in ("weight", "bias")
    }


def test_the_generators_file_says_whom_it_learned_from_and_holds_no_adapters(
    teacher, training_pairs, tmp_path
):
    out = tmp_path / "student"
    settings = (training_pairs, *SMALL, "--gan-mode", "none", "--steps", "1", "--out", out)
    done(train, *settings, "--teacher", teacher, "--teacher-norm-stats", "batch")
    network, info = load_generator(out)
    file = teacher / GENERATOR_FILE
    assert info.teacher == TeacherConfig(str(file), sha256_of(file), "batch")
    assert info.init is None
    assert set(network.state_dict()) == set(build_generator(info.config).state_dict())
    objective = load_training(out).config.objective
    assert (objective.lambda_distill, objective.lambda_distill_feat) == (50, 1)


def test_a_resumed_student_needs_the_same_teacher(teacher, training_pairs, tmp_path):
    own, out = tmp_path / "teacher", tmp_path / "student"
    config = load_generator(teacher)[1].config
    write_run(own, config, size_px=64)
    settings = (training_pairs, *SMALL, "--gan-mode", "none", "--steps", "1", "--out", out)
    done(train, *settings, "--teacher", own, "--lambda-distill-feat", "0")
    assert "adapters" not in load_training(out).networks
    network, info = load_generator(own)
    save_generator(own / GENERATOR_FILE, network.state_dict(), replace(info, step=11))
    line = refused(train, "--resume", out, "--steps", "2")
    assert "the one that the run was started with, sha256" in line
    (own / GENERATOR_FILE).unlink()
    assert "no such file" in refused(train, "--resume", out, "--steps", "2")
    assert "--teacher together with --resume" in refused(
        train, "--resume", out, "--teacher", teacher, "--steps", "2"
    )


def test_a_teacher_that_does_not_fit_is_refused_before_a_run_is_made(
    teacher, training_pairs, tmp_path
):
    out = tmp_path / "student"
    settings = (training_pairs, *SMALL, "--out", out)
    tall = write_run(tmp_path / "tall", GeneratorConfig("unet_128", ngf=2))
    line = refused(train, *settings, "--teacher", tall)
    assert "--crop-size 64 with the teacher unet_128" in line
    assert "use --crop-size 128" in line
    grey = write_run(tmp_path / "grey", GeneratorConfig("dense_unet", ngf=2, input_channels=1))
    assert "with 1 channels in and 3 out" in refused(train, *settings, "--teacher", grey)
    foreign = tmp_path / "latest_net_G.pth"
    torch.save({"model": torch.zeros(1)}, foreign)
    assert "which is not a checkpoint of p2p-train" in refused(
        train, *settings, "--teacher", foreign
    )
    assert "no such teacher" in refused(train, *settings, "--teacher", tmp_path / "none")
    assert "--teacher-norm-stats batch without --teacher" in refused(
        train, *settings, "--teacher-norm-stats", "batch"
    )
    assert "without --teacher" in refused(train, *settings, "--lambda-distill", "1")
    zero = ("--lambda-distill", "0", "--lambda-distill-feat", "0")
    assert "both weights" in refused(train, *settings, "--teacher", teacher, *zero)
    assert not out.exists()
    own = ("--teacher", tall / GENERATOR_FILE, "--crop-size", "128", "--load-size", "128")
    line = refused(train, training_pairs, *STUDENT, *own, "--out", tall)
    assert "which holds the generator of --teacher" in line


@pytest.mark.slow
def test_compiled_networks_learn_what_plain_ones_learn(
    teacher, training_pairs, tmp_path, monkeypatch
):
    try:
        check_compiler()
    except ConfigError as error:
        pytest.skip(str(error))
    # Traced, differentiated and split as always; only C++, which takes a minute, is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    settings = (training_pairs, *SMALL, "--teacher", teacher, "--no-dropout", "--steps", "2")
    settings = (*settings, "--gan-mode", "none", "--out")
    done(train, *settings, plain)
    done(train, *settings, compiled, "--compile")
    ours, theirs = load_training(plain), load_training(compiled)
    for network in ("generator", "adapters"):
        for name, value in ours.networks[network].items():
            other = theirs.networks[network][name]
            torch.testing.assert_close(value, other, rtol=0, atol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one_does(teacher, training_pairs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = (training_pairs, *STUDENT, "--load-size", "64", "--norm", "none", "--no-dropout")
    settings = (*settings, "--gan-mode", "none", "--teacher", teacher, "--steps", "3")
    done(train, *settings, "--batch-size", "2", "--out", one)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--no-python"]
    command.append(str(Path(sys.executable).with_name("p2p-train")))
    ended = subprocess.run(
        [*map(str, (*command, *settings, "--batch-size", "1", "--out", two))],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("its BatchNorm takes") == 1, "the first process alone speaks"

    def losses(run):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        return [[line["loss/g_distill"], line["loss/g_distill_feat"]] for line in lines]

    for together, alone in zip(losses(two), losses(one), strict=True):
        assert together == pytest.approx(alone, rel=1e-4)


# --------------------------------------------------------------------------------------- --init


def test_a_run_starts_with_the_weights_that_it_is_given(training_pairs, tmp_path):
    given, out = tmp_path / "given", tmp_path / "run"
    config = GeneratorConfig("relight_s", ngf=8, input_norm=True, dropout=0.3)
    write_run(given, config, size_px=64)
    settings = ("--crop-size", "64", "--load-size", "64", "--batch-size", "2", "--ema", "0")
    options = ("--init", given, "--fixed-stats", "--gan-mode", "none", "--lr", "1e-12")
    done(train, training_pairs, *settings, *options, "--steps", "1", "--out", out)
    first, _ = load_generator(given)
    network, info = load_generator(out)
    assert info.config == config, "the architecture comes from the checkpoint"
    assert info.init == str(given)
    expected = first.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9, msg=name)
    (given / GENERATOR_FILE).unlink()
    done(train, "--resume", out, "--steps", "2")
    assert load_training(out).step == 2, "a resumed run has its own weights"


def test_other_architectures_than_the_given_weights_are_refused(training_pairs, tmp_path):
    given, out = tmp_path / "given", tmp_path / "run"
    config = GeneratorConfig("edge_unet_s", ngf=8)
    write_run(given, config, size_px=64)
    settings = (training_pairs, "--crop-size", "64", "--init", given, "--out", out)
    line = refused(train, *settings, "--netG", "edge_unet_m")
    assert "--netG edge_unet_m with --init" in line
    assert "expected edge_unet_s" in line
    assert "--ngf 16 with --init" in refused(train, *settings, "--ngf", "16")
    assert "--input-norm True with --init" in refused(train, *settings, "--input-norm")
    nothing = ("--init", tmp_path / "none", "--out", out)
    assert "no such checkpoint" in refused(train, training_pairs, *nothing)
    assert not out.exists()
    own = (training_pairs, "--crop-size", "64", "--init", given, "--out", given)
    assert "which holds the generator of --init" in refused(train, *own)
    wrong = TrainConfig(generator=replace(config, ngf=16), init=str(given), crop_size=64)
    with pytest.raises(TrainerError, match="ngf 8"):
        Training(wrong, 10, CPU)


# ------------------------------------------------------------------------------ settings and files


def test_settings_and_files_from_before_distillation_still_load(tmp_path):
    config = TrainConfig()
    values = json.loads(json.dumps(to_dict(config)))
    for key in ("teacher", "init"):
        del values[key]
    for key in ("lambda_distill", "lambda_distill_feat"):
        del values["objective"][key]
    assert train_config_from(values) == config
    folder = write_run(tmp_path, GeneratorConfig("relight_s", ngf=8))
    data = (folder / GENERATOR_FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ours = json.loads(header["__metadata__"]["pix2pix_edge"])
    assert ours.pop("teacher") is None
    assert ours.pop("init") is None
    header["__metadata__"]["pix2pix_edge"] = json.dumps(ours)
    told = json.dumps(header).encode()
    (folder / GENERATOR_FILE).write_bytes(
        len(told).to_bytes(8, "little") + told + data[8 + length :]
    )
    info = load_generator(folder)[1]
    assert (info.teacher, info.init) == (None, None)


def test_a_teacher_survives_the_way_into_a_file_and_back(teacher):
    config = config_with(teacher, "batch")
    assert train_config_from(json.loads(json.dumps(to_dict(config)))) == config
    moved = replace(config.teacher, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="sha256 000000000000"):
        Distillation(replace(config, teacher=moved), CPU, False)
