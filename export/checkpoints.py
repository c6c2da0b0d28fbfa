"""What is to be exported: a run, or a checkpoint of this trainer or of another; read, never
guessed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from export.gate_images import TrainedOn
from runtime.artifact import sha256_of
from runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

RUNS = Path("runs")
FOREIGN_NAMES = ("latest_net_G.pth", "latest_net_G_A.pth")
"""What pytorch-CycleGAN-and-pix2pix and pix2pixHD leave in `checkpoints/NAME/`."""


@dataclass(frozen=True)
class Checkpoint:
    """A generator and what is known of it, whoever trained it."""

    path: Path
    generator: nn.Module = field(repr=False)
    """On the CPU, FP32, in evaluation mode: float [N, C, H, W] -1 to 1 to the same."""
    name: str
    """Architecture: `unet_256`, `resnet_9blocks`, `pix2pixhd_global`, ..."""
    description: str
    """One line of what was found, for people."""
    size_px: int
    """Side of the square that it is used at where nothing else is said."""
    size_multiple: int
    input_channels: int
    """3: RGB; 1: grey."""
    output_channels: int
    foreign: bool
    """Whether another project trained it."""
    direction: str
    """`AtoB` or `BtoA`; of a foreign one not known, and `AtoB` is taken."""
    trained_on: TrainedOn | None = None
    """None: not known."""
    steps: int | None = None
    quality: dict[str, float] | None = None

    @property
    def sha256(self) -> str:
        return sha256_of(self.path)

    @property
    def least_side_px(self) -> int:
        """Of a picture: a ResNet mirrors it where it is smallest, which takes two pixels, and so
        do a picture's own statistics in `mobilenet_unet`."""
        takes_one = self.name.startswith(("unet", "encoder_decoder", "dense_unet"))
        return self.size_multiple * (1 if takes_one else 2)

    @property
    def training(self) -> str:
        """What it was trained on, in words."""
        if self.trained_on is None:
            return "unknown"
        task = self.trained_on.task
        what = self.direction if task == "pairs" else task
        return f"{self.trained_on.data} {what}, {self.steps} steps"


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a run's folder, a `generator.safetensors`, or a foreign state dict.

    A folder of `checkpoints/` of pytorch-CycleGAN-and-pix2pix or pix2pixHD stands for its
    `latest_net_G.pth`.

    Raises:
        ModelError: torch is not installed, or a foreign file is not a generator that is known.
        CheckpointError: not a checkpoint of p2p-train.
    """
    try:
        from trainer.checkpoint import GENERATOR_FILE, is_ours, load_generator
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path} is a checkpoint, and {error.name} is not installed here",
            "the packages of the trainer",
            "install them with: pip install 'pix2pix-edge[train]', or export where you trained "
            "and bring model.onnx here",
        ) from error
    file = path / GENERATOR_FILE if path.is_dir() else path
    if path.is_dir() and not file.exists():
        found = [path / name for name in FOREIGN_NAMES if (path / name).is_file()]
        file = found[0] if found else file
    if file.is_file() and not is_ours(file):
        return _foreign(file)
    generator, info = load_generator(file)
    return Checkpoint(
        path=file,
        generator=generator,
        name=info.config.name,
        description=f"{info.config.name}, ngf {info.config.ngf}, {info.config.norm} norm, "
        f"{info.step} steps on {info.data}",
        size_px=info.size_px,
        size_multiple=info.config.size_multiple,
        input_channels=info.config.input_channels,
        output_channels=info.config.output_channels,
        foreign=False,
        direction=info.direction,
        trained_on=TrainedOn(info.data, info.task),
        steps=info.step,
        quality=info.quality,
    )


def _foreign(file: Path) -> Checkpoint:
    from export.foreign_checkpoints import open_foreign_checkpoint

    found = open_foreign_checkpoint(file)
    return Checkpoint(
        path=file,
        generator=found.generator,
        name=found.name,
        description=found.description,
        size_px=found.size_px,
        size_multiple=found.size_multiple,
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        foreign=True,
        direction="AtoB",
    )


def newest_run() -> Path:
    """The run under `runs/` that was saved last.

    Raises:
        ModelError: there is none.
    """
    files = [path for path in RUNS.glob("*/generator.safetensors") if path.is_file()]
    if not files:
        raise ModelError(
            f"no run in {RUNS.resolve()}",
            "the folder that p2p-train writes",
            "train one with: p2p-train, or name a run, a checkpoint or an ONNX file",
        )
    return max(files, key=lambda path: path.stat().st_mtime).parent
