"""`p2p-train`: options in, one line out when something is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from rich.console import Console
from rich.progress import track

from trainer import loop
from trainer.catalogue import catalogue, markdown_table
from trainer.checkpoint import (
    GENERATOR_FILE,
    TRAINING_FILE,
    generator_file,
    load_training,
)
from trainer.config import (
    DIRECTIONS,
    GAN_MODES,
    GENERATORS,
    NORM_STATS,
    NORMS,
    PRECISIONS,
    RECEPTIVE_FIELDS_PX,
    TASKS,
    UPSAMPLINGS,
    TeacherConfig,
    TrainConfig,
)
from trainer.data import DataSplit, drop_damaged, open_data
from trainer.distill import chosen_norm_stats, open_teacher
from trainer.errors import ConfigError
from trainer.options import DISTILL, DISTILL_FEAT, train_config_of
from trainer.parallel import Team, end_process, joined_team
from trainer.show import show
from trainer.training import Training
from trainer.ui import device_named, one_line_errors, stop_on_interrupt

RUNS = Path("runs")
RESUME_MAY_CHANGE = {"resume", "epochs", "steps", "device", "workers"}


def _list_models(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(markdown_table(catalogue()))
        context.exit()


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("data", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/NAME]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in DIR.")
@click.option("--direction", type=click.Choice(DIRECTIONS), default="AtoB")
@click.option("--task", type=click.Choice(TASKS), default="pairs", help="What DATA's photos give.")
@click.option("--netG", "name", type=click.Choice(GENERATORS), default="unet_256")
@click.option("--ngf", default=64, help="Channels of the generator's first layer.")
@click.option("--norm", type=click.Choice(NORMS), default="batch", help="Of the generator.")
@click.option("--input-norm", is_flag=True, help="Each frame brought to one exposure first.")
@click.option("--frame-norm", is_flag=True, help="The frame an edge generator changes, too.")
@click.option(
    "--reduction", default=1, help="An edge generator looks at the frame at 1/N of its sides."
)
@click.option(
    "--fixed-stats", is_flag=True, help="BatchNorm's statistics measured once, and kept."
)
@click.option("--upsample", type=click.Choice(UPSAMPLINGS), default="transposed")
@click.option("--no-dropout", is_flag=True, help="No noise in the decoder while training.")
@click.option(
    "--patch",
    "receptive_field_px",
    type=click.Choice([str(px) for px in RECEPTIVE_FIELDS_PX]),
    default="70",
    help="Side of what the discriminator judges, in pixels.",
)
@click.option("--ndf", default=64, help="Channels of the discriminator's first layer.")
@click.option("--norm-d", type=click.Choice(NORMS), help="[batch; instance for wgangp]")
@click.option("--spectral-norm", is_flag=True, help="In the discriminator.")
@click.option("--unconditional", is_flag=True, help="The discriminator sees no input.")
@click.option("--gan-mode", type=click.Choice(GAN_MODES), default="vanilla")
@click.option("--lambda-gan", default=1.0, help="Weight of the adversarial loss.")
@click.option("--lambda-l1", default=100.0, help="Weight of the mean absolute difference.")
@click.option("--lambda-l2", default=0.0, help="Weight of the mean squared difference.")
@click.option("--lambda-feat", default=0.0, help="Weight of feature matching.")
@click.option("--lambda-vgg", default=0.0, help="Weight of the perceptual distance.")
@click.option("--lambda-swd", default=0.0, help="Weight of the distance in texture.")
@click.option("--vgg-weights", help="torchvision's vgg19-dcbb9e9d.pth, for --lambda-vgg.")
@click.option("--lambda-gp", default=10.0, help="Weight of the gradient penalty of wgangp.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Learn from this generator too.")
@click.option(
    "--lambda-distill", type=float, help=f"Of L1 to its picture.  [{DISTILL:g} with --teacher]"
)
@click.option(
    "--lambda-distill-feat",
    type=float,
    help=f"Of its features' difference.  [{DISTILL_FEAT:g} with --teacher]",
)
@click.option(
    "--teacher-norm-stats",
    type=click.Choice(NORM_STATS),
    help="Of its BatchNorm.  [what draws the held-out pairs better]",
)
@click.option("--init", type=click.Path(path_type=Path), help="Start with a generator's weights.")
@click.option("--qat", is_flag=True, help="Teach --init's generator to stand INT8's rounding.")
@click.option("--epochs", type=int, help="In all.  [200; 10 for drawn scenes]")
@click.option("--steps", type=int, help="In all; instead of --epochs.")
@click.option("--patience", type=int, help="Stop after so many epochs that are no better.")
@click.option("--batch-size", default=4, help="In each process.")
@click.option("--accumulate", default=1, help="Batches that make one step.")
@click.option("--lr", default=2e-4, help="Of Adam.")
@click.option("--beta1", default=0.5, help="Of Adam.")
@click.option("--ema", "ema_decay", default=0.999, help="Of the average of the weights; 0: none.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32")
@click.option("--compile", is_flag=True, help="torch.compile the networks.")
@click.option(
    "--channels-last/--no-channels-last",
    default=None,
    help="Activations as [N, H, W, C] in memory.  [on a GPU]",
)
@click.option("--load-size", type=int, help="Resize to this before the crop.  [crop + 30]")
@click.option("--crop-size", default=256, help="Side of the crop that is trained on.")
@click.option("--no-flip", is_flag=True, help="Do not mirror pairs.")
@click.option("--bad-pairs", default=0.01, help="Part of the pairs that may be damaged.")
@click.option("--seed", default=0)
@click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@click.option("--workers", type=int, help="Processes that load pairs.  [0 on a CPU, else up to 8]")
@click.option(
    "--list-models",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_models,
    help="Print the generators' parameters, MACs and sizes.",
)
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def train(**options: Any) -> None:
    """Train a pix2pix generator on the pairs in DATA.

    DATA holds side-by-side pictures (A left, B right), or the folders A/ and B/, or trainA/ and
    trainB/; with --task plain photos. Without DATA it trains on day-night street scenes that it
    draws itself.

    Many GPUs: torchrun --nproc-per-node N --no-python p2p-train DATA ...
    """
    with ExitStack() as stack:
        team = stack.enter_context(joined_team(device_named(options["device"])))
        console = Console(
            stderr=True, highlight=False, soft_wrap=True, markup=False, quiet=not team.is_first
        )
        prepared = _resume if options["resume"] else _new
        training, split, out = prepared(options, team, console)
        _say_what(console, training, split, out)
        workers = options["workers"]
        if workers is None:
            workers = 0 if team.device.type == "cpu" else min(8, torch.get_num_threads())
        stop = stack.enter_context(stop_on_interrupt())
        steps = loop.fit(training, split, out, workers=workers, stop=stop)
        quality = show(console, steps, training.total_steps - training.step)
    if stop.is_set() and training.step < training.total_steps:
        console.print(f"stopped at step {training.step}; go on with: p2p-train --resume {out}")
    if quality:
        console.print(
            f"held out   L1 {quality.l1:.1f} grey levels, PSNR {quality.psnr:.2f} dB, "
            f"SSIM {quality.ssim:.3f}",
        )
    console.print(f"next       p2p-export {out} --fp16")
    end_process(team.world)


def _say_what(console: Console, training: Training, split: DataSplit, out: Path) -> None:
    config, team = training.config, training.team
    left = training.total_steps - training.step
    if left <= 0:
        raise ConfigError(
            f"the run has {training.step} steps behind it",
            "more than that with --steps or --epochs, which count from the start",
            f"use --steps {training.step * 2}",
        )
    console.print(f"data       {split.note}")
    console.print(
        f"generator  {config.generator.name}, ngf {config.generator.ngf}, "
        f"{sum(p.numel() for p in training.generator.parameters()) / 1e6:.1f} M parameters, "
        f"{config.precision} on {team.device}"
    )
    if training.distillation is not None and config.teacher is not None:
        told = training.distillation.info
        console.print(
            f"teacher    {config.teacher.path}: {told.config.name}, ngf {told.config.ngf}, "
            f"{config.teacher.norm_stats} statistics; weights {config.objective.lambda_distill:g} "
            f"of its picture, {config.objective.lambda_distill_feat:g} of its features"
        )
        if (told.direction, told.task) != (config.direction, config.task):
            console.print(
                f"note       the teacher was trained with --task {told.task} --direction "
                f"{told.direction}, and this run has --task {config.task} --direction "
                f"{config.direction}"
            )
    many = f" in each of {team.world} processes" if team.world > 1 else ""
    times = f" {config.accumulate} times" if config.accumulate > 1 else ""
    console.print(f"run        {out}: {left} steps of {config.batch_size} pairs{times}{many}")


def _new(
    options: dict[str, Any], team: Team, console: Console
) -> tuple[Training, DataSplit, Path]:
    data = options["data"] or "scenes"
    config = train_config_of(options, _typed_flags(), data)
    if config.teacher:
        open_teacher(config)  # what is wrong with it is told before the pairs are read
    split = open_data(data, config.direction, config.seed, config.task)
    out = options["out"] or _free_folder(RUNS, _name_of(data))
    _refuse_to_overwrite(out, config)
    if team.is_first and (out / TRAINING_FILE).exists():
        raise ConfigError(
            f"{out} holds a run already",
            "a new folder, so that nothing is lost",
            f"go on with --resume {out}, or name another folder with --out",
        )
    split = _whole_pairs(split, config, console)
    if config.teacher and options["teacher_norm_stats"] is None:
        config = _with_better_statistics(config, config.teacher, split, team, console)
    total = loop.total_steps_of(config, split.train, team.world)
    return Training(config, total, team.device, team), split, out


def _refuse_to_overwrite(out: Path, config: TrainConfig) -> None:
    """A run must not save its generator over the checkpoint that it learns from or starts with."""
    file = (out / GENERATOR_FILE).resolve()
    for flag, path in (
        ("--teacher", config.teacher and config.teacher.path),
        ("--init", config.init),
    ):
        if path and generator_file(Path(path)).resolve() == file:
            raise ConfigError(
                f"--out {out}, which holds the generator of {flag}",
                "a new folder, so that nothing is lost",
                "name another folder with --out",
            )


def _with_better_statistics(
    config: TrainConfig, teacher: TeacherConfig, split: DataSplit, team: Team, console: Console
) -> TrainConfig:
    """`config` whose teacher draws as well as it can; the first process decides."""
    better, why = "running", ""
    if team.is_first:
        better, why = chosen_norm_stats(config, split.held_out, team.device)
        console.print(f"teacher    {why}")
    better = NORM_STATS[int(team.agreed(float(NORM_STATS.index(better))))]
    return replace(config, teacher=replace(teacher, norm_stats=better))


def _whole_pairs(split: DataSplit, config: TrainConfig, console: Console) -> DataSplit:
    """Decode every picture once: a damaged one is found now, not hours into the run."""

    def tell(line: str) -> None:
        console.print(f"left out   {line}")

    def progress(indices: Iterable[int]) -> Iterable[int]:
        if not console.is_terminal or console.quiet:
            return indices
        return track(indices, "reading pairs", console=console, transient=True)

    limit = config.bad_pairs
    return replace(
        split,
        train=drop_damaged(split.train, config.load_size, limit, tell, progress),
        held_out=drop_damaged(split.held_out, config.crop_size, limit, tell, progress),
    )


def _resume(
    options: dict[str, Any], team: Team, console: Console
) -> tuple[Training, DataSplit, Path]:
    given = [flag for name, flag in _typed_flags().items() if name not in RESUME_MAY_CHANGE]
    if given:
        raise ConfigError(
            f"{', '.join(given)} together with --resume",
            "the settings that the run was started with",
            "leave them out, or start a new run",
        )
    out: Path = options["resume"]
    state = load_training(out)
    config = state.config
    split = _whole_pairs(
        open_data(config.data, config.direction, config.seed, config.task), config, console
    )
    if options["steps"] is not None:
        state.config = replace(config, steps=options["steps"])
    elif options["epochs"] is not None:
        state.config = replace(config, epochs=options["epochs"], steps=None)
    total = loop.total_steps_of(state.config, split.train, team.world)
    return Training.resumed(state, total, team.device, team), split, out


def _typed_flags() -> dict[str, str]:
    """Name and flag of each option that was typed."""
    context = click.get_current_context()
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }


def _name_of(data: str) -> str:
    path = Path(data).resolve()
    return data if data == "scenes" else path.parent.name if path.name == "train" else path.name


def _free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `parent/name-2`, `-3`, ... where a run lies already."""
    number = 1
    folder = parent / name
    while (folder / TRAINING_FILE).exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder
