"""Several cameras in one picture: each in a cell of its own, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.buffers import FrameBuffers
from runtime.errors import UserError
from runtime.frame import Image, Translated, resized
from runtime.panel import Panel, label

_SCREEN_ASPECT = 16 / 9
_LARGEST_PX = (1080, 1920)
"""A grid whose cells nobody chose fits on a full HD screen: more would be shown smaller there,
and every frame would be paid for."""
_GROUND = 20
_LETTER_OF_CELL = 1 / 30
_SMALLEST_LETTER_PX = 7.0


@dataclass
class _Cell:
    """One source's place: its corner in the grid, and what is written on it."""

    top_px: int
    left_px: int
    name: Panel
    note: str = ""
    note_panel: Panel | None = None


@dataclass
class _Mosaic:
    """The grid of translated pictures, or that of the originals."""

    picture: Image
    buffers: FrameBuffers = field(default_factory=FrameBuffers)

    def copied(self) -> Image:
        copy = self.buffers.take((self.picture.shape[0], self.picture.shape[1]))
        np.copyto(copy, self.picture)
        return copy


class Grid:
    """Puts the newest frame of each source into its cell of one picture.

    There are as many columns as make the cells largest on a wide screen. A picture keeps its
    aspect, on a dark ground; its name stands in the lower left corner. A note is written across
    the source's own cell, and a cell without a frame yet says what it waits for. Only the cell
    that changed is drawn; what is handed out are copies, so that sinks may hold them. Use it
    from one thread at a time.

    Args:
        names: of the sources, in the order of the cells, by rows.
        cell_size_px: (height, width) of a cell; None: the size of the first frame, smaller
            where the grid would be larger than 1920x1080.

    Raises:
        UserError: two sources with one name, or a cell without pixels.
    """

    def __init__(self, names: Sequence[str], cell_size_px: tuple[int, int] | None = None) -> None:
        if not names:
            raise ValueError("a grid of no sources")
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise UserError(
                f"two sources are called {twice[0]!r}",
                "a name for each cell of the grid",
                "name them: --source front=0 --source back=1",
            )
        if cell_size_px is not None and min(cell_size_px) < 1:
            raise UserError(
                f"a cell of {cell_size_px[1]}x{cell_size_px[0]} pixels",
                "at least 1x1",
                "leave the size out, or give --width and --height above zero",
            )
        self._names = tuple(names)
        self._wanted_cell_px = cell_size_px
        self._cell_px = (0, 0)
        self._cells: dict[str, _Cell] = {}
        self._translated = self._original = _Mosaic(np.empty((0, 0, 3), np.uint8))
        self._letter_px = 0.0
        self._index = -1
        self._captured_at_ns = 0

    def update(self, frame: Translated) -> Translated:
        """Draw a frame into its source's cell.

        Args:
            frame: of a source that was named; `translated` is what is shown, `image` where that
                is None, and `original` as well as `translated` where it is None.

        Returns:
            The whole grid: `translated` and `original`, uint8 [H, W, 3] BGR, in memory of their
            own that the caller may keep; `image` is `translated`. `captured_at_ns` is that of
            the newest frame so far, `index` counts the updates, the times of the stages are
            `frame`'s, and `source` and `note` are empty.

        Raises:
            ValueError: a source that was not named.
        """
        if frame.source not in self._names:
            raise ValueError(f"no cell for {frame.source!r}; there are {', '.join(self._names)}")
        shown = frame.image if frame.translated is None else frame.translated
        if not self._cells:
            self._lay_out(shown.shape[0], shown.shape[1])
        cell = self._cells[frame.source]
        original = shown if frame.original is None else frame.original
        for mosaic, image in ((self._translated, shown), (self._original, original)):
            self._fill(mosaic.picture, cell, image, frame.note)
        self._index += 1
        self._captured_at_ns = max(self._captured_at_ns, frame.captured_at_ns)
        translated = self._translated.copied()
        return Translated(
            image=translated,
            index=self._index,
            captured_at_ns=self._captured_at_ns,
            capture_ms=frame.capture_ms,
            translated=translated,
            original=self._original.copied(),
            in_ms=frame.in_ms,
            infer_ms=frame.infer_ms,
            out_ms=frame.out_ms,
        )

    def _lay_out(self, height: int, width: int) -> None:
        rows, columns = arrangement(len(self._names), width / height)
        if self._wanted_cell_px is not None:
            height, width = self._wanted_cell_px
            rows, columns = arrangement(len(self._names), width / height)
        else:
            fits = min(1.0, _LARGEST_PX[0] / (rows * height), _LARGEST_PX[1] / (columns * width))
            # Even sizes, which video formats want.
            height, width = (max(2, int(length * fits) // 2 * 2) for length in (height, width))
        self._cell_px = (height, width)
        self._letter_px = max(_SMALLEST_LETTER_PX, height * _LETTER_OF_CELL)
        ground = np.full((rows * height, columns * width, 3), _GROUND, np.uint8)
        self._translated, self._original = _Mosaic(ground), _Mosaic(ground.copy())
        for number, name in enumerate(self._names):
            row, column = divmod(number, columns)
            name_panel = label(name, self._letter_px, width)
            cell = _Cell(row * height, column * width, name_panel)
            self._cells[name] = cell
            waiting = label(f"waiting for {name}", self._letter_px * 1.2, width)
            for mosaic in (self._translated, self._original):
                self._centre(mosaic.picture, cell, waiting)

    def _fill(self, picture: Image, cell: _Cell, image: Image, note: str) -> None:
        height, width = self._cell_px
        place = picture[cell.top_px : cell.top_px + height, cell.left_px : cell.left_px + width]
        scale = min(height / image.shape[0], width / image.shape[1])
        filled = (
            min(height, max(1, round(image.shape[0] * scale))),
            min(width, max(1, round(image.shape[1] * scale))),
        )
        if filled != (height, width):
            place[:] = _GROUND
        top_px, left_px = (height - filled[0]) // 2, (width - filled[1]) // 2
        into = place[top_px : top_px + filled[0], left_px : left_px + filled[1]]
        if image.shape[:2] == filled:
            np.copyto(into, image)
        else:
            resized(image, filled, into)
        cell.name.lay_over(place, 0, max(0, height - cell.name.size_px[0]))
        if note:
            if note != cell.note or cell.note_panel is None:
                cell.note, cell.note_panel = note, label(note, self._letter_px * 1.2, width)
            self._centre(picture, cell, cell.note_panel)

    def _centre(self, picture: Image, cell: _Cell, panel: Panel) -> None:
        height, width = self._cell_px
        place = picture[cell.top_px : cell.top_px + height, cell.left_px : cell.left_px + width]
        panel.lay_over(
            place,
            max(0, (width - panel.size_px[1]) // 2),
            max(0, (height - panel.size_px[0]) // 2),
        )


def arrangement(count: int, cell_aspect: float) -> tuple[int, int]:
    """Rows and columns for `count` cells, width over height `cell_aspect`, that make the cells
    largest on a 16:9 screen; of equals those with fewest empty cells, then the widest.
    """

    def merit(columns: int) -> tuple[float, int, int]:
        rows = -(-count // columns)
        cell_height = min(1 / rows, _SCREEN_ASPECT / (columns * cell_aspect))
        return round(cell_height, 9), -rows * columns, columns

    columns = max(range(1, count + 1), key=merit)
    return -(-count // columns), columns
