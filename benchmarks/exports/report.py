"""Exports side by side: tables for a terminal and for Markdown, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.exports.rows import BUILDS, WARM_UP, Export, Row
from benchmarks.timing import percentile
from export.verify import EQUAL_PSNR_DB
from runtime.errors import UserError

SCHEMA = 1
MARKERS = ("<!-- export-table:start -->", "<!-- export-table:end -->")
DASH = "–"
COLUMNS = (
    "form",
    "ONNX,\nMB",
    "engine,\nMB",
    "build,\ns",
    "PSNR,\ndB",
    "\nSSIM",
    "MACs\nhigher",
    "convo-\nlutions",
    "ms a frame\n(p5 to p95)",
    "times as\nfast",
)
"""A line break, here and in cells, is where a terminal breaks; Markdown has a space there."""

MEANINGS = {
    "onnx_bytes": "of the file; MB are millions of bytes",
    "engine": "built anew from that ONNX file: bytes, and seconds of each build, their median",
    "quality": "PSNR and SSIM of the worst picture, from the export's own parity.json, against "
    "the FP32 original; of naive INT8 against model.onnx",
    "higher_macs_share": "share of the multiply-accumulates that the graph does in a higher "
    "precision than the form's own",
    "convolutions": "layers of the engine that are convolutions, plain and transposed, by the "
    "type of the activations that they take, from the builder's log",
    "frame_ms": "one inference of ONNX Runtime, host array to host array; nearest-rank "
    "percentiles; the forms of a folder in turn, each once a round",
    "speedup": "FP32's time over the form's in the same round: the median of the rounds",
}
_READ = (
    f"MB: millions of bytes. Build: the median of {BUILDS}. PSNR and SSIM: the worst picture. "
    "MACs higher: share of the multiply-accumulates that the graph leaves in a higher precision "
    "than the form's own. Convolutions: of the engine, by the type of what they take, from the "
    "builder's log. Times as fast as FP32: the median of the rounds' ratios. "
    f"{DASH}: not measured."
)


def title_of(export: Export) -> str:
    """Generator, frame size, training."""
    parts = [export.name]
    if export.frame_size_px:
        height, width = export.frame_size_px
        parts.append(f"frames of {width}x{height}")
    if export.training:
        parts.append(f"trained on {export.training}")
    return ", ".join(parts)


def tables(exports: Sequence[Export]) -> Iterator[RenderableType]:
    """For a terminal."""
    for export in exports:
        table = Table(
            title=title_of(export),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for number, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
        told = _Footnotes(export)
        for row in export.rows:
            table.add_row(*(Text(cell) for cell in told.cells(row)))
        yield table
        for line in told.lines:
            yield Text(line)
        yield Text()
    yield Text(_READ, style="dim")


def markdown(exports: Sequence[Export], conditions: Sequence[str]) -> str:
    """What stands between the markers of a Markdown file."""
    parts = [f"{_READ} {'. '.join(line.rstrip('.') for line in conditions)}."]
    for export in exports:
        told = _Footnotes(export)
        rows = [COLUMNS, ("---", *["--:"] * (len(COLUMNS) - 1))]
        rows += [told.cells(row) for row in export.rows]
        table = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
        parts += [f"### {_escaped(title_of(export))}", "\n".join(table)]
        parts += [_escaped(line) for line in told.lines]
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return _escaped(" ".join(text.replace("-\n", "").split()))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


class _Footnotes:
    """The cells of an export's rows; what they cannot say goes below, numbered."""

    def __init__(self, export: Export) -> None:
        self.lines: list[str] = []
        self._numbers: dict[str, int] = {}
        for row in export.rows:
            for line in (*row.lacks, *row.notes):
                if line not in self._numbers:
                    self._numbers[line] = len(self._numbers) + 1
                    self.lines.append(f"({self._numbers[line]}) {line}")

    def cells(self, row: Row) -> tuple[str, ...]:
        marks = "".join(f" ({self._numbers[line]})" for line in (*row.lacks, *row.notes))
        return (row.title + marks, *_figures(row))


