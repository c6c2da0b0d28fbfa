"""`p2p-scenes`: the built-in scenes as files."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from trainer.errors import ConfigError
from trainer.journal import write_clip, write_png
from trainer.scenes import draw_clip, draw_pair
from trainer.ui import one_line_errors


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
