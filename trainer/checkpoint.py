"""Checkpoints are data: safetensors for the numbers, JSON in their header for the rest.

`generator.safetensors` holds what is exported: the generator's weights and what they are.
`training.safetensors` holds what a resumed run needs besides.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trainer.config import (
    GeneratorConfig,
    TeacherConfig,
    TrainConfig,
    generator_config_from,
    teacher_config_from,
    to_dict,
    train_config_from,
)
from trainer.errors import CheckpointError
from trainer.files import write_whole
from trainer.generators import build_generator

GENERATOR_FILE = "generator.safetensors"
TRAINING_FILE = "training.safetensors"
_KEY = "pix2pix_edge"
_FORMATS = {"generator": 1, "training": 2}


@dataclass(frozen=True)
class GeneratorInfo:
    """What a generator file says of its weights."""

    config: GeneratorConfig
    step: int
    """Steps that it was trained for."""
    data: str
    """What it was trained on: the path as given, or `scenes`."""
    direction: str
    size_px: int
    """Side of the square that it was trained at."""
    quality: dict[str, float] | None = None
    """`l1`, `psnr`, `ssim` on held-out pairs, as exported."""
    task: str = "pairs"
    """What its inputs are: see `TrainConfig.task`."""
    teacher: TeacherConfig | None = None
    """The generator that it was distilled from."""
    init: str | None = None
    """The checkpoint whose weights it started with, as given; None: fresh ones."""


def save_generator(path: Path, weights: dict[str, Tensor], info: GeneratorInfo) -> None:
    """Write a generator file, whole or not at all."""
    header = {
        "format": _FORMATS["generator"],
        "kind": "generator",
        "config": to_dict(info.config),
        "step": info.step,
        "data": info.data,
        "direction": info.direction,
        "size_px": info.size_px,
        "quality": info.quality,
        "task": info.task,
        "teacher": None if info.teacher is None else asdict(info.teacher),
        "init": info.init,
    }
    _save(path, weights, header)


def generator_file(path: Path) -> Path:
    """The generator's file, of itself or of a run's folder; it need not exist."""
    return path / GENERATOR_FILE if path.is_dir() else path


def load_generator(path: Path) -> tuple[nn.Module, GeneratorInfo]:
    """The generator of a file or of a run's folder, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or something else than a generator.
    """
    path = generator_file(path)
    header, weights = _load(path, "generator")
    info = GeneratorInfo(
        config=generator_config_from(header["config"]),
        step=header["step"],
        data=header["data"],
        direction=header["direction"],
        size_px=header["size_px"],
        quality=header["quality"],
        task=header.get("task", "pairs"),
        teacher=teacher_config_from(header.get("teacher")),
        init=header.get("init"),
    )
    generator = build_generator(info.config)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} are not those of {info.config.name}",
            "the layers that its own header describes",
            "train it again, or use another checkpoint",
        ) from error
    return generator.eval(), info


def is_ours(path: Path) -> bool:
    """Whether a file is one of `p2p-train`, or at least none that another project wrote.

    A damaged `.safetensors` counts as ours, so that reading it tells what is wrong.
    """
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {}) or not list(file.keys())
    except SafetensorError:
        return True


@dataclass
class TrainingState:
    """All that a run needs to go on as if it had never stopped."""

    config: TrainConfig
    step: int
    total_steps: int
    samples: int
    """Pairs that were trained on: their number decides the order."""
    networks: dict[str, dict[str, Tensor]]
    """`generator`, `average` and, where there are, `discriminator` and `adapters`."""
    optimisers: dict[str, dict[str, Any]]
    random: Tensor
    """State of torch's CPU generator, which draws the dropout."""
    notes: dict[str, Any]
    """What the run knows besides, as JSON values."""


def save_training(path: Path, state: TrainingState) -> None:
    """Write a training file, whole or not at all."""
    tensors = {"random": state.random}
    for name, weights in state.networks.items():
        for key, value in weights.items():
            tensors[f"{name}/{key}"] = value
    for name, optimiser in state.optimisers.items():
        for number, slots in optimiser["state"].items():
            for slot, value in slots.items():
                tensors[f"{name}/{number}/{slot}"] = value
    header = {
        "format": _FORMATS["training"],
        "kind": "training",
        "config": to_dict(state.config),
        "step": state.step,
        "total_steps": state.total_steps,
        "samples": state.samples,
        "networks": list(state.networks),
        "param_groups": {name: o["param_groups"] for name, o in state.optimisers.items()},
        "notes": state.notes,
    }
    _save(path, tensors, header)


def load_training(folder: Path) -> TrainingState:
    """What `save_training` wrote into a run's folder.

    Raises:
        CheckpointError: missing, damaged, or something else than a training file.
    """
    header, tensors = _load(folder / TRAINING_FILE, "training")
    networks: dict[str, dict[str, Tensor]] = {name: {} for name in header["networks"]}
    optimisers: dict[str, dict[str, Any]] = {
        name: {"state": {}, "param_groups": groups}
        for name, groups in header["param_groups"].items()
    }
    for full_name, tensor in tensors.items():
        name, _, key = full_name.partition("/")
        if name in networks:
            networks[name][key] = tensor
        elif name in optimisers:
            number, _, slot = key.partition("/")
            optimisers[name]["state"].setdefault(int(number), {})[slot] = tensor
    return TrainingState(
        config=train_config_from(header["config"]),
        step=header["step"],
        total_steps=header["total_steps"],
        samples=header["samples"],
        networks=networks,
        optimisers=optimisers,
        random=tensors["random"],
        notes=header["notes"],
    )


def _save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(plain, metadata={_KEY: json.dumps(header)})
    write_whole(path, lambda beside: beside.write_bytes(data))


def _load(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(
            f"no such checkpoint: {path}",
            f"the {kind} file of a run",
            "train one with: p2p-train",
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of p2p-train, or is damaged",
            f"a {kind}.safetensors that p2p-train wrote",
            "name the run's folder, or train one with: p2p-train",
        ) from error
    if header.get("kind") != kind or header.get("format") != _FORMATS[kind]:
        raise CheckpointError(
            f"{path} holds {header.get('kind')} data, format {header.get('format')}",
            f"{kind} data, format {_FORMATS[kind]}",
            f"name the {kind}.safetensors of a run",
        )
    return header, tensors
