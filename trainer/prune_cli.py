"""`p2p-prune`: a narrower generator out of a trained one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from torch import nn

from trainer.catalogue import macs_of
from trainer.checkpoint import (
    GENERATOR_FILE,
    TRAINING_FILE,
    GeneratorInfo,
    generator_file,
    load_generator,
    save_generator,
)
from trainer.data import Pairs, open_data
from trainer.drawing import draw_picture
from trainer.errors import ConfigError
from trainer.metrics import Quality, mean_quality, quality_of
from trainer.prune import pruned
from trainer.ui import one_line_errors


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--ngf", type=int, help="Channels of the first layer that are left.")
@click.option("--keep", type=float, help="Part of the channels that is left; instead of --ngf.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File or folder.")
@click.option("--data", help="Pairs to measure both on.")
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def prune(
    checkpoint: Path, ngf: int | None, keep: float | None, out: Path, data: str | None
) -> None:
    """Make a trained generator narrower: in each layer the most important channels stay.

    CHECKPOINT is a run of p2p-train or its generator.safetensors. The result is to be trained
    on: p2p-train DATA --init OUT --teacher CHECKPOINT.
    """
    file = _file_to_write(out, checkpoint)
    generator, info = load_generator(checkpoint)
    narrow, config = pruned(generator, info.config, _ngf_left(ngf, keep, info.config.ngf))
    told = replace(info, config=config, quality=None)
    wide_count, narrow_count = (
        sum(p.numel() for p in network.parameters()) for network in (generator, narrow)
    )
    wide_macs, narrow_macs = (macs_of(c, info.size_px) for c in (info.config, config))
    side = f"at {info.size_px}x{info.size_px}"
    click.echo(
        f"before     {config.name}, ngf {info.config.ngf}: {wide_count / 1e6:.2f} M parameters, "
        f"{wide_macs / 1e9:.2f} G MACs {side}"
    )
    click.echo(
        f"after      {config.name}, ngf {config.ngf}: {narrow_count / 1e6:.2f} M parameters, "
        f"{narrow_macs / 1e9:.2f} G MACs: {wide_count / narrow_count:.1f} and "
        f"{wide_macs / narrow_macs:.1f} times fewer"
    )
    if data is not None:
        held_out = open_data(data, info.direction, task=info.task).held_out
        before, after = (_quality(network, held_out, info) for network in (generator, narrow))
        told = replace(told, quality=after.to_dict())
        click.echo(
            f"held out   L1 {before.l1:.1f} grey levels before, {after.l1:.1f} after, "
            f"{len(held_out)} pairs"
        )
    save_generator(file, narrow.state_dict(), told)
    click.echo(f"wrote      {file}")
    click.echo(f"next       p2p-train {data or 'DATA'} --init {file} --teacher {checkpoint}")


def _file_to_write(out: Path, checkpoint: Path) -> Path:
    if out.suffix and out.suffix != ".safetensors":
        raise ConfigError(
            f"--out {out}", "a folder, or a file that ends in .safetensors", "rename it"
        )
    file = out if out.suffix else out / GENERATOR_FILE
    is_source = file.resolve() == generator_file(checkpoint).resolve()
    if is_source or (file.parent / TRAINING_FILE).exists():
        raise ConfigError(
            f"--out {out}, which holds {'CHECKPOINT itself' if is_source else 'a run'}",
            "a place of its own, so that nothing is lost",
            "name another folder with --out",
        )
    return file


def _ngf_left(ngf: int | None, keep: float | None, before: int) -> int:
    if (ngf is None) == (keep is None):
        raise ConfigError(
            "neither --ngf nor --keep" if ngf is None else "--ngf and --keep",
            "one of the two",
            f"use --ngf {max(1, before // 2)}",
        )
    if keep is None:
        assert ngf is not None
        return ngf
    if not 0 < keep < 1:
        raise ConfigError(f"--keep {keep:g}", "between 0 and 1", "use --keep 0.5")
    return max(1, round(before * keep))


def _quality(network: nn.Module, held_out: Pairs, info: GeneratorInfo) -> Quality:
    """Means over all held-out pairs, at the size that it was trained at."""
    pairs = (held_out.pair(index, info.size_px) for index in range(len(held_out)))
    return mean_quality(
        quality_of(draw_picture(network, source), target) for source, target in pairs
    )
