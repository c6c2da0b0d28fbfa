"""`p2p-export`: options in, one line out when something is wrong."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from export.checkpoints import newest_run, open_checkpoint
from export.console import console_ui
from export.job import ONNX_NAMES, Exported, export_engine, export_subject
from export.settings import (
    CALIBRATION_METHODS,
    DEFAULT_OPSET,
    TARGETS,
    UPSAMPLES,
    ExportSettings,
)
from export.subjects import subject_of_checkpoint, subject_of_onnx, subject_of_stranger
from export.to_tensorrt import BuildOptions
from export.ui import Ui
from runtime.artifact import ArtifactMeta, meta_of_onnx
from runtime.errors import ModelError, UserError
from trainer.errors import TrainerError

GATE_FAILED = 1
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can mend into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (UserError, TrainerError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)

    return wrapped


class ImageSize(click.ParamType):  # type: ignore[type-arg]
    """`256` or `480x640` (height x width), as a pair."""

    name = "SIZE"

    def convert(
        self,
        value: str | tuple[int, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = _SIZE.fullmatch(value)
        if not found or int(found[1]) == 0 or (found[2] and int(found[2]) == 0):
            self.fail(f"{value}: expected a side or HEIGHTxWIDTH, e.g. 256 or 512x768", param, ctx)
        return int(found[1]), int(found[2] or found[1])


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [the one of SOURCE]")
@click.option("--fp16", "--half", is_flag=True, help="Also in FP16, and a TensorRT engine of it.")
@click.option("--int8", is_flag=True, help="Also in INT8, and a TensorRT engine of it.")
@click.option(
    "--target",
    type=click.Choice([*TARGETS, "all"]),
    default="all",
    help="Whose form of INT8: model.int8.onnx, model.int8.cpu.onnx.",
)
@click.option("--imgsz", type=ImageSize(), help="Side or HxW of the network.  [as trained]")
@click.option("--frame-size", type=ImageSize(), help="HxW of frames, resized in the graph.")
@click.option("--dynamic", is_flag=True, help="Frames of any size that fits the network.")
@click.option("--batch", type=click.IntRange(1), default=1, help="Frames of one inference.")
@click.option(
    "--opset", type=click.IntRange(18, 20), default=DEFAULT_OPSET, help="Up to what 10.3 parses."
)
@click.option(
    "--upsample",
    type=click.Choice(UPSAMPLES),
    default="keep",
    help="subpixel: transposed convolutions as convolutions, exactly; INT8 always.",
)
@click.option(
    "--norm-stats",
    type=click.Choice(["running", "batch"]),
    help="Of BatchNorm.  [what draws better on pairs]",
)
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="[as trained, else AtoB]")
@click.option("--images", type=click.Path(path_type=Path), help="Pictures or pairs for the gate.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Pictures for INT8's ranges.  [the training data]",
)
@click.option(
    "--calibration-method",
    type=click.Choice(CALIBRATION_METHODS),
    default="best",
    help="best tries the others.",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the calibration pictures.  [at most 100 pictures]",
)
@click.option(
    "--max-diff",
    type=click.IntRange(0, 255),
    help="Levels that FP16 may be off at any pixel.  [3]",
)
@click.option("--min-psnr", type=float, help="dB that INT8 must keep.  [35]")
@click.option("--min-ssim", type=click.FloatRange(0, 1), help="That INT8 must keep.  [0.97]")
@click.option("--no-verify", is_flag=True, help="Compare nothing; the files say so.")
@click.option("--no-engine", is_flag=True, help="Write ONNX files only.")
@click.option("--workspace", type=int, metavar="MIB", help="Memory the builder may use.")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="File that builds share.")
@click.option("--version-compatible", is_flag=True, help="Runs in later TensorRT versions too.")
@click.option("--hardware-compatible", is_flag=True, help="Runs on other GPUs too, from Ampere.")
@click.option(
    "--value-range",
    type=click.Choice(["-1..1", "0..1", "0..255"]),
    default="-1..1",
    help="What a stranger's ONNX takes as a pixel.",
)
@click.option(
    "--color-order",
    type=click.Choice(["RGB", "BGR"]),
    default="RGB",
    help="What a stranger's ONNX takes as colours.",
)
@click.option("--inspect", is_flag=True, help="Only tell what SOURCE, an ONNX or engine, is.")
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def export(
    source: Path | None,
    out: Path | None,
    inspect: bool,
    value_range: str,
    color_order: str,
    **options: Any,
) -> None:
    """Turn SOURCE into ONNX files and TensorRT engines that are proven to draw the same picture.

    SOURCE is a run, a checkpoint (of p2p-train, pytorch-CycleGAN-and-pix2pix or pix2pixHD) or an
    ONNX file; without it, the newest run under runs/.
    """
    if inspect:
        _inspect(source)
        return
    settings = _settings(**options)
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    source = source or newest_run()
    if source.suffix.lower() in (".engine", ".plan"):
        raise ModelError(
            f"{source} is an engine, and nothing can be made of it",
            "a run, a checkpoint or an ONNX file",
            f"to see what it is: p2p-export --inspect {source}",
        )
    with console_ui(console) as ui:
        if source.suffix.lower() == ".onnx":
            exported = _export_onnx(source, out, settings, value_range, color_order, ui)
        else:
            checkpoint = open_checkpoint(source)
            ui.say(f"{checkpoint.path}: {checkpoint.description}")
            subject = subject_of_checkpoint(checkpoint, settings, ui.say)
            exported = export_subject(subject, out or checkpoint.path.parent, settings, ui)
    _tell(exported, settings, console)


def _settings(
    *,
    imgsz: tuple[int, int] | None,
    frame_size: tuple[int, int] | None,
    target: str,
    max_diff: int | None,
    min_psnr: float | None,
    no_verify: bool,
    no_engine: bool,
    workspace: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    **same: Any,
) -> ExportSettings:
    return ExportSettings(
        network_size_px=imgsz,
        frame_size_px=frame_size,
        targets=TARGETS if target == "all" else (target,),
        max_abs_diff=max_diff,
        min_psnr_db=min_psnr,
        verify=not no_verify,
        build=not no_engine,
        build_options=BuildOptions(
            workspace_mib=workspace,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
        ),
        **same,
    )


def _tell(exported: Exported, settings: ExportSettings, console: Console) -> None:
    """What was written, what was not, and what to type next."""
    models = [*exported.onnx_files.values(), *(engine.path for engine in exported.engines)]
    for path in models:
        console.print(f"wrote {path}")
    if exported.findings:
        console.print(f"report {exported.out / 'parity.html'}")
    if not exported.passed:
        console.print("the gate failed: what did not pass was not written; look at the report")
        sys.exit(GATE_FAILED)
    if exported.engine_error:
        if settings.fp16 or settings.int8:
            raise exported.engine_error
        console.print(f"no engine: {exported.engine_error}")
    if settings.batch == 1 or settings.dynamic:
        console.print(f"next   p2p-live {exported.fastest or models[0]} --source 0")


def _inspect(source: Path | None) -> None:
    from export.inspect_model import inspect_model

    if source is None:
        raise ModelError(
            "--inspect without a file", "an ONNX file or an engine", "p2p-export --inspect FILE"
        )
    for line in inspect_model(source).lines():
        click.echo(line)


def _export_onnx(
    source: Path,
    out: Path | None,
    settings: ExportSettings,
    value_range: str,
    color_order: str,
    ui: Ui,
) -> Exported:
    """An ONNX file of ours gets its engine or more precisions; a stranger's is wrapped first."""
    out = out or source.parent
    meta = meta_of_onnx(source)
    if meta is not None:
        _check_fixed(source, meta, settings)
        more = meta.precision == "fp32" and (settings.fp16 or settings.int8)
        if not more:
            _check_engine_only(source, meta, settings)
            return export_engine(source, out, settings.build_options, ui)
        _need_onnx(source)
        return export_subject(subject_of_onnx(source, meta, settings), out, settings, ui)
    _need_onnx(source)
    from export.foreign_onnx import open_image_model

    model = open_image_model(source, settings.network_size_px, value_range, color_order)
    _refuse_fixed(
        source,
        {
            "--frame-size": settings.frame_size_px not in (None, model.size_px),
            "--dynamic": settings.dynamic,
            "--batch": settings.batch != 1,
            "--norm-stats": settings.norm_stats is not None,
            "--opset": settings.opset not in (DEFAULT_OPSET, model.opset),
        },
    )
    _refuse_other_precision(source, model.precision, settings)
    if out.resolve() == source.parent.resolve() and source.name in ONNX_NAMES.values():
        raise ModelError(
            f"the export of {source} would overwrite it",
            "another folder",
            "name one with --out",
        )
    ui.say(
        f"{source}: not ours; its one input and output are images, taken as {color_order}, "
        f"{value_range} (--color-order, --value-range)"
    )
    return export_subject(subject_of_stranger(model, settings), out, settings, ui)


