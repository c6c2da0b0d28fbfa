"""`python benchmarks/page.py RESULT.json OUT.html`: a run of latency.py as one page.

It holds all that a sceptic asks for: the conditions, what each row is and how it was set up, how
its times are spread, the ratios with their intervals, and the command that measures it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import click

if not __package__:  # called as a file: take its own clone, wherever it is called from
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import exit_code_of
from benchmarks.page_charts import (
    STYLE,
    forest,
    histogram_card,
    shares_chart,
    stage_bars,
    stage_key,
)
from benchmarks.result_file import (
    PEER,
    Group,
    end_to_end,
    groups,
    not_run,
    own_name,
    ratios_in,
    read_result,
    told_load,
    told_machine,
    told_ms,
)
from export.web_page import facts, page, table
from runtime.files import write_text

DASH = "–"
_STYLE = """
.warning{background:var(--warn-paper);color:var(--warn);border-radius:6px;padding:.5rem .8rem;
margin:.4rem 0}
.rows th button{all:unset;cursor:pointer;font-weight:600}
.rows th button:focus-visible{outline:2px solid var(--link)}
.rows th[aria-sort=ascending] button::after{content:" ▲"}
.rows th[aria-sort=descending] button::after{content:" ▼"}
.rows td:first-child{min-width:15rem}.rows small{display:block;color:var(--soft)}
.rows tr.ours td:first-child{font-weight:600}.rows tr.ours small{font-weight:400}
.rows thead th{vertical-align:bottom}
.how dt{color:inherit;font-weight:600}.how dl{grid-template-columns:minmax(9rem,18rem) 1fr}
@media(max-width:640px){.how dl{grid-template-columns:1fr}.rows td:first-child{min-width:9rem}}
"""
_SORT = """
for (const head of document.querySelectorAll('table.rows th button')) head.onclick = () => {
  const cell = head.parentNode, table = cell.closest('table'), body = table.tBodies[0];
  const number = [...cell.parentNode.children].indexOf(cell);
  const falling = cell.getAttribute('aria-sort') === 'ascending';
  for (const other of cell.parentNode.children) other.removeAttribute('aria-sort');
  cell.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
  const value = row => row.children[number].dataset.value ?? '';
  const lacks = row => value(row) === '';
  const order = (a, b) => {
    if (lacks(a) || lacks(b)) return lacks(a) - lacks(b);
    const one = value(a), other = value(b), difference = one - other;
    return (falling ? -1 : 1) * (isNaN(difference) ? one.localeCompare(other) : difference);
  };
  body.append(...[...body.rows].sort(order));
};
"""


@dataclass(frozen=True)
class _Column:
    """Of the table of rows."""

    title: str
    value: Callable[[Mapping[str, Any]], float | None]
    told: Callable[[float], str] = told_ms
    always: bool = True
    """Else only where a row has a value."""


def _megabytes(row: Mapping[str, Any]) -> float | None:
    size = row.get("size_bytes")
    return None if size is None else size / 1e6


def _inside(row: Mapping[str, Any], *keys: str) -> float | None:
    told: Any = row
    for key in keys:
        told = told.get(key) if isinstance(told, Mapping) else None
    return None if told is None else float(told)


def _infer(percentile: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: float(row["latency"]["stages_ms"]["infer"][percentile])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


_COLUMNS = (
    _Column("infer<br>p50, ms", _infer("p50")),
    _Column("infer<br>p99, ms", _infer("p99")),
    _Column("end to end<br>p50, ms", lambda row: float(end_to_end(row)["p50"])),
    _Column("end to end<br>p99, ms", lambda row: float(end_to_end(row)["p99"])),
    _Column("fps, one<br>at a time", lambda row: _inside(row, "latency", "fps"), "{:.1f}".format),
    _Column(
        "fps, stages<br>overlap",
        lambda row: _inside(row, "throughput", "fps"),
        "{:.1f}".format,
        always=False,
    ),
    _Column("of the<br>roof", lambda row: _inside(row, "roof", "share"), _percent, always=False),
    _Column(
        "millijoules<br>a frame",
        lambda row: _inside(row, "energy", "mj_per_frame_total"),
        "{:.0f}".format,
        always=False,
    ),
    _Column("load,<br>ms", lambda row: _inside(row, "load_ms"), "{:.0f}".format),
    _Column("file,<br>MB", _megabytes, "{:.1f}".format, always=False),
    _Column(
        "stages<br>explain",
        lambda row: _inside(row, "latency", "explained"),
        _percent,
        always=False,
    ),
)


_NAMES = ("row", "generator", "precision")


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """Write one page that needs nothing beside itself, whole or not at all.

    Args:
        result: as `benchmarks.result_file.read_result` gives it.
        path: an HTML file.

    Raises:
        UserError: it could not be written.
    """
    title = f"What a frame costs: {told_machine(result['environment'])}"
    write_text(path, page(title, _body(result), style=STYLE + _STYLE, script=_SORT))


def _body(result: Mapping[str, Any]) -> Iterator[str]:
    yield "<h1>What a frame costs</h1>"
    yield from _conditions(result)
    yield "<h2>Rows</h2>"
    yield (
        "<p class=note>Bold: ours; the others are peers, set up as told below. Click a heading to "
        "sort. A figure alone is a median of all frames, never a mean.</p>"
    )
    yield _rows(result)
    for row in not_run(result):
        yield f"<p class=warning>not run: <b>{escape(row['name'])}</b>: {escape(row['why'])}</p>"
    for row in result["rows"]:
        if fault := (row.get("roof") or {}).get("fault"):
            yield f"<p class=warning>{escape(row['name'])}: {escape(fault)}</p>"
    shown = groups(result)
    yield "<h2>Where the time goes</h2>"
    yield "<p class=note>One frame at a time; each stage's p50, in milliseconds.</p>"
    yield stage_key()
    for group in shown:
        yield f"{_heading(group, shown)}{stage_bars(result, group)}"
    if result["ratios"]:
        yield from _ratios(result, shown)
    yield "<h2>How the times are spread</h2>"
    yield (
        "<p class=note>End to end. Curves: a steep one is steady, a long foot to the right is "
        "what makes a picture stutter. Bars: the lines are p50 and p99, the grey band is the 95 % "
        "interval of the p50.</p>"
    )
    for group in shown:
        cards = "".join(histogram_card(row, number) for number, row in enumerate(group.rows))
        yield f"{_heading(group, shown)}{shares_chart(group)}"
        yield f"<div class=cards>{cards}</div>"
    yield from _device_times(result)
    yield "<h2>How each row was set up</h2>"
    rows = (*(row for group in shown for row in group.rows), *_on_device(result))
    hows = ((row["name"], f"{row['engine']}. {row['how']}") for row in rows)
    yield f"<div class=how>{facts(hows)}</div>"
    for name, told in (("The roof of this machine", "roof"), ("Power", "power")):
        if result.get(told):
            yield f"<h2>{name}</h2>{facts(_flat(result[told]))}"
    if result.get("meanings"):
        yield f"<h2>What the numbers mean</h2>{facts(_flat(result['meanings']))}"
    yield "<h2>Again</h2>"
    yield f"<pre>{escape(result['settings']['command'])}</pre>"
    yield f"<details><summary>Environment</summary>{facts(_flat(result['environment']))}</details>"
    yield f"<details><summary>Settings</summary>{facts(_flat(result['settings']))}</details>"


def _heading(group: Group, shown: Sequence[Group]) -> str:
    return f"<h3>{escape(group.generator)}</h3>" if len(shown) > 1 else ""


def _conditions(result: Mapping[str, Any]) -> Iterator[str]:
    around, settings = result["environment"], result["settings"]
    yield f"<p>{escape(told_machine(around))}</p>"
    for warning in result["warnings"]:
        yield f"<p class=warning>{escape(warning)}</p>"
    rounds = settings["rounds"]
    told = {
        "measured at": result["created_at"],
        "source": settings.get("source_description") or settings.get("source"),
        "sink": settings.get("sink_description") or settings.get("sink"),
        "frames": f"{sum(rounds)} of each row, in {len(rounds)} rounds in which every row has its "
        "turn",
        "other programs": told_load(around),
        "commit": around.get("git_commit"),
    }
    yield facts((name, str(value)) for name, value in told.items() if value)
    if not result["warnings"]:
        yield "<p class=note>The run found nothing to warn of.</p>"


def _rows(result: Mapping[str, Any]) -> str:
    rows = [row for group in groups(result) for row in group.rows]
    columns = [
        column
        for column in _COLUMNS
        if column.always or any(column.value(row) is not None for row in rows)
    ]
    names = _NAMES if len(groups(result)) > 1 else tuple(n for n in _NAMES if n != "generator")
    heads = [f"<th><button>{name}</button>" for name in names]
    heads += [f"<th class=n><button>{column.title}</button>" for column in columns]
    body = "".join(
        f"<tr{' class=ours' if row['role'] != PEER else ''}>{''.join(_cells(row, names, columns))}"
        for row in rows
    )
    return (
        f"<div class=wide><table class=rows><thead><tr>{''.join(heads)}<tbody>{body}</table></div>"
    )


def _cells(
    row: Mapping[str, Any], names: Iterable[str], columns: Iterable[_Column]
) -> Iterator[str]:
    told = {**row, "row": own_name(row["name"], row["generator"])}
    for name in names:
        text = escape(str(told[name]))
        engine = f"<small>{escape(row['engine'])}</small>" if name == "row" else ""
        yield f"<td data-value='{text}'>{text}{engine}"
    for column in columns:
        value = column.value(row)
        if value is None:
            yield f"<td class=n>{DASH}"
        else:
            yield f"<td class=n data-value={value}>{column.told(value)}"


def _ratios(result: Mapping[str, Any], shown: Sequence[Group]) -> Iterator[str]:
    yield "<h2>Against the peers, and each other</h2>"
    yield (
        "<p class=note>How many times as long the one takes as the other: the median of the "
        "rounds' ratios, with its 95 % interval. Both had their turn in every round, so that what "
        "disturbs the machine disturbs both. Where the interval reaches the dashed line at 1, "
        "nothing is proven. <span class=bad>Red</span>: a peer is the faster one.</p>"
    )
    for of, told in (("end_to_end", "End to end"), ("infer", "Inference")):
        parts = [
            _heading(group, shown) + forest(own, group.generator)
            for group in shown
            if (own := ratios_in(result, group, of))
        ]
        if parts:
            yield f"<details open><summary>{told}</summary>{''.join(parts)}</details>"


def _device_times(result: Mapping[str, Any]) -> Iterator[str]:
    measured = (*(row for group in groups(result) for row in group.rows), *_on_device(result))
    rows = [row for row in measured if row.get("device_ms")]
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row["device_ms"]))
    yield "<h2>On the device</h2><p class=note>trtexec's words; p50 (p99), milliseconds.</p>"
    heads = ("<th>row", *(f"<th class=n>{escape(name)}" for name in names))
    yield table(heads, (_device_cells(row, names) for row in rows), "device")


def _on_device(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Rows of which the device's own times are all that is known: trtexec's."""
    told: Sequence[Mapping[str, Any]] = result.get("device_rows") or ()
    return told


def _device_cells(row: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    yield "", escape(row["name"])
    for name in names:
        told = row["device_ms"].get(name)
        yield " class=n", f"{told_ms(told['p50'])} ({told_ms(told['p99'])})" if told else DASH


def _flat(told: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as lines; what is null or empty is left out."""
    if isinstance(told, Mapping):
        for key, value in told.items():
            yield from _flat(value, f"{name} {key}".strip().replace("_", " "))
    elif isinstance(told, list):
        if told and not any(isinstance(one, (dict, list)) for one in told):
            yield name, ", ".join(map(str, told))
        for number, one in enumerate(told, 1):
            if isinstance(one, (dict, list)):
                yield from _flat(one, f"{name} {number}")
    elif told not in (None, ""):
        yield name, f"{told:.5g}" if isinstance(told, float) else str(told)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("result", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def write_again(result: Path, out: Path) -> None:
    """Write the page OUT (.html) of RESULT, a JSON file of latency.py."""
    write_page(read_result(result), out)
    click.echo(f"page  {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; one line on stderr for whatever its user can mend."""
    return exit_code_of(write_again, arguments, "stopped: nothing was written")


if __name__ == "__main__":
    sys.exit(main())
