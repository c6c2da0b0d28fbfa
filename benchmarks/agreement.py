"""`python benchmarks/agreement.py RUN1.json RUN2.json ...`: do runs of one command agree?

Made by, for example:

    for run in 1 2 3 4 5 6 7 8 9 10; do
        python benchmarks/latency.py runs/demo --peers all --duration 120 --json run$run.json
    done
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.command import exit_code_of
from benchmarks.compare import check_comparable, other_settings, ratios_by_rows
from benchmarks.result_file import SCHEMA, read_result
from runtime.errors import UserError
from runtime.files import write_text

KIND = "agreement"
THEY_DIFFER = 1


@dataclass(frozen=True)
class Agreement:
    """One ratio over all runs."""

    slow: str
    fast: str
    of: str
    values: list[float]
    """Of the runs that have it, in their order."""
    missing: int
    """In how many runs one of its rows was not measured."""

    @property
    def apart_percent(self) -> float:
        """By how much the greatest is above the least: no two runs differ by more."""
        return 100 * (max(self.values) / min(self.values) - 1)

    def agrees(self, tolerance_percent: float) -> bool:
        """Whether all runs have it, and no two differ by more than that."""
        return not self.missing and self.apart_percent <= tolerance_percent


def agreements(results: Sequence[Mapping[str, Any]]) -> list[Agreement]:
    """Every ratio that any of the runs has; the way round that the first such run has it.

    Args:
        results: of `benchmarks/latency.py`, at least one.
    """
    runs = [ratios_by_rows(result) for result in results]
    found: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for (slow, fast, of), value in run.items():
            if (fast, slow, of) in found:
                found[fast, slow, of].append(1 / value)
            else:
                found.setdefault((slow, fast, of), []).append(value)
    return [
        Agreement(slow, fast, of, values, len(runs) - len(values))
        for (slow, fast, of), values in found.items()
    ]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument(
    "runs", nargs=-1, metavar="RUN.json...", type=click.Path(path_type=Path, dir_okay=False)
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="PERCENT",
    help="By how much two runs may differ in a ratio.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the figures go.",
)
def agreement(runs: tuple[Path, ...], tolerance: float, json_path: Path | None) -> int:
    """Tell how far runs of latency.py on one machine differ in each ratio.

    Exit code: 0; 1 if two of them differ in a ratio by more than the tolerance, or one lacks it;
    2 for what the user can mend.
    """
    if len(runs) < 2:
        raise UserError(
            f"{len(runs)} run{'s' * (len(runs) != 1)} to compare",
            "two or more result files of latency.py",
            "measure again with: python benchmarks/latency.py --json FILE",
        )
    results = [read_result(path) for path in runs]
    console = Console(highlight=False)
    for path, result in zip(runs[1:], results[1:], strict=True):
        check_comparable(result["environment"], results[0]["environment"], path.name)
        for line in other_settings(results[0], result):
            console.print(f"warning: {path.name}: {line}", soft_wrap=True, markup=False)
    found = agreements(results)
    if not found:
        raise UserError(
            "the runs hold no ratio", "two rows or more in each", "measure more models, or --peers"
        )
    console.print(_table(found, tolerance, len(runs)))
    greatest = max(found, key=lambda one: one.apart_percent)
    differing = [one for one in found if not one.agrees(tolerance)]
    console.print(
        f"greatest: {greatest.apart_percent:.1f} % ({greatest.slow} / {greatest.fast}, "
        f"{greatest.of}); {len(differing)} of {len(found)} ratios past {tolerance:g} %",
        soft_wrap=True,
        markup=False,
    )
    if json_path is not None:
        _write(json_path, found, results, tolerance)
    return THEY_DIFFER if differing else 0


def _table(found: Sequence[Agreement], tolerance: float, runs: int) -> Table:
    table = Table(title=f"{runs} runs", title_justify="left", title_style="bold")
    for title in ("slow", "fast"):
        table.add_column(title, overflow="fold")
    table.add_column("of")
    for title in ("median", "least", "most", "apart"):
        table.add_column(title, justify="right")
    for one in found:
        told = f"{one.apart_percent:.1f} %"
        if one.missing:
            told += f"\nnot in {one.missing}"
        table.add_row(
            one.slow,
            one.fast,
            one.of.replace("_", " "),
            *(f"{value:.3f}" for value in (median(one.values), min(one.values), max(one.values))),
            Text(told, style="" if one.agrees(tolerance) else "bold red"),
        )
    return table


def _write(
    path: Path,
    found: Sequence[Agreement],
    results: Sequence[Mapping[str, Any]],
    tolerance: float,
) -> None:
    values = {
        "schema": SCHEMA,
        "kind": KIND,
        "meanings": {"apart_percent": "the greatest of the runs' values over the least, less one"},
        "created_at": [result["created_at"] for result in results],
        "settings": results[0]["settings"],
        "environment": results[0]["environment"],
        "tolerance_percent": tolerance,
        "ratios": [
            {
                **asdict(one),
                "apart_percent": round(one.apart_percent, 3),
                "agrees": one.agrees(tolerance),
            }
            for one in found
        ],
    }
    write_text(path, json.dumps(values, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(agreement, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
