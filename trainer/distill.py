"""A generator that learns from a trained one: from what it draws, and from its features.

Li et al., "GAN Compression: Efficient Architectures for Interactive Conditional GANs", CVPR 2020,
sections 3.1 and 3.2: the student has the paired and the adversarial losses too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.checkpoint import GeneratorInfo, generator_file, is_ours, load_generator
from trainer.config import GeneratorConfig, TeacherConfig, TrainConfig
from trainer.data import Pairs
from trainer.drawing import draw_picture
from trainer.errors import CheckpointError, ConfigError
from trainer.features import FeatureLayer, Tapped, decoder_blocks, feature_layers
from trainer.losses import feature_distillation
from trainer.metrics import mean_quality, quality_of
from trainer.norm_stats import has_batch_norm, normalise_each_picture

JUDGED = 24
"""Held-out pairs that decide which statistics a teacher's BatchNorm takes."""
_TOLD = {"running": "running statistics", "batch": "each picture's own statistics"}


def teacher_config_of(path: Path, norm_stats: str = "running") -> TeacherConfig:
    """What a run notes of its teacher.

    Args:
        path: its file, or its run's folder.
        norm_stats: what its BatchNorm normalises by.

    Raises:
        CheckpointError: there is no such file, or it is not one of `p2p-train`.
    """
    file = generator_file(path)
    if not file.is_file():
        raise CheckpointError(
            f"no such teacher: {file}",
            "the generator.safetensors of a run, or the run's folder",
            "train one with: p2p-train",
        )
    if not is_ours(file):
        raise CheckpointError(
            f"--teacher {file}, which is not a checkpoint of p2p-train",
            "the generator.safetensors of a run, or the run's folder",
            "train the teacher with: p2p-train",
        )
    return TeacherConfig(str(file), sha256_of(file), norm_stats)


def open_teacher(config: TrainConfig) -> tuple[nn.Module, GeneratorInfo]:
    """The teacher of a run, on the CPU, in evaluation mode, with nothing left to learn.

    Raises:
        CheckpointError: it is gone, or another than the run was started with.
        ConfigError: it takes or gives other pictures, or ones of other sizes.
    """
    teacher = config.teacher
    if teacher is None:
        raise ValueError("this run has no teacher")
    file = Path(teacher.path)
    found = sha256_of(file) if file.is_file() else None
    if found != teacher.sha256:
        raise CheckpointError(
            f"the teacher {file}: " + (f"sha256 {found[:12]}" if found else "no such file"),
            f"the one that the run was started with, sha256 {teacher.sha256[:12]}",
            "put it back, or start a new run",
        )
    network, info = load_generator(file)
    _check_fit(teacher, info.config, config)
    if teacher.norm_stats == "batch":
        normalise_each_picture(network)
    return network.requires_grad_(False), info