def _need_onnx(source: Path) -> None:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the graph of {source} is to be changed, and {error.name} is not installed here",
            "the onnx package",
            "pip install 'pix2pix-edge[train]'",
        ) from error


def _check_fixed(source: Path, meta: ArtifactMeta, settings: ExportSettings) -> None:
    """Refuse what only the export of a checkpoint can decide."""
    height, width = meta.network_size_px
    if settings.network_size_px not in (None, meta.network_size_px):
        raise ModelError(
            f"--imgsz for {source}, which is fixed to {height}x{width}",
            "a checkpoint, which can be exported at any size",
            "leave --imgsz out, or name the checkpoint",
        )
    _refuse_fixed(
        source,
        {
            "--frame-size": settings.frame_size_px not in (None, meta.frame_size_px),
            "--dynamic": settings.dynamic and not meta.dynamic,
            "--batch": settings.batch not in (1, meta.batch),
            "--norm-stats": settings.norm_stats not in (None, meta.norm_stats),
            "--opset": settings.opset not in (DEFAULT_OPSET, meta.opset),
            "--upsample": settings.upsample not in ("keep", meta.upsample),
        },
    )


def _refuse_fixed(source: Path, changed: dict[str, bool]) -> None:
    for flag, is_changed in changed.items():
        if is_changed:
            raise ModelError(
                f"{flag} for {source}, which is exported already",
                "a checkpoint, where it can still be chosen",
                f"leave {flag} out, or name the checkpoint",
            )


def _refuse_other_precision(source: Path, precision: str, settings: ExportSettings) -> None:
    for flag, asked, name in (
        ("--fp16", settings.fp16, "fp16"),
        ("--int8", settings.int8, "int8"),
    ):
        if asked and precision not in ("fp32", name):
            raise ModelError(
                f"{flag} for {source}, which is {precision}",
                "an FP32 file or a checkpoint",
                "name model.onnx or the checkpoint",
            )


def _check_engine_only(source: Path, meta: ArtifactMeta, settings: ExportSettings) -> None:
    """Refuse what an engine alone is not."""
    _refuse_other_precision(source, meta.precision, settings)
    if not settings.build:
        raise ModelError(
            f"--no-engine for {source}, of which only an engine is left to make",
            "something to do",
            "leave --no-engine out, or ask an FP32 file for --fp16 or --int8",
        )
    if meta.target == "cpu":
        raise ModelError(
            f"{source} is INT8 in the form of ONNX Runtime's CPU",
            "the form that TensorRT takes",
            "name model.int8.onnx; p2p-export --int8 writes both",
        )
