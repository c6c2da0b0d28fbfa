"""What goes through an export: a checkpoint, a stranger's ONNX, or an ONNX file of ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from export.checkpoints import Checkpoint
from export.gate_images import (
    GATE_IMAGES,
    GateImages,
    TrainedOn,
    calibration_count,
    calibration_of_folder,
    drawn_scenes,
    gate_count,
    images_of_data,
    images_of_folder,
    pairs_of,
)
from export.settings import ExportSettings
from export.ui import Say
from export.verify import Draw, Image, Size
from runtime.artifact import ArtifactMeta, sha256_of
from runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from export.foreign_onnx import ImageModel

_FIRST_CALIBRATION_SCENE = 1000


@dataclass(frozen=True)
class Subject:
    """Something that draws, and all that an export needs to know of it."""

    name: str
    """For people."""
    meta: ArtifactMeta
    """Of its plainest form: FP32, or what the file at hand has."""
    write: Callable[[Path], None]
    """Writes that form, with its metadata, as a frame-in frame-out ONNX file."""
    reference: Draw
    """What every form is compared with."""
    reference_name: str
    gate: GateImages
    calibration: Callable[[], GateImages]
    already_there: Path | None = None
    """The plainest form itself, where that is the file at hand and is not written again."""
    notes: Sequence[str] = ()


def subject_of_checkpoint(checkpoint: Checkpoint, settings: ExportSettings, say: Say) -> Subject:
    """A generator, with its sizes and its norm decided.

    Raises:
        ModelError, SourceError: sizes or pictures that do not fit.
    """
    from export.norm_stats import BATCH, choose_norm_stats, with_batch_statistics

    frame_size_px, network_size_px = _sizes(checkpoint, settings)
    direction = settings.direction or checkpoint.direction
    notes: list[str] = []

    def draws(generator: nn.Module) -> Draw:
        return torch_draws(checkpoint, generator, frame_size_px, network_size_px)

    choice = choose_norm_stats(
        checkpoint.generator,
        settings.norm_stats,
        foreign=checkpoint.foreign,
        pairs=pairs_of(
            settings.images,
            checkpoint.trained_on,
            direction,
            frame_size_px,
            gate_count(frame_size_px),
        ),
        draws=draws,
    )
    generator = checkpoint.generator
    if choice.stats == BATCH:
        generator = with_batch_statistics(generator)
    if choice.why:
        notes.append(choice.why)
        say(choice.why)
    gate, note = _gate_of(checkpoint.trained_on, direction, settings, frame_size_px)
    if note:
        notes.append(note)
        say(note)
    meta = ArtifactMeta(
        generator=checkpoint.name,
        precision="fp32",
        frame_size_px=frame_size_px,
        network_size_px=network_size_px,
        opset=settings.opset,
        source=checkpoint.path.name,
        source_sha256=checkpoint.sha256,
        training_data=checkpoint.training,
        quality=checkpoint.quality,
        norm_stats=choice.stats,
        batch=settings.batch,
        dynamic=settings.dynamic,
        size_multiple=checkpoint.size_multiple if settings.dynamic else 1,
        exported_by=exported_by(),
        created_at=now(),
    )

    def write(path: Path) -> None:
        from export.to_onnx import onnx_from_generator

        onnx_from_generator(
            generator,
            path,
            meta,
            settings.opset,
            input_channels=checkpoint.input_channels,
            output_channels=checkpoint.output_channels,
        )

    return Subject(
        name=f"{checkpoint.name} of {checkpoint.path.parent.name}/{checkpoint.path.name}",
        meta=meta,
        write=write,
        reference=draws(generator),
        reference_name="the PyTorch generator in FP32",
        gate=gate,
        calibration=lambda: _calibration(
            checkpoint.trained_on, direction, settings, frame_size_px
        ),
        notes=notes,
    )


def subject_of_stranger(source: ImageModel, settings: ExportSettings) -> Subject:
    """A stranger's ONNX, wrapped into frame in, frame out; compared with itself unwrapped."""
    from export.foreign_onnx import frame_in_frame_out
    from export.to_onnx import save_with_meta

    direction = settings.direction or "AtoB"
    gate, note = _gate_of(None, direction, settings, source.size_px)
    meta = ArtifactMeta(
        generator="unknown",
        precision=source.precision,
        frame_size_px=source.size_px,
        network_size_px=source.size_px,
        opset=source.opset,
        source=source.path.name,
        source_sha256=sha256_of(source.path),
        exported_by=exported_by(),
        created_at=now(),
    )
    return Subject(
        name=source.path.name,
        meta=meta,
        write=lambda path: save_with_meta(frame_in_frame_out(source), path, meta),
        reference=_stranger_draws(source),
        reference_name=f"{source.path.name} as it is, run by ONNX Runtime",
        gate=gate,
        calibration=lambda: _calibration(None, direction, settings, source.size_px),
        notes=[note] if note else [],
    )


def subject_of_onnx(path: Path, meta: ArtifactMeta, settings: ExportSettings) -> Subject:
    """An ONNX file of ours that gets further precisions: converted from its graph, not from
    PyTorch, and compared with the file itself."""
    from runtime.translator import Translator

    direction = settings.direction or "AtoB"
    gate, note = _gate_of(None, direction, settings, meta.frame_size_px)
    translator = Translator.load(path)
    return Subject(
        name=path.name,
        meta=meta,
        write=lambda _path: None,
        reference=lambda frame: translator.batch([frame])[0],
        reference_name=f"{path.name}, run by ONNX Runtime",
        gate=gate,
        calibration=lambda: _calibration(None, direction, settings, meta.frame_size_px),
        already_there=path,
        notes=[note] if note else [],
    )


