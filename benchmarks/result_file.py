"""A run of `benchmarks/latency.py` as its file tells it: read, checked, and put in order to show.

What draws or writes pages takes such a file and not the measurement, so that a committed run can
be drawn again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from runtime.errors import UserError

SCHEMA = 2
KIND = "latency"
STAGES = ("capture", "in", "infer", "out", "sink")
END_TO_END = "end_to_end"
MEASURED = "measured"
PEER = "peer"
_AGAIN = "measure again with: python benchmarks/latency.py"
_OF_A_ROW = ("name", "role", "peer", "generator", "status")
_OF_A_MEASURED_ROW = ("engine", "precision", "how", "load_ms", "latency", "inference_alone_ms")
_OF_A_DISTRIBUTION = (
    "count",
    "least",
    "p50",
    "p90",
    "p99",
    "most",
    "p50_low",
    "p50_high",
    "histogram",
)


def read_result(path: Path) -> dict[str, Any]:
    """The file's JSON, with all that a picture or a page asks for.

    Raises:
        UserError: no such file, no JSON, another schema or kind, or a field is missing.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror})", "a result of latency.py", _AGAIN
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is no JSON ({error})", "a result of latency.py", _AGAIN
        ) from error
    told = result if isinstance(result, dict) else {}
    if (told.get("schema"), told.get("kind")) != (SCHEMA, KIND):
        raise UserError(
            f"{path} is of schema {told.get('schema')}, kind {told.get('kind')}",
            f"schema {SCHEMA}, kind {KIND}",
            _AGAIN,
        )
    lacking = next(_lacking(told), None)
    if lacking is not None:
        raise UserError(f"{path} is damaged: it lacks {lacking}", "all of its fields", _AGAIN)
    return told


def _lacking(result: dict[str, Any]) -> Iterator[str]:
    yield from _missing(
        result, "", ("created_at", "settings", "environment", "warnings", "rows", "ratios")
    )
    yield from _missing(result["settings"], "settings", ("rounds", "command"))
    for number, row in enumerate(result["rows"]):
        place = f"rows[{number}]"
        yield from _missing(row, place, _OF_A_ROW)
        if row["status"] != MEASURED:
            yield from _missing(row, place, ("why",))
            continue
        yield from _missing(row, place, _OF_A_MEASURED_ROW)
        yield from _missing(row["latency"], f"{place}.latency", ("fps", "stages_ms"))
        stages = f"{place}.latency.stages_ms"
        yield from _missing(row["latency"]["stages_ms"], stages, (*STAGES, END_TO_END))
        for stage, told in row["latency"]["stages_ms"].items():
            yield from _missing(told, f"{stages}.{stage}", _OF_A_DISTRIBUTION)
            histogram = f"{stages}.{stage}.histogram"
            yield from _missing(told["histogram"], histogram, ("edges_ms", "counts"))
    for number, ratio in enumerate(result["ratios"]):
        wanted = ("slow", "fast", "of", "value", "low", "high")
        yield from _missing(ratio, f"ratios[{number}]", wanted)


def _missing(told: Any, place: str, keys: Sequence[str]) -> Iterator[str]:
    if not isinstance(told, dict):
        yield f"the object {place}"
    for key in keys:
        if key not in told:
            yield f"{place}.{key}".lstrip(".")


@dataclass(frozen=True)
class Group:
    """The rows of one generator: they are compared with each other."""

    generator: str
    rows: list[Mapping[str, Any]]
    """That were measured: ours, then the peers."""


def groups(result: Mapping[str, Any]) -> list[Group]:
    """By generator, in the order of the file; without those of which nothing was measured."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["status"] == MEASURED:
            found.setdefault(row["generator"], []).append(row)
    return [
        Group(generator, sorted(rows, key=lambda row: bool(row["role"] == PEER)))
        for generator, rows in found.items()
    ]


def not_run(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows that have a `why` and no figures."""
    return [row for row in result["rows"] if row["status"] != MEASURED]


def end_to_end(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The distribution of a whole frame, one at a time."""
    told: Mapping[str, Any] = row["latency"]["stages_ms"][END_TO_END]
    return told


def stage_ms(result: Mapping[str, Any], row: Mapping[str, Any], stage: str) -> float:
    """The p50 of a stage; of a live source's capture 0, since waiting for it is no latency."""
    if stage == "capture" and result["settings"].get("live"):
        return 0.0
    return float(row["latency"]["stages_ms"][stage]["p50"])


def shares_done(told: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """The share of the frames, 0 to 1, that were done within so many milliseconds.

    Returns:
        Milliseconds and shares: at the edges of the histogram, and at the percentiles.
    """
    edges, counts = told["histogram"]["edges_ms"], told["histogram"]["counts"]
    whole = sum(counts)
    points = list(zip(edges, (0.0, *(done / whole for done in accumulate(counts))), strict=True))
    points += [(told[f"p{percent}"], percent / 100) for percent in (50, 90, 99)]
    points.sort()
    shares = list(accumulate((share for _, share in points), max))
    return [ms for ms, _ in points], shares


def shown_until(rows: Sequence[Mapping[str, Any]]) -> float:
    """Where curves of these rows may end, in milliseconds: a lone hiccup squeezes them else."""
    most = max(end_to_end(row)["most"] for row in rows)
    return float(min(most, 1.3 * max(end_to_end(row)["p99"] for row in rows)))


def own_name(name: str, generator: str) -> str:
    """A row's name without its generator, where that is told beside it."""
    return name.removeprefix(f"{generator}/").removesuffix(f", {generator}")


def ratios_in(
    result: Mapping[str, Any], group: Group, of: str
) -> list[tuple[Mapping[str, Any], bool]]:
    """The ratios between rows of a group, and whether a peer is the faster one in it."""
    roles = {row["name"]: row["role"] for row in group.rows}
    return [
        (ratio, roles[ratio["fast"]] == PEER)
        for ratio in result["ratios"]
        if ratio["of"] == of and ratio["slow"] in roles and ratio["fast"] in roles
    ]


def told_machine(around: Mapping[str, Any]) -> str:
    """What the figures depend on first, in a line."""
    parts = [around.get("jetson"), *(around.get("gpus") or ())]
    if around.get("cpu"):
        parts.append(f"{around['cpu']}, {around.get('cpu_threads')} threads")
    parts += [around.get("power_mode"), around.get("os")]
    return ", ".join(str(part) for part in parts if part)


def told_load(around: Mapping[str, Any]) -> str:
    """The load before and after; empty where the system does not tell."""
    before, after = around.get("load_average_1m"), around.get("load_average_1m_after")
    if before is None:
        return ""
    return f"load {before:.1f} before" + ("" if after is None else f", {after:.1f} after")


def told_ms(value: float) -> str:
    """Milliseconds with three digits that matter: `0.031`, `23.6`, `604`."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
