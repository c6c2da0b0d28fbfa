"""How far a fixed camera moved between two pictures, by day, by night and across both.

A lit window is dark by day, so grey values and the sign of an edge mean nothing across day and
night; only the line along which the edge runs stays. So pictures are compared by the doubled
angle of their gradients, after Fitch, Kadyrov, Christmas and Kittler, "Orientation correlation"
(BMVC 2002); doubling makes an edge and its negative the same. The last tenths of a pixel come
from Evangelidis and Psarakis, "Parametric image alignment using enhanced correlation coefficient
maximization" (PAMI 2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Luma: TypeAlias = NDArray[np.uint8]
"""uint8 [h, w], grey levels."""
Field: TypeAlias = NDArray[np.complex64]
"""complex64 [h, w]: doubled angle of the gradient, magnitude 0 (flat) to 1 (a sure edge)."""
Motion: TypeAlias = NDArray[np.float64]
"""float64 [2, 3]: where a pixel of the reference lies in the picture, a rotation and a shift."""

ANALYSIS_PX = 320
"""Longer side of the pictures that are compared; everything of full size is only written."""
MIN_SCORE = 0.13
"""Correlation below which two pictures count as different views; unrelated ones reach 0.09."""
MIN_PEAK = 7.0
"""The same in standard deviations of the correlation over all shifts; unrelated ones reach 6.8."""
MAX_TURN_DEG = 3.0
_TURN_STEP_DEG = 0.75
_STILL_SCORE = 0.02
_LOG_FLOOR = 8.0
_FLAT = 0.02


@dataclass(frozen=True)
class Fit:
    """What a registration found: the motion and how sure it is.

    score: correlation of the two fields after the motion, 1 is the same picture.
    peak: height of the coarse correlation in standard deviations over all shifts.
    """

    motion: Motion
    score: float
    peak: float

    @property
    def same_view(self) -> bool:
        return self.score >= MIN_SCORE and self.peak >= MIN_PEAK


def still() -> Motion:
    """No motion."""
    return np.eye(2, 3)


def after(first: Motion, then: Motion) -> Motion:
    """The motion that does `first`, and `then` to what that gave."""
    return (_square(then) @ _square(first))[:2]


def inverse(motion: Motion) -> Motion:
    """From the picture back to the reference."""
    return np.asarray(np.linalg.inv(_square(motion))[:2], np.float64)


def _square(motion: Motion) -> NDArray[np.float64]:
    return np.vstack([motion, [0.0, 0.0, 1.0]])


def scaled(motion: Motion, factor: float) -> Motion:
    """The same motion for pictures `factor` times as large; pixel centres lie at halves."""
    offset = (factor - 1.0) / 2.0
    up = np.array([[factor, 0.0, offset], [0.0, factor, offset], [0.0, 0.0, 1.0]])
    return (up @ _square(motion) @ np.linalg.inv(up))[:2]


def turn_deg(motion: Motion) -> float:
    """Its rotation in degrees."""
    return math.degrees(math.atan2(motion[1, 0], motion[0, 0]))


def displacement_px(motion: Motion, size: tuple[int, int]) -> tuple[float, float, float]:
    """(x, y) of the middle's displacement and the largest one of a corner, for (h, w)."""
    height, width = size
    right, low = width - 1.0, height - 1.0
    points = np.array([[right / 2, low / 2], [0, 0], [right, 0], [0, low], [right, low]])
    moved = points @ motion[:, :2].T + motion[:, 2] - points
    return float(moved[0, 0]), float(moved[0, 1]), float(np.hypot(*moved.T).max())


def warped(field: Field, motion: Motion) -> Field:
    """The field as the reference sees it, 0 where the picture does not reach.

    The angles themselves are not turned: 3 degrees cost half a percent of the correlation.
    """
    height, width = field.shape
    flat = np.ascontiguousarray(field).view(np.float32).reshape(height, width, 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(flat, motion, (width, height), flags=flags)
    return np.asarray(np.ascontiguousarray(moved).view(np.complex64)[..., 0])


def aligned(
    image: NDArray[np.uint8], motion: Motion, interpolation: int = cv2.INTER_LINEAR
) -> NDArray[np.uint8]:
    """A picture uint8 [h, w] or [h, w, 3] as the reference sees it, mirrored beyond its rim."""
    flags = interpolation | cv2.WARP_INVERSE_MAP
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(image, motion, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, dtype=np.uint8)


def field_of(luma: Luma) -> Field:
    """The structure of a picture. Weak gradients count by how they stand out of its noise."""
    smooth = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), 1.0)
    log = np.log(smooth + _LOG_FLOOR)
    x = cv2.Scharr(log, cv2.CV_32F, 1, 0) / 32.0
    y = cv2.Scharr(log, cv2.CV_32F, 0, 1) / 32.0
    power = np.maximum(x * x + y * y, 1e-12)
    magnitude = np.sqrt(power)
    noise = max(1.5 * float(np.median(magnitude)), _FLAT)
    weight = magnitude / (magnitude + noise) / power
    return np.asarray(((x * x - y * y) + 2j * x * y) * weight, dtype=np.complex64)


