"""`python benchmarks/plot.py RESULT.json OUT.png`: a run of latency.py as a picture.

Of each generator: where the time of a frame goes, how it is spread, and the ratio to each peer.
Needs matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.colors import STAGE_COLORS, row_color
from benchmarks.command import exit_code_of
from benchmarks.result_file import (
    END_TO_END,
    PEER,
    STAGES,
    Group,
    end_to_end,
    groups,
    own_name,
    ratios_in,
    read_result,
    shares_done,
    shown_until,
    stage_ms,
    told_load,
    told_machine,
    told_ms,
)
from runtime.errors import UserError
from runtime.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
_BAR_HEIGHT = 0.42
_ROW_IN, _RATIO_IN = 0.62, 0.27
_LEAST_IN = 2.7
_LOG_FROM = 5.0
"""An axis is logarithmic where its ends are so many times apart."""
_LONG_NAME = 34
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a picture of a run; whole or not there.

    Args:
        result: as `benchmarks.result_file.read_result` gives it.
        path: `.png`, `.svg` or `.pdf`.

    Raises:
        ImportError: matplotlib is not installed.
        UserError: nothing was measured, an unknown kind of picture, or it could not be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = groups(result)
    if not shown:
        raise UserError("nothing was measured", "a row that ran", "see why each did not run")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"cannot draw into {path.name}", "one of " + ", ".join(SUFFIXES), "rename it"
        )
    heights_in = [_height_in(result, group) for group in shown]
    with mpl.rc_context(_STYLE):
        size_in = (12.5, 1.0 + sum(heights_in))
        figure = Figure(figsize=size_in, dpi=120, layout="constrained")
        figure.suptitle("What a frame costs, one at a time", fontsize=13, fontweight="bold")
        figure.supxlabel(_told(result), fontsize=8, color="#555555")
        # Figures of their own: long names of one panel do not narrow the others.
        parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights_in)
        for part, group in zip(parts[:, 0], shown, strict=True):
            _draw_group(part, result, group, group.generator if len(shown) > 1 else "")
        with written_whole(path) as beside:
            figure.savefig(beside)


def _draw_group(part: Any, result: Mapping[str, Any], group: Group, title: str) -> None:
    ratios = ratios_in(result, group, END_TO_END)
    above = part
    if ratios:
        heights_in = (_rows_in(group), _ratios_in(len(ratios)))
        above, below = part.subfigures(2, 1, height_ratios=heights_in)
        _draw_ratios(below.subplots(), ratios, group.generator)
    stages, shares = above.subplots(1, 2, width_ratios=(1.3, 1))
    _draw_stages(stages, result, group, title)
    _draw_shares(shares, group)


def _height_in(result: Mapping[str, Any], group: Group) -> float:
    count = len(ratios_in(result, group, END_TO_END))
    return _rows_in(group) + (_ratios_in(count) if count else 0.0)


def _rows_in(group: Group) -> float:
    return max(_LEAST_IN, 1.1 + _ROW_IN * len(group.rows))


def _ratios_in(count: int) -> float:
    return 0.9 + _RATIO_IN * count


def _told(result: Mapping[str, Any]) -> str:
    around, settings = result["environment"], result["settings"]
    parts = [
        told_machine(around),
        settings.get("source_description") or settings.get("source"),
        told_load(around),
        result["created_at"][:10],
    ]
    lines = ["; ".join(str(part) for part in parts if part)]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def _draw_stages(axes: Axes, result: Mapping[str, Any], group: Group, title: str) -> None:
    places = range(len(group.rows))
    left = [0.0] * len(group.rows)
    for stage in STAGES:
        widths = [stage_ms(result, row, stage) for row in group.rows]
        color = STAGE_COLORS[stage]
        axes.barh(places, widths, left=left, height=_BAR_HEIGHT, color=color, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    p99s = [end_to_end(row)["p99"] for row in group.rows]
    axes.plot(p99s, places, "|", color="#1c2430", markersize=11, label="p99")
    for place, row in enumerate(group.rows):
        told = end_to_end(row)
        axes.annotate(
            f"{told_ms(told['p50'])} ms (p99 {told_ms(told['p99'])})",
            (max(left[place], told["p99"]), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
        values = (f"{stage} {told_ms(stage_ms(result, row, stage))}" for stage in STAGES)
        axes.annotate(  # most stages are too short to be seen in the bar
            "   ".join(values),
            (0, place + _BAR_HEIGHT / 2),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="#555555",
        )
    axes.set_yticks(places, [_short(row["name"], group.generator) for row in group.rows])
    for label, row in zip(axes.get_yticklabels(), group.rows, strict=True):
        label.set_fontweight("normal" if row["role"] == PEER else "bold")
    axes.set_ylim(len(group.rows) - 0.3, -0.5)
    axes.set_xlim(0, max(*left, *p99s) * 1.4)
    axes.set_xlabel("milliseconds: the p50 of each stage; bold: ours")
    columns = len(STAGES) + 1
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        handlelength=1,
        columnspacing=1.2,
        title=title or None,
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
    )


def _draw_shares(axes: Axes, group: Group) -> None:
    low, high = min(end_to_end(row)["least"] for row in group.rows), shown_until(group.rows)
    for number, row in enumerate(group.rows):
        ms, shares = shares_done(end_to_end(row))
        dashes = "--" if row["role"] == PEER else "-"
        name = _short(row["name"], group.generator)
        axes.plot(ms, shares, color=row_color(number), linewidth=1.6, linestyle=dashes, label=name)
    if high > _LOG_FROM * low > 0:
        _logarithmic(axes)
    axes.set_xlim(right=high)
    for share in (0.5, 0.9, 0.99):
        axes.axhline(share, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_yticks((0, 0.5, 0.9, 0.99), ("0", "p50", "p90", "p99"))
    axes.set_ylabel("share of the frames")
    axes.set_xlabel("end to end done within so many milliseconds")
    axes.legend(  # beside the curves, which may be anywhere
        loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=7.5, handlelength=2.2
    )


def _draw_ratios(
    axes: Axes, ratios: Sequence[tuple[Mapping[str, Any], bool]], generator: str
) -> None:
    for place, (ratio, lost) in enumerate(ratios):
        color = "#d1495b" if lost else "#2e86ab"
        axes.plot((ratio["low"], ratio["high"]), (place, place), color=color, linewidth=3)
        axes.plot(ratio["value"], place, "o", color="#1c2430", markersize=4)
        axes.annotate(
            f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            (ratio["high"], place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    low = min(1.0, *(ratio["low"] for ratio, _ in ratios))
    high = max(1.0, *(ratio["high"] for ratio, _ in ratios))
    if high > 2 * low:
        _logarithmic(axes)
    axes.set_xlim(low / 1.02, high * (high / low) ** 0.2 * 1.02)
    axes.axvline(1, color="#888888", linewidth=0.9, linestyle="--", zorder=0)
    names = [
        " / ".join(_short(ratio[end], generator) for end in ("slow", "fast"))
        for ratio, _ in ratios
    ]
    axes.set_yticks(range(len(ratios)), names)
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.set_xlabel(
        "how many times as long, end to end: the median of the rounds' ratios, its 95 % interval; "
        "red: a peer is the faster one"
    )


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str, generator: str) -> str:
    """The end of a name tells it apart: it is a file's, or a way's."""
    name = own_name(name, generator)
    return name if len(name) <= _LONG_NAME else "…" + name[1 - _LONG_NAME :]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("result", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def draw_again(result: Path, out: Path) -> None:
    """Draw the picture OUT (.png, .svg, .pdf) of RESULT, a JSON file of latency.py."""
    try:
        draw(read_result(result), out)
    except ImportError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        raise UserError(
            "matplotlib is not installed",
            "what draws the picture",
            "pip install 'pix2pix-edge[bench]'",
        ) from error
    click.echo(f"picture  {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(draw_again, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