def _figures(row: Row) -> Iterator[str]:
    """As `COLUMNS`, but the first."""
    quality, engine = row.quality, row.engine
    yield _mb(row.onnx_bytes)
    yield _mb(engine.size_bytes) if engine else DASH
    yield f"{engine.build_s:.1f}" if engine else DASH
    if quality is None:
        yield from (DASH, DASH)
    else:
        yield "equal" if quality.psnr_db >= EQUAL_PSNR_DB else f"{quality.psnr_db:.1f}"
        yield f"{quality.ssim:.4f}"
    share = row.higher_macs_share
    yield DASH if share is None else f"{100 * share:.1f} %"
    counts = engine.convolutions.items() if engine else ()
    yield ",\n".join(f"{count} {kind}" for kind, count in counts) or DASH
    if row.frame_ms:
        times = FrameTimes.of(row.frame_ms)
        yield f"{times.p50:.1f}\n({times.p5:.1f} to {times.p95:.1f})"
    else:
        yield DASH
    yield DASH if row.speedup is None else f"{row.speedup:.2f}"


@dataclass(frozen=True)
class FrameTimes:
    """Milliseconds of a frame."""

    count: int
    p5: float
    p50: float
    p95: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> FrameTimes:
        """Of at least one sample."""
        p5, p50, p95 = (percentile(samples, percent) for percent in (5, 50, 95))
        return cls(len(samples), p5, p50, p95, min(samples), max(samples))


def _mb(count: int | None) -> str:
    return DASH if count is None else f"{count / 1e6:.1f}"


def to_json(exports: Sequence[Export], rounds: int, around: dict[str, Any]) -> dict[str, Any]:
    """All figures."""
    return {
        "schema": SCHEMA,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "meanings": MEANINGS,
        "settings": {"rounds": rounds, "warm_up": WARM_UP, "builds": BUILDS},
        "environment": around,
        "exports": [
            {
                "title": title_of(export),
                "generator": export.name,
                "frame_size_px": export.frame_size_px,
                "training_data": export.training,
                "compared_on": export.pictures,
                "frames_by": export.frames_by,
                "rows": [_row(row) for row in export.rows],
            }
            for export in exports
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    engine = row.engine
    return {
        "form": row.form,
        "title": row.title,
        "file": row.file,
        "onnx_bytes": row.onnx_bytes,
        "quality": asdict(row.quality) if row.quality else None,
        "kept": row.kept,
        "higher_macs_share": row.higher_macs_share,
        "engine": {**asdict(engine), "build_s": engine.build_s} if engine else None,
        "frame_ms": asdict(FrameTimes.of(row.frame_ms)) if row.frame_ms else None,
        "speedup": row.speedup,
        "lacks": row.lacks,
        "notes": row.notes,
        "samples_ms": [round(sample, 4) for sample in row.frame_ms],
        "samples_speedup": [round(sample, 4) for sample in row.speedups],
    }


def between_markers(path: Path, text: str, markers: tuple[str, str] = MARKERS) -> str:
    """What the file at `path` becomes with `text` between its two markers.

    Raises:
        UserError: no such file, it is no text, or it does not have each marker once, in order.
    """
    try:
        told = path.read_bytes().decode("utf-8")  # line ends stay as they are
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"--docs {path} cannot be read ({why})", "a Markdown file", "name another one"
        ) from error
    start, end = markers
    before, _, rest = told.partition(start)
    _, _, after = rest.partition(end)
    if told.count(start) != 1 or told.count(end) != 1 or end not in rest:
        lacking = " and ".join(marker for marker in markers if marker not in told)
        raise UserError(
            f"{path} has no {lacking}" if lacking else f"{path} has its markers not once in order",
            f"one {start} and after it one {end}",
            "write both where the tables are to stand",
        )
    return f"{before}{start}\n\n{text}\n\n{end}{after}"
