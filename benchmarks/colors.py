"""The colours of stages and rows, the same in the picture and on the page, by day and by night."""

STAGE_COLORS = {
    "capture": "#8da0cb",
    "in": "#66c2a5",
    "infer": "#fc8d62",
    "out": "#a6d854",
    "sink": "#e5c494",
}
ROW_COLORS = (
    "#d1495b",
    "#2e86ab",
    "#3b8b4c",
    "#c77d0a",
    "#8c68b5",
    "#1b998b",
    "#c06c9c",
    "#8a7b3d",
    "#7d8790",
)
"""Mid-tones: seen on white and on black. More rows than that share them, with another dash."""


def row_color(number: int) -> str:
    """Of the row of that number in its generator's group."""
    return ROW_COLORS[number % len(ROW_COLORS)]
