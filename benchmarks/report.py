"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.measure import END_TO_END, STAGES, Measured, NotRun, Result
from benchmarks.timing import Distribution, rate_per_s

SCHEMA = 1
COST_GOAL = 1.10

MEANINGS = {
    "one_frame_at_a_time": "latency: the stages of one frame run one after the other, as for a "
    "live camera (Pipeline in mode latency); fps is what this way reaches",
    "overlapping_stages": "throughput: capture, translation and sink of different frames run at "
    "the same time, every frame of a file (Pipeline in mode throughput); each frame is on its "
    "way for longer; null for a live source, which sets its own rate",
    "inference_alone": "Translator.infer on one prepared batch: from the host's uint8 array to "
    "the host's uint8 array, transfers included, nothing else running",
    "pipeline_over_inference": "wall time of a frame with overlapping stages over wall time of "
    "the inference alone, both of the same round: the median of the rounds, the least, the most",
    "end_to_end": "from asking the source for the frame until the sink has it; of a live source, "
    "from the frame in hand until the sink has it (waiting for the camera is no latency)",
    "capture, in, infer, out, sink": "read and decode; resize to the model's size; the engine; "
    "resize to the frame's size; show or write",
    "percentiles": "nearest rank, in milliseconds; N stamps are N - 1 intervals",
}


def to_json(result: Result) -> dict[str, Any]:
    """One model's results as a JSON object."""
    if isinstance(result, NotRun):
        return {"file": str(result.path), "status": "not run", "why": result.why}
    overlapping = None
    if result.overlapped_ms:
        overlapping = {
            "fps": rate_per_s(result.overlapped_ms),
            "frame_interval_ms": _distribution(result.overlapped_ms),
        }
    cost = None
    if result.cost_ratios:
        cost = {
            "value": result.cost_ratio,
            "least": min(result.cost_ratios),
            "most": max(result.cost_ratios),
            "goal": COST_GOAL,
            "rounds": result.cost_ratios,
        }
    return {
        "file": str(result.path),
        "status": "measured",
        "engine": result.engine,
        "size_bytes": result.path.stat().st_size,
        "load_ms": result.load_ms,
        "one_frame_at_a_time": {
            "fps": rate_per_s(result.one_by_one_ms),
            "stages_ms": {
                stage: _distribution(samples) for stage, samples in result.stages_ms.items()
            },
        },
        "overlapping_stages": overlapping,
        "inference_alone_ms": _distribution(result.alone_ms),
        "pipeline_over_inference": cost,
        "meta": asdict(result.meta),
        "samples_ms": {
            "one_frame_at_a_time": {
                stage: _rounded(samples) for stage, samples in result.stages_ms.items()
            },
            "overlapping_stages": _rounded(result.overlapped_ms),
            "inference_alone": _rounded(result.alone_ms),
        },
    }


def _distribution(samples: Sequence[float]) -> dict[str, float]:
    return asdict(Distribution.of(samples))


def _rounded(samples: Sequence[float]) -> list[float]:
    return [round(sample, 4) for sample in samples]


def tables(results: Sequence[Result], names: Sequence[str]) -> RenderableType:
    """A table for each model that ran; one to compare them where there are several rows."""
    parts: list[RenderableType] = []
    for result, name in zip(results, names, strict=True):
        if isinstance(result, Measured):
            parts += [_table(result, name), Text()]
    if len(results) > 1:
        parts.append(_comparison(results, names))
    return Group(*parts)


def _table(result: Measured, name: str) -> Table:
    meta = result.meta
    height, width = meta.frame_size_px
    table = Table(
        title=f"{name}: {meta.generator} {meta.precision}, {width}x{height}\n{result.engine}",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
    )
    table.add_column("milliseconds")
    for title in ("p50", "p90", "p99", "fps"):
        table.add_column(title, justify="right")
    title = "newest frame of a live source" if result.live else "one frame at a time"
    table.add_row(f"LATENCY: {title}", style="bold")
    for stage in STAGES:
        waits = " (waiting included)" if result.live and stage == "capture" else ""
        table.add_row(f"  {stage}{waits}", *_cells(result.stages_ms[stage]))
    table.add_row(
        "  end to end" + (", frame in hand to sink" if result.live else ""),
        *_cells(result.stages_ms[END_TO_END]),
        _fps(result.one_by_one_ms),
        style="bold",
        end_section=True,
    )
    if result.overlapped_ms:
        table.add_row("THROUGHPUT: overlapping stages", style="bold")
        table.add_row(
            "  from frame to frame",
            *_cells(result.overlapped_ms),
            _fps(result.overlapped_ms),
            end_section=True,
        )
    table.add_row("inference alone", *_cells(result.alone_ms), _fps(result.alone_ms))
    if (ratio := result.cost_ratio) is not None:
        kept = ratio <= COST_GOAL
        least, most = min(result.cost_ratios), max(result.cost_ratios)
        table.add_row(
            f"pipeline / inference (goal: {COST_GOAL:.2f})",
            Text(f"{ratio:.2f}", style="bold green" if kept else "bold red"),
        )
        table.add_row(f"  in its rounds: {least:.2f} to {most:.2f}", style="dim")
    return table


def _comparison(results: Sequence[Result], names: Sequence[str]) -> Table:
    table = Table(title="all models", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    for title in (
        "latency\np50 ms",
        "\np99 ms",
        "through-\nput, fps",
        "infer\np50 ms",
        "pipeline\n/ infer",
    ):
        table.add_column(title, justify="right")
    for result, name in zip(results, names, strict=True):
        if isinstance(result, Measured):
            table.add_row(name, *_comparison_cells(result))
        else:
            table.add_row(name, "not run", style="yellow")
    return table


def _comparison_cells(result: Measured) -> Iterator[str]:
    latency = Distribution.of(result.stages_ms[END_TO_END])
    yield f"{latency.p50:.1f}"
    yield f"{latency.p99:.1f}"
    yield _fps(result.overlapped_ms)
    yield f"{Distribution.of(result.alone_ms).p50:.1f}"
    yield "-" if result.cost_ratio is None else f"{result.cost_ratio:.2f}"


def _cells(samples: Sequence[float]) -> tuple[str, str, str]:
    told = Distribution.of(samples)
    return f"{told.p50:.2f}", f"{told.p90:.2f}", f"{told.p99:.2f}"


def _fps(intervals: Sequence[float]) -> str:
    rate = rate_per_s(intervals)
    return "-" if rate is None else f"{rate:.1f}"