def torch_draws(
    checkpoint: Checkpoint,
    generator: nn.Module,
    frame_size_px: Size | None = None,
    network_size_px: Size | None = None,
) -> Draw:
    """The generator as PyTorch draws with it, in FP32, nothing folded.

    Args:
        checkpoint: whose channels these are.
        generator: in evaluation mode.
        frame_size_px: (height, width) of the frames.
        network_size_px: (height, width) that they are resized to; the same: not at all.
    """
    import copy

    import torch

    from export.to_onnx import frame_in_frame_out

    generator = copy.deepcopy(generator)

    @functools.cache
    def wrapped(size_px: Size) -> nn.Module:
        return frame_in_frame_out(
            generator,
            size_px,
            network_size_px if network_size_px and network_size_px != frame_size_px else size_px,
            input_channels=checkpoint.input_channels,
            output_channels=checkpoint.output_channels,
        )

    @torch.inference_mode()
    def draw(frame: Image) -> Image:
        height, width = frame.shape[:2]
        drawn: Image = wrapped((height, width))(torch.from_numpy(frame[None].copy()))[0].numpy()
        return drawn

    return draw


def _stranger_draws(source: ImageModel) -> Draw:
    """A stranger's ONNX as it is, with the steps before and behind it done by numpy."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(source.path), providers=["CPUExecutionProvider"])

    def draw(frame: Image) -> Image:
        (output,) = session.run(None, {source.input_name: source.to_network(frame)})
        if output.shape != source.to_network(frame).shape:
            raise ModelError(
                f"{source.path.name} gives {list(output.shape)} for {list(frame.shape)}",
                "a picture of the same size as its input",
                "only such models can be exported",
            )
        return source.to_frame(output)

    return draw


def _sizes(checkpoint: Checkpoint, settings: ExportSettings) -> tuple[Size, Size]:
    """(height, width) of the frames and of the network.

    Raises:
        ModelError: not a size that the generator can take.
    """
    size_px = settings.network_size_px or _usual_size(checkpoint, settings.frame_size_px)
    multiple, least = checkpoint.size_multiple, checkpoint.least_side_px
    if any(side % multiple or side < least for side in size_px):
        nearest = [max(least, round(side / multiple) * multiple) for side in size_px]
        height, width = size_px
        raise ModelError(
            f"--imgsz {height}x{width} for {checkpoint.name}",
            f"height and width in multiples of {multiple} pixels, at least {least}",
            f"use --imgsz {nearest[0]}x{nearest[1]}"
            + ("" if settings.dynamic else f", and --frame-size {height}x{width} for the frames"),
        )
    return settings.frame_size_px or size_px, size_px


def _usual_size(checkpoint: Checkpoint, frame_size_px: Size | None) -> Size:
    """(height, width) that a generator works at where nobody says: as it was trained.

    One that retouches a frame gets the frame's own aspect, its shorter side as long as in
    training: what it looks at is then as large as it learned it, and nothing is squeezed.
    """
    from trainer.generators.retouch import RetouchingGenerator

    side, multiple = checkpoint.size_px, checkpoint.size_multiple
    if frame_size_px is None or not isinstance(checkpoint.generator, RetouchingGenerator):
        return side, side
    shorter = min(side, *frame_size_px)
    scale = shorter / min(frame_size_px)
    height, width = (
        max(round(pixels * scale / multiple) * multiple, checkpoint.least_side_px)
        for pixels in frame_size_px
    )
    return height, width


def _gate_of(
    trained_on: TrainedOn | None, direction: str, settings: ExportSettings, size_px: Size
) -> tuple[GateImages, str]:
    """The pictures of the gate, and what is to be said of them."""
    count = gate_count(size_px)
    if settings.images:
        return images_of_folder(settings.images, size_px, direction, count), ""
    held_out = images_of_data(trained_on, direction, size_px, count) if trained_on else None
    if held_out is not None:
        return held_out, ""
    if not settings.verify:
        return drawn_scenes(size_px, count), ""
    here = f"{trained_on.data} is not here" if trained_on else "the training data are not known"
    return drawn_scenes(
        size_px, count
    ), f"{here}: compared on drawn street scenes; use --images DIR"


def _calibration(
    trained_on: TrainedOn | None, direction: str, settings: ExportSettings, size_px: Size
) -> GateImages:
    """What INT8 is calibrated on: the folder named, else training pictures, else others of
    `--images` than the gate's, else drawn scenes."""
    if settings.calibration:
        return calibration_of_folder(settings.calibration, size_px, direction, settings.fraction)
    count, compared = calibration_count(size_px), gate_count(size_px)
    seen = (
        images_of_data(trained_on, direction, size_px, count, held_out=False)
        if trained_on
        else None
    )
    if seen is not None:
        return seen
    if settings.images:
        everything = images_of_folder(settings.images, size_px, direction, compared + count)
        gate = set(images_of_folder(settings.images, size_px, direction, compared).names)
        others = [i for i, name in enumerate(everything.names) if name not in gate]
        if len(others) >= min(count, GATE_IMAGES):
            return replace(
                everything,
                frames=[everything.frames[i] for i in others],
                names=[everything.names[i] for i in others],
                origin=f"{len(others)} other pictures of {settings.images}",
            )
    return drawn_scenes(size_px, count, _FIRST_CALIBRATION_SCENE)


def exported_by() -> str:
    return f"pix2pix-edge {version('pix2pix-edge')}"


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
