"""What our pages for people have in common: one file that needs no network, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

import cv2

from runtime.frame import Image

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#566270;--paper:#fafbfc;--card:#fff;
--line:#dde3ea;--ok:#0a7a3c;--bad:#b3261e;--warn:#7a4d00;--warn-paper:#fff3d6;--link:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ef;--soft:#9fabb8;--paper:#12161b;
--card:#1a2027;--line:#323b46;--ok:#5fd38d;--bad:#ff8a80;--warn:#ffd479;--warn-paper:#33280f;
--link:#7cb8ff}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;
color:var(--ink);background:var(--paper);overflow-wrap:break-word}
a{color:var(--link)}h1{font-size:1.5rem;line-height:1.25;margin:0 0 .2rem}
h2{font-size:1.2rem;margin:2.4rem 0 .4rem}h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0}.note{color:var(--soft)}.ok{color:var(--ok)}.bad{color:var(--bad)}
code,pre{font:13px/1.5 ui-monospace,monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;
white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:left;
vertical-align:baseline}
th{font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
figure{margin:0}img{width:100%;border-radius:4px;display:block;background:#000}
figcaption{font-size:12.5px;color:var(--soft);margin:.25rem 0 .8rem}
figcaption b{display:block;color:var(--ink);font-weight:500}
summary{cursor:pointer;margin:.4rem 0}
dl{display:grid;grid-template-columns:minmax(9rem,max-content) 1fr;gap:.25rem 1.2rem;
margin:.5rem 0}
dt{color:var(--soft)}dd{margin:0;min-width:0;overflow-wrap:anywhere}
@media(max-width:640px){body{margin:1rem auto}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}th,td{padding:.35rem .5rem}}
@media print{body{max-width:none}}
"""
_NOTHING_FROM_OUTSIDE = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)


def page(title: str, body: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole document that loads nothing from outside.

    Args:
        title: plain text.
        body: pieces of HTML.
        style: CSS, after the common one.
        script: JavaScript, run when all of the body is there.
    """
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f'<meta http-equiv=Content-Security-Policy content="{_NOTHING_FROM_OUTSIDE}">',
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>",
        *body,
    ]
    if script:
        parts.append(f"<script>{script}</script>")
    return "\n".join(parts) + "\n"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as a list; both plain text."""
    items = (f"<dt>{escape(name)}<dd>{escape(told)}" for name, told in pairs)
    return f"<dl>{''.join(items)}</dl>"


def table(columns: Iterable[str], rows: Iterable[Iterable[tuple[str, str]]], kind: str) -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        columns: HTML, each with its `<th>`.
        rows: cells as (attributes of `<td>`, HTML).
        kind: the table's class.
    """
    told = "".join(
        "<tr>" + "".join(f"<td{attributes}>{html}" for attributes, html in row) for row in rows
    )
    return (
        f"<div class=wide><table class={kind}><thead><tr>{''.join(columns)}<tbody>{told}"
        "</table></div>"
    )


def figure(image: Image, title: str, told: str = "") -> str:
    """A picture inside the page, and below it what it is; both texts plain.

    Args:
        image: uint8 [H, W, 3], BGR.
        title: the caption, and what is read out instead of the picture.
        told: a second line.
    """
    _, data = cv2.imencode(".png", image)
    text = base64.b64encode(data.tobytes()).decode("ascii")
    return (
        f"<figure><img alt='{escape(title, quote=True)}' src='data:image/png;base64,{text}'>"
        f"<figcaption><b>{escape(title)}</b>{escape(told)}</figcaption></figure>"
    )
