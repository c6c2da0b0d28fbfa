"""The quality-latency frontier as a picture. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from benchmarks.frontiers.report import FORMS, Part
from runtime.files import written_whole

PANELS = {"l1": "L1, grey levels", "ssim": "SSIM", "swd": "sliced Wasserstein distance"}
_HIGHER = ("ssim",)
_WAYS = {"fp32": "ort_fp32", "int8": "ort_int8"}
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#7A6A00",
    "#6A3D9A",
    "#7F7F7F",
)
"""The first seven: Okabe and Ito, "Color Universal Design". A marker of its own and a name beside
it tell a generator, too."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*")
_FRONTIER = "#9aa5b1"
_PLACES = [
    (dx * far, dy * far)
    for far in (9, 16, 24, 34, 46)
    for dx, dy in (
        (1, 0),
        (-1, 0),
        (0.7, 0.7),
        (0.7, -0.7),
        (-0.7, 0.7),
        (-0.7, -0.7),
        (0, 1),
        (0, -1),
    )
]
"""Where a name may stand beside its point, in points (1/72 inch)."""
_FAR = 3.0
"""What a point of distance costs, in pixels that are covered."""
_LINE_PX = 5.0
_APART_PX = 6.0
"""Between two names in a line."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


@dataclass(frozen=True)
class Point:
    """One form of one generator in one panel."""

    name: str
    form: str
    latency_ms: float
    value: float


def points_of(part: Part, measure: str) -> list[Point]:
    """Every form that was both measured and timed."""
    points = []
    for row in part.rows:
        for form, way in _WAYS.items():
            value = row.held_out.get(form, {}).get(measure)
            p50 = part.times.p50(row.name, way) if part.times else None
            if value is not None and p50 is not None:
                points.append(Point(row.name, form, p50, float(value)))
    return points


def pareto(points: Sequence[Point], higher_is_better: bool) -> list[Point]:
    """Those that no other one beats: none is as fast and better, or as good and faster.

    Returns:
        From the fastest to the best; of equal ones the first.
    """
    sign = -1 if higher_is_better else 1
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, sign * p.value)):
        if not kept or sign * point.value < sign * kept[-1].value:
            kept.append(point)
    return kept


def draw(parts: Sequence[Part], path: Path) -> bool:
    """Write the picture: a row of panels for each set of pairs, latency to the right.

    Args:
        parts: those without latencies are left out.
        path: .png, .svg or .pdf; whole or not there.

    Returns:
        Whether there was anything to draw.

    Raises:
        UserError: it could not be written.
    """
    shown = [part for part in parts if points_of(part, "l1")]
    if not shown:
        return False
    names = list(dict.fromkeys(row.name for part in shown for row in part.rows))
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(
            figsize=(15, 0.9 + 4.3 * len(shown)),
            dpi=120,
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.02),
        )
        canvas = FigureCanvasAgg(figure)
        grid = figure.subplots(len(shown), len(PANELS), squeeze=False)
        labelled = []
        for part, line in zip(shown, grid, strict=True):
            for (measure, title), axes in zip(PANELS.items(), line, strict=True):
                points = points_of(part, measure)
                _panel(axes, points, names, measure in _HIGHER)
                arrow = "↑" if measure in _HIGHER else "↓"
                axes.set_title(f"{part.source.name}: {title} {arrow}", fontsize=11, loc="left")
                labelled.append((axes, points, measure))
        for axes in grid[-1]:
            axes.set_xlabel("milliseconds a frame, ONNX Runtime, p50 (log)")
        figure.legend(handles=_legend(), loc="outside upper center", ncols=4, frameon=False)
        canvas.draw()
        for axes, points, measure in labelled:
            higher = measure in _HIGHER
            _label(axes, points, names, pareto(points, higher))
        with written_whole(path) as beside:
            figure.savefig(beside)
    return True


def _panel(axes: Axes, points: Sequence[Point], names: Sequence[str], higher: bool) -> None:
    axes.set_xscale("log")
    front = pareto(points, higher)
    if front:
        axes.step(
            [p.latency_ms for p in front],
            [p.value for p in front],
            where="post",
            color=_FRONTIER,
            linewidth=1.6,
            linestyle=(0, (4, 2)),
            zorder=1,
        )
    for name in dict.fromkeys(point.name for point in points):
        own = [point for point in points if point.name == name]
        color, marker = _style(name, names)
        axes.plot(
            [p.latency_ms for p in own], [p.value for p in own], color=color, linewidth=1, zorder=2
        )
        for point in own:
            filled = point.form == "int8"
            axes.plot(
                point.latency_ms,
                point.value,
                marker=marker,
                markersize=8,
                color=color,
                markerfacecolor=color if filled else "white",
                markeredgewidth=1.5,
                linestyle="none",
                zorder=3,
            )
    axes.grid(True, which="major", color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.16, y=0.16)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _style(name: str, names: Sequence[str]) -> tuple[str, str]:
    number = names.index(name)
    return COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]


def _legend() -> list[Any]:
    grey: dict[str, Any] = {"color": "#444444", "markersize": 8, "markeredgewidth": 1.5}
    return [
        Line2D(
            [],
            [],
            marker="o",
            markerfacecolor="white",
            linestyle="none",
            **grey,
            label=FORMS["fp32"],
        ),
        Line2D([], [], marker="o", linestyle="none", **grey, label=FORMS["int8"]),
        Line2D([], [], color="#444444", linewidth=1, label="the same generator"),
        Line2D(
            [],
            [],
            color=_FRONTIER,
            linewidth=1.6,
            linestyle=(0, (4, 2)),
            label="frontier: nothing is faster and better",
        ),
    ]


def _label(
    axes: Axes, points: Sequence[Point], names: Sequence[str], front: Sequence[Point]
) -> None:
    """A name beside one of each generator's points, where it covers as little as can be."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = axes.figure.dpi / 72
    taken = [_around(axes, point, 10 * scale) for point in points]
    lines = _along(axes, [corner for pair in pairwise(front) for corner in _corners(*pair)])
    owned = {name: [point for point in points if point.name == name] for name in names}
    for own in owned.values():
        lines += _along(axes, [(point.latency_ms, point.value) for point in own])
    drawn, inside = np.array(lines).reshape(-1, 4), np.array([axes.bbox.extents])
    for name, own in owned.items():
        if not own:
            continue
        text = axes.annotate(
            name,
            (0, 0),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=_darker(_style(name, names)[0]),
            annotation_clip=False,
            zorder=4,
        )
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        found: list[tuple[float, Point, tuple[float, float], Box]] = []
        for point in sorted(own, key=lambda point: point.latency_ms):
            at = axes.transData.transform((point.latency_ms, point.value))
            for place in _PLACES:
                box = _box_at((at[0], at[1]), place, (extent.width, extent.height), scale)
                outside = (extent.width * extent.height) - _shared(box, inside)
                covered = _shared(box, np.array(taken)) + max(outside, 0.0)
                cost = 4 * covered + _shared(box, drawn) + _FAR * math.hypot(*place)
                found.append((cost, point, place, box))
        _, point, place, box = min(found, key=lambda one: one[0])
        _put(text, point, place)
        taken.append((box[0] - _APART_PX, box[1] - 1, box[2] + _APART_PX, box[3] + 1))


