"""The drawings of the page: plain HTML where text has to be read on a phone, else small SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.colors import STAGE_COLORS, row_color
from benchmarks.result_file import (
    PEER,
    STAGES,
    Group,
    end_to_end,
    own_name,
    shares_done,
    shown_until,
    stage_ms,
    told_ms,
)

STYLE = """
.bars{display:grid;gap:.7rem;margin:.6rem 0}
.bar{display:grid;grid-template-columns:15rem 1fr 9.5rem;gap:.1rem .9rem;align-items:center}
.bar .track{position:relative;height:1.3rem;background:var(--card);border-radius:3px;
display:flex;box-shadow:inset 0 0 0 1px var(--line)}
.bar i{height:100%;flex:none}.bar i:first-child{border-radius:3px 0 0 3px}
.bar b.p99{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
.bar .sum{font-variant-numeric:tabular-nums;white-space:nowrap}
.bar .parts{grid-column:2/-1;font-size:12.5px;color:var(--soft);font-variant-numeric:tabular-nums}
.name small,.sum small{color:var(--soft);display:block;font-size:12px;line-height:1.35}
.sum small{display:inline}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.3rem 0;font-size:13px}
.key span{white-space:nowrap}.key i{display:inline-block;width:.8rem;height:.8rem;
border-radius:2px;margin-right:.35rem;vertical-align:-.08rem}
.key i.dash{height:0;width:1.5rem;border-top:3px solid;border-radius:0;vertical-align:.25rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.6rem .7rem}
.card p{font-size:13px}svg{display:block;width:100%;height:auto}
svg.shares{max-width:640px}svg text{font:10px system-ui,sans-serif;fill:var(--soft)}
svg .axis{stroke:var(--soft);stroke-width:1}svg .grid{stroke:var(--line);stroke-width:1}
svg .mark{stroke:var(--ink);stroke-width:1.4}svg .band{fill:var(--ink);opacity:.16}
.forest{display:grid;gap:.35rem;margin:.5rem 0}
.forest>div{display:grid;grid-template-columns:minmax(0,24rem) 11.5rem minmax(8rem,1fr);
gap:0 1rem;align-items:center}
.forest .figure{font-variant-numeric:tabular-nums;white-space:nowrap}
.forest .track{position:relative;height:1.1rem}
.forest .track *{position:absolute;top:50%}
.forest .one{top:0!important;bottom:0;border-left:1px dashed var(--soft)}
.forest .span{height:3px;margin-top:-1.5px;background:var(--link);border-radius:2px;min-width:2px}
.forest .dot{width:9px;height:9px;margin:-4.5px 0 0 -4.5px;border-radius:50%;
background:var(--link)}.forest .lost .span,.forest .lost .dot{background:var(--bad)}
.forest .scale{font-size:11px;color:var(--soft)}
.forest .scale span{transform:translateX(-50%)}
@media(max-width:640px){.bar{grid-template-columns:1fr auto}.bar .track{grid-column:1/-1;
grid-row:2}.bar .parts{grid-column:1/-1}.forest>div{grid-template-columns:1fr auto}
.forest .track{grid-column:1/-1}.forest .scale{display:none}}
"""
_LOG_FROM = 5.0
"""An axis is logarithmic where its ends are so many times apart."""


def stage_key() -> str:
    """What the colours of the bars are."""
    keys = "".join(
        f"<span><i style='background:{STAGE_COLORS[stage]}'></i>{stage}</span>" for stage in STAGES
    )
    return f"<div class=key>{keys}<span><b>|</b> p99, end to end</span></div>"


def stage_bars(result: Mapping[str, Any], group: Group) -> str:
    """A stacked bar for each row: the p50 of each stage, all to one scale."""
    whole = max(
        max(end_to_end(row)["p99"], sum(stage_ms(result, row, stage) for stage in STAGES))
        for row in group.rows
    )
    return f"<div class=bars>{''.join(_bar(result, row, whole) for row in group.rows)}</div>"


def _bar(result: Mapping[str, Any], row: Mapping[str, Any], whole: float) -> str:
    values = {stage: stage_ms(result, row, stage) for stage in STAGES}
    pieces = "".join(
        f"<i style='width:{100 * value / whole:.3f}%;background:{STAGE_COLORS[stage]}' "
        f"title='{stage} {told_ms(value)} ms'></i>"
        for stage, value in values.items()
    )
    told = end_to_end(row)
    parts = " · ".join(f"{stage} {told_ms(value)}" for stage, value in values.items())
    name = own_name(row["name"], row["generator"])
    return (
        f"<div class=bar><div class=name>{escape(name)}"
        f"<small>{escape(row['engine'])}</small></div><div class=track>{pieces}"
        f"<b class=p99 style='left:calc({100 * told['p99'] / whole:.3f}% - 1px)'></b></div>"
        f"<div class=sum>{told_ms(told['p50'])} ms <small>p99 {told_ms(told['p99'])}</small></div>"
        f"<div class=parts>{parts} ms</div></div>"
    )


# -------------------------------------------------------------------------------------- the axes


class _Axis:
    """Milliseconds to pixels, with ticks at round figures."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        self.log = low > 0 and high / low > _LOG_FROM
        if not self.log:
            margin = max((high - low) * 0.03, high * 1e-3, 1e-6)
            low, high = max(0.0, low - margin), high + margin
        self._low, self._high = self._scaled(low), self._scaled(high)
        self._left, self._right = left, right
        self.ticks = _log_ticks(low, high) if self.log else _ticks(low, high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def at(self, value: float, cut: bool = True) -> float:
        """Pixels from the left; `cut`: no more than the axis has."""
        share = (self._scaled(value) - self._low) / ((self._high - self._low) or 1.0)
        if cut:
            share = min(1.0, max(0.0, share))
        return self._left + share * (self._right - self._left)


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    raw = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(step * scale for step in (1, 2, 2.5, 5, 10) if step * scale >= raw)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = (step * 10.0**power for power in range(first, last + 1) for step in steps)
    return [tick for tick in ticks if low <= tick <= high]


def _axis_svg(axis: _Axis, top: float, bottom: float, told: str) -> str:
    parts = []
    for tick in axis.ticks:
        x = axis.at(tick)
        parts.append(
            f"<line class=grid x1={x:.1f} x2={x:.1f} y1={top} y2={bottom} />"
            f"<text x={x:.1f} y={bottom + 12} text-anchor=middle>{tick:g}</text>"
        )
    left, right = axis.at(-math.inf if not axis.log else 1e-300), axis.at(math.inf)
    parts.append(
        f"<line class=axis x1={left:.1f} x2={right:.1f} y1={bottom} y2={bottom} />"
        f"<text x={(left + right) / 2:.1f} y={bottom + 26} text-anchor=middle>{told}</text>"
    )
    return "".join(parts)


# ------------------------------------------------------------------------------ distributions


def shares_chart(group: Group) -> str:
    """Of each row, the share of the frames that was done within so many milliseconds."""
    curves = [shares_done(end_to_end(row)) for row in group.rows]
    axis = _Axis(min(x[0] for x, _ in curves), shown_until(group.rows), 34, 372)
    top, bottom = 8, 190
    height = bottom - top
    parts = []
    for share, told in ((0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
        y = bottom - share * height
        parts.append(
            f"<line class=grid x1=34 x2=372 y1={y:.1f} y2={y:.1f} />"
            f"<text x=30 y={y + 3.5:.1f} text-anchor=end>{told}</text>"
        )
    scale = ", logarithmic" if axis.log else ""
    parts.append(_axis_svg(axis, top, bottom, f"done within, milliseconds{scale}"))
    keys = []
    for number, (row, (xs, ys)) in enumerate(zip(group.rows, curves, strict=True)):
        points = " ".join(
            f"{axis.at(x, cut=False):.1f},{bottom - y * height:.1f}"
            for x, y in zip(xs, ys, strict=True)
        )
        peer = row["role"] == PEER
        dashes = " stroke-dasharray='4 2.5'" if peer else ""
        parts.append(
            f"<polyline fill=none stroke='{row_color(number)}' stroke-width=1.8{dashes} "
            f"points='{points}'><title>{escape(row['name'])}</title></polyline>"
        )
        style = (
            f"border-color:{row_color(number)};border-top-style:{'dashed' if peer else 'solid'}"
        )
        name = escape(own_name(row["name"], group.generator))
        keys.append(f"<span><i class=dash style='{style}'></i>{name}</span>")
    told = f"Share of the frames done within so many milliseconds, {group.generator}"
    return (
        f"<div class=key>{''.join(keys)}</div>"
        "<svg class=shares viewBox='0 0 380 222' role=img "
        f"aria-label='{escape(told, quote=True)}'>"
        f"{''.join(parts)}</svg>"  # what lies beyond the axis is cut off by the SVG itself
    )


def histogram_card(row: Mapping[str, Any], number: int) -> str:
    """One row's frames by time: bars up to the outliers' fence, p50 with its interval, p99."""
    told = end_to_end(row)
    edges, counts = told["histogram"]["edges_ms"], told["histogram"]["counts"]
    beyond = 0
    if len(counts) > 1 and told.get("outliers") and _is_wider(edges):
        *counts, beyond = counts
        edges = edges[:-1]
    axis = _Axis(edges[0], max(edges[-1], told["p99"]), 30, 282)
    top, bottom, most = 8, 98, max(counts)
    bars = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            left, right = axis.at(low), axis.at(high)
            height = count / most * (bottom - top)
            bars.append(
                f"<rect x={left:.1f} y={bottom - height:.1f} "
                f"width={max(right - left - 0.6, 0.8):.1f} height={height:.1f} "
                f"fill='{row_color(number)}'><title>{count} frames from {told_ms(low)} to "
                f"{told_ms(high)} ms</title></rect>"
            )
    low, high = axis.at(told["p50_low"]), axis.at(told["p50_high"])
    marks = (
        f"<rect class=band x={low:.1f} y={top} width={max(high - low, 1):.1f} "
        f"height={bottom - top} />"
    )
    for name in ("p50", "p99"):
        x = axis.at(told[name])
        marks += f"<line class=mark x1={x:.1f} x2={x:.1f} y1={top} y2={bottom} />"
    names = f"{row['name']}, {row['engine']}"
    text = (
        f"p50 {told_ms(told['p50'])} ms ({told_ms(told['p50_low'])} to "
        f"{told_ms(told['p50_high'])}), p99 {told_ms(told['p99'])}, most {told_ms(told['most'])}; "
        f"{told['count']} frames"
    )
    if beyond:
        text += f", {beyond} beyond {told_ms(edges[-1])} ms not drawn"
    return (
        f"<div class=card><div class=name>{escape(own_name(row['name'], row['generator']))}"
        f"<small>{escape(row['engine'])}</small></div>"
        f"<svg viewBox='0 0 290 128' role=img aria-label='{escape(names, quote=True)}'>"
        f"<text x=26 y={top + 8} text-anchor=end>{most}</text>"
        f"<text x=26 y={bottom} text-anchor=end>0</text>"
        f"{_axis_svg(axis, top, bottom, 'end to end, milliseconds; bars: frames')}"
        f"{''.join(bars)}{marks}</svg><p class=note>{text}</p></div>"
    )


def _is_wider(edges: Sequence[float]) -> bool:
    """Whether the last bin is the one for all beyond the fence: it has another width."""
    return not math.isclose(edges[-1] - edges[-2], edges[1] - edges[0], rel_tol=1e-2)


# -------------------------------------------------------------------------------------- ratios


def forest(ratios: Sequence[tuple[Mapping[str, Any], bool]], generator: str) -> str:
    """Each ratio with its interval, on one logarithmic scale that holds 1.

    Args:
        ratios: at least one, and whether a peer is the faster one in it.
        generator: whose.
    """
    low = min(1.0, *(ratio["low"] for ratio, _ in ratios)) / 1.03
    high = max(1.0, *(ratio["high"] for ratio, _ in ratios)) * 1.03

    def at(value: float) -> float:
        return 100 * math.log(value / low) / math.log(high / low)

    lines = []
    for ratio, lost in ratios:
        slow, fast = (escape(own_name(ratio[end], generator)) for end in ("slow", "fast"))
        left, right = at(ratio["low"]), at(ratio["high"])
        lines.append(
            f"<div{' class=lost' if lost else ''}><div>{slow} <span class=note>over</span> {fast}"
            f"</div><div class=figure><b>{ratio['value']:.2f}</b> "
            f"<span class=note>({ratio['low']:.2f} to {ratio['high']:.2f})</span></div>"
            f"<div class=track><span class=one style='left:{at(1):.2f}%'></span>"
            f"<span class=span style='left:{left:.2f}%;width:{right - left:.2f}%'></span>"
            f"<span class=dot style='left:{at(ratio['value']):.2f}%'></span></div></div>"
        )
    scale = "".join(
        f"<span style='left:{at(tick):.2f}%'>{tick:g}</span>"
        for tick in (_log_ticks(low, high) if high / low > 2 else _ticks(low, high))
    )
    lines.append(f"<div class=scale><div></div><div></div><div class=track>{scale}</div></div>")
    return f"<div class=forest>{''.join(lines)}</div>"
