"""What a source's address says behind its `?`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from runtime.errors import SourceError
from runtime.uris import redacted

MOST_SIDE_PX = 16384
MOST_FPS = 1000.0


def read_options(uri: str, query: str, known: Iterable[str]) -> dict[str, Any]:
    """The options of a query such as `size=640x480&fps=30`.

    Args:
        uri: the whole address, for the error.
        query: what follows its `?`; empty for none.
        known: the keys that this kind of source takes, out of those of `EXAMPLES`.

    Returns:
        For each key that was given: `size_px` (height, width) for `size`, `region` (left, top,
        width, height), a rate in Hz, a number, or a word.

    Raises:
        SourceError: an unknown key, or a value that makes no sense.
    """
    known = tuple(known)
    given: dict[str, Any] = {}
    try:
        for key, value in parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True):
            if key not in known:
                raise ValueError(f"{key}: not an option of this source")
            name = "size_px" if key == "size" else key
            try:
                given[name] = _READERS[key](value)
            except ValueError as error:
                raise ValueError(f"{key}={value}") from error
    except ValueError as error:
        raise SourceError(
            redacted(f"cannot read the options of {uri} ({error})"),
            " and ".join(f"{key}={EXAMPLES[key]}" for key in known)
            + f" after a '?', joined by '&', sizes and rates above zero, sides up to "
            f"{MOST_SIDE_PX}, rates up to {MOST_FPS:g}",
            "write for example synthetic://?size=640x480&fps=30",
        ) from error
    return given


def check_asked(size_px: tuple[int, int] | None, fps: float | None) -> None:
    """Refuse a size or a rate that no source can have.

    Raises:
        SourceError: not above zero, or beyond `MOST_SIDE_PX` or `MOST_FPS`.
    """
    if size_px is not None and not 0 < min(size_px) <= max(size_px) <= MOST_SIDE_PX:
        raise SourceError(
            f"a size of {size_px[1]}x{size_px[0]} was asked",
            f"width and height above zero and up to {MOST_SIDE_PX}, such as size=640x480",
            "give --width and --height as numbers of pixels",
        )
    if fps is not None and not 0 < fps <= MOST_FPS:
        raise SourceError(
            f"a rate of {fps:g} frames per second was asked",
            f"a rate above zero and up to {MOST_FPS:g}, such as fps=30",
            "give --fps a number above zero",
        )


EXAMPLES = {
    "size": "640x480",
    "fps": "30",
    "frames": "100",
    "flip": "0",
    "region": "0,0,640x480",
    "format": "bgr24",
    "live": "1",
}
"""One value of each option, as an error shows it."""


def _size_px(value: str) -> tuple[int, int]:
    width, height = (_whole(number) for number in value.split("x"))
    if not 0 < min(width, height) <= max(width, height) <= MOST_SIDE_PX:
        raise ValueError(value)
    return height, width


def _region(value: str) -> tuple[int, int, int, int]:
    left, top, size = value.split(",")
    height, width = _size_px(size)
    return _whole(left), _whole(top), width, height


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise ValueError(value)
    return int(value)


def _above_zero(value: str) -> int:
    number = _whole(value)
    if number == 0:
        raise ValueError(value)
    return number


def _rate(value: str) -> float:
    fps = float(value)
    if not 0 < fps <= MOST_FPS:
        raise ValueError(value)
    return fps


def _flip(value: str) -> int:
    if value not in tuple("01234567"):
        raise ValueError(value)
    return int(value)


def _yes(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(value)
    return value == "1"


_READERS: dict[str, Callable[[str], Any]] = {
    "size": _size_px,
    "fps": _rate,
    "frames": _above_zero,
    "flip": _flip,
    "region": _region,
    "format": str,
    "live": _yes,
}
