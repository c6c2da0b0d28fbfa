"""What a declared figure of the README is made of: where it is, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Step: TypeAlias = "str | int | Mapping[str, Any]"
"""A key, a place in a list (-1: the last), or what the one object of a list is to have."""
CPU = "amd-epyc-2-threads"


@dataclass(frozen=True)
class Figure:
    """Where in a file of results a figure is."""

    steps: tuple[Step, ...]
    then: Callable[[Any], Any] | None = None
    """What is made of it: the median of a list, millions of bytes."""

    @property
    def told(self) -> str:
        """The way to it, for people."""
        return "".join(
            f"[{', '.join(f'{key}={value}' for key, value in step.items())}]"
            if isinstance(step, Mapping)
            else f"/{step}"
            for step in self.steps
        )

    def of(self, values: Any) -> Any:
        """The figure.

        Raises:
            LookupError, TypeError: it is not there.
            ValueError: it is null, or not one object of a list fits but none or several.
        """
        for step in self.steps:
            values = _fitting(values, step) if isinstance(step, Mapping) else values[step]
        if values is None:
            raise ValueError("null")
        return values if self.then is None else self.then(values)


def at(*steps: Step, then: Callable[[Any], Any] | None = None) -> Figure:
    """A `Figure` in fewer letters."""
    return Figure(steps, then)


def _fitting(values: Any, wanted: Mapping[str, Any]) -> Any:
    found = [one for one in values if all(one.get(k) == v for k, v in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} of them fit")
    return found[0]


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    what: str
    """What was measured; figures may stand in it, too."""
    kind: str
    """Of its file: the newest `DATE-MACHINE-KIND.json`."""
    got: str
    """As `str.format` takes it: `{fp32:.1f} ms`."""
    figures: Mapping[str, Figure]
    again: tuple[str, ...]
    """The commands that measure it again."""
    machine: str = CPU


@dataclass(frozen=True)
class Column:
    """Of a `Table`."""

    title: str
    told: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]
    """The cell of one row, given (the whole file, the row); None: not measured."""
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table of its own: a line for each of a file's rows."""

    title: str
    kind: str
    schema: int
    rows: Figure
    columns: Sequence[Column]
    again: str
    note: str = field(default="")
    """Below it: how it is to be read."""


# -------------------------------------------------------------------------------------- latency