def chosen_norm_stats(
    config: TrainConfig, held_out: Pairs, device: torch.device
) -> tuple[str, str]:
    """Which statistics let the teacher draw better, `running` or `batch`, and a line on why.

    Args:
        config: with a teacher; its own choice does not matter.
        held_out: pairs that decide.
        device: to draw on.
    """
    network, _ = open_teacher(config)
    if not has_batch_norm(network):
        return "running", "no BatchNorm, so no statistics to choose"
    network.to(device)
    count = min(JUDGED, len(held_out))
    indices = [index * len(held_out) // count for index in range(count)]
    judged = [held_out.pair(index, config.crop_size) for index in indices]

    def l1() -> float:
        return mean_quality(
            quality_of(draw_picture(network, source), target) for source, target in judged
        ).l1

    running = l1()
    normalise_each_picture(network)
    batch = l1()
    better = "batch" if batch < running else "running"
    return better, (
        f"its BatchNorm takes {_TOLD[better]}: L1 {min(running, batch):.1f} grey levels on "
        f"{count} held-out pairs, {max(running, batch):.1f} the other way"
    )


class Distillation:
    """The teacher of a run, and the layers in which the student is compared with it."""

    def __init__(self, config: TrainConfig, device: torch.device, channels_last: bool) -> None:
        """Load the teacher, and make adapters with fresh weights.

        Raises:
            TrainerError: as `open_teacher`; or there is no layer to compare.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        place = {"device": device, "memory_format": layout}
        network, self.info = open_teacher(config)
        network = network.to(**place)  # type: ignore[call-overload]
        self.adapters: nn.ModuleList | None = None
        """1x1 convolutions from the student's channels to the teacher's, one for each layer."""
        self._student_blocks: list[int] = []
        blocks: list[nn.Module] = []
        if config.objective.lambda_distill_feat:
            pairs = matched_layers(config.generator, self.info.config, config.crop_size)
            self._student_blocks = [student.block for student, _ in pairs]
            known = decoder_blocks(network)
            blocks = [known[teacher.block] for _, teacher in pairs]
            self.adapters = nn.ModuleList(
                nn.Conv2d(student.channels, teacher.channels, 1) for student, teacher in pairs
            ).to(**place)  # type: ignore[call-overload]
        self.teacher = Tapped(network, blocks)
        self._look = torch.compile(self.teacher, dynamic=False) if config.compile else self.teacher

    def tapped(self, student: nn.Module) -> nn.Module:
        """`student` in a form whose forward pass returns its picture and its adapted features.

        The student's own modules stay what they are; the adapters' weights are part of the result.
        """
        known = decoder_blocks(student) if self._student_blocks else []
        return Tapped(student, [known[block] for block in self._student_blocks], self.adapters)

    @torch.no_grad()
    def look(self, source: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's picture, float [N, C, H, W], -1 to 1, and its features."""
        drawn, features = self._look(source)
        # Some generators go a little beyond the range; what is shown is clipped.
        return drawn.clamp(-1, 1).to(source.dtype), features

    def losses(
        self, drawn: Tensor, features: list[Tensor], taught: tuple[Tensor, list[Tensor]]
    ) -> dict[str, Tensor]:
        """`g_distill` and, where features are compared, `g_distill_feat`, before their weights.

        Args:
            drawn: float [N, C, H, W], the student's picture.
            features: of `tapped`.
            taught: of `look`, for the same input.
        """
        picture, teacher_features = taught
        losses = {"g_distill": functional.l1_loss(drawn, picture)}
        if self.adapters is not None:
            losses["g_distill_feat"] = feature_distillation(teacher_features, features)
        return losses


def matched_layers(
    student: GeneratorConfig, teacher: GeneratorConfig, side_px: int
) -> list[tuple[FeatureLayer, FeatureLayer]]:
    """The student's and the teacher's decoder layers of equal size, coarse to fine.

    Raises:
        ConfigError: the two have none.
    """
    ours, theirs = feature_layers(student, side_px), feature_layers(teacher, side_px)
    pairs = [(layer, theirs[scale]) for scale, layer in ours.items() if scale in theirs]
    if not pairs:
        raise ConfigError(
            f"distillation of features from {teacher.name} to {student.name}",
            "two decoders that have a size in common",
            "use --lambda-distill-feat 0",
        )
    return pairs


def sha256_of(file: Path) -> str:
    """In hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _check_fit(teacher: TeacherConfig, its: GeneratorConfig, config: TrainConfig) -> None:
    ours = config.generator
    channels = (its.input_channels, its.output_channels)
    if channels != (ours.input_channels, ours.output_channels):
        raise ConfigError(
            f"--teacher {teacher.path} with {channels[0]} channels in and {channels[1]} out",
            f"{ours.input_channels} and {ours.output_channels}, as the generator to be trained",
            "name another teacher",
        )
    multiple = its.size_multiple
    if config.crop_size % multiple:
        raise ConfigError(
            f"--crop-size {config.crop_size} with the teacher {its.name}",
            f"a multiple of {multiple}, since the teacher halves it "
            f"{multiple.bit_length() - 1} times",
            f"use --crop-size {max(multiple, config.crop_size // multiple * multiple)}",
        )
