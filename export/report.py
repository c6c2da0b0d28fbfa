"""The parity report: JSON for scripts, one HTML page with the pictures for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from export.verify import CAMERA_SIZE_PX, Image, Parity
from export.web_page import figure, page
from runtime.files import write_text

DIFFERENCE_GAINS = {"fp32": 60, "fp16": 60, "int8": 12}
"""The heat map shows one grey level as this many steps, so that the eye sees it."""
SHOWN_IMAGES = 6


@dataclass(frozen=True)
class Section:
    """A table of the report."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class GateRun:
    """All that the gate saw in one export."""

    source: str
    """What was exported, in words."""
    reference: str
    """What the artifacts were compared with."""
    images: str
    """Where the pictures came from, in words."""
    names: Sequence[str]
    frames: Sequence[Image]
    references: Sequence[Image]
    findings: Sequence[Parity]
    drawn: dict[str, list[Image]]
    """By the artifact's file name, for those that ran."""
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()


def write_reports(out: Path, run: GateRun) -> None:
    """Write `parity.json` and `parity.html` into `out`."""
    write_text(out / "parity.json", json.dumps(_as_json(run), indent=2) + "\n")
    write_text(out / "parity.html", _as_html(run))


def verdict(finding: Parity) -> str:
    """One line for one artifact."""
    if finding.passed is None:
        return f"{finding.file}: not compared: {finding.engine}"
    word = "draws the same picture" if finding.passed else "DOES NOT draw the same picture"
    if not finding.repeats:
        word += " twice (dropout is alive)"
    return (
        f"{finding.file}: {word} (worst of {len(finding.differences)}: PSNR "
        f"{_db(finding.psnr_db)}, SSIM {finding.ssim:.5f}, {_levels(finding.max_abs_diff)} off; "
        f"{_told_camera(finding)}asked: {finding.threshold})"
    )


def _told_camera(finding: Parity) -> str:
    if not finding.at_camera_size:
        return ""
    height, width = CAMERA_SIZE_PX
    worst = min(difference.psnr_db for difference in finding.at_camera_size)
    least = min(difference.ssim for difference in finding.at_camera_size)
    off = max(difference.max_abs_diff for difference in finding.at_camera_size)
    return f"frames of {width}x{height}: {_db(worst)}, {least:.5f}, {_levels(off)}; "


def _as_json(run: GateRun) -> dict[str, object]:
    rows = []
    for finding in run.findings:
        ran = bool(finding.differences)
        rows.append(
            {
                "file": finding.file,
                "precision": finding.precision,
                "psnr_db": finding.psnr_db if ran else None,
                "ssim": finding.ssim if ran else None,
                "max_abs_diff": finding.max_abs_diff if ran else None,
                "passed": finding.passed,
                "worst_image": run.names[finding.worst] if ran else None,
                "engine": finding.engine,
                "min_psnr_db": finding.threshold.min_psnr_db,
                "min_ssim": finding.threshold.min_ssim,
                "max_abs_diff_allowed": finding.threshold.max_abs_diff,
                "camera_psnr_db": min((d.psnr_db for d in finding.at_camera_size), default=None),
                "camera_ssim": min((d.ssim for d in finding.at_camera_size), default=None),
                "camera_max_abs_diff": max(
                    (d.max_abs_diff for d in finding.at_camera_size), default=None
                ),
                "repeats": finding.repeats if ran else None,
            }
        )
    return {
        "source": run.source,
        "reference": run.reference,
        "images": len(run.frames),
        "images_from": run.images,
        "artifacts": rows,
        "notes": list(run.notes),
        "tables": [
            {"title": section.title, "columns": section.columns, "rows": section.rows}
            for section in run.sections
        ],
    }


_STYLE = """
.ok,.bad{font-weight:600}.na{color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:8px}
img{image-rendering:pixelated}
"""


