"""One export from end to end: ONNX files, the gate, engines, the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from export.checkpoints import Checkpoint
from export.gate_images import GATE_IMAGES, GateImages, images_of_data, images_of_folder
from export.report import GateRun, verdict, write_reports
from export.to_tensorrt import BuiltEngine, engine_from_onnx
from export.verify import Draw, Image, Parity, check_parity, not_run
from runtime.artifact import ArtifactMeta, meta_of_onnx, sha256_of, sidecar_of
from runtime.errors import EngineError, ModelError
from runtime.files import scratch_folder

if TYPE_CHECKING:
    from torch import nn

    from export.foreign_onnx import ImageModel

ONNX_NAMES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx"}
ENGINE_NAMES = {"fp32": "model.engine", "fp16": "model.fp16.engine"}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    out: Path
    onnx_files: dict[str, Path] = field(default_factory=dict)
    """By precision: those that were written, since they passed the gate."""
    findings: Sequence[Parity] = ()
    engine: BuiltEngine | None = None
    engine_error: EngineError | None = None
    """Why there is no engine, where one was to be built."""

    @property
    def passed(self) -> bool:
        """Whether no artifact failed the gate."""
        return all(finding.passed is not False for finding in self.findings)


def export_checkpoint(
    checkpoint: Checkpoint,
    out: Path,
    *,
    fp16: bool,
    size_px: tuple[int, int] | None,
    images: Path | None,
    build: bool,
    opset: int,
    say: Say,
) -> Exported:
    """ONNX in FP32 (and FP16), gated; and the engine of the last of them.

    A file that fails the gate does not reach `out`; the report does.

    Raises:
        ModelError, SourceError: sizes or pictures that do not fit.
    """
    info = checkpoint.info
    size_px = size_px or (info.size_px, info.size_px)
    multiple = info.config.size_multiple
    if any(side % multiple or side == 0 for side in size_px):
        nearest = [max(1, round(side / multiple)) * multiple for side in size_px]
        raise ModelError(
            f"--imgsz {size_px[0]}x{size_px[1]} for {info.config.name}",
            f"height and width in multiples of {multiple} pixels",
            f"use --imgsz {nearest[0]}x{nearest[1]}",
        )
    gate_images = (
        images_of_folder(images, size_px, info.direction)
        if images
        else images_of_data(info.data, info.direction, size_px)
    )
    notes = []
    if gate_images is None:
        gate_images = _drawn_scenes(size_px)
        notes = [f"{info.data} is not here: compared on drawn street scenes; use --images DIR"]
        say(notes[0])
    meta = ArtifactMeta(
        generator=info.config.name,
        precision="fp32",
        frame_size_px=size_px,
        network_size_px=size_px,
        opset=opset,
        source=checkpoint.path.name,
        source_sha256=checkpoint.sha256,
        training_data=f"{info.data} {info.direction}, {info.step} steps",
        quality=info.quality,
        exported_by=_exported_by(),
        created_at=_now(),
    )
    generator = checkpoint.generator

    def write(precision: str, path: Path) -> None:
        from export.to_onnx import onnx_from_generator

        onnx_from_generator(generator, path, replace(meta, precision=precision), opset)

    subject = _Subject(
        name=f"{info.config.name} of {checkpoint.path.parent.name}/{checkpoint.path.name}",
        precisions=("fp32", "fp16") if fp16 else ("fp32",),
        write=write,
        reference=torch_draws(generator),
        reference_name="the PyTorch generator in FP32",
    )
    exported, run = _gate(subject, gate_images, out, notes, say)
    return _with_engine(exported, run, say) if build and exported.passed else exported


def export_image_model(
    source: ImageModel, out: Path, *, images: Path | None, build: bool, say: Say
) -> Exported:
    """A stranger's ONNX, wrapped into frame in, frame out; gated against itself unwrapped."""
    from export.foreign_onnx import frame_in_frame_out
    from export.to_onnx import save_with_meta

    size_px = source.size_px
    gate_images = images_of_folder(images, size_px, "AtoB") if images else _drawn_scenes(size_px)
    meta = ArtifactMeta(
        generator="unknown",
        precision=source.precision,
        frame_size_px=size_px,
        network_size_px=size_px,
        opset=source.opset,
        source=source.path.name,
        source_sha256=sha256_of(source.path),
        exported_by=_exported_by(),
        created_at=_now(),
    )

    def write(precision: str, path: Path) -> None:
        save_with_meta(frame_in_frame_out(source), path, replace(meta, precision=precision))

    subject = _Subject(
        name=source.path.name,
        precisions=(source.precision,),
        write=write,
        reference=_onnx_reference(source),
        reference_name=f"{source.path.name} as it is, run by ONNX Runtime",
    )
    exported, run = _gate(subject, gate_images, out, [], say)
    return _with_engine(exported, run, say) if build and exported.passed else exported


