"""A run on the terminal: a bar there, plain lines in a pipe or a log."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar

from trainer.metrics import Quality
from trainer.progress import Progress

LOG_EVERY = 20


def show(console: Console, steps: Iterator[Progress], left: int) -> Quality | None:
    """Follow the run on a terminal with a bar, elsewhere with plain lines; its last quality."""
    quality: Quality | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=left, rate="")
        for progress in steps:
            losses = progress.losses
            text = (
                f"epoch {progress.epoch}/{progress.epochs}  L1 {losses.g_l1:.1f}  "
                f"G {losses.g_gan:.2f}  D {losses.d_loss:.2f}"
            )
            if losses.g_distill is not None:
                text += f"  T {losses.g_distill:.1f}"
            for remark in progress.remarks:
                console.print(f"note       {remark}")
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
