"""What the options of `p2p-train` come to: a `TrainConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from trainer.checkpoint import load_generator
from trainer.config import DiscriminatorConfig, GeneratorConfig, ObjectiveConfig, TrainConfig
from trainer.distill import teacher_config_of
from trainer.errors import ConfigError

SCENES_EPOCHS = 10
DISTILL, DISTILL_FEAT = 50.0, 1.0
"""Weights of distillation where a teacher is given and they are not."""
ARCHITECTURE = ("name", "ngf", "norm", "upsample", "input_norm", "frame_norm", "reduction")
"""Options that say what the generator is; with --init the checkpoint says it."""

_Config = TypeVar("_Config")


def train_config_of(options: dict[str, Any], given: Mapping[str, str], data: str) -> TrainConfig:
    """The settings that the options come to.

    Args:
        options: every option's name and value.
        given: name and flag of those that were typed.
        data: folder, or `scenes`.

    Raises:
        TrainerError: they contradict each other, or a checkpoint that they name is no such thing.
    """
    crop, epochs = options["crop_size"], options["epochs"]
    teacher = None
    if options["teacher"]:
        asked = options["teacher_norm_stats"] or "running"
        teacher = teacher_config_of(options["teacher"], asked)
    elif options["teacher_norm_stats"]:
        raise ConfigError(
            f"--teacher-norm-stats {options['teacher_norm_stats']} without --teacher",
            "a teacher, whose BatchNorm it speaks of",
            "give --teacher, or leave it out",
        )
    norm_d = options["norm_d"] or ("instance" if options["gan_mode"] == "wgangp" else "batch")
    return _from_options(
        TrainConfig,
        options,
        data=data if data == "scenes" else str(Path(data)),
        generator=_generator_of(options, given),
        teacher=teacher,
        init=str(options["init"]) if options["init"] else None,
        discriminator=_from_options(
            DiscriminatorConfig,
            options,
            receptive_field_px=int(options["receptive_field_px"]),
            conditional=not options["unconditional"],
            norm=norm_d,
        ),
        objective=_from_options(
            ObjectiveConfig,
            options,
            lambda_distill=_given_or(options["lambda_distill"], DISTILL if teacher else 0.0),
            lambda_distill_feat=_given_or(
                options["lambda_distill_feat"], DISTILL_FEAT if teacher else 0.0
            ),
        ),
        epochs=epochs if epochs is not None else SCENES_EPOCHS if data == "scenes" else 200,
        load_size=options["load_size"] or crop + 30,
        flip=not options["no_flip"],
    )


def _given_or(value: float | None, default: float) -> float:
    return default if value is None else value


def _generator_of(options: dict[str, Any], given: Mapping[str, str]) -> GeneratorConfig:
    """As the options say; with --init as the checkpoint says, which they may not contradict."""
    if not options["init"]:
        dropout = 0.0 if options["no_dropout"] else 0.5
        return _from_options(GeneratorConfig, options, dropout=dropout)
    _, info = load_generator(options["init"])
    for name in ARCHITECTURE:
        theirs = getattr(info.config, name)
        if name in given and options[name] != theirs:
            raise ConfigError(
                f"{given[name]} {options[name]} with --init {options['init']}",
                f"{theirs}, as in that checkpoint: its weights fit no other architecture",
                f"leave {given[name]} out, or --init",
            )
    return replace(info.config, dropout=0.0) if options["no_dropout"] else info.config


def _from_options(kind: type[_Config], options: dict[str, Any], **made: Any) -> _Config:
    """A config whose fields are the options of the same name, but for those in `made`."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    given = {name: value for name, value in options.items() if name in names}
    return kind(**{**given, **made})
