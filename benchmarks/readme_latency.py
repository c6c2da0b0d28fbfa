"""The table "What a frame costs" of the README's section "Measured".

A line for each of a file's rows, once for every machine that has a file of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.readme_figures import Column, Table, at


def _measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] == "measured"]


def _stage(stage: str, percentile: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    return lambda _, row: f"{row['latency']['stages_ms'][stage][percentile]:.1f}"


def _fps(_: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"{row['latency']['fps']:.1f}"


def _name(_: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    ours = "" if row["role"] == "peer" else "**"
    return f"{ours}{row['name']}{ours}"


def _share_of_roof(_: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    roof = row.get("roof")
    return None if roof is None else f"{100 * roof['share']:.0f} %"


def _over_torch(result: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """How many times as long as this row plain PyTorch takes to infer, with the interval."""
    eager = {
        other["name"]
        for other in result["rows"]
        if other["peer"] == "torch" and other["generator"] == row["generator"]
    }
    for ratio in result["ratios"]:
        if ratio["of"] != "infer":
            continue
        if ratio["slow"] in eager and ratio["fast"] == row["name"]:
            value, low, high = ratio["value"], ratio["low"], ratio["high"]
        elif ratio["fast"] in eager and ratio["slow"] == row["name"]:
            value, low, high = 1 / ratio["value"], 1 / ratio["high"], 1 / ratio["low"]
        else:
            continue
        return f"{value:.2f} ({low:.2f} to {high:.2f})"
    return None


LATENCY = Table(
    title="What a frame costs",
    kind="latency",
    schema=2,
    rows=at("rows", then=_measured),
    columns=(
        Column("row", _name, number=False),
        Column("generator", lambda _, row: row["generator"], number=False),
        Column("engine", lambda _, row: row["engine"], number=False),
        Column("precision", lambda _, row: row["precision"], number=False),
        Column("infer p50, ms", _stage("infer", "p50")),
        Column("p99", _stage("infer", "p99")),
        Column("end to end p50, ms", _stage("end_to_end", "p50")),
        Column("p99", _stage("end_to_end", "p99")),
        Column("fps", _fps),
        Column("of the roof", _share_of_roof),
        Column("infer: times as fast as PyTorch eager (95 % interval)", _over_torch),
    ),
    again="python benchmarks/latency.py",
    note="Bold: ours. infer: the network alone. End to end: from asking the source for the frame "
    "until the sink has it, one frame at a time. What each word and each figure means: "
    "[docs/benchmarks.md](docs/benchmarks.md).",
)
