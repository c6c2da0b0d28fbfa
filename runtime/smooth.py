"""Temporal smoothing: what stands still stops flickering, what moves leaves no ghost.

A generator draws each frame by itself: noise of the camera that nobody sees comes out as lamps
that twinkle and textures that boil. A mean over time takes that away, and leaves a ghost behind
everything that moves. So the mean is taken only where the camera's own picture stands still.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.buffers import FrameBuffers
from runtime.frame import Image, check_image

STRENGTH = 0.8
"""How much of the history stays in a still place by default: a mean over about nine frames."""
MOST_STRENGTH = 0.95

_NOISE_QUANTILE = 0.25
_NOISE_FACTOR = 4.0
"""Threshold over the quarter of the pixels that change least. Of Gaussian noise in three channels,
the largest of which counts, that quarter ends at 0.9 standard deviations."""
_THRESHOLD_LEVELS = (1.5, 4.0)
"""Bounds of the threshold in grey levels: below is rounding and compression, above is motion even
where most of the picture moves and what changes least is no noise."""
_REACH_PX = 5
"""Side of the square, in the small copy, by which moving places are widened."""
_FEATHER_PX = 5
"""Side of the Gaussian, in the small copy, that softens the edge of moving places."""
_CUT_SHARE = 0.6
"""When more of the picture than this moves it is a cut: nothing of the history is kept."""
_WHOLE = 1000.0
"""What the two weights of a pixel sum up to: `cv2.blendLinear` divides by the sum plus 0.00001,
which at a sum of 1 would darken a bright picture frame by frame."""
_GAP_S = 2.0
_GAP_INTERVALS = 8
"""A gap is longer than both: `_GAP_S`, and so many times the interval before it."""


class Smoother:
    """Smooths the translations of one source, frame after frame.

    A recursive filter: in a still place the result is `strength` of the last result and the rest
    of the new translation; where the camera's picture moved, and after a cut, a gap or a change
    of size, it is the new translation at once. Whether it moved is asked of a small, blurred copy
    of the camera's picture, a quarter of its sides, against the same mean over time of such
    copies that the history itself is: so slow motion, which no two frames show, is found before
    it leaves a ghost. The threshold follows the noise that is measured.

    What changes in the translation although the camera's picture does not, fades in: after n
    frames `strength` to the power of n is left of what was, under a thirtieth after 16 frames at
    the default strength, and nothing after 28. The state has fractions of grey levels, so that
    it never stalls before that.

    It serves one thread at a time.

    Args:
        strength: 0 (nothing is smoothed) to `MOST_STRENGTH`.

    Raises:
        ValueError: another strength.
    """

    def __init__(self, strength: float = STRENGTH) -> None:
        if not 0 <= strength <= MOST_STRENGTH:
            raise ValueError(f"strength {strength} is not between 0 and {MOST_STRENGTH}")
        self._strength = strength
        self._results = FrameBuffers()
        self._state: _State | None = None
        self._seen_at_ns: int | None = None
        self._interval_ns = 0

    def smooth(
        self, original: Image, translated: Image, captured_at_ns: int | None = None
    ) -> Image:
        """Smooth one frame.

        Args:
            original: what the camera gave: uint8 [H, W, 3], BGR; only read.
            translated: what was made of it: uint8 [H, W, 3], BGR, of the same size; only read.
            captured_at_ns: when; None: no gap is looked for.

        Returns:
            uint8 [H, W, 3], BGR: memory that nobody else refers to, the caller's own.

        Raises:
            FrameError: one of them is no frame.
            ValueError: their sizes differ.
        """
        if check_image(original).shape != check_image(translated).shape:
            raise ValueError(f"sizes differ: {original.shape[:2]} and {translated.shape[:2]}")
        size_px = (original.shape[0], original.shape[1])
        if self._state is None or self._state.size_px != size_px:
            self._state = _State(size_px)
        if self._after_gap(captured_at_ns):
            self._state.forget()
        self._state.take(original, translated, 1 - self._strength)
        return self._state.picture(self._results.take(size_px))

    def _after_gap(self, captured_at_ns: int | None) -> bool:
        if captured_at_ns is None:
            return False
        usual_ns = self._interval_ns
        if self._seen_at_ns is not None:
            self._interval_ns = captured_at_ns - self._seen_at_ns
        self._seen_at_ns = captured_at_ns
        return self._interval_ns > max(_GAP_S * 1e9, _GAP_INTERVALS * usual_ns)


class _State:
    """History and scratch memory for one size of frames."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        self.size_px = size_px
        height, width = size_px
        small_px = (max(1, height // 4), max(1, width // 4))
        self._fresh = True
        self._history = np.empty((height, width, 3), np.float32)
        self._new = np.empty_like(self._history)
        self._share = np.empty(size_px, np.float32)
        self._rest = np.empty(size_px, np.float32)
        self._reference = np.empty((*small_px, 3), np.float32)
        half_px = (max(1, height // 2), max(1, width // 2))
        self._shrunk = [np.empty((*px, 3), np.uint8) for px in (half_px, small_px)]
        self._small = np.empty_like(self._reference)
        self._change = np.empty_like(self._reference)
        self._moved = np.empty(small_px, np.float32)
        self._stayed = np.empty(small_px, np.float32)
        self._reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_REACH_PX, _REACH_PX))

    def forget(self) -> None:
        """Start anew with the next frame."""
        self._fresh = True

    def take(self, original: Image, translated: Image, least_share: float) -> None:
        """Let a new frame into the history, with `least_share` of it where nothing moves."""
        # Twice by a half: three times as fast as once by a quarter.
        image = original
        for into in self._shrunk:
            height, width = into.shape[:2]
            cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_AREA)
            image = into
        np.copyto(self._small, image)
        cv2.GaussianBlur(self._small, (3, 3), 0, dst=self._small)
        if self._fresh or self._find_motion() > _CUT_SHARE:
            np.copyto(self._reference, self._small)
            np.copyto(self._history, translated)
            self._fresh = False
            return
        share, rest = self._moved, self._stayed
        share *= (1 - least_share) * _WHOLE
        share += least_share * _WHOLE
        np.subtract(_WHOLE, share, out=rest)
        cv2.blendLinear(self._small, self._reference, share, rest, dst=self._reference)
        height, width = self.size_px
        cv2.resize(share, (width, height), dst=self._share)
        np.subtract(_WHOLE, self._share, out=self._rest)
        np.copyto(self._new, translated)
        cv2.blendLinear(self._new, self._history, self._share, self._rest, dst=self._history)

    def picture(self, into: Image) -> Image:
        """The history, rounded to whole grey levels."""
        cv2.convertScaleAbs(self._history, dst=into)
        return into

    def _find_motion(self) -> float:
        """Leave in `_moved` 0 where nothing moved to 1 where it did; the moving part of all."""
        cv2.absdiff(self._small, self._reference, dst=self._change)
        moved = self._moved
        cv2.reduce(self._change.reshape(-1, 3), 1, cv2.REDUCE_MAX, dst=moved.reshape(-1, 1))
        threshold = self._threshold(moved)
        moved -= threshold
        moved *= 1 / threshold
        np.clip(moved, 0, 1, out=moved)
        share = float(cv2.mean(moved)[0])
        cv2.dilate(moved, self._reach, dst=moved)
        cv2.GaussianBlur(moved, (_FEATHER_PX, _FEATHER_PX), 0, dst=moved)
        return share

    def _threshold(self, change: NDArray[np.float32]) -> float:
        """Grey levels that noise alone does not reach."""
        some = change.ravel()[:: max(1, change.size // 2000)]
        rank = int(_NOISE_QUANTILE * (len(some) - 1))
        noise = float(np.partition(some, rank)[rank])
        least, most = _THRESHOLD_LEVELS
        return min(max(_NOISE_FACTOR * noise, least), most)
