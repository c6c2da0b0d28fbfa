"""The frontier as tables of Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from benchmarks.frontiers.frames import Frames, lines
from benchmarks.frontiers.goals import HIGHER_IS_BETTER, Answer, answers, same_images
from benchmarks.frontiers.latency import WAYS, Latencies, told_machine, told_times
from benchmarks.frontiers.recipes import Source
from benchmarks.frontiers.rows import Row
from benchmarks.paths import without_paths

SCHEMA = 1
MARKERS = ("<!-- frontier:start -->", "<!-- frontier:end -->")
DASH = "–"
FORMS = {"fp32": "FP32", "int8": "INT8"}
DIGITS = {"l1": 2, "psnr": 2, "ssim": 3, "ms_ssim": 3, "swd": 1, "gradient_energy": 2}
"""Measures that are columns, with their digits behind the point."""
_TITLES = "L1 | PSNR, dB | SSIM | MS-SSIM | SWD | gradient energy"


@dataclass(frozen=True)
class Part:
    """All figures of one set of pairs."""

    source: Source
    rows: Sequence[Row]
    times: Latencies | None
    """None: not measured."""
    frames: Frames = field(default_factory=Frames)


def markdown(parts: Sequence[Part], teacher: str) -> str:
    """What stands between the markers of a Markdown file."""
    return "\n\n".join("\n".join(_lines(part, teacher)) for part in parts)


def _lines(part: Part, teacher: str) -> Iterator[str]:
    source = part.source
    yield f"**{source.name}**, {source.direction}"
    yield ""
    yield from _quality(part.rows, "held_out", teacher)
    if warning := _unequal(part.rows, teacher):
        yield ""
        yield warning
    notes = [f"`{row.name}`: {note}" for row in part.rows for note in row.notes]
    if any(row.unseen for row in part.rows):
        which = f" ({', '.join(source.cameras)})" if source.cameras else ""
        yield ""
        yield f"**{source.name}, cameras that training never saw**{which}"
        yield ""
        yield from _quality(part.rows, "unseen", teacher)
    if part.times is not None and part.times.samples_ms:
        yield ""
        yield from _latency(part.rows, part.times)
        notes += part.times.notes
    if notes:
        yield ""
        yield "; ".join(dict.fromkeys(notes)) + "."
    if part.frames.rows:
        yield ""
        yield from lines(part.frames)
    yield ""
    yield from _goals(part, teacher)


def _goals(part: Part, teacher: str) -> Iterator[str]:
    """A line a generator, a column a goal; those of the teacher alone are columns, too."""
    found = {(a.generator, a.goal): a for a in answers(part.rows, teacher, part.times)}
    goals = list(dict.fromkeys(goal for _, goal in found))
    yield f"What must be reached; the teacher is `{teacher}`."
    yield ""
    yield "| generator | " + " | ".join(f"{g.title}: {g.asked}" for g in goals) + " |"
    yield "|---|" + "---|" * len(goals)
    for row in part.rows:
        cells = [found.get((row.name, goal)) for goal in goals]
        yield f"| `{row.name}` | {' | '.join(map(_answer, cells))} |"


def _answer(answer: Answer | None) -> str:
    if answer is None:
        return ""
    mark = {True: "✓", False: "✗", None: answer.untold}[answer.reached]
    return f"{mark} {answer.found}".strip()


def _images(row: Row, reference: Row | None) -> str:
    """Images seen in training, marked where they are not those of the reference."""
    told = "unknown" if row.images_seen is None else f"{row.images_seen:,}"
    if reference is None or row is reference or same_images(reference, row):
        return told
    return f"{told} ≠"


def _unequal(rows: Sequence[Row], teacher: str) -> str | None:
    """A warning where not all were trained for as long as the teacher."""
    reference = _reference(rows, teacher)
    others = [f"`{row.name}`" for row in rows if not same_images(reference, row)]
    if not others or len(rows) == 1:
        return None
    return (
        f"≠ Not a fair comparison: {', '.join(others)} saw another number of images than "
        f"`{reference.name}`; images seen are steps x batch x accumulated batches of each run."
    )


def _reference(rows: Sequence[Row], teacher: str) -> Row:
    return next((row for row in rows if row.name == teacher), rows[0])


def _quality(rows: Sequence[Row], where: str, teacher: str) -> Iterator[str]:
    reference = _reference(rows, teacher)
    titles = "generator | images seen | MACs, G | parameters, M"
    yield f"| {titles} | | {_TITLES} | INT8 / FP32, dB |"
    yield "|---|---:|---:|---:|---|" + "---:|" * (len(DIGITS) + 1)
    every = [getattr(row, where) for row in rows]
    best = {key: _best([values for values in every if values], key) for key in DIGITS}
    for row, values in zip(rows, every, strict=True):
        for form, title in FORMS.items():
            images = _images(row, reference)
            name = f"`{row.name}` | {images} | {row.macs / 1e9:.2f} | {row.parameters / 1e6:.2f}"
            first = name if form == "fp32" else " | | | "
            kept = _kept(row) if form == "int8" else ""
            cells = _cells(values.get(form), best)
            yield f"| {first} | {title} | {cells} | {kept} |"
    some: Mapping[str, Any] = next((values for values in every if values), {})
    for key, title in (("identity", "the input handed back"), ("mean_target", "the mean target")):
        if key in some:
            yield f"| {title} | | | | | {_cells(some[key], {})} | |"


def _kept(row: Row) -> str:
    entry = row.gate.get("int8")
    if entry is None or entry["psnr_db"] is None:
        return DASH
    return f"{entry['psnr_db']:.1f}" + ("" if entry["passed"] else ", failed the gate")


def _best(rows: Sequence[Mapping[str, Mapping[str, Any]]], key: str) -> str | None:
    """The best value of a measure as it is shown, of all forms."""
    values = [row[form].get(key) for row in rows for form in FORMS if form in row]
    known = [value for value in values if value is not None]
    if key not in HIGHER_IS_BETTER or len(known) < 2:
        return None
    return _shown(key, max(known) if HIGHER_IS_BETTER[key] else min(known))


def _cells(measured: Mapping[str, Any] | None, best: Mapping[str, str | None]) -> str:
    cells = []
    for key in DIGITS:
        value = (measured or {}).get(key)
        text = DASH if value is None else _shown(key, value)
        cells.append(f"**{text}**" if value is not None and text == best.get(key) else text)
    return " | ".join(cells)


def _shown(key: str, value: float) -> str:
    return f"{value:.{DIGITS[key]}f}"


def _latency(rows: Sequence[Row], times: Latencies) -> Iterator[str]:
    """Milliseconds p50 (p90, p99), a column a way that was measured."""
    ways = [way for way in WAYS if any(way in found for found in times.samples_ms.values())]
    machine = told_machine(times.environment, times.threads)
    yield f"Milliseconds a frame, p50 (p90, p99). {machine}."
    yield ""
    yield f"| generator | {' | '.join(WAYS[way] for way in ways)} | PyTorch / our INT8 |"
    yield "|---|" + "---:|" * (len(ways) + 1)
    for row in rows:
        cells = [_time(times, row.name, way) for way in ways]
        ratio = times.ratio((row.name, "torch"), (row.name, "ort_int8"))
        yield f"| `{row.name}` | {' | '.join(cells)} | {ratio or DASH} |"


def _time(times: Latencies, name: str, way: str) -> str:
    told = times.distribution(name, way)
    return DASH if told is None else told_times(told)


def to_json(
    parts: Sequence[Part], teacher: str, settings: Mapping[str, Any], around: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures."""
    return {
        "schema": SCHEMA,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {**settings, "teacher": teacher},
        "environment": dict(around),
        "data": [
            {
                "name": part.source.name,
                "direction": part.source.direction,
                "cameras_held_out": list(part.source.cameras),
                "rows": [_row_json(row, part.times) for row in part.rows],
                "latency": None if part.times is None else _times_json(part.times),
                "frames": [asdict(row) for row in part.frames.rows],
                "goals": [asdict(answer) for answer in answers(part.rows, teacher, part.times)],
            }
            for part in parts
        ],
    }


def _row_json(row: Row, times: Latencies | None) -> dict[str, Any]:
    told = asdict(row)
    del told["settings"]  # paths of this machine
    told["training"] = without_paths(row.training)
    told["notes"] = [without_paths(note) for note in row.notes]
    found = {} if times is None else {way: times.distribution(row.name, way) for way in WAYS}
    told["latency_ms"] = {way: asdict(ms) for way, ms in found.items() if ms is not None}
    return told


def _times_json(times: Latencies) -> dict[str, Any]:
    return {"threads": times.threads, "environment": times.environment, "notes": times.notes}
