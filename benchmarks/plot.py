"""The measurement as a picture. The one file that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import END_TO_END, STAGES, Measured
from benchmarks.timing import Distribution, percentile, rate_per_s
from runtime.files import written_whole

_STAGE_COLORS = {
    "capture": "#8da0cb",
    "in": "#66c2a5",
    "infer": "#fc8d62",
    "out": "#a6d854",
    "sink": "#e5c494",
}
_BAR_HEIGHT = 0.5
_MODEL_COLORS = ("#d1495b", "#2e86ab", "#3b8b4c", "#7d5ba6", "#c77d0a", "#52606d")


def draw(results: Sequence[Measured], names: Sequence[str], subtitle: str, path: Path) -> None:
    """Write a PNG: the stages of each model's latency, and how its latency is distributed.

    Args:
        results: models that ran, at least one.
        names: what each is called.
        subtitle: machine and source, in a line.
        path: the picture; whole or not there.

    Raises:
        UserError: it could not be written.
    """
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 3.0 + 0.8 * len(results)), dpi=120, layout="constrained")
        figure.suptitle("Latency of one frame, one at a time", fontsize=13, fontweight="bold")
        stages, distribution = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_stages(stages, results, names)
        _draw_distribution(distribution, results, names)
        figure.supxlabel(subtitle, fontsize=8, color="#666666")
        with written_whole(path) as beside:
            figure.savefig(beside)


def _draw_stages(axes: Axes, results: Sequence[Measured], names: Sequence[str]) -> None:
    rows = range(len(results))
    left = [0.0] * len(results)
    for stage in STAGES:
        widths = [_bar_ms(result, stage) for result in results]
        axes.barh(
            rows, widths, left=left, height=_BAR_HEIGHT, color=_STAGE_COLORS[stage], label=stage
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, (result, end) in enumerate(zip(results, left, strict=True)):
        told = Distribution.of(result.stages_ms[END_TO_END])
        axes.annotate(
            f"{told.p50:.1f} ms (p99 {told.p99:.1f})",
            (end, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
        axes.annotate(  # most stages are too short to be seen in the bar
            "   ".join(
                f"{stage} {percentile(result.stages_ms[stage], 50):.1f}" for stage in STAGES
            ),
            (0, row + _BAR_HEIGHT / 2),
            xytext=(2, -4),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color="#555555",
        )
    axes.set_yticks(rows, [_label(*pair) for pair in zip(results, names, strict=True)])
    axes.set_ylim(len(results) - 0.3, -0.5)
    axes.set_xlim(0, max(left) * 1.45)
    axes.set_xlabel("milliseconds: the p50 of each stage")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(STAGES), frameon=False, handlelength=1
    )


def _bar_ms(result: Measured, stage: str) -> float:
    """The p50; waiting for a camera is no latency."""
    if result.live and stage == "capture":
        return 0.0
    return percentile(result.stages_ms[stage], 50)


def _label(result: Measured, name: str) -> str:
    rate = rate_per_s(result.overlapped_ms)
    return name if rate is None else f"{name}\n{rate:.1f} fps from a file"


def _draw_distribution(axes: Axes, results: Sequence[Measured], names: Sequence[str]) -> None:
    for number, (result, name) in enumerate(zip(results, names, strict=True)):
        color = _MODEL_COLORS[number % len(_MODEL_COLORS)]
        end_to_end = result.stages_ms[END_TO_END]
        axes.ecdf(end_to_end, color=color, linewidth=1.8, label=name)
        axes.ecdf(result.alone_ms, color=color, linewidth=1, linestyle=":")
    axes.plot([], [], color="#666666", linewidth=1, linestyle=":", label="inference alone")
    for share in (0.5, 0.9, 0.99):
        axes.axhline(share, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_yticks((0, 0.5, 0.9, 0.99), ("0", "p50", "p90", "p99"))
    axes.set_ylabel("share of the frames")
    axes.set_xlabel("done within so many milliseconds")
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=9)
