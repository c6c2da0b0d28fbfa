"""The paper's ablations on pairs of your own: which generator, which objective, which patch.

    python benchmarks/ablation.py --data daynight=PAIRS --data facades=PAIRS:BtoA --out FOLDER

Each row is one `p2p-train` with its own options and one `p2p-eval` of what came out; rows that lie
in FOLDER already are taken as they are, so that a stopped table goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from numpy.typing import NDArray
from rich.console import Console

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.exports.report import between_markers
from export.checkpoints import open_checkpoint
from export.subjects import torch_draws
from runtime.errors import UserError
from runtime.files import write_text
from trainer.data import open_data
from trainer.errors import TrainerError
from trainer.journal import sample_grid, write_png

SCHEMA = 1
MARKERS = ("<!-- ablation:start -->", "<!-- ablation:end -->")
GRID_PAIRS = 3
MEASURES = ("l1", "psnr", "ssim", "ms_ssim", "swd", "gradient_energy")
"""Keys of `p2p-eval`'s JSON that become columns."""


@dataclass(frozen=True)
class Recipe:
    """One row: what is varied, as options of `p2p-train`."""

    name: str
    title: str
    options: tuple[str, ...]


RECIPES = (
    Recipe("unet-l1", "U-Net, L1 alone", ("--gan-mode", "none")),
    Recipe("unet-cgan", "U-Net, cGAN alone", ("--lambda-l1", "0")),
    Recipe("unet-l1-cgan", "U-Net, L1 + cGAN, patch 70", ()),
    Recipe("unet-patch-1", "U-Net, L1 + cGAN, patch 1", ("--patch", "1")),
    Recipe("unet-patch-16", "U-Net, L1 + cGAN, patch 16", ("--patch", "16")),
    Recipe(
        "encdec-l1", "encoder-decoder, L1", ("--netG", "encoder_decoder", "--gan-mode", "none")
    ),
    Recipe("encdec-l1-cgan", "encoder-decoder, L1 + cGAN", ("--netG", "encoder_decoder")),
    Recipe("mobilenet-l1-cgan", "mobilenet_unet, L1 + cGAN", ("--netG", "mobilenet_unet")),
)


@dataclass(frozen=True)
class Source:
    """A set of pairs that every recipe is trained on."""

    name: str
    data: str
    direction: str

    @classmethod
    def of(cls, text: str) -> Source:
        """`NAME=DATA` or `NAME=DATA:BtoA`."""
        name, _, rest = text.partition("=")
        data, direction = rest, "AtoB"
        if rest.endswith((":AtoB", ":BtoA")):
            data, _, direction = rest.rpartition(":")
        if not name or not data:
            raise UserError(f"--data {text}", "NAME=FOLDER or NAME=FOLDER:BtoA", "change --data")
        return cls(name, data, direction)


@dataclass(frozen=True)
class Row:
    """What came of one recipe on one set of pairs."""

    data: str
    recipe: str
    title: str
    options: list[str]
    train_s: float | None
    measured: dict[str, Any]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--data", "sources", multiple=True, required=True, help="NAME=FOLDER[:BtoA].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--only", multiple=True, type=click.Choice([r.name for r in RECIPES]))
