"""`p2p-export` and `p2p-eval`: options in, one line out when something is wrong."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from export.checkpoints import newest_run, open_checkpoint
from export.job import (
    ONNX_NAMES,
    Exported,
    Say,
    export_checkpoint,
    export_engine,
    export_image_model,
)
from runtime.artifact import meta_of_onnx
from runtime.errors import ModelError, UserError
from runtime.files import write_text
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
@click.option("--imgsz", type=ImageSize(), help="Side or HxW of the frame.  [as trained]")
@click.option("--images", type=click.Path(path_type=Path), help="Pictures for the parity gate.")
@click.option("--opset", type=click.IntRange(18, 20), default=18, help="Up to what 10.3 parses.")
@click.option("--no-engine", is_flag=True, help="Write ONNX files only.")
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
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def export(
    source: Path | None,
    out: Path | None,
    fp16: bool,
    imgsz: tuple[int, int] | None,
    images: Path | None,
    opset: int,
    no_engine: bool,
    value_range: str,
    color_order: str,
) -> None:
    """Turn SOURCE into ONNX files and a TensorRT engine that are proven to draw the same picture.

    SOURCE is a run, a generator.safetensors or an ONNX file; without it, the newest run under
    runs/.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

    def say(line: str) -> None:
        console.print(line)

    source = source or newest_run()
    if source.suffix.lower() == ".onnx":
        exported = _export_onnx(
            source,
            out or source.parent,
            fp16=fp16,
            imgsz=imgsz,
            images=images,
            build=not no_engine,
            value_range=value_range,
            color_order=color_order,
            say=say,
        )
    else:
        checkpoint = open_checkpoint(source)
        say(
            f"{checkpoint.path}: {checkpoint.info.config.name}, "
            f"{checkpoint.info.step} steps on {checkpoint.info.data}"
        )
        exported = export_checkpoint(
            checkpoint,
            out or checkpoint.path.parent,
            fp16=fp16,
            size_px=imgsz,
            images=images,
            build=not no_engine,
            opset=opset,
            say=say,
        )
    for path in exported.onnx_files.values():
        say(f"wrote {path}")
    if exported.engine:
        say(f"wrote {exported.engine.path}")
    if exported.findings:
        say(f"report {exported.out / 'parity.html'}")
    if not exported.passed:
        say("the gate failed: what did not pass was not written; look at the report")
        sys.exit(GATE_FAILED)
    if exported.engine_error:
        if fp16:
            raise exported.engine_error
        say(f"no engine: {exported.engine_error}")
    models = [*exported.onnx_files.values(), *([exported.engine.path] if exported.engine else [])]
    say(f"next   p2p-live {models[0]} --source 0")


def _export_onnx(
    source: Path,
    out: Path,
    *,
    fp16: bool,
    imgsz: tuple[int, int] | None,
    images: Path | None,
    build: bool,
    value_range: str,
    color_order: str,
    say: Say,
) -> Exported:
    """An ONNX file of ours gets its engine; a stranger's is wrapped first."""
    meta = meta_of_onnx(source)
    if fp16 and (meta is None or meta.precision != "fp16"):
        raise ModelError(
            f"--fp16 for {source}, an ONNX file whose weights are not FP16",
            "a checkpoint, whose FP16 form is exported from PyTorch",
            "leave --fp16 out to build the engine of this file as it is, or name the checkpoint",
        )
    if meta is not None:
        if imgsz not in (None, meta.frame_size_px):
            height, width = meta.frame_size_px
            raise ModelError(
                f"--imgsz for {source}, which is fixed to {height}x{width}",
                "a checkpoint, which can be exported at any size",
                "leave --imgsz out, or name the checkpoint",
            )
        return export_engine(source, out, say)
    try:
        from export.foreign_onnx import open_image_model
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{source} is not an ONNX file of ours, and {error.name} is not installed here",
            "the onnx package, to wrap it",
            "pip install 'pix2pix-edge[train]'",
        ) from error
    model = open_image_model(source, imgsz, value_range, color_order)
    if out.resolve() == source.parent.resolve() and source.name in ONNX_NAMES.values():
        raise ModelError(
            f"the export of {source} would overwrite it",
            "another folder",
            "name one with --out",
        )
    say(
        f"{source}: not ours; its one input and output are images, taken as {color_order}, "
        f"{value_range} (--color-order, --value-range)"
    )
    return export_image_model(model, out, images=images, build=build, say=say)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", required=False, default="scenes")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write FILE.")
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="[as trained, else AtoB]")
@click.option("--count", type=click.IntRange(1), help="At most so many pairs.  [all]")
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def evaluate(
    model: Path, data: str, json_file: Path | None, direction: str | None, count: int | None
) -> None:
    """Measure MODEL on the pairs in DATA, beside handing back the input and the mean target.

    MODEL is a run, a checkpoint, an ONNX file or an engine; DATA a folder of pairs, or `scenes`
    for held-out drawn ones.
    """
    from export.evaluate import evaluate_model

    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    rows = evaluate_model(model, data, direction, count, say=lambda line: console.print(line))
    table = Table(title=f"{model} on {data}")
    for title in ("", "L1, grey levels", "PSNR, dB", "SSIM"):
        table.add_column(title, justify="left" if not title else "right")
    for name, quality in rows.items():
        table.add_row(
            name.replace("_", " "),
            f"{quality.l1:.2f}",
            f"{quality.psnr:.2f}",
            f"{quality.ssim:.4f}",
        )
    Console().print(table)
    if json_file:
        values = {name: quality.to_dict() for name, quality in rows.items()}
        write_text(json_file, json.dumps(values, indent=2) + "\n")
