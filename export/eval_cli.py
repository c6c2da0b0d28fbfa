"""`p2p-eval`: options in, one line out when something is wrong."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.cli import one_line_errors
from export.console import console_ui
from runtime.errors import ModelError
from trainer.config import TASKS


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", required=False, default="scenes")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write FILE.")
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path),
    help="Also write a page with pictures.  [beside --json]",
)
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="[as trained, else AtoB]")
@click.option(
    "--task", type=click.Choice(TASKS), help="What the inputs are.  [as trained, else pairs]"
)
@click.option("--count", type=click.IntRange(1), help="At most so many pairs, frames.  [all, 200]")
@click.option(
    "--norm-stats",
    type=click.Choice(["running", "batch"]),
    help="Of BatchNorm.  [as it would be exported]",
)
@click.option(
    "--lpips-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="AlexNet of torchvision (alexnet-owt-*.pth): also LPIPS.",
)
@click.option(
    "--inception",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Inception in TorchScript (inception-2015-12-05.pt): also FID, Inception Score.",
)
@click.version_option(package_name="pix2pix-edge")
@one_line_errors
def evaluate(
    model: Path,
    data: str,
    json_file: Path | None,
    html_file: Path | None,
    direction: str | None,
    task: str | None,
    count: int | None,
    norm_stats: str | None,
    lpips_weights: Path | None,
    inception: Path | None,
) -> None:
    """Measure MODEL on the pairs in DATA, beside handing back the input and the mean target.

    MODEL is a run, a checkpoint, an ONNX file or an engine; DATA a folder of pairs, `scenes` for
    held-out drawn ones, or a video, on which flicker is measured.
    """
    if html_file is None and json_file is not None:
        html_file = json_file.with_suffix(".html")
    if html_file is not None and html_file == json_file:
        raise ModelError(
            f"{json_file} for both the JSON and the page",
            "two files",
            "name the page with --html, or end the other in .json",
        )
    try:
        from export.eval_report import terminal_table, write_html, write_json
        from export.evaluate import EvalSettings, evaluate_model
    except ModuleNotFoundError as error:
        raise ModelError(
            f"p2p-eval measures with {error.name}, which is not installed here",
            "the packages of the trainer",
            "pip install 'pix2pix-edge[train]'",
        ) from error

    settings = EvalSettings(
        direction=direction,
        task=task,
        count=count,
        norm_stats=norm_stats,
        lpips_weights=lpips_weights,
        inception=inception,
    )
    progress = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with console_ui(progress) as ui:
        evaluation = evaluate_model(model, data, settings, ui)
    result = Console(highlight=False)
    result.print(terminal_table(evaluation, f"{model} on {data}"))
    for note in evaluation.notes:
        result.print(note, markup=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, evaluation)
        progress.print(f"wrote {json_file}")
    if html_file is not None:
        write_html(html_file, evaluation)
        progress.print(f"wrote {html_file}")
