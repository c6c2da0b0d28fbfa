"""What is to be exported: a run, a checkpoint, or an ONNX file; read, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.artifact import sha256_of
from runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from trainer.checkpoint import GeneratorInfo

RUNS = Path("runs")


@dataclass(frozen=True)
class Checkpoint:
    """A generator of this trainer, and the file that it came from."""

    path: Path
    generator: nn.Module
    """On the CPU, FP32, in evaluation mode."""
    info: GeneratorInfo
    sha256: str


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a run's folder or a `generator.safetensors`.

    Raises:
        ModelError: torch is not installed.
        CheckpointError: not a checkpoint of p2p-train.
    """
    try:
        from trainer.checkpoint import GENERATOR_FILE, load_generator
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path} is a checkpoint, and {error.name} is not installed here",
            "the packages of the trainer",
            "install them with: pip install 'pix2pix-edge[train]', or export where you trained "
            "and bring model.onnx here",
        ) from error
    file = path / GENERATOR_FILE if path.is_dir() else path
    generator, info = load_generator(file)
    return Checkpoint(file, generator, info, sha256_of(file))


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
