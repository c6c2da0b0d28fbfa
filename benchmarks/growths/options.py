"""What `benchmarks/scaling.py` may be asked, and what is refused before anything is measured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.growths.fits import FEWEST_POINTS
from benchmarks.growths.models import Family, Size, told_size
from runtime.errors import ModelError, UserError
from runtime.sinks.writable import check_file

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_NAMED_SIZES: dict[str, Size] = {
    "480p": (480, 640),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "4k": (2160, 3840),
}


class FrameSize(click.ParamType):  # type: ignore[type-arg]
    """`256`, `480x640` (height x width) or a name, as (height, width)."""

    name = "SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Size:
        if isinstance(value, tuple):
            return value
        if named := _NAMED_SIZES.get(value.lower()):
            return named
        found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)
        if not found:
            names = ", ".join(_NAMED_SIZES)
            self.fail(f"{value}: expected HEIGHTxWIDTH, e.g. 480x640, or {names}", param, ctx)
        return int(found[1]), int(found[2] or found[1])


class Counts(click.ParamType):  # type: ignore[type-arg]
    """`1,2,4`: whole numbers from 1, each once, in growing order; `0` alone where none is meant.

    Args:
        none_allowed: whether 0 alone stands for "do not measure this".
    """

    name = "N,N"

    def __init__(self, *, none_allowed: bool = False) -> None:
        self._none_allowed = none_allowed

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if value == "0" and self._none_allowed:
            return ()
        parts = value.split(",")
        if not all(re.fullmatch(r"[1-9]\d{0,5}", part) for part in parts):
            none = "; 0 alone leaves it out" if self._none_allowed else ""
            self.fail(f"{value}: expected numbers from 1, e.g. 1,2,4{none}", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


def check_outputs(json_path: Path, plot_path: Path) -> None:
    """Tell before the measurement, not after it, that its results cannot be kept.

    Raises:
        UserError: a folder that may not be written to, or an unknown kind of picture.
    """
    if plot_path.suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(
            f"cannot draw into {plot_path.name}", "one of " + ", ".join(PLOT_SUFFIXES), "rename it"
        )
    for path in (json_path, plot_path):
        check_file(path)


def check_options(
    sizes: Sequence[Size],
    batches: Sequence[int] | None,
    threads: Sequence[int] | None,
    precisions: Sequence[str],
    calibration: Path | None,
) -> None:
    """Refuse what cannot answer the question.

    Raises:
        UserError: as it says.
    """
    pixels = {math.prod(size_px) for size_px in sizes}
    if sizes and len(pixels) < FEWEST_POINTS:
        raise UserError(
            f"{' '.join(f'--size {told_size(size_px)}' for size_px in sizes)}: "
            f"{len(pixels)} number{'s' if len(pixels) > 1 else ''} of pixels",
            f"at least {FEWEST_POINTS}, since through two points every law goes",
            "give --size once more, or leave it out for 256x256 to 1080p",
        )
    for flag, counts in (("--batch", batches), ("--threads", threads)):
        if counts and len(counts) > 1 and 1 not in counts:
            told = ",".join(map(str, counts))
            raise UserError(
                f"{flag} {told}", "1 among them, which the others are held against",
                f"use {flag} 1,{told}",
            )  # fmt: skip
    if calibration is not None and "int8" not in precisions:
        raise UserError(
            f"--calibration {calibration.name} without INT8", "INT8 to calibrate",
            "add --precision int8",
        )  # fmt: skip


def check_names(families: Sequence[Family]) -> None:
    """Make names differ, since figures are kept by them.

    Raises:
        ModelError: two models cannot be told apart.
    """
    names = [family.name for family in families]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ModelError(
            f"two models are called {twice}", "names that differ", "name one of them, or rename it"
        )
