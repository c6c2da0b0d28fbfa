"""The findings of `benchmarks/scaling.py` as a picture. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks.colors import row_color
from benchmarks.growths.fits import amdahl_speed_up
from benchmarks.result_file import told_load, told_machine, told_ms
from runtime.files import written_whole

_MARKERS = ("o", "s", "D", "^", "v", "P")
_GREY = "#666666"
_LIGHT = "#d8d8d8"
_STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a picture of four panels: sizes with both fits, batches, cameras, threads.

    Args:
        result: the JSON object of the run.
        path: the picture; whole or not there.

    Raises:
        UserError: it could not be written.
    """
    around = result["environment"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12.5, 9.2), dpi=120, layout="constrained")
        figure.suptitle("How the time of a frame grows", fontsize=14, fontweight="bold")
        panels = figure.subplots(2, 2)
        _draw_sizes(panels[0, 0], result["series"])
        _draw_batches(panels[0, 1], result["series"])
        _draw_cameras(panels[1, 0], result["series"], result["settings"]["camera_fps"])
        _draw_threads(panels[1, 1], result["series"])
        told = [told_machine(around), told_load(around)]
        figure.supxlabel("; ".join(part for part in told if part), fontsize=8, color=_GREY)
        with written_whole(path) as beside:
            figure.savefig(beside)


