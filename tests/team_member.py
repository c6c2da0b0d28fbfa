"""What one process of a team does in test_training_parallel.py; `torchrun` calls this file.

team_member.py losses DATA OUT BATCH_SIZE ACCUMULATE
team_member.py statistics OUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from trainer.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from trainer.data import open_data
from trainer.loop import fit
from trainer.parallel import end_process, joined_team
from trainer.training import Training

STEPS = 20
CPU = torch.device("cpu")


def losses_in_double(data: Path, out: Path, batch_size: int, accumulate: int) -> list[list[float]]:
    """The losses of `STEPS` steps with fixed statistics, whose arithmetic is in float64.

    In float32 two orders of one sum differ by 1e-7 of it. Adam and the ReLUs can make a thousand
    times that of it in 20 steps: as much in one process whose first weights are off by 1e-7. In
    float64 the same growth ends far below any real difference.
    """
    config = TrainConfig(
        data=str(data),
        generator=GeneratorConfig("unet_128", ngf=4, norm="batch", dropout=0),
        discriminator=DiscriminatorConfig(ndf=4, norm="none"),
        batch_size=batch_size,
        accumulate=accumulate,
        crop_size=128,
        lr=1e-3,
        fixed_stats=True,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with joined_team(CPU) as team:
            training = Training(config, STEPS, team.device, team)
            run = fit(training, open_data(str(data), "AtoB"), out)
            losses = [[p.losses.g_l1, p.losses.g_gan, p.losses.d_loss] for p in run]
            if team.is_first:
                torch.save(losses, out / "losses.pt")
            return losses
    finally:
        torch.set_default_dtype(before)


def fixed_statistics(out: Path) -> None:
    """Save what this process fixes, and the first that it draws after that, as OUT/RANK.pt."""
    config = TrainConfig(
        generator=GeneratorConfig("unet_128", ngf=2), crop_size=128, fixed_stats=True
    )
    pictures = torch.arange(4 * 6 * 128 * 128).reshape(4, 6, 128, 128).byte()
    with joined_team(CPU) as team:
        training = Training(config, 9, team.device, team)
        training.fix_statistics(pictures)
        statistics = {k: v for k, v in training.average.state_dict().items() if "running" in k}
        told = {"statistics": statistics, "noise": torch.rand(3)}
        torch.save(told, out / f"{team.rank}.pt")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "losses":
        data, out, batch_size, accumulate = arguments
        losses_in_double(Path(data), Path(out), int(batch_size), int(accumulate))
    else:
        fixed_statistics(Path(arguments[0]))
    end_process(int(os.environ.get("WORLD_SIZE", "1")))