def export_engine(onnx_path: Path, out: Path, say: Say) -> Exported:
    """The engine of an ONNX file of ours, as `STEM.engine`. Needs neither torch nor onnx.

    Raises:
        EngineError: no TensorRT here, or it refused the model.
    """
    built = engine_from_onnx(onnx_path, out / f"{onnx_path.stem}.engine", on_message=say)
    _tell(built, say)
    return Exported(out, engine=built)


@dataclass(frozen=True)
class _Subject:
    """What goes through the gate."""

    name: str
    precisions: Sequence[str]
    write: Callable[[str, Path], None]
    """Writes the ONNX of one precision to a path."""
    reference: Draw
    reference_name: str


def _gate(
    subject: _Subject, gate_images: GateImages, out: Path, notes: Sequence[str], say: Say
) -> tuple[Exported, GateRun]:
    """Write each ONNX aside, compare it, and bring into `out` what passed."""
    references = [subject.reference(frame) for frame in gate_images.frames]
    findings: list[Parity] = []
    drawn: dict[str, list[Image]] = {}
    files: dict[str, Path] = {}
    with scratch_folder(out) as aside:
        for precision in subject.precisions:
            path = aside / ONNX_NAMES[precision]
            subject.write(precision, path)
            finding, drawn[path.name] = check_parity(path, references, gate_images.frames)
            findings.append(finding)
            say(verdict(finding))
            if finding.passed:
                _note_parity(path, finding)
                files[precision] = out / path.name
                path.replace(files[precision])
    run = GateRun(
        source=subject.name,
        reference=subject.reference_name,
        images=gate_images.origin,
        names=gate_images.names,
        frames=gate_images.frames,
        references=references,
        findings=findings,
        drawn=drawn,
        notes=notes,
    )
    write_reports(out, run)
    return Exported(out, files, findings), run


def _with_engine(exported: Exported, run: GateRun, say: Say) -> Exported:
    """The same export with an engine of its last ONNX, or the reason why there is none.

    The engine goes through the gate where this machine can run it.
    """
    precision, onnx_path = list(exported.onnx_files.items())[-1]
    name = ENGINE_NAMES[precision]
    with scratch_folder(exported.out) as aside:
        try:
            built = engine_from_onnx(onnx_path, aside / name, on_message=say)
        except EngineError as error:
            return replace(exported, engine_error=error)
        _tell(built, say)
        drawn = run.drawn
        try:
            finding, drawn[name] = check_parity(built.path, run.references, run.frames)
        except EngineError as error:
            finding = not_run(name, precision, f"built, not run: {error.received}")
        say(verdict(finding))
        findings = (*run.findings, finding)
        write_reports(exported.out, replace(run, findings=findings))
        exported = replace(exported, findings=findings)
        if finding.passed is False:
            return exported
        path = exported.out / name
        sidecar_of(built.path).replace(sidecar_of(path))
        built.path.replace(path)
        return replace(exported, engine=replace(built, path=path))


def _tell(built: BuiltEngine, say: Say) -> None:
    types = ", ".join(f"{count} {name}" for name, count in sorted(built.layer_types.items()))
    say(
        f"{built.path.name}: built by {built.meta.engine_library} in {built.build_s:.1f} s, "
        f"{built.size_bytes / 1e6:.1f} MB, layers by output type: {types}"
    )


def _note_parity(path: Path, finding: Parity) -> None:
    import onnx

    from export.to_onnx import save_with_meta

    meta = meta_of_onnx(path)
    if meta is None:
        raise RuntimeError(f"{path} lost its metadata")
    save_with_meta(onnx.load(str(path)), path, replace(meta, parity=finding.summary()))


def torch_draws(generator: nn.Module) -> Draw:
    """The generator as PyTorch draws with it, in FP32, nothing folded."""
    import copy

    import torch

    from export.to_onnx import FrameInFrameOut

    wrapped = FrameInFrameOut(copy.deepcopy(generator)).eval()

    @torch.inference_mode()
    def draw(frame: Image) -> Image:
        drawn: Image = wrapped(torch.from_numpy(frame[None].copy()))[0].numpy()
        return drawn

    return draw


def _onnx_reference(source: ImageModel) -> Draw:
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


def _drawn_scenes(size_px: tuple[int, int]) -> GateImages:
    from trainer.scenes import draw_pair

    seeds = range(GATE_IMAGES)
    frames = [draw_pair(seed, *size_px)[0] for seed in seeds]
    return GateImages(frames, [f"scene-{seed}" for seed in seeds], "drawn street scenes")


def _exported_by() -> str:
    return f"pix2pix-edge {version('pix2pix-edge')}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