def _box_at(
    at: tuple[float, float], place: tuple[float, float], size: tuple[float, float], scale: float
) -> Box:
    """Where a text of `size` pixels stands, at `place` beside the pixel `at`: as `_put` has it."""
    (dx, dy), (width, height) = place, size
    x0 = at[0] + dx * scale - width * _ALIGNED[_side(dx)][2]
    y0 = at[1] + dy * scale - height * _ALIGNED[_side(dy)][2]
    return x0, y0, x0 + width, y0 + height


_Across: TypeAlias = Literal["left", "center", "right"]
_Up: TypeAlias = Literal["bottom", "center", "top"]
_ALIGNED: dict[int, tuple[_Across, _Up, float]] = {
    1: ("left", "bottom", 0.0),
    0: ("center", "center", 0.5),
    -1: ("right", "top", 1.0),
}
"""By the side of the point: the alignments, and the part of the text that is before its place."""


def _side(offset: float) -> int:
    return 0 if abs(offset) < 1 else 1 if offset > 0 else -1


def _corners(one: Point, other: Point) -> list[tuple[float, float]]:
    """Of the step between two points of the frontier."""
    return [
        (one.latency_ms, one.value),
        (other.latency_ms, one.value),
        (other.latency_ms, other.value),
    ]


def _along(axes: Axes, places: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes all along a line through `places`."""
    pixels = [axes.transData.transform(place) for place in places]
    half, boxes = _LINE_PX / 2, []
    for (x0, y0), (x1, y1) in pairwise(pixels):
        steps = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / _LINE_PX))
        for part in np.linspace(0, 1, steps + 1):
            x, y = x0 + (x1 - x0) * part, y0 + (y1 - y0) * part
            boxes.append((x - half, y - half, x + half, y + half))
    return boxes


def _darker(color: str) -> tuple[float, float, float]:
    """The colour as text of that size takes it."""
    red, green, blue = to_rgb(color)
    return 0.6 * red, 0.6 * green, 0.6 * blue


def _put(text: Annotation, point: Point, place: tuple[float, float]) -> None:
    text.xy = point.latency_ms, point.value
    text.set_position(place)
    text.set_horizontalalignment(_ALIGNED[_side(place[0])][0])
    text.set_verticalalignment(_ALIGNED[_side(place[1])][1])


def _around(axes: Axes, point: Point, side_px: float) -> Box:
    x, y = axes.transData.transform((point.latency_ms, point.value))
    return x - side_px / 2, y - side_px / 2, x + side_px / 2, y + side_px / 2


def _shared(box: Box, others: NDArray[np.float64]) -> float:
    """Pixels of `box` that the others [N, 4] cover, each counted."""
    x0, y0, x1, y1 = box
    wide = np.minimum(x1, others[:, 2]) - np.maximum(x0, others[:, 0])
    high = np.minimum(y1, others[:, 3]) - np.maximum(y0, others[:, 1])
    return float(np.sum(np.maximum(wide, 0) * np.maximum(high, 0)))