@click.option("--steps", default=2000, help="Of each run.")
@click.option("--ngf", default=16, help="Of generator and discriminator.")
@click.option("--batch-size", default=1)
@click.option("--norm", default="instance", help="Of generator and discriminator.")
@click.option("--seed", default=0)
@click.option("--jobs", default=1, help="Runs at once; the threads are shared among them.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where the rows go.")
@click.option("--docs", type=click.Path(path_type=Path), help="Markdown with the two markers.")
def ablation(
    sources: Sequence[str],
    out: Path,
    only: Sequence[str],
    steps: int,
    ngf: int,
    batch_size: int,
    norm: str,
    seed: int,
    jobs: int,
    json_path: Path | None,
    docs: Path | None,
) -> None:
    """Train every recipe on every set of pairs, measure, and write the table."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    parsed = [Source.of(text) for text in sources]
    common = [
        *("--steps", str(steps), "--ngf", str(ngf), "--ndf", str(ngf)),
        *("--batch-size", str(batch_size), "--norm", norm, "--norm-d", norm, "--seed", str(seed)),
    ]
    recipes = [recipe for recipe in RECIPES if not only or recipe.name in only]
    work = [(source, recipe) for recipe in recipes for source in parsed]

    def one(item: tuple[Source, Recipe]) -> Row:
        row = measured_row(*item, common, out, max(1, (os.cpu_count() or 1) // jobs))
        console.print(f"{row.data}, {row.title}: L1 {row.measured['model']['l1']:.2f}")
        return row

    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(one, work))
    for source in parsed:
        path = out / f"{source.name}.png"
        write_png(path, grid(source, recipes, out))
        console.print(f"wrote {path}")
    text = markdown(rows, parsed)
    click.echo(text)
    if json_path:
        told = {
            "schema": SCHEMA,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {"options": common},
            "environment": environment(),
            "rows": [asdict(row) for row in rows],
        }
        write_text(json_path, json.dumps(told, indent=1) + "\n")
    if docs:
        write_text(docs, between_markers(docs, text, MARKERS))


def measured_row(
    source: Source, recipe: Recipe, common: Sequence[str], out: Path, threads: int
) -> Row:
    """Train and measure, unless that has been done.

    Raises:
        UserError: a command failed; its last line says why.
    """
    run = out / f"{source.name}-{recipe.name}"
    options = [*common, "--direction", source.direction, *recipe.options]
    if not (run / "eval.json").exists():
        resumes = (run / "training.safetensors").exists()
        train = ["--resume", str(run)] if resumes else [source.data, *options, "--out", str(run)]
        if not (run / "done").exists():
            _run("p2p-train", train, run, threads)
            (run / "done").touch()
        held_out = _held_out_folder(source.data)
        _run("p2p-eval", [str(run), held_out, "--json", str(run / "eval.json")], run, threads)
    seconds = [json.loads(line)["step_s"] for line in (run / "metrics.jsonl").open()]
    return Row(
        source.name,
        recipe.name,
        recipe.title,
        options,
        round(sum(seconds), 1),
        json.loads((run / "eval.json").read_text()),
    )


def _run(command: str, arguments: Sequence[str], run: Path, threads: int) -> None:
    program = Path(sys.executable).with_name(command)
    around = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, env=around)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise UserError(
            f"{command} for {run.name}: {last[0].removeprefix('error: ')}",
            "a run that ends",
            f"look into {run}",
        )


def _held_out_folder(data: str) -> str:
    if data == "scenes":
        return data
    folder = Path(data)
    root = folder.parent if folder.name == "train" else folder
    for name in ("val", "test"):
        if (root / name).is_dir():
            return str(root / name)
    raise UserError(f"{data} has no val/ or test/", "held-out pairs", "make one of the two")


def grid(source: Source, recipes: Sequence[Recipe], out: Path) -> NDArray[np.uint8]:
    """Input, what each recipe drew, target, of a few held-out pairs; uint8 [H, W, 3] BGR."""
    held_out = open_data(source.data, source.direction).held_out
    checkpoints = [open_checkpoint(out / f"{source.name}-{r.name}") for r in recipes]
    draws = [torch_draws(checkpoint, checkpoint.generator) for checkpoint in checkpoints]
    rows = []
    for index in np.linspace(0, len(held_out) - 1, GRID_PAIRS + 2, dtype=int)[1:-1]:
        before, target = held_out.pair(int(index), checkpoints[0].size_px)
        rows.append((before, *(draw(before) for draw in draws), target))
    small = [
        [cv2.resize(p, (160, 160), interpolation=cv2.INTER_AREA) for p in row] for row in rows
    ]
    return sample_grid(small, ["input", *(r.name for r in recipes), "target"])


def markdown(rows: Sequence[Row], sources: Sequence[Source]) -> str:
    """A table for each set of pairs."""
    return "\n\n".join("\n".join(_table(rows, source)) for source in sources)


def _table(rows: Sequence[Row], source: Source) -> Iterator[str]:
    yield f"**{source.name}**, {source.direction}"
    yield ""
    yield "| | L1 | PSNR, dB | SSIM | MS-SSIM | SWD | gradient energy |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    own = [row for row in rows if row.data == source.name]
    for row in own:
        yield f"| {row.title} | {_cells(row.measured['model'])} |"
    for name, title in (("identity", "the input handed back"), ("mean_target", "the mean target")):
        yield f"| {title} | {_cells(own[0].measured[name])} |"


def _cells(measured: dict[str, Any]) -> str:
    digits = {"l1": 2, "psnr": 2, "ssim": 3, "ms_ssim": 3, "swd": 1, "gradient_energy": 2}
    cells = []
    for name in MEASURES:
        value = measured.get(name)
        cells.append("" if value is None else f"{value:.{digits[name]}f}")
    return " | ".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(
        ablation, arguments, "stopped: run it again to go on", (UserError, TrainerError)
    )


if __name__ == "__main__":
    sys.exit(main())
