"""`python benchmarks/training_speed.py`: images a second of `p2p-train` beside a plain loop.

The plain loop is what one writes from the paper: the same two networks in FP32 as PyTorch runs
them by default, `torch.optim.Adam`, one batch after the other. Both get their batches from memory.
They take turns, a few steps each round, so that a disturbance hits both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.command import exit_code_of
from benchmarks.conditions.environment import environment
from benchmarks.timing import rotated
from runtime.errors import UserError
from runtime.files import write_text
from trainer.config import (
    GENERATORS,
    PRECISIONS,
    DiscriminatorConfig,
    GeneratorConfig,
    TrainConfig,
)
from trainer.discriminators import build_discriminator
from trainer.errors import TrainerError
from trainer.generators import build_generator
from trainer.training import Training
from trainer.ui import device_named

SCHEMA = 1
WARM_UP_STEPS = 2


@dataclass
class Runner:
    """One way to train, and how long its steps took."""

    name: str
    batch_size: int
    step: Callable[[], object] = field(repr=False)
    rounds_s: list[float] = field(default_factory=list)
    """Mean time of a step, for each round."""

    @property
    def images_per_s(self) -> float:
        return self.batch_size / median(self.rounds_s)

    def over(self, other: Runner) -> list[float]:
        """Its images a second over the other's, round by round."""
        factor = self.batch_size / other.batch_size
        return [
            factor * theirs / ours
            for ours, theirs in zip(self.rounds_s, other.rounds_s, strict=True)
        ]


def plain_loop(
    generator: GeneratorConfig, ndf: int, batch_size: int, side_px: int, device: torch.device
) -> Callable[[], object]:
    """A step of pix2pix as the paper has it: BCE and 100 L1, FP32, PyTorch's defaults."""
    torch.manual_seed(0)
    g = build_generator(generator).to(device)
    d = build_discriminator(DiscriminatorConfig(ndf=ndf), 3, 3).to(device)
    for_g = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for_d = torch.optim.Adam(d.parameters(), lr=2e-4, betas=(0.5, 0.999))
    x, y = (torch.rand(batch_size, 3, side_px, side_px, device=device) * 2 - 1 for _ in range(2))

    def bce(logits: Tensor, real: bool) -> Tensor:
        wanted = torch.ones_like(logits) if real else torch.zeros_like(logits)
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    def step() -> float:
        fake = g(x)
        d.requires_grad_(True)
        for_d.zero_grad()
        d_loss = 0.5 * (bce(d(x, fake.detach()), False) + bce(d(x, y), True))
        d_loss.backward()  # type: ignore[no-untyped-call]
        for_d.step()
        d.requires_grad_(False)
        for_g.zero_grad()
        g_loss = bce(d(x, fake), True) + 100 * functional.l1_loss(fake, y)
        g_loss.backward()  # type: ignore[no-untyped-call]
        for_g.step()
        return g_loss.item()

    return step


def our_loop(config: TrainConfig, device: torch.device) -> Callable[[], object]:
    """A step of `p2p-train`, from uint8 batches, averaged weights and losses included."""
    training = Training(config, 1_000_000, device)
    side = config.crop_size
    batch = torch.randint(0, 256, (config.batch_size, 6, side, side), dtype=torch.uint8)
    return lambda: training.train_step([batch])


def take_turns(runners: Sequence[Runner], rounds: int, steps: int, device: torch.device) -> None:
    """Warm up, then time `steps` steps of each in every round, nobody always first."""
    for runner in runners:
        for _ in range(WARM_UP_STEPS):
            runner.step()
    for number in range(rounds):
        for runner in rotated(runners, number):
            _wait_for(device)
            started = time.perf_counter()
            for _ in range(steps):
                runner.step()
            _wait_for(device)
            runner.rounds_s.append((time.perf_counter() - started) / steps)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--netG", "name", type=click.Choice(GENERATORS), default="unet_256")
@click.option("--ngf", default=64, help="Of generator and discriminator.")
@click.option("--batch-size", default=4, help="Of p2p-train; the plain loop has this, and 1.")
@click.option("--size", default=256, help="Side of the pictures, in pixels.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="[fp32; bf16 on a GPU]")
@click.option("--compile", "compiled", is_flag=True, help="One more row, with --compile.")
@click.option("--rounds", default=7)
@click.option("--steps", default=2, help="Of each, a round.")
@click.option("--device", default="auto")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def training_speed(
    name: str,
    ngf: int,
    batch_size: int,
    size: int,
    precision: str | None,
    compiled: bool,
    rounds: int,
    steps: int,
    device: str,
    json_path: Path | None,
) -> None:
    """Images a second of p2p-train, beside a plain loop of the same networks in the same run."""
    if min(rounds, steps) < 1:
        raise UserError(f"{rounds} rounds of {steps} steps", "1 or more of each", "change them")
    where = device_named(device)
    kind = precision or ("bf16" if where.type == "cuda" else "fp32")
    generator = GeneratorConfig(name, ngf)

    def ours(batch: int, compile_it: bool = False) -> Runner:
        config = TrainConfig(
            generator=generator,
            discriminator=DiscriminatorConfig(ndf=ngf),
            batch_size=batch,
            load_size=size,
            crop_size=size,
            precision=kind,
            compile=compile_it,
        )
        told = f"p2p-train, batch {batch}, {kind}{', --compile' if compile_it else ''}"
        return Runner(told, batch, our_loop(config, where))

    plain = {
        batch: Runner(
            f"plain loop, batch {batch}", batch, plain_loop(generator, ngf, batch, size, where)
        )
        for batch in sorted({1, batch_size})
    }
    mine = [ours(batch) for batch in plain]
    if compiled:
        mine.append(ours(batch_size, compile_it=True))
    runners = [*plain.values(), *mine]
    take_turns(runners, rounds, steps, where)

    table = Table("", "images/s", "over the plain loop of the same batch", "over that of batch 1")
    for runner in runners:
        cells = [_ratio(runner.over(plain[b])) for b in (runner.batch_size, 1)]
        table.add_row(runner.name, f"{runner.images_per_s:.2f}", *cells)
    Console(width=110).print(table)
    if json_path:
        told = {
            "schema": SCHEMA,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {
                "generator": asdict(generator),
                "side_px": size,
                "rounds": rounds,
                "steps_a_round": steps,
                "device": str(where),
                "torch_threads": torch.get_num_threads(),
            },
            "environment": environment(),
            "rows": [
                {
                    "name": runner.name,
                    "batch_size": runner.batch_size,
                    "images_per_s": round(runner.images_per_s, 3),
                    "over_plain_of_the_same_batch": runner.over(plain[runner.batch_size]),
                    "over_plain_of_batch_1": runner.over(plain[1]),
                    "rounds_s": runner.rounds_s,
                }
                for runner in runners
            ],
        }
        write_text(json_path, json.dumps(told, indent=1) + "\n")


def _ratio(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(
        training_speed, arguments, "stopped: nothing was written", (UserError, TrainerError)
    )


if __name__ == "__main__":
    sys.exit(main())