def _as_html(run: GateRun) -> str:
    ran = [finding for finding in run.findings if finding.differences]
    worst = max(ran, key=lambda finding: -finding.psnr_db) if ran else None
    parts = [
        "<h1>Does the export draw the same picture?</h1>",
        f"<p>{escape(run.source)}, compared with {escape(run.reference)} on "
        f"{len(run.frames)} pictures ({escape(run.images)}).</p>",
        *(f"<p class={_css(f)}>{escape(verdict(f))}</p>" for f in run.findings),
        _table(run),
        *(f"<p class=note>{escape(note)}</p>" for note in run.notes),
    ]
    if worst is not None:
        parts.append(f"<h2>The worst picture: {escape(run.names[worst.worst])}</h2>")
        parts.append(_pictures(run, worst.worst, ran))
        others = [i for i in range(len(run.frames)) if i != worst.worst][: SHOWN_IMAGES - 1]
        for index in others:
            parts.append(f"<h2>{escape(run.names[index])}</h2>{_pictures(run, index, ran)}")
    parts += map(_section, run.sections)
    return page(f"Parity: {run.source}", parts, style=_STYLE)


def _section(section: Section) -> str:
    head = "".join(f"<th>{escape(column)}" for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}" for value in row) + "</tr>" for row in section.rows
    )
    return (
        f"<h2>{escape(section.title)}</h2><p class=note>{escape(section.text)}</p>"
        f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>"
    )


def _table(run: GateRun) -> str:
    head = (
        "<tr><th>artifact<th>precision<th>PSNR, worst<th>SSIM, worst<th>largest difference"
        "<th>asked<th>verdict<th>ran on</tr>"
    )
    rows = []
    for f in run.findings:
        if f.differences:
            figures = (
                f"<td class=n>{_db(f.psnr_db)}<td class=n>{f.ssim:.5f}"
                f"<td class=n>{f.max_abs_diff} of 255"
            )
        else:
            figures = "<td class=na>–<td class=na>–<td class=na>–"
        word = {True: "passed", False: "FAILED", None: "not compared"}[f.passed]
        rows.append(
            f"<tr><td>{escape(f.file)}<td>{f.precision}{figures}<td>{escape(str(f.threshold))}"
            f"<td class={_css(f)}>{word}<td>{escape(f.engine)}</tr>"
        )
    return f"<div class=wide><table>{head}{''.join(rows)}</table></div>"


def _pictures(run: GateRun, index: int, ran: Sequence[Parity]) -> str:
    reference = run.references[index]
    figures = [
        figure(run.frames[index], "input"),
        figure(reference, f"reference: {run.reference}"),
    ]
    for finding in ran:
        drawn = run.drawn[finding.file][index]
        difference = finding.differences[index]
        figures.append(
            figure(
                drawn,
                f"{finding.file}: PSNR {_db(difference.psnr_db)}, SSIM {difference.ssim:.5f}",
            )
        )
        gain = DIFFERENCE_GAINS[finding.precision]
        figures.append(
            figure(
                _heat_map(reference, drawn, gain),
                f"{finding.file}: difference, heat from 0 to {255 / gain:.0f} levels, "
                f"at most {_levels(difference.max_abs_diff)}",
            )
        )
    return f"<div class=row>{''.join(figures)}</div>"


def _heat_map(reference: Image, drawn: Image, gain: int) -> Image:
    """The largest difference of the three channels, black to red to white."""
    difference = np.abs(drawn.astype(np.int16) - reference.astype(np.int16)).max(axis=2)
    steps = np.minimum(difference * gain, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_HOT), dtype=np.uint8)


def _db(psnr_db: float) -> str:
    return "equal" if psnr_db >= 100 else f"{psnr_db:.1f} dB"


def _levels(count: int) -> str:
    return "1 level" if count == 1 else f"{count} levels"


def _css(finding: Parity) -> str:
    return {True: "ok", False: "bad", None: "na"}[finding.passed]
