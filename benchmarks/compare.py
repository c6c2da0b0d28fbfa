"""What changed between two results of `benchmarks/latency.py`, or between many of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.conditions.clocks import same_conditions
from benchmarks.result_file import END_TO_END, MEASURED
from runtime.errors import UserError

_MACHINE = ("jetson", "gpus", "cpu", "cpu_threads", "architecture")
_SETTINGS = ("source_description", "sink", "threads", "warm_up")
ACROSS_MACHINES = "--across-machines"


@dataclass(frozen=True)
class Change:
    """One figure, before and now."""

    row: str
    """Name of a row, or `SLOW / FAST`."""
    of: str
    old: float
    new: float | None
    """None: it was measured before, and could not be now."""
    is_ratio: bool
    counts: bool
    """Whether it decides: times always (of one machine), ratios where the slow row is a peer's."""

    @property
    def percent(self) -> float | None:
        """By how much it grew."""
        return None if self.new is None else 100 * (self.new / self.old - 1)

    def worse(self, tolerance_percent: float) -> bool:
        """Whether a row became slower, or its lead over a peer smaller, by more than that."""
        if not self.counts:
            return False
        if self.percent is None:
            return True
        grew = -self.percent if self.is_ratio else self.percent
        return grew > tolerance_percent


def check_comparable(
    old: Mapping[str, Any], new: Mapping[str, Any], name: str, *, across_machines: bool = False
) -> None:
    """Refuse to compare what differs by more than the programs.

    Args:
        old, new: `environment` of two results.
        name: of the file that `old` was read from.
        across_machines: allow another machine; its power mode then says nothing.

    Raises:
        UserError: another machine, another power mode, or other clocks.
    """
    if not across_machines:
        for key in _MACHINE:
            if old.get(key) != new.get(key):
                raise UserError(
                    f"{name} is of another machine: {key} {_told(old.get(key))} there, "
                    f"{_told(new.get(key))} here",
                    "two runs of one machine",
                    f"compare their ratios alone with: {ACROSS_MACHINES}",
                )
        if why := same_conditions(old, new):
            raise UserError(
                f"{name} and this run cannot be compared: {why}",
                "two runs under the same conditions",
                "set them with nvpmodel, jetson_clocks or cpupower, and measure again",
            )


def other_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what the settings of two results differ, a line each."""
    before, now = old["settings"], new["settings"]
    return [
        f"{key}: {_told(before.get(key))} then, {_told(now.get(key))} now"
        for key in _SETTINGS
        if before.get(key) != now.get(key)
    ]


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], *, across_machines: bool = False
) -> list[Change]:
    """Every figure that both results have, and those that could not be measured again.

    Args:
        old, new: two results.
        across_machines: times are of different machines: only ratios decide.

    Raises:
        UserError: they have no row in common.
    """
    found = [*_row_changes(old, new, counts=not across_machines), *_ratio_changes(old, new)]
    if not found:
        raise UserError(
            "the two runs have no row in common: "
            + ", ".join(row["name"] for row in old["rows"])
            + " then",
            "a row of the same name in both",
            "measure the same models",
        )
    return found


def _row_changes(old: Mapping[str, Any], new: Mapping[str, Any], counts: bool) -> Iterator[Change]:
    now = {row["name"]: row for row in new["rows"]}
    for before in old["rows"]:
        row = now.get(before["name"])
        if before["status"] != MEASURED or row is None:
            continue
        for of in ("infer", END_TO_END):
            then_ms = _above_zero(before["latency"]["stages_ms"][of]["p50"])
            now_ms = None
            if row["status"] == MEASURED:
                now_ms = _above_zero(row["latency"]["stages_ms"][of]["p50"])
            yield Change(before["name"], of, then_ms, now_ms, is_ratio=False, counts=counts)


def _ratio_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    peers = {row["name"] for row in old["rows"] if row["role"] == "peer"}
    now = ratios_by_rows(new)
    for (slow, fast, of), value in ratios_by_rows(old).items():
        told = now.get((slow, fast, of))
        if told is None and (fast, slow, of) in now:
            told = 1 / now[fast, slow, of]
        if told is not None:
            yield Change(f"{slow} / {fast}", of, value, told, is_ratio=True, counts=slow in peers)


def ratios_by_rows(result: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """The value of each ratio, by (slow, fast, of)."""
    return {
        (ratio["slow"], ratio["fast"], ratio["of"]): _above_zero(ratio["value"])
        for ratio in result["ratios"]
    }


def table_of(found: list[Change], tolerance_percent: float) -> Table:
    """A line for each figure; what decides against it is red."""
    table = Table(title="against the older run", title_justify="left", title_style="bold")
    table.add_column("row", overflow="fold")
    table.add_column("of")
    for title in ("old", "new", "change"):
        table.add_column(title, justify="right")
    for change in found:
        unit = "" if change.is_ratio else " ms"
        percent = change.percent
        told = "not run" if percent is None else f"{percent:+.1f} %"
        table.add_row(
            change.row,
            change.of.replace("_", " "),
            f"{change.old:.2f}{unit}",
            "-" if change.new is None else f"{change.new:.2f}{unit}",
            Text(told, style="bold red" if change.worse(tolerance_percent) else ""),
        )
    return table


def _above_zero(value: Any) -> float:
    if isinstance(value, (int, float)) and 0 < value < math.inf:
        return float(value)
    raise UserError(
        f"a result is damaged: {value!r} where a time or a ratio was",
        "a number above 0",
        "measure again with: python benchmarks/latency.py",
    )


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
