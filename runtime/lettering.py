"""Text on pictures of any size: legible, and never past the edge."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from runtime.frame import Image

WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SMALLEST = 0.3
_MARGIN = 0.6
"""Of a line's height, around a block of text."""
_SPACING = 1.5


def text_scale(image: Image, lines_in_height: float = 22.0) -> float:
    """The size of letters that lets so many lines fit into the picture's height."""
    height = float(image.shape[0])
    return max(_SMALLEST, height / lines_in_height / _line_px(1.0))


def wrapped(text: str, width_px: int, scale: float) -> list[str]:
    """Break `text` between words into lines of at most `width_px`, and a word only if it must be.

    Letters that OpenCV cannot draw become question marks.
    """
    words = text.encode("ascii", "replace").decode().split()
    lines: list[str] = []
    line = ""
    while words:
        longer = f"{line} {words[0]}".strip()
        if _width(longer, scale) <= width_px:
            line = longer
            words.pop(0)
        elif line:
            lines.append(line)
            line = ""
        else:
            fits = max(
                1, sum(_width(longer[:n], scale) <= width_px for n in range(1, len(longer)))
            )
            lines.append(longer[:fits])
            words[0] = longer[fits:]
            if not words[0]:
                words.pop(0)
    return [*lines, line] if line else lines


def write_block(
    image: Image,
    lines: Sequence[str],
    *,
    scale: float,
    at_bottom: bool = False,
    full_width: bool = False,
    darkness: float = 0.3,
) -> None:
    """Write lines of text on a dark strip, at the top left or along the bottom, in place.

    Letters shrink where a line is wider than the picture or the lines higher; lines that still
    do not fit are left out, the last ones first.

    Args:
        image: uint8 [H, W, 3], drawn onto.
        lines: ASCII text.
        scale: of OpenCV's font, as `text_scale` gives it.
        at_bottom: along the lower edge and centred.
        full_width: the strip reaches from edge to edge.
        darkness: what is left of the picture's brightness under it.
    """
    height, width = image.shape[:2]
    widest = max((_width(line, scale) for line in lines), default=0)
    line_px = _line_px(scale)
    fits = min(
        1.0,
        (width - 2 * _MARGIN * line_px) / max(1, widest),
        height / ((len(lines) + 2 * _MARGIN) * line_px),
    )
    scale = max(_SMALLEST, scale * fits)
    line_px = _line_px(scale)
    margin_px = round(_MARGIN * line_px)
    room = max(1, int((height - 2 * margin_px) // line_px))
    lines = lines[:room]
    block_px = min(height, round(len(lines) * line_px) + 2 * margin_px)
    top = height - block_px if at_bottom else 0
    widest = max((_width(line, scale) for line in lines), default=0)
    right = width if full_width else min(width, widest + 2 * margin_px)
    strip = image[top : top + block_px, :right]
    cv2.convertScaleAbs(strip, dst=strip, alpha=darkness)
    thickness = max(1, round(scale * 1.4))
    for number, line in enumerate(lines):
        left = (right - _width(line, scale)) // 2 if at_bottom else margin_px
        baseline = round(top + margin_px + (number + 0.75) * line_px)
        cv2.putText(
            image, line, (max(0, left), baseline), _FONT, scale, WHITE, thickness, cv2.LINE_AA
        )


def _width(text: str, scale: float) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, max(1, round(scale * 1.4)))
    return int(width)


def _line_px(scale: float) -> float:
    (_, capital_height), _ = cv2.getTextSize("X", _FONT, scale, 1)
    return float(capital_height) * _SPACING
