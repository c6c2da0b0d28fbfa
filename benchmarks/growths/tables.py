"""The findings of `benchmarks/scaling.py` as tables for a terminal, made from its JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.growths.memory import told_bytes
from benchmarks.result_file import told_ms

_LAWS = {"power": "the power law", "line": "the straight line"}


def tables(series: Mapping[str, Any]) -> RenderableType:
    """All of one series."""
    parts: list[RenderableType] = [_heading(series), _sizes(series["pixels"])]
    parts += [Text(line) for line in told_growth(series["pixels"])]
    for key, table in (("batch", _batches), ("cameras", _cameras), ("threads", _threads)):
        found = series[key]
        if found is not None:
            parts += [Text(), table(found["points"])]
            if key == "threads" and found["serial_share"] is not None:
                parts.append(Text(told_serial_share(found["serial_share"])))
    return Group(*parts, Text())


def told_growth(pixels: Mapping[str, Any]) -> Iterator[str]:
    """Both laws, which one fits better, and whether the goal is reached."""
    fit = pixels["fit"]
    if fit is None:
        yield f"no fit: {pixels['why']}"
        return
    power, line, goal = fit["power"], fit["line"], fit["goal"]
    yield (
        f"power    {told_ms(power['ms_at_one_megapixel']['value'])} ms * megapixels ^ "
        f"{_estimate(power['exponent'], '.3f')}; off by {power['rms']:.1%} (rms)"
    )
    yield (
        f"line     {_estimate(line['fixed_ms'], '.2f')} ms + "
        f"{_estimate(line['ms_per_megapixel'], '.1f')} ms for each megapixel; "
        f"off by {line['rms']:.1%}"
    )
    yield f"better   {_LAWS[fit['better']]}, in {fit['better_share']:.0%} of the draws"
    steepest = max(fit["steps"], key=lambda step: step["exponent"]["value"])
    yield (
        f"steepest {steepest['from']} to {steepest['to']}: exponent "
        f"{_estimate(steepest['exponent'], '.2f')}"
    )
    verdict = "reached" if goal["reached"] else "missed"
    sure = "" if goal["certain"] else ", but the interval is on both sides"
    yield f"goal     an exponent of at most {goal['exponent']:.2f}: {verdict}{sure}"


def told_serial_share(share: Mapping[str, float]) -> str:
    """Amdahl's share in a line."""
    return (
        f"serial   {share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}) of the work "
        "is not shortened by threads (Amdahl)"
    )


def _heading(series: Mapping[str, Any]) -> Text:
    way = {
        "frame-size": "an export for each size, --frame-size",
        "imgsz": "an export for each size, --imgsz",
        "dynamic": "one export for all sizes, --dynamic",
        "as given": "one file for all sizes, as given",
    }[series["export"]["way"]]
    engine = series["engine"] or "not run"
    told = f"{series['name']}: {series['generator']} {series['precision']}; {way}"
    return Text(f"{told}\n{engine}", style="bold")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _sizes(pixels: Mapping[str, Any]) -> Table:
    table = _table(
        "height x\nwidth",
        "p50\nms",
        "p90\nms",
        "p95\nms",
        "p99\nms",
        "ms per\nMpixel",
        "off the\npower law",
        "off the\nline",
        "peak\nmemory",
    )
    fit = pixels["fit"]
    place = 0
    for point in pixels["points"]:
        if _not_run(table, point, point["size"]):
            continue
        told = point["frame_ms"]
        off = ["-", "-"]
        if fit is not None:
            off = [f"{fit[law]['residuals'][place]:+.1%}" for law in ("power", "line")]
        far = fit is not None and point["size"] in fit["far_off"]
        place += 1
        table.add_row(
            point["size"] + (" !" if far else ""),
            *(told_ms(told[name]) for name in ("p50", "p90", "p95", "p99")),
            f"{told['p50'] / point['megapixels']:.1f}",
            *off,
            _memory(point),
            style="yellow" if far else None,
        )
    return table


def _batches(points: Sequence[Mapping[str, Any]]) -> Table:
    size = points[0]["size"]
    table = _table(
        f"batch\nat {size}", "p50\nms", "p95\nms", "p99\nms", "frames\na second",
        "relative\nto batch 1", "95 %", "peak\nmemory",
    )  # fmt: skip
    for point in points:
        if _not_run(table, point, str(point["batch"])):
            continue
        told = point["frame_ms"]
        table.add_row(
            str(point["batch"]),
            *(told_ms(told[name]) for name in ("p50", "p95", "p99")),
            f"{point['fps']:.1f}",
            *_ratio(point.get("relative")),
            _memory(point),
        )
    return table


def _cameras(points: Sequence[Mapping[str, Any]]) -> Table:
    size = points[0]["size"]
    table = _table(
        f"cameras\nat {size}", "fps\neach", "in all", "age p50\nms", "age p95\nms",
        "age p99\nms", "newest\nis, ms", "peak\nmemory",
    )  # fmt: skip
    for point in points:
        if _not_run(table, point, "cameras"):
            continue
        each = list(point["by_camera"].values())
        ages = [camera["age_ms"] for camera in each if camera["age_ms"]]
        newest = [camera["newest_age_ms"] for camera in each if camera["newest_age_ms"]]
        table.add_row(
            str(point["cameras"]),
            _span([camera["fps"] for camera in each], ".1f"),
            f"{point['fps_sum']:.1f}",
            *(_span([age[name] for age in ages], ".0f") for name in ("p50", "p95", "p99")),
            _span(newest, ".0f"),
            _memory(point),
        )
    return table


def _threads(points: Sequence[Mapping[str, Any]]) -> Table:
    size = points[0]["size"]
    table = _table(
        f"threads\nat {size}", "p50\nms", "p95\nms", "p99\nms", "speed-up", "95 %",
        "of the\nideal",
    )  # fmt: skip
    for point in points:
        if _not_run(table, point, str(point["threads"])):
            continue
        told, speed_up = point["frame_ms"], point.get("speed_up")
        table.add_row(
            str(point["threads"]),
            *(told_ms(told[name]) for name in ("p50", "p95", "p99")),
            *_ratio(speed_up),
            f"{speed_up['value'] / point['threads']:.0%}" if speed_up else "-",
        )
    return table


def _not_run(table: Table, point: Mapping[str, Any], name: str) -> bool:
    if point["status"] == "measured":
        return False
    table.add_row(name, "not run", style="yellow")
    return True


def _ratio(told: Mapping[str, float] | None) -> tuple[str, str]:
    if told is None:
        return "-", "-"
    return f"{told['value']:.2f}", f"{told['low']:.2f} to {told['high']:.2f}"


def _memory(point: Mapping[str, Any]) -> str:
    peak = point["peak_resident_bytes"]
    return "-" if peak is None else told_bytes(peak)


def _span(values: Sequence[float], form: str) -> str:
    """Least and most; one figure where they are the same as told."""
    if not values:
        return "-"
    least, most = f"{min(values):{form}}", f"{max(values):{form}}"
    return least if least == most else f"{least} to {most}"


def _estimate(told: Mapping[str, float], form: str) -> str:
    return f"{told['value']:{form}} ({told['low']:{form}} to {told['high']:{form}})"
