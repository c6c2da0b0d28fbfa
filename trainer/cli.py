"""`p2p-train` and `p2p-scenes`: options in, one line out when something is wrong."""

from __future__ import annotations

import functools
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from click.core import ParameterSource
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from trainer import loop
from trainer.checkpoint import TRAINING_FILE, load_training
from trainer.config import (
    DIRECTIONS,
    GAN_MODES,
    GENERATORS,
    NORMS,
    GeneratorConfig,
    TrainConfig,
)
from trainer.data import DataSplit, FolderPairs, open_data
from trainer.errors import ConfigError, TrainerError
from trainer.journal import write_clip, write_png
from trainer.scenes import draw_clip, draw_pair

RUNS = Path("runs")
SCENES_EPOCHS = 10
RESUME_MAY_CHANGE = {"resume", "epochs", "steps", "device", "workers"}
LOG_EVERY = 20


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can mend into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (TrainerError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)

    return wrapped


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("data", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/NAME]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in DIR.")
@click.option("--direction", type=click.Choice(DIRECTIONS), default="AtoB")
@click.option("--netG", "net_g", type=click.Choice(GENERATORS), default="unet_256")
@click.option("--ngf", default=64, help="Channels of the generator's first layer.")
@click.option("--norm", type=click.Choice(NORMS), default="batch")
@click.option("--no-dropout", is_flag=True, help="No noise in the decoder while training.")
@click.option("--ndf", default=64, help="Channels of the discriminator's first layer.")
@click.option("--gan-mode", type=click.Choice(GAN_MODES), default="vanilla")
@click.option("--lambda-l1", default=100.0, help="Weight of L1 beside the adversarial loss.")
@click.option("--epochs", type=int, help="In all.  [200; 10 for drawn scenes]")
@click.option("--steps", type=int, help="In all; instead of --epochs.")
@click.option("--batch-size", default=4)
@click.option("--lr", default=2e-4, help="Of Adam.")
@click.option("--beta1", default=0.5, help="Of Adam.")
@click.option("--load-size", type=int, help="Resize to this before the crop.  [crop + 30]")
@click.option("--crop-size", default=256, help="Side of the crop that is trained on.")
@click.option("--no-flip", is_flag=True, help="Do not mirror pairs.")
@click.option("--seed", default=0)
@click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@click.option("--workers", type=int, help="Processes that load pairs.  [0 on a CPU, else up to 8]")
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def train(**options: Any) -> None:
    """Train a pix2pix generator on the pairs in DATA.

    DATA holds side-by-side pictures (A left, B right) or the folders A/ and B/; it may have train/
    and val/. Without DATA it trains on day-night street scenes that it draws itself.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    device = _device(options["device"])
    training, split, out = _resume(options, device) if options["resume"] else _new(options, device)
    config = training.config
    left = training.total_steps - training.step
    console.print(f"data       {split.note}")
    console.print(
        f"generator  {config.generator.name}, ngf {config.generator.ngf}, "
        f"{sum(p.numel() for p in training.generator.parameters()) / 1e6:.1f} M parameters, "
        f"on {device}",
    )
    console.print(f"run        {out}: {left} steps of {config.batch_size} pairs")
    if left <= 0:
        raise ConfigError(
            f"the run has {training.step} steps behind it",
            "more than that with --steps or --epochs, which count from the start",
            f"use --steps {training.step * 2}",
        )
    workers = options["workers"]
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, torch.get_num_threads())
    with stop_on_interrupt() as stop:
        quality = _show(console, loop.fit(training, split, out, workers=workers, stop=stop), left)
    if training.step < training.total_steps:
        console.print(f"stopped at step {training.step}; go on with: p2p-train --resume {out}")
    if quality:
        console.print(
            f"held out   L1 {quality.l1:.1f} grey levels, PSNR {quality.psnr:.2f} dB, "
            f"SSIM {quality.ssim:.3f}",
        )
    console.print(f"next       p2p-export {out} --fp16")


def _new(options: dict[str, Any], device: torch.device) -> tuple[loop.Training, DataSplit, Path]:
    data = options["data"] or "scenes"
    crop = options["crop_size"]
    epochs = options["epochs"]
    config = TrainConfig(
        data=data if data == "scenes" else str(Path(data)),
        direction=options["direction"],
        generator=GeneratorConfig(
            name=options["net_g"],
            ngf=options["ngf"],
            norm=options["norm"],
            dropout=0.0 if options["no_dropout"] else 0.5,
        ),
        ndf=options["ndf"],
        gan_mode=options["gan_mode"],
        lambda_l1=options["lambda_l1"],
        epochs=epochs if epochs is not None else SCENES_EPOCHS if data == "scenes" else 200,
        steps=options["steps"],
        batch_size=options["batch_size"],
        lr=options["lr"],
        beta1=options["beta1"],
        load_size=options["load_size"] or crop + 30,
        crop_size=crop,
        flip=not options["no_flip"],
        seed=options["seed"],
    )
    split = open_data(data, config.direction, config.seed)
    out = options["out"] or _free_folder(RUNS, _name_of(data))
    if (out / TRAINING_FILE).exists():
        raise ConfigError(
            f"{out} holds a run already",
            "a new folder, so that nothing is lost",
            f"go on with --resume {out}, or name another folder with --out",
        )
    _read_all(split, config)
    training = loop.Training(config, loop.total_steps_of(config, split.train), device)
    return training, split, out


def _read_all(split: DataSplit, config: TrainConfig) -> None:
    """Decode every picture once: a damaged one is found now, not hours into the run."""
    console = Console(stderr=True)
    for pairs, size_px in ((split.train, config.load_size), (split.held_out, config.crop_size)):
        if isinstance(pairs, FolderPairs):
            indices: Iterable[int] = range(len(pairs))
            if console.is_terminal:
                indices = track(indices, "reading pairs", console=console, transient=True)
            for index in indices:
                pairs.pair(index, size_px)


def _resume(
    options: dict[str, Any], device: torch.device
) -> tuple[loop.Training, DataSplit, Path]:
    context = click.get_current_context()
    given = [
        name
        for name in options
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        and name not in RESUME_MAY_CHANGE
    ]
    if given:
        raise ConfigError(
            f"{', '.join(given)} together with --resume",
            "the settings that the run was started with",
            "leave them out, or start a new run",
        )
    out: Path = options["resume"]
    state = load_training(out)
    split = open_data(state.config.data, state.config.direction, state.config.seed)
    if options["steps"] is not None:
        state.config = replace(state.config, steps=options["steps"])
    elif options["epochs"] is not None:
        state.config = replace(state.config, epochs=options["epochs"], steps=None)
    total = loop.total_steps_of(state.config, split.train)
    return loop.Training.resumed(state, total, device), split, out


def _show(console: Console, steps: Iterator[loop.Progress], left: int) -> Any:
    """Follow the run on a terminal with a bar, elsewhere with plain lines; its last quality."""
    quality = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=left, rate="")
        for progress in steps:
            losses = progress.losses
            text = (
                f"epoch {progress.epoch}/{progress.epochs}  L1 {losses.g_l1:.1f}  "
                f"G {losses.g_gan:.2f}  D {losses.d_loss:.2f}"
            )
            bar.update(task, advance=1, description=text, rate=f"{progress.step_s:.2f} s/step")
            done = progress.quality is not None
            if not console.is_terminal and (progress.step % LOG_EVERY == 0 or done):
                minutes = (progress.total_steps - progress.step) * progress.step_s / 60
                console.print(
                    f"step {progress.step}/{progress.total_steps}  {text}  "
                    f"{progress.step_s:.2f} s/step, {minutes:.0f} min left",
                    soft_wrap=True,
                )
            if progress.quality is not None:
                quality = progress.quality
                console.print(
                    f"epoch {progress.epoch}: held out L1 {quality.l1:.1f}, "
                    f"PSNR {quality.psnr:.2f} dB, SSIM {quality.ssim:.3f}",
                )
    return quality


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event, so that a step is finished; a second one interrupts."""
    stop = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name}",
            "cpu" + (", cuda" if torch.cuda.is_available() else " (this torch sees no GPU)"),
            "leave --device out, or install a torch built for your GPU",
        ) from error
    return device


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


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--pairs", default=20, help="How many side-by-side pairs go into the folder OUT.")
@click.option("--frames", default=150, help="How many frames go into the video OUT.")
@click.option("--fps", default=25.0, help="Of the video.")
@click.option("--size", default="256x256", help="WIDTHxHEIGHT in pixels.")
@click.option("--seed", default=0, help="Which scenes.")
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def scenes(out: Path, pairs: int, frames: int, fps: float, size: str, seed: int) -> None:
    """Write the built-in street scenes: OUT.mp4 is a drive by day, a folder OUT gets pairs."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found or not all(64 <= int(side) <= 1920 for side in found.groups()):
        raise ConfigError(f"--size {size}", "WIDTHxHEIGHT, 64 to 1920 pixels", "e.g. 640x360")
    width_px, height_px = int(found[1]), int(found[2])
    if out.suffix.lower() == ".mp4":
        days = (day for day, _ in draw_clip(seed, frames, fps, height_px, width_px))
        write_clip(out, days, fps, (height_px, width_px))
        click.echo(f"wrote {out}: {frames} frames, {width_px}x{height_px}, {fps:g} fps")
        return
    if out.suffix:
        raise ConfigError(f"OUT {out}", "a folder, or a file that ends in .mp4", "rename it")
    for number in range(pairs):
        day, night = draw_pair(seed + number, height_px, width_px)
        write_png(out / f"{number:05d}.png", np.hstack([day, night]))
    click.echo(f"wrote {pairs} side-by-side pairs, day left, night right, to {out}")