class Reference:
    """A field that many pictures are registered to: the average of one view's pictures."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._spectrum = spectrum_of(field)
        self._edges = _edges_of(field)

    def coarse(self, field: Field, max_shift_px: float) -> Fit:
        """The best whole-pixel shift without rotation."""
        return self._shifted(field, 0.0, max_shift_px)

    def fit(self, field: Field, max_shift_px: float, enough: float = 1.0) -> Fit:
        """The motion of a picture; rotations are searched where a shift scores below `enough`."""
        best = self.coarse(field, max_shift_px)
        if best.score < enough or not best.same_view:
            for step in np.arange(_TURN_STEP_DEG, MAX_TURN_DEG + 1e-6, _TURN_STEP_DEG):
                for angle_deg in (-float(step), float(step)):
                    turned = self._shifted(field, angle_deg, max_shift_px)
                    best = max(best, turned, key=lambda fit: fit.score)
        return self._refined(field, best, max_shift_px)

    def score(self, field: Field, motion: Motion) -> float:
        """Correlation of the fields where both pictures reach, -1 to 1."""
        moved = warped(field, motion)
        inside = _inside(motion, (field.shape[0], field.shape[1]))
        return correlation(self.field[inside], moved[inside])

    def _shifted(self, field: Field, angle_deg: float, max_shift_px: float) -> Fit:
        height, width = field.shape
        centre = ((width - 1) / 2, (height - 1) / 2)
        turn = cv2.getRotationMatrix2D(centre, -angle_deg, 1.0) if angle_deg else still()
        spectrum = spectrum_of(warped(field, turn) if angle_deg else field)
        x, y, score, deviation = peak_of(self._spectrum, spectrum, max_shift_px)
        motion = after(np.array([[1.0, 0.0, x], [0.0, 1.0, y]]), turn)
        return Fit(motion, score, score / deviation)

    def _refined(self, field: Field, fit: Fit, max_shift_px: float) -> Fit:
        """ECC on the strength of the edges; kept only where it raises the correlation."""
        coarse = Fit(fit.motion, self.score(field, fit.motion), fit.peak)
        warp = fit.motion.astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
        edges = _edges_of(field)
        try:
            _, warp = cv2.findTransformECC(
                self._edges, edges, warp, cv2.MOTION_EUCLIDEAN, criteria, None, 3
            )
        except cv2.error:  # it did not converge: the whole-pixel motion stands
            return coarse
        motion = warp.astype(np.float64)
        x, y, _ = displacement_px(motion, (field.shape[0], field.shape[1]))
        score = self.score(field, motion)
        refined = Fit(motion, score, fit.peak)
        if score < coarse.score or max(abs(x), abs(y)) > max_shift_px + 1.0:
            refined = coarse
        unmoved = Fit(still(), self.score(field, still()), fit.peak)
        # A fixed camera mostly stands still: a motion that explains no more is none.
        return unmoved if unmoved.score >= refined.score - _STILL_SCORE else refined


def correlation(a: Field, b: Field) -> float:
    """Of two fields of the same shape, -1 to 1; 0 where one has no edges."""
    power = float((np.abs(a) ** 2).sum()) * float((np.abs(b) ** 2).sum())
    return float((a * b.conj()).real.sum()) / math.sqrt(power) if power > 0 else 0.0


def spectrum_of(field: Field) -> NDArray[np.complex64]:
    """Fourier transform of a field under a window, scaled so that a product sums to 1."""
    height, width = field.shape
    window = np.sqrt(np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]))
    inner = field * window.astype(np.float32)
    inner -= inner.mean()
    norm = float(np.linalg.norm(inner)) or 1.0
    flat = np.ascontiguousarray(inner / norm).view(np.float32).reshape(height, width, 2)
    return np.asarray(cv2.dft(flat).view(np.complex64)[..., 0])


def peak_of(
    reference: NDArray[np.complex64], picture: NDArray[np.complex64], max_shift_px: float
) -> tuple[float, float, float, float]:
    """(x, y, height, standard deviation) of the best shift from the reference to the picture."""
    height, width = reference.shape
    product = np.ascontiguousarray(picture * reference.conj())
    flat = product.view(np.float32).reshape(height, width, 2)
    surface = cv2.idft(flat, flags=cv2.DFT_SCALE)[..., 0]
    reach = max(1, min(round(max_shift_px), height // 2 - 1, width // 2 - 1))
    near = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    deviation = max(float(surface.std()), 1e-9)
    return float(column - reach), float(row - reach), float(near[row, column]), deviation


def _edges_of(field: Field) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(np.abs(field).astype(np.float32), (0, 0), 1.2)
    return np.asarray(smooth, np.float32)


def _inside(motion: Motion, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of the reference that the picture covers, less the rim that gradients need."""
    ones = np.full(size, 255, np.uint8)
    ones[:2], ones[-2:], ones[:, :2], ones[:, -2:] = 0, 0, 0, 0
    cover = cv2.warpAffine(
        ones, motion, (size[1], size[0]), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return np.asarray(cover > 0)
