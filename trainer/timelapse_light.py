"""Day, night or in between, judged against this one camera's own pictures.

No brightness is day for every camera: automatic exposure lifts a lit square at night to almost
the mean of a day. What does change is which parts are bright (the sky by day, the lamps by
night), so brightness proposes and the distribution of light decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.timelapse_register import Luma

MIN_GAP_STOPS = 0.5
"""A day is at least this much brighter than a night, in powers of two."""
MAX_LIKENESS = 0.35
"""Correlation of the two averages' coarse light: below 0.05 for day and night of 11 webcams,
above 0.2 (mostly 0.7) for bright and dull days of the same ones."""
MAX_DETAIL_LIKENESS = 0.5
"""The same of the details, for a view without a sky."""
DUSK_ZONE = (0.35, 0.65)
"""Between the night's (0) and the day's (1) median brightness: neither."""
LAMPS_BY_DAY = (0.1, 0.2)
"""Bounds of the share of the night's details above which a day has its lamps on."""
LAMPS_BY_NIGHT = (0.6, 0.75)
"""Bounds of the share of the night's details below which a night has daylight."""
_BLACK_LEVEL = 48
_WHITE_LEVEL = 200
_MIN_CONTRAST = 20


def emptiness_of(luma: Luma) -> str | None:
    """Why a picture shows nothing, or None: `black`, `washed out`."""
    low, high, lamps = np.quantile(luma, [0.02, 0.98, 0.995])
    if lamps < _BLACK_LEVEL:
        return "black"
    if low > _WHITE_LEVEL or (high - low < _MIN_CONTRAST and lamps - low < 2 * _MIN_CONTRAST):
        return "washed out"
    return None


def brightness_of(luma: Luma) -> float:
    """Mean log2 grey level of the picture and of its upper third (the sky), in stops."""
    stops = np.log2(luma.astype(np.float32) + 4.0)
    return float(stops.mean() + stops[: len(stops) // 3].mean()) / 2.0


def sharpness_of(luma: Luma) -> float:
    """Fine over coarse detail, log2: a blur lowers it, fog and darkness hardly do."""
    grey = luma.astype(np.float32)
    fine = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.7), cv2.CV_32F).std()
    coarse = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 2.8), cv2.CV_32F).std()
    return float(np.log2((fine + 1e-3) / (coarse + 1e-3)))


def split_in_two(values: Sequence[float]) -> float:
    """The threshold between two groups of numbers that leaves least variance inside them.

    Otsu, "A threshold selection method from gray-level histograms" (1979), on the numbers
    themselves instead of a histogram.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    lower = np.arange(1, count)
    sums = np.cumsum(ordered)[:-1]
    gap = (ordered.sum() - sums) / (count - lower) - sums / lower
    between = lower * (count - lower) * gap * gap
    index = int(between.argmax())
    return float(ordered[index] + ordered[index + 1]) / 2.0


@dataclass(frozen=True)
class Halves:
    """What this camera's days and nights look like, from pictures that show the same view.

    day_stops, night_stops: median brightness.
    """

    day_stops: float
    night_stops: float
    day_detail: NDArray[np.float32]
    night_detail: NDArray[np.float32]
    likeness: float
    detail_likeness: float

    @property
    def differ(self) -> bool:
        """Whether the two are day and night at all, and not bright and dull days."""
        apart = self.likeness < MAX_LIKENESS or self.detail_likeness < MAX_DETAIL_LIKENESS
        return self.day_stops - self.night_stops >= MIN_GAP_STOPS and apart

    def place(self, luma: Luma) -> float:
        """Brightness between the night's median (0) and the day's (1)."""
        span = max(self.day_stops - self.night_stops, 1e-6)
        return (brightness_of(luma) - self.night_stops) / span

    def lamps(self, luma: Luma) -> float:
        """Share of the night's details in a picture: about 0 by day, 1 by night.

        Least squares of its details on those of the two averages. Lamps that burn under a bright
        sky are found so, whatever the exposure was.
        """
        basis = np.stack([self.day_detail.ravel(), self.night_detail.ravel()], axis=1)
        parts, *_ = np.linalg.lstsq(basis.T @ basis, basis.T @ detail_of(luma).ravel(), rcond=None)
        day, night = max(float(parts[0]), 0.0), max(float(parts[1]), 0.0)
        return night / (day + night) if day + night > 0 else 0.5


def lamps_limit(shares: Sequence[float], by_day: bool) -> float:
    """The share of the night's details at which dusk begins, for this half of this camera.

    As narrow as its own pictures allow, within fixed bounds.
    """
    usual = float(np.median(shares))
    reach = 5.0 * 1.4826 * float(np.median(np.abs(np.asarray(shares) - usual)))
    low, high = LAMPS_BY_DAY if by_day else LAMPS_BY_NIGHT
    return min(max(usual + reach if by_day else usual - reach, low), high)


def is_dusk(place: float, lamps: float, limit: float, by_day: bool) -> bool:
    """Whether a picture that was sorted by brightness is of neither half; see `Halves`."""
    if by_day:
        return place < DUSK_ZONE[1] or lamps > limit
    return place > DUSK_ZONE[0] or lamps < limit


def compare_halves(days: Sequence[Luma], nights: Sequence[Luma]) -> Halves:
    """Medians over registered pictures of one view, all of one size; neither may be empty."""
    light = [np.median([_stops(luma) for luma in half], axis=0) for half in (days, nights)]
    coarse = [cv2.GaussianBlur(one.astype(np.float32), (0, 0), _coarse_px(one)) for one in light]
    details = [
        np.median([detail_of(luma) for luma in half], axis=0).astype(np.float32)
        for half in (days, nights)
    ]
    return Halves(
        day_stops=float(np.median([brightness_of(luma) for luma in days])),
        night_stops=float(np.median([brightness_of(luma) for luma in nights])),
        day_detail=details[0],
        night_detail=details[1],
        likeness=_likeness(*coarse),
        detail_likeness=_likeness(*details),
    )


def detail_of(luma: Luma) -> NDArray[np.float32]:
    """Log2 grey levels without their coarse distribution, float32 [h, w]."""
    stops = np.log2(luma.astype(np.float32) + 8.0)
    fine = cv2.GaussianBlur(stops, (0, 0), 1.0)
    return np.asarray(fine - cv2.GaussianBlur(stops, (0, 0), _coarse_px(stops)), np.float32)


def _stops(luma: Luma) -> NDArray[np.float32]:
    return np.asarray(np.log2(luma.astype(np.float32) + 4.0), np.float32)


def _coarse_px(image: NDArray[np.floating]) -> float:
    return float(max(image.shape)) / 32.0


def _likeness(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum(dtype=np.float64)) / norm if norm > 0 else 1.0
