"""A result of `benchmarks/latency.py` as tables for a terminal; made of the JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.result_file import END_TO_END, MEASURED, STAGES
from benchmarks.rounds.rows import OURS

_BARS = " ▁▂▃▄▅▆▇█"
_DEVICE_WORDS = {
    "h2d": "H2D Latency",
    "gpu_compute": "GPU Compute Time",
    "d2h": "D2H Latency",
    "enqueue": "Enqueue Time",
    "latency": "Latency",
}


def tables(result: Mapping[str, Any]) -> RenderableType:
    """A table for each model of ours; of several rows one of all, and one of their ratios."""
    live = bool(result["settings"].get("live"))
    rows = result["rows"]
    parts: list[RenderableType] = []
    for row in rows:
        if row["status"] == MEASURED and row["role"] == OURS:
            parts += [_table(row, live), Text()]
    if len(rows) > 1 or not parts:
        parts += [_stages(rows), Text(), _comparison(rows)]
    if result["roof"] or result["power"]:
        parts += [Text(), _limits(rows)]
    if result["device_rows"]:
        parts += [Text(), _device_rows(result["device_rows"])]
    if result["ratios"]:
        parts += [Text(), _ratios(result["ratios"])]
    return Group(*parts)


def _table(row: Mapping[str, Any], live: bool) -> Table:
    height, width = row["frame_size_px"]
    generator = (row["meta"] or {}).get("generator", row["generator"])
    table = Table(
        title=f"{row['name']}: {generator} {row['precision']}, {width}x{height}\n{row['engine']}",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
    )
    table.add_column("milliseconds")
    for title in ("p50", "p90", "p95", "p99", "outliers", "fps"):
        table.add_column(title, justify="right")
    latency = row["latency"]
    stages = latency["stages_ms"]
    table.add_row("LATENCY", style="bold")
    for stage in STAGES:
        table.add_row(f"  {stage}", *_cells(stages[stage]))
    table.add_row("  age of frame", *_cells(stages["age"]))
    table.add_row(
        "  end to end",
        *_cells(stages[END_TO_END]),
        _fps(latency["fps"]),
        style="bold",
        end_section=True,
    )
    if row["throughput"]:
        table.add_row("THROUGHPUT", style="bold")
        table.add_row(
            "  from frame to frame",
            *_cells(row["throughput"]["frame_interval_ms"]),
            _fps(row["throughput"]["fps"]),
            end_section=True,
        )
    if row["device_ms"]:
        table.add_row("DEVICE", style="bold")
        for name, device in row["device_ms"].items():
            table.add_row(f"  {_DEVICE_WORDS[name]}", *_cells(device))
        table.add_section()
    measuring = row["measuring"]
    table.add_row("inference alone", *_cells(row["inference_alone_ms"]))
    told = stages[END_TO_END]
    notes = [
        "latency: newest frame of a live source; capture holds the waiting, end to end does not"
        if live
        else "latency: one frame at a time; throughput: overlapping stages",
        f"end to end: p50 {_ms(told['p50_low'])} to {_ms(told['p50_high'])} (95 %); "
        f"all of it: {_sparkline(told)}",
        f"the stages explain {latency['explained']:.1%} of it; "
        f"measuring: {1000 * measuring['per_frame_ms']:.0f} us a frame, {measuring['share']:.2%}",
    ]
    if cost := row["pipeline_over_inference"]:
        kept = cost["value"] <= cost["goal"]
        table.add_row(
            "pipeline / inference",
            Text(f"{cost['value']:.2f}", style="bold green" if kept else "bold red"),
        )
        notes.append(
            f"pipeline / inference: goal {cost['goal']:.2f}; in its rounds {cost['least']:.2f} "
            f"to {cost['most']:.2f}"
        )
    table.caption = "\n".join(notes)
    return table


def _stages(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="p50 of each stage, ms", title_justify="left", title_style="bold")
    table.add_column("row", overflow="fold")
    for title in (*STAGES, "end to\nend", "p99"):
        table.add_column(title, justify="right")
    for row in rows:
        if row["status"] == MEASURED:
            stages = row["latency"]["stages_ms"]
            whole = stages[END_TO_END]
            cells = [_ms(stages[stage]["p50"]) for stage in STAGES]
            table.add_row(row["name"], *cells, _ms(whole["p50"]), _ms(whole["p99"]))
        else:
            table.add_row(row["name"], "not run", style="yellow")
    return table


def _comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="all rows", title_justify="left", title_style="bold")
    table.add_column("row", overflow="fold")
    for title in (
        "latency\n95 %, ms",
        "\nfps",
        "through-\nput, fps",
        "infer\np50 ms",
        "pipeline\n/ infer",
        "explained",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        if row["status"] != MEASURED:
            table.add_row(row["name"], "not run", style="yellow")
            continue
        latency, through = row["latency"], row["throughput"]
        whole, cost = latency["stages_ms"][END_TO_END], row["pipeline_over_inference"]
        table.add_row(
            row["name"],
            f"{_ms(whole['p50_low'])}-{_ms(whole['p50_high'])}",
            _fps(latency["fps"]),
            _fps(through["fps"] if through else None),
            _ms(row["inference_alone_ms"]["p50"]),
            f"{cost['value']:.2f}" if cost else "-",
            f"{latency['explained']:.1%}",
        )
    return table


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="ratios", title_justify="left", title_style="bold")
    for title in ("slow", "fast"):
        table.add_column(title, overflow="fold")
    table.add_column("of")
    for title in ("ratio", "95 %", "rounds"):
        table.add_column(title, justify="right")
    for ratio in ratios:
        table.add_row(
            ratio["slow"],
            ratio["fast"],
            ratio["of"].replace("_", " "),
            f"{ratio['value']:.2f}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}",
            str(len(ratio["rounds"])),
        )
    return table


def _limits(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="roof and energy", title_justify="left", title_style="bold")
    table.add_column("row", overflow="fold")
    for title in ("infer\np50 ms", "least\nms", "share of\nroof", "bound by", "mJ a\nframe"):
        table.add_column(title, justify="right")
    for row in rows:
        if row["status"] != MEASURED:
            continue
        roof, energy = row["roof"] or {}, row["energy"] or {}
        joules = energy.get("mj_per_frame_total")
        table.add_row(
            row["name"],
            _ms(row["inference_alone_ms"]["p50"]),
            f"{roof['least_ms']:.3f}" if roof else "-",
            f"{roof['share']:.0%}" if roof else "-",
            roof.get("bound", "-"),
            "-" if joules is None else f"{joules:.0f}",
        )
    return table


def _device_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="the device alone: p50, ms", title_justify="left", title_style="bold")
    table.add_column("row", overflow="fold")
    for word in _DEVICE_WORDS.values():
        table.add_column(word, justify="right")
    table.add_column("fps", justify="right")
    for row in rows:
        told = [row["device_ms"].get(name) for name in _DEVICE_WORDS]
        cells = ["-" if one is None else _ms(one["p50"]) for one in told]
        table.add_row(row["name"], *cells, _fps(row["fps"]))
    return table


def _sparkline(told: Mapping[str, Any]) -> str:
    """The histogram in a line of at most 40 letters, with its ends; the last one is all beyond
    the fence, if there is any."""
    counts, edges = told["histogram"]["counts"], told["histogram"]["edges_ms"]
    most = max(counts)
    heights = [-(-count * (len(_BARS) - 1) // most) for count in counts]
    line = "".join(_BARS[height] for height in heights)
    return f"{_ms(edges[0])} {line} {_ms(edges[-1])}"


def _cells(told: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    p50, p90, p95, p99 = (f"{told[name]:.2f}" for name in ("p50", "p90", "p95", "p99"))
    return p50, p90, p95, p99, str(told["outliers"] or "")


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _fps(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}"