def _draw_sizes(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Frame size", loc="left", fontweight="bold")
    ticks: dict[float, str] = {}
    for number, one in enumerate(series):
        points = _measured(one["pixels"])
        if not points:
            continue
        x = [point["megapixels"] for point in points]
        ticks.update((point["megapixels"], point["size"]) for point in points)
        middle = [point["frame_ms"]["p50"] for point in points]
        most = [point["frame_ms"]["p95"] - low for point, low in zip(points, middle, strict=True)]
        color, fit = row_color(number), one["pixels"]["fit"]
        label = one["name"]
        if fit is not None:
            exponent = fit["power"]["exponent"]
            label += (
                f": exponent {exponent['value']:.2f}"
                f" ({exponent['low']:.2f} to {exponent['high']:.2f})"
            )
            _draw_fits(axes, fit, x, color)
            for point in points:
                if point["size"] in fit["far_off"]:
                    axes.annotate(
                        "far off", (point["megapixels"], point["frame_ms"]["p50"]),
                        xytext=(0, -18), textcoords="offset points", ha="center", fontsize=8,
                        color=color,
                    )  # fmt: skip
        axes.errorbar(
            x, middle, yerr=[[0] * len(x), most], fmt=_MARKERS[number % len(_MARKERS)],
            color=color, markersize=6, elinewidth=1, capsize=3, label=label, zorder=3,
        )  # fmt: skip
    axes.plot([], [], color=_GREY, linewidth=1.5, label="a * megapixels^b")
    axes.plot([], [], color=_GREY, linewidth=1.2, linestyle=":", label="c + d * megapixels")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _name_sizes(axes, ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told_ms(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("milliseconds: p50, and up to p95")
    axes.set_xlabel("height x width of the frame, by its pixels")
    axes.grid(color=_LIGHT, linewidth=0.6)
    axes.legend(loc="upper left", fontsize=8.5, framealpha=0.9)


def _draw_fits(axes: Axes, fit: Mapping[str, Any], x: Sequence[float], color: str) -> None:
    along = np.geomspace(min(x), max(x), 100)
    power, line = fit["power"], fit["line"]
    a, b = power["ms_at_one_megapixel"]["value"], power["exponent"]["value"]
    c, d = line["fixed_ms"]["value"], line["ms_per_megapixel"]["value"]
    straight = c + d * along
    axes.plot(along, a * along**b, color=color, linewidth=1.5, alpha=0.7)
    above = straight > 0  # on a logarithmic scale there is nothing below
    axes.plot(along[above], straight[above], color=color, linewidth=1.4, linestyle=":")


def _name_sizes(axes: Axes, ticks: Mapping[float, str]) -> None:
    """Name the sizes at the axis; of neighbours that would overlap, one on a second line."""
    if not ticks:
        return
    named, last, lower = [], 0.0, False
    for place in sorted(ticks):
        close = last > 0 and place / last < 1.9
        lower = close and not lower
        named.append(("\n" if lower else "") + ticks[place])
        last = place
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(ticks), named, fontsize=8.5)


def _draw_batches(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    _title(axes, "Batch", series, "batch")
    for number, one in enumerate(series):
        points = [point for point in _measured(one["batch"]) if "relative" in point]
        if not points:
            continue
        told = [point["relative"] for point in points]
        middle = [value["value"] for value in told]
        axes.errorbar(
            [point["batch"] for point in points],
            middle,
            yerr=_whiskers(told),
            color=row_color(number), marker=_MARKERS[number % len(_MARKERS)], capsize=3,
            linewidth=1.5, label=f"{one['name']}: batch 1 is {points[0]['fps']:.1f} frames/s",
        )  # fmt: skip
    axes.axhline(1, color=_GREY, linewidth=0.8, linestyle="--")
    _counts(axes, series, "batch", "batch", "frames of one inference")
    _from_zero(axes)
    axes.set_ylabel("frames a second, relative to batch 1")
    _legend(axes)


def _draw_cameras(axes: Axes, series: Sequence[Mapping[str, Any]], fps: float) -> None:
    _title(axes, "Cameras", series, "cameras")
    most = 0.0
    for number, one in enumerate(series):
        points = _measured(one["cameras"])
        if not points:
            continue
        color = row_color(number)
        x = [point["cameras"] for point in points]
        each = [point["fps_sum"] / point["cameras"] for point in points]
        sums = [point["fps_sum"] for point in points]
        axes.plot(x, sums, color=color, marker=_MARKERS[number % len(_MARKERS)],
                  label=f"{one['name']}: all together")  # fmt: skip
        axes.plot(x, each, color=color, linestyle=":", marker=_MARKERS[number % len(_MARKERS)],
                  markerfacecolor="white", label=f"{one['name']}: each")  # fmt: skip
        most = max(most, *sums)
        for place, value, point in zip(x, each, points, strict=True):
            ages = [camera["age_ms"]["p50"] for camera in point["by_camera"].values()
                    if camera["age_ms"]]  # fmt: skip
            if ages and len(series) == 1:
                axes.annotate(
                    f"age {max(ages):.0f} ms", (place, value), xytext=(0, -15),
                    textcoords="offset points", ha="center", fontsize=8, color=color,
                )  # fmt: skip
    if most:
        axes.axhline(fps, color=_GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            f"a camera's {fps:g}", (1, fps), xycoords=("axes fraction", "data"), ha="right",
            va="bottom", fontsize=8, color=_GREY,
        )  # fmt: skip
    _counts(axes, series, "cameras", "cameras", "cameras through one engine")
    _from_zero(axes, least_top=fps)
    axes.set_ylabel("frames a second")
    _legend(axes)


def _draw_threads(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    _title(axes, "Threads", series, "threads")
    largest = 1
    for number, one in enumerate(series):
        points = [point for point in _measured(one["threads"]) if "speed_up" in point]
        if not points:
            continue
        told = [point["speed_up"] for point in points]
        x = [point["threads"] for point in points]
        largest = max(largest, *x)
        color, label = row_color(number), one["name"]
        share = one["threads"]["serial_share"]
        if share is not None:
            label += (
                f": serial share {share['value']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
            )
            along = np.linspace(1, max(x), 100)
            axes.plot(along, [amdahl_speed_up(share["value"], n) for n in along], color=color,
                      linewidth=1.2, alpha=0.7)  # fmt: skip
        axes.errorbar(x, [value["value"] for value in told], yerr=_whiskers(told), fmt=_MARKERS[
            number % len(_MARKERS)], color=color, capsize=3, label=label)  # fmt: skip
    if largest > 1:
        axes.plot([1, largest], [1, largest], color=_GREY, linewidth=0.8, linestyle="--",
                  label="ideal")  # fmt: skip
    _counts(axes, series, "threads", "threads", "threads of one inference")
    _from_zero(axes)
    axes.set_ylabel("speed-up against one thread")
    _legend(axes)


def _title(axes: Axes, name: str, series: Sequence[Mapping[str, Any]], key: str) -> None:
    points = next((one[key]["points"] for one in series if one[key]), None)
    axes.set_title(f"{name} at {points[0]['size']}" if points else name, loc="left",
                   fontweight="bold")  # fmt: skip


def _counts(
    axes: Axes, series: Sequence[Mapping[str, Any]], key: str, count: str, label: str
) -> None:
    """An axis with a tick at each count that was measured; a word where none was."""
    found = sorted({point[count] for one in series for point in _measured(one[key])})
    axes.set_xlabel(label)
    if not found:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=_GREY)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xticks(found, [str(n) for n in found])
    margin = max(0.35, 0.06 * (found[-1] - found[0]))
    axes.set_xlim(found[0] - margin, found[-1] + margin)
    axes.grid(color=_LIGHT, linewidth=0.6, axis="y")


def _from_zero(axes: Axes, least_top: float = 0.0) -> None:
    axes.set_ylim(0, max(least_top, axes.get_ylim()[1]) * 1.3)  # the legend is at the top


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", fontsize=8.5, framealpha=0.9)


def _measured(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    points = part["points"] if part else ()
    return [point for point in points if point["status"] == "measured"]


def _whiskers(told: Sequence[Mapping[str, float]]) -> list[list[float]]:
    return [
        [max(0.0, value["value"] - value["low"]) for value in told],
        [max(0.0, value["high"] - value["value"]) for value in told],
    ]
