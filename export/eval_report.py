"""What an evaluation found: rows for scripts, a table for the terminal, an HTML page with pictures
to judge by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from export.verify import Image
from export.web_page import figure, page
from runtime.files import write_text

WHITE_ERROR = 128
"""A difference to the target of so many grey levels is white in a heat map, none is black."""
WHITE_CHANGE = 16
"""The same of the change from frame to frame."""
_ONLY_WHERE_ASKED = ("lpips", "fid", "inception_score")


@dataclass(frozen=True)
class PairsRow:
    """What a set of pictures is worth as answers to the pairs."""

    l1: float
    psnr: float
    ssim: float
    ms_ssim: float | None
    """None: the pictures are too small for five scales."""
    gradient_energy: float | None
    """Mean squared gradient over that of the targets; 1 is right. None: the targets are flat."""
    swd: float | None
    """Mean of `swd_levels`; None: the pictures are too small for a patch."""
    swd_levels: dict[str, float]
    """Sliced Wasserstein distance times 1,000, by the level's side in pixels."""
    lpips: float | None = None
    fid: float | None = None
    inception_score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON; LPIPS, FID and the Inception Score only where they were asked for."""
        values = asdict(self).items()
        return {k: v for k, v in values if v is not None or k not in _ONLY_WHERE_ASKED}


@dataclass(frozen=True)
class VideoRow:
    """How steady a video is where its input stands still."""

    flicker: float | None
    """Mean change from frame to frame in grey levels; None: nothing stands still."""
    still_share: float
    """Part of the pixels that this was measured on, 0 to 1."""
    changes: int
    """Pairs of consecutive frames."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Example:
    """Pictures side by side."""

    title: str
    pictures: Sequence[tuple[str, Image]]
    """(caption, uint8 [H, W, 3] BGR)."""


