"""Which models are measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import ModelError

RUNS = Path("runs")
_SUFFIXES = (".onnx", ".engine")
_PRECISIONS = ("fp32", "fp16", "int8")
_CHECKPOINTS = ("generator.safetensors", "latest_net_G.pth", "latest_net_G_A.pth")
"""What `p2p-train`, pytorch-CycleGAN-and-pix2pix and pix2pixHD leave in a folder."""
_CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt")


def models_of(arguments: Sequence[str]) -> list[Path]:
    """The files that the arguments name: models, engines and checkpoints.

    A folder stands for the models in it, or, where there is none, for its checkpoint. Without
    arguments: the models of the folder under `runs/` that was exported last.

    Raises:
        ModelError: no arguments and nothing exported, or a folder with neither.
    """
    if not arguments:
        return newest_exported()
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not path.is_dir():
            paths.append(path)
        elif inside := models_in(path):
            paths += inside
        elif checkpoint := checkpoint_in(path):
            paths.append(checkpoint)
        else:
            raise ModelError(
                f"no model in the folder {path}",
                ".onnx or .engine files, or a checkpoint",
                "run: p2p-export",
            )
    return list(dict.fromkeys(paths))


def is_checkpoint(path: Path) -> bool:
    """Whether a file is torch's own, by its suffix."""
    return path.suffix.lower() in _CHECKPOINT_SUFFIXES


def checkpoint_in(folder: Path) -> Path | None:
    """The weights that lie in a run's folder; None: there are none."""
    return next((folder / name for name in _CHECKPOINTS if (folder / name).is_file()), None)


def models_in(folder: Path) -> list[Path]:
    """The models of one folder: ONNX before engines, in falling precision."""
    paths = [
        path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()
    ]
    return sorted(paths, key=_order)


def newest_exported(runs: Path = RUNS) -> list[Path]:
    """The models of the run that has the newest ONNX file.

    Raises:
        ModelError: there is none.
    """
    found = [path for path in runs.glob("*/*.onnx") if path.is_file()]
    if not found:
        raise ModelError(
            f"no MODEL was named, and there is no {runs}/*/*.onnx in {Path.cwd()}",
            "an exported model",
            "make one with: p2p-train, then p2p-export --fp16",
        )
    return models_in(max(found, key=lambda path: path.stat().st_mtime).parent)


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells the files apart: their names, or their ways from the common folder."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    absolute = [path.resolve() for path in paths]
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    return [str(path.relative_to(common)) for path in absolute]


def _order(path: Path) -> tuple[int, int, str]:
    marks = path.name.split(".")
    precision = next((mark for mark in _PRECISIONS if mark in marks), _PRECISIONS[0])
    return _SUFFIXES.index(path.suffix.lower()), _PRECISIONS.index(precision), path.name
