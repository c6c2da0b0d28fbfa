"""The figures on the picture: rate, age, where the time goes, and what the machine does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np

from runtime.frame import Image, Translated
from runtime.panel import WHITE, Colour, Letters, Panel, fineness

_OVER_NS = 1_000_000_000
_REWRITE_EVERY_NS = 250_000_000
"""Numbers that change with every frame cannot be read."""
_MOST_FRAMES = 240
_LETTER_OF_HEIGHT = 1 / 52
_WANTED_LETTER_PX = 7.5
_SMALLEST_LETTER_PX = 6.0
_LABELS: Colour = (190, 190, 190)
_WARNING: Colour = (90, 140, 255)
_STAGES: tuple[tuple[str, Colour], ...] = (
    ("in", (233, 180, 86)),
    ("infer", (60, 165, 240)),
    ("out", (135, 200, 60)),
    ("wait", (175, 175, 175)),
)
"""The colours (BGR) stay apart for colour-blind eyes: Okabe and Ito, Color Universal Design,
2008, lightened for a dark ground."""


@dataclass(frozen=True)
class HudFigures:
    """What a frame does not carry; whoever runs the stream hands a new one over now and then."""

    engine: str = ""
    """In short: `TensorRT`, `ONNX Runtime`."""
    precision: str = ""
    """`fp32`, `fp16`, `int8`."""
    dropped: int | None = None
    """Frames that a newer one replaced; None: not told."""
    reopened: int | None = None
    """How often the source was opened again; None: not told."""
    machine: Mapping[str, float] = field(default_factory=dict)
    """As `runtime.monitor.Monitor.sample` gives it."""


class _Seen(NamedTuple):
    at_ns: int
    age_ms: float
    stages_ms: tuple[float, float, float, float]


class Hud:
    """Draws the figures into the upper left corner of each picture, in place.

    Rate, age and stages are those of the frames that it sees, over the last second: use one for
    each stream, from one thread at a time. The age is counted to the moment of drawing. `wait`
    is what is left of the age after in, infer and out. Numbers change four times a second and
    keep their places; a line that came once stays. The machine's line turns orange while the
    machine is throttled.

    Args:
        figures: what to tell besides; set `figures` again whenever there is news.
        clock_ns: the clock of `Frame.captured_at_ns`.
    """

    def __init__(
        self,
        figures: HudFigures | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.figures = figures or HudFigures()
        self._clock_ns = clock_ns
        self._seen: deque[_Seen] = deque(maxlen=_MOST_FRAMES)
        self._written_at_ns = 0
        self._newest_at_ns = -1
        self._sheet: _Sheet | None = None
        self._panel: Panel | None = None
        # The first letters of a process cost OpenCV 20 ms and more: not on a frame's time.
        Letters(10).write(np.zeros((16, 16, 3), np.uint8), "0", 0, 12)

    def __call__(self, image: Image, frame: Translated) -> None:
        """Draw on a picture.

        Args:
            image: uint8 [H, W, 3] BGR, writeable and the caller's own.
            frame: whose picture it is; only its times are read.
        """
        now_ns = self._clock_ns()
        if frame.captured_at_ns != self._newest_at_ns:  # else it is drawn once more
            self._newest_at_ns = frame.captured_at_ns
            self._see(frame, now_ns)
        size_px = (image.shape[0], image.shape[1])
        if self._sheet is None or self._sheet.picture_px != size_px:
            self._sheet, self._panel = _Sheet(size_px), None
        if self._panel is None or now_ns - self._written_at_ns >= _REWRITE_EVERY_NS:
            self._panel = self._sheet.panel(self.fps, list(self._seen), self.figures)
            self._written_at_ns = now_ns
        self._panel.lay_over(image, self._sheet.edge_px, self._sheet.edge_px)

    @property
    def fps(self) -> float:
        """Frames per second over the last second; N frames are N - 1 intervals."""
        if len(self._seen) < 2:
            return 0.0
        between_s = (self._seen[-1].at_ns - self._seen[0].at_ns) / 1e9
        return (len(self._seen) - 1) / between_s if between_s > 0 else 0.0

    def _see(self, frame: Translated, now_ns: int) -> None:
        age_ms = (now_ns - frame.captured_at_ns) / 1e6
        worked_ms = (frame.in_ms, frame.infer_ms, frame.out_ms)
        wait_ms = max(0.0, age_ms - sum(worked_ms))
        self._seen.append(_Seen(now_ns, age_ms, (*worked_ms, wait_ms)))
        # Two frames stay, however old: a slow stream has a rate as well.
        while len(self._seen) > 2 and now_ns - self._seen[0].at_ns > _OVER_NS:
            self._seen.popleft()


class _Sheet:
    """The layout for one size of picture: where each figure stands, and the panel's size.

    Its lengths are those of a drawing that is `larger` times the panel.
    """

    def __init__(self, picture_px: tuple[int, int]) -> None:
        self.picture_px = picture_px
        height, width = picture_px
        letter_px = max(height * _LETTER_OF_HEIGHT, _WANTED_LETTER_PX)
        while True:
            self._lay_out(letter_px)
            needed_px = self._width_px // self._larger + 2 * self.edge_px
            if needed_px <= width or letter_px <= _SMALLEST_LETTER_PX:
                break
            letter_px = max(_SMALLEST_LETTER_PX, letter_px * 0.94)
        self._lines = 1

    def _lay_out(self, letter_px: float) -> None:
        self.edge_px = round(letter_px * 0.8)
        self._larger = fineness(letter_px)
        letter_px *= self._larger
        self._small = Letters(letter_px)
        self._large = Letters(letter_px * 1.45)
        self._line_px = round(letter_px * 1.9)
        self._gap_px = round(letter_px * 0.8)
        self._bar_px = round(letter_px * 0.55)
        small, gap = self._small.width_px, self._gap_px
        self._stage_px = [small(f"{name} 88.8") + gap for name, _ in _STAGES]
        self._rate_px = self._large.width_px("88.8")
        self._age_px = self._large.width_px("8888")
        self._machine_px = [small(text) + gap for text in ("CPU 888%", "GPU 100%", "88.8 W")]
        inner_px = max(
            self._rate_px + small(" fps") + self._age_px + small(" ms age  now 8888"),
            sum(self._stage_px) - gap,
            sum(self._machine_px) + small("88 C !"),
            small("dropped 88888  reopened 888"),
        )
        self._width_px = inner_px + 2 * gap

    def panel(self, fps: float, seen: list[_Seen], figures: HudFigures) -> Panel:
        counts = [
            f"{name} {count}"
            for name, count in (("dropped", figures.dropped), ("reopened", figures.reopened))
            if count is not None
        ]
        engine = " ".join(text for text in (figures.engine, figures.precision) if text)
        machine = _machine_words(figures.machine)
        self._lines = max(self._lines, 1 + bool(engine) + bool(counts) + any(machine))
        ink = np.zeros((self._height_px(), self._width_px, 3), np.uint8)

        base_px = self._gap_px + self._large.height_px
        self._write_top(ink, base_px, fps, median(one.age_ms for one in seen), seen[-1].age_ms)
        base_px += self._gap_px
        stages_ms = [
            median(of_one) for of_one in zip(*(one.stages_ms for one in seen), strict=True)
        ]
        self._draw_bar(ink, base_px, stages_ms)
        base_px += self._bar_px + self._gap_px + self._small.height_px
        words = [
            f"{name} {_told_ms(ms)}" for (name, _), ms in zip(_STAGES, stages_ms, strict=True)
        ]
        colours = [colour for _, colour in _STAGES]
        self._write_row(ink, base_px, words, self._stage_px, colours)
        if counts:
            base_px += self._line_px
            self._small.write(ink, "  ".join(counts), self._gap_px, base_px)
        if any(machine):
            base_px += self._line_px
            throttled = figures.machine.get("throttled", 0) > 0
            colours = [_WARNING if throttled else WHITE] * len(machine)
            self._write_row(ink, base_px, machine, [*self._machine_px, 0], colours)
        if engine:
            base_px += self._line_px
            told = self._small.fitted(engine, self._width_px - 2 * self._gap_px)
            self._small.write(ink, told, self._gap_px, base_px, _LABELS)
        return Panel(ink, self._larger)

    def _height_px(self) -> int:
        above_px = 3 * self._gap_px + self._large.height_px + self._bar_px
        return above_px + self._small.height_px + (self._lines - 1) * self._line_px + self._gap_px

    def _write_top(
        self, ink: Image, base_px: int, fps: float, age_ms: float, now_ms: float
    ) -> None:
        rate = f"{fps:.1f}" if fps < 99.95 else f"{fps:.0f}"
        left_px = self._right(ink, rate, self._gap_px, self._rate_px, base_px)
        self._small.write(ink, " fps", left_px, base_px, _LABELS)
        left_px += self._small.width_px(" fps")
        left_px = self._right(ink, f"{age_ms:.0f}", left_px, self._age_px, base_px)
        self._small.write(ink, f" ms age  now {now_ms:.0f}", left_px, base_px, _LABELS)

    def _right(self, ink: Image, text: str, left_px: int, width_px: int, base_px: int) -> int:
        right_px = left_px + width_px
        self._large.write(ink, text, right_px - self._large.width_px(text), base_px)
        return right_px

    def _write_row(
        self,
        ink: Image,
        base_px: int,
        words: list[str],
        widths_px: list[int],
        colours: list[Colour],
    ) -> None:
        left_px = self._gap_px
        for word, width_px, colour in zip(words, widths_px, colours, strict=True):
            if word:
                self._small.write(ink, word, left_px, base_px, colour)
                left_px += width_px

    def _draw_bar(self, ink: Image, top_px: int, stages_ms: list[float]) -> None:
        left_px, width_px = self._gap_px, self._width_px - 2 * self._gap_px
        whole_ms = sum(stages_ms) or 1.0
        done_ms = 0.0
        for (_, colour), stage_ms in zip(_STAGES, stages_ms, strict=True):
            start_px = left_px + round(width_px * done_ms / whole_ms)
            done_ms += stage_ms
            end_px = left_px + round(width_px * done_ms / whole_ms)
            if end_px > start_px:
                corner = (end_px - 1, top_px + self._bar_px - 1)
                cv2.rectangle(ink, (start_px, top_px), corner, colour, cv2.FILLED)


def _told_ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 99.95 else f"{milliseconds:.0f}"


def _machine_words(machine: Mapping[str, float]) -> list[str]:
    """Processor, GPU, watts and heat; empty strings for what is not told."""
    cpu = machine.get("cpu_percent")
    gpu = machine.get("gpu_percent")
    power_w = machine.get("power_w", machine.get("gpu_power_w"))
    heat_c = machine.get("temperature_c", machine.get("gpu_temperature_c"))
    throttled = machine.get("throttled", 0) > 0
    return [
        "" if cpu is None else f"CPU {cpu:.0f}%",
        "" if gpu is None else f"GPU {gpu:.0f}%",
        "" if power_w is None else f"{power_w:.1f} W",
        "" if heat_c is None else f"{heat_c:.0f} C" + (" !" if throttled else ""),
    ]
