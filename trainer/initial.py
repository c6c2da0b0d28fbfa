"""The weights that a run starts with, where they are not fresh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from trainer.checkpoint import load_generator
from trainer.config import GeneratorConfig
from trainer.errors import ConfigError


def initial_weights(path: Path, config: GeneratorConfig) -> dict[str, Tensor]:
    """The weights and running statistics of a checkpoint, for a generator of `config`.

    Dropout has no weights, so it may be another.

    Raises:
        CheckpointError: there is no such file, or it is not one of `p2p-train`.
        ConfigError: a generator of another architecture.
    """
    network, info = load_generator(path)
    theirs = replace(info.config, dropout=config.dropout)
    if theirs != config:
        raise ConfigError(
            f"--init {path}, a {_told(theirs, config)}",
            f"the architecture of the generator to be trained, a {_told(config, theirs)}",
            "leave the generator's options out: they are taken from the checkpoint",
        )
    return network.state_dict()


def _told(config: GeneratorConfig, other: GeneratorConfig) -> str:
    """Its name, and what else the two differ in."""
    differences = [
        f"{name} {value}"
        for name, value in vars(config).items()
        if name != "name" and value != getattr(other, name)
    ]
    return ", ".join([config.name, *differences])