@dataclass(frozen=True)
class Evaluation:
    """All that was measured, and pictures to judge it by."""

    model: str
    data: str
    rows: dict[str, PairsRow] | dict[str, VideoRow]
    """`model`, `identity` (the input handed back); with pairs also `mean_target`."""
    notes: Sequence[str]
    examples: Sequence[Example]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The rows as JSON."""
        return {name: row.to_dict() for name, row in self.rows.items()}


def pair_example(title: str, source: Image, drawn: Image, target: Image) -> Example:
    """One pair, uint8 [H, W, 3] BGR each, and what is wrong with it."""
    heat = heat_map(cv2.absdiff(drawn, target), WHITE_ERROR)
    told = f"|drawn - target|: black 0, white {WHITE_ERROR} grey levels and more"
    return Example(title, [("input", source), ("drawn", drawn), ("target", target), (told, heat)])


def change_example(
    title: str, source: Image, drawn: tuple[Image, Image], still: NDArray[np.bool_]
) -> Example:
    """Two consecutive frames as they were drawn, uint8 [H, W, 3] BGR, and what changed.

    Args:
        title: for people.
        source: the input of the second frame.
        drawn: (before, now).
        still: bool [H, W], where the input does not change.
    """
    heat = heat_map(cv2.absdiff(*drawn), WHITE_CHANGE)
    heat[~still] = 96
    told = f"change: black 0, white {WHITE_CHANGE} grey levels and more; grey: the input moves"
    return Example(
        title,
        [("input", source), ("drawn before", drawn[0]), ("drawn now", drawn[1]), (told, heat)],
    )


def heat_map(difference: Image, white: int) -> Image:
    """Mean of the channels of uint8 [H, W, 3], black over red to white at `white` levels."""
    steps = np.rint(difference.mean(axis=2) * (255 / white))
    levels = np.minimum(steps, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_HOT), dtype=np.uint8)


def best_median_worst(errors: Sequence[float]) -> list[tuple[str, int]]:
    """(word, index) of the least, the median and the greatest error; each index once."""
    order = [int(index) for index in np.argsort(errors, kind="stable")]
    if len(order) == 1:
        return [("The only one", order[0])]
    chosen = [("Best", order[0]), ("Worst", order[-1])]
    if len(order) > 2:
        chosen.insert(1, ("Median", order[len(order) // 2]))
    return chosen


# ------------------------------------------------------------------------------------ as figures


@dataclass(frozen=True)
class _Measure:
    """How one measure is shown."""

    name: str
    told: str
    decimals: int
    aim: str
    """`low`, `high`, or `one`; empty: it judges nothing."""


_MEASURES = {
    "l1": _Measure("L1", "↓ grey levels", 2, "low"),
    "psnr": _Measure("PSNR", "↑ dB", 2, "high"),
    "ssim": _Measure("SSIM", "↑ at most 1", 4, "high"),
    "ms_ssim": _Measure("MS-SSIM", "↑ at most 1", 4, "high"),
    "lpips": _Measure("LPIPS", "↓ AlexNet", 4, "low"),
    "gradient_energy": _Measure("gradient energy", "1: as sharp; less: blur", 3, "one"),
    "swd": _Measure("SWD", "↓ texture, the mean of", 1, "low"),
    "fid": _Measure("FID", "↓", 2, "low"),
    "inception_score": _Measure("Inception Score", "↑", 3, "high"),
    "flicker": _Measure("flicker", "↓ grey levels a frame", 3, "low"),
    "still_share": _Measure("still pixels", "part that was compared", 3, ""),
    "changes": _Measure("changes", "from frame to frame", 0, ""),
}


@dataclass(frozen=True)
class _Line:
    measure: _Measure
    values: Sequence[float | None]

    def texts(self) -> list[str]:
        return ["–" if v is None else f"{v:.{self.measure.decimals}f}" for v in self.values]

    def best(self) -> list[bool]:
        """Which of the values is the best, as it is shown; none where all are alike."""
        errors = [self._error(value) for value in self.values]
        least = min(errors)
        if not self.measure.aim or all(error == least for error in errors):
            return [False for _ in errors]
        return [error == least for error in errors]

    def _error(self, value: float | None) -> float:
        if value is None:
            return float("inf")
        shown = round(value, self.measure.decimals)
        if self.measure.aim == "one":
            return abs(float(np.log(max(shown, 1e-9))))
        return -shown if self.measure.aim == "high" else shown


def _lines(evaluation: Evaluation) -> list[_Line]:
    """A line a measure, with the value of each row; the levels of SWD below their mean."""
    rows = list(evaluation.to_dict().values())
    lines = []
    for key, measure in _MEASURES.items():
        if key not in rows[0]:
            continue
        lines.append(_Line(measure, [row[key] for row in rows]))
        if key == "swd":
            for side_px in rows[0]["swd_levels"]:
                level = _Measure(f"  {side_px} px", _band(side_px, rows[0]), 1, "low")
                lines.append(_Line(level, [row["swd_levels"][side_px] for row in rows]))
    return lines


def _band(side_px: str, row: dict[str, Any]) -> str:
    levels = list(row["swd_levels"])
    if side_px == levels[0]:
        return "↓ finest detail"
    return "↓ colours and light" if side_px == levels[-1] else "↓"


def terminal_table(evaluation: Evaluation, title: str) -> Table:
    """A line a measure, a column a row of the evaluation; the best of each line is bold."""
    table = Table(title=Text(title), title_justify="left")
    table.add_column("", no_wrap=True)
    for name in evaluation.rows:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("")
    for line in _lines(evaluation):
        values = [
            Text(text, "bold" if best else "")
            for text, best in zip(line.texts(), line.best(), strict=True)
        ]
        table.add_row(line.measure.name, *values, line.measure.told)
    return table


def write_json(path: Path, evaluation: Evaluation) -> None:
    """Write the rows, whole or not at all."""
    write_text(path, json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n")


# ------------------------------------------------------------------------------------- as a page

_STYLE = """
td,th{white-space:nowrap}td.best{font-weight:700;color:var(--ok)}
td.t,tr.level{color:var(--soft)}tr.level td:first-child{padding-left:2.2rem}
.row{display:grid;grid-template-columns:repeat(4,1fr);gap:10px}
@media(max-width:700px){.row{grid-template-columns:repeat(2,1fr)}}
"""


def write_html(path: Path, evaluation: Evaluation) -> None:
    """Write one page that needs nothing beside itself, whole or not at all."""
    names = [escape(name.replace("_", " ")) for name in evaluation.rows]
    head = "".join(f"<th class=n>{name}" for name in names)
    body = [
        f"<h1>{_question(evaluation)}</h1>",
        f"<p>{escape(evaluation.model)}</p><p>{escape(evaluation.data)}</p>",
        f"<div class=wide><table><tr><th>{head}<th></tr>",
        *map(_html_line, _lines(evaluation)),
        "</table></div>",
        f"<p class=note>{_rows_told(evaluation)} ↓ lower is better, ↑ higher is better, green: "
        "the best of a line.</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in evaluation.notes),
        *map(_html_example, evaluation.examples),
    ]
    write_text(path, page(f"Evaluation: {evaluation.model}", body, style=_STYLE))


def _question(evaluation: Evaluation) -> str:
    of_video = isinstance(evaluation.rows["model"], VideoRow)
    return "Does its video flicker?" if of_video else "How good are its pictures?"


def _rows_told(evaluation: Evaluation) -> str:
    told = "identity: the input handed back."
    if "mean_target" in evaluation.rows:
        told += " mean target: the mean of these very targets, for every input."
    return told


def _html_line(line: _Line) -> str:
    cells = "".join(
        f"<td class='n{' best' if best else ''}'>{text}"
        for text, best in zip(line.texts(), line.best(), strict=True)
    )
    name = line.measure.name
    kind = " class=level" if name.startswith(" ") else ""
    return f"<tr{kind}><td>{escape(name.strip())}{cells}<td class=t>{escape(line.measure.told)}"


def _html_example(example: Example) -> str:
    figures = "".join(figure(picture, caption) for caption, picture in example.pictures)
    return f"<h2>{escape(example.title)}</h2><div class=row>{figures}</div>"
