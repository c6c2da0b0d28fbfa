"""The pictures of the frontier on one page: a student beside its teacher, input and target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.frontiers.goals import changes
from benchmarks.frontiers.recipes import Source
from benchmarks.frontiers.rows import FP32, INT8, Job, Row
from export.checkpoints import open_checkpoint
from export.eval_report import best_median_worst
from export.norm_stats import BATCH, with_batch_statistics
from export.subjects import torch_draws
from export.verify import Difference, Draw, Image
from export.web_page import figure, page
from runtime.artifact import meta_of_onnx
from runtime.files import write_text
from runtime.translator import Translator
from trainer.data import Pairs, open_pairs
from trainer.metrics import quality_of
from trainer.some_pairs import some_of

_STYLE = """
body{max-width:1400px}h2{border-top:1px solid var(--line);padding-top:1.2rem}
.row{display:grid;grid-template-columns:repeat(5,1fr);gap:10px}
@media(max-width:800px){.row{grid-template-columns:repeat(2,1fr)}}
figcaption{font-variant-numeric:tabular-nums}nav a{margin-right:1rem}
"""
_INTRO = (
    "Best, median and worst are chosen by the L1 of the student's INT8 (its FP32 where there is "
    "none), over the pairs that were measured. L1 in grey levels, lower is better; SSIM at most "
    "1, higher is better; both against the target. Look for smears, grids, wrong colours, and "
    "lamps that are not lit: L1 sees none of them."
)


@dataclass(frozen=True)
class Shown:
    """A generator that is looked at."""

    job: Job
    row: Row


def write_page(path: Path, parts: Sequence[tuple[Source, Sequence[Shown]]], teacher: str) -> None:
    """Write one page that needs nothing beside itself, whole or not at all.

    Args:
        path: an HTML file.
        parts: generators of each set of pairs; without the teacher's, its column is missing.
        teacher: its name.

    Raises:
        UserError: it could not be written, or a model does not run.
    """
    sections = [
        section
        for source, shown in parts
        for data, word in ((source.held_out, "held out"), (source.unseen, "cameras never seen"))
        if data is not None
        for section in _sections(source, data, word, shown, teacher)
    ]
    links = "".join(
        f"<a href='#s{n}'>{escape(title)}</a>" for n, (title, _) in enumerate(sections)
    )
    body = [
        f"<h1>Generators side by side</h1><p class=note>{escape(_INTRO)}</p><nav>{links}</nav>",
        *(f"<h2 id=s{n}>{escape(title)}</h2>{body}" for n, (title, body) in enumerate(sections)),
    ]
    write_text(path, page("Generators side by side", body, style=_STYLE))


def _sections(
    source: Source, data: str, word: str, shown: Sequence[Shown], teacher: str
) -> Iterator[tuple[str, str]]:
    pairs = open_pairs(data, source.direction)
    large = next((one for one in shown if one.row.name == teacher), None)
    students = [one for one in shown if one is not large] or list(shown)
    large_draw = _torch_draw(large) if large is not None else None
    for student in students:
        title = f"{source.name}, {word}: {student.row.name}"
        yield title, _student(student, pairs, large, large_draw, word)


def _student(
    student: Shown, pairs: Pairs, large: Shown | None, large_draw: Draw | None, word: str
) -> str:
    with ExitStack() as opened:
        columns: dict[str, Draw] = {}
        if large is not None and large_draw is not None and large is not student:
            columns[f"teacher: {large.row.name}, FP32"] = large_draw
        fp32 = _torch_draw(student)
        columns[f"{student.row.name}, FP32"] = fp32
        int8 = student.job.export / INT8
        judged = fp32
        if int8.is_file():
            judged = opened.enter_context(Translator.load(int8)).__call__
            columns[f"{student.row.name}, INT8"] = judged
        size_px = student.row.size_px
        errors = []
        pairs = some_of(pairs, student.row.settings.get("count"))  # those that were measured
        for index in range(len(pairs)):
            before, target = pairs.pair(index, size_px)
            errors.append(quality_of(judged(before), target).l1)
        parts = [f"<p class=note>{escape(_told(student, large, word))}</p>"]
        for which, index in best_median_worst(errors):
            before, target = pairs.pair(index, size_px)
            drawn = {title: draw(before).copy() for title, draw in columns.items()}
            parts.append(f"<h3>{which} of {len(errors)}: {escape(pairs.name(index))}</h3>")
            parts.append(_row(before, target, drawn))
    return "".join(parts)


def _told(student: Shown, large: Shown | None, word: str) -> str:
    row = student.row
    told = [f"{row.macs / 1e9:.2f} G MACs, {row.parameters / 1e6:.2f} M parameters"]
    if large is not None and large is not student:
        rows = [one.unseen if "never" in word else one.held_out for one in (large.row, row)]
        form = "int8" if "int8" in rows[1] else "fp32"
        against = changes(rows[0], rows[1], form)[0]
        told.append(f"{form.upper()} on these pairs, against the teacher: {against}")
    return "; ".join([*told, *row.notes])


def _torch_draw(shown: Shown) -> Draw:
    """The generator in PyTorch, with the statistics of BatchNorm that its export has."""
    checkpoint = open_checkpoint(shown.job.run)
    file = shown.job.export / FP32
    meta = meta_of_onnx(file) if file.is_file() else None
    generator = checkpoint.generator
    if meta is not None and meta.norm_stats == BATCH:
        generator = with_batch_statistics(generator)
    return torch_draws(checkpoint, generator)


def _row(before: Image, target: Image, drawn: Mapping[str, Image]) -> str:
    figures = [figure(before, "input"), figure(target, "target")]
    reference = next((image for title, image in drawn.items() if title.endswith("FP32")), None)
    for title, image in drawn.items():
        quality = quality_of(image, target)
        told = f"L1 {quality.l1:.1f}, SSIM {quality.ssim:.3f}, PSNR {quality.psnr:.1f} dB"
        if title.endswith("INT8") and reference is not None:
            own = drawn[title.replace("INT8", "FP32")]
            told += f"; {Difference.between(own, image).psnr_db:.1f} dB to its FP32"
        figures.append(figure(image, title, told))
    return f"<div class=row>{''.join(figures)}</div>"
