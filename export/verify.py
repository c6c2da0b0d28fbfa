"""The parity gate: does the exported file draw the picture that the PyTorch generator draws?

Each artifact runs through the engine that ships, on real pictures, and is compared with the
generator in FP32 at every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.frame import resized
from runtime.translator import Translator

Image: TypeAlias = NDArray[np.uint8]
Draw: TypeAlias = Callable[[Image], Image]
"""uint8 [H, W, 3] BGR to the same."""

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

EQUAL_PSNR_DB = 100.0
"""Stands for pictures that do not differ at all, whose PSNR is infinite."""


@dataclass(frozen=True)
class Threshold:
    """What an artifact must keep on every picture to pass."""

    min_psnr_db: float
    max_abs_diff: int | None = None
    """Grey levels, at any pixel of any picture; None: no such limit."""
    min_ssim: float = 0.0

    def allows(self, difference: Difference) -> bool:
        """Whether one picture is close enough."""
        return (
            difference.psnr_db >= self.min_psnr_db
            and difference.ssim >= self.min_ssim
            and (self.max_abs_diff is None or difference.max_abs_diff <= self.max_abs_diff)
        )

    def __str__(self) -> str:
        parts = [f"PSNR at least {self.min_psnr_db:g} dB"]
        if self.min_ssim:
            parts.append(f"SSIM at least {self.min_ssim:g}")
        if self.max_abs_diff is not None:
            levels = "1 grey level" if self.max_abs_diff == 1 else f"{self.max_abs_diff} levels"
            parts.append(f"at most {levels} off anywhere")
        return ", ".join(parts)


THRESHOLDS = {
    "fp32": Threshold(50.0, 1),
    "fp16": Threshold(45.0, 3),
    "int8": Threshold(35.0, None, 0.97),
}
CAMERA_SIZE_PX = (480, 640)
CAMERA_PICTURES = 4
_BAND_PX = 48
_HALO_PX = 5
"""Rows above and below that the window of SSIM sees."""


@dataclass(frozen=True)
class Difference:
    """How one picture differs from its reference."""

    psnr_db: float
    ssim: float
    max_abs_diff: int

    @classmethod
    def between(cls, reference: Image, candidate: Image) -> Difference:
        """Compare two uint8 [H, W, 3] pictures."""
        mean_square = cv2.norm(reference, candidate, cv2.NORM_L2SQR) / reference.size
        psnr_db = 10 * np.log10(255**2 / mean_square) if mean_square else EQUAL_PSNR_DB
        largest = int(cv2.norm(reference, candidate, cv2.NORM_INF))
        return cls(float(psnr_db), ssim(reference, candidate), largest)


@dataclass(frozen=True)
class Parity:
    """What the gate found for one artifact."""

    file: str
    precision: str
    engine: str
    """What ran it; or why nothing did."""
    threshold: Threshold
    differences: tuple[Difference, ...]
    """One a picture; empty when it could not be run here."""
    at_camera_size: tuple[Difference, ...] = ()
    """The same for frames of a camera's size, resized by the runtime to the artifact's."""
    repeats: bool = True
    """Whether the same frame gives the same picture twice: no dropout is alive."""

    @property
    def passed(self) -> bool | None:
        """None: could not be run here, so nothing is known."""
        if not self.differences:
            return None
        pictures = (*self.differences, *self.at_camera_size)
        return self.repeats and all(map(self.threshold.allows, pictures))

    @property
    def psnr_db(self) -> float:
        """Of the worst picture."""
        return min(d.psnr_db for d in self.differences)

    @property
    def ssim(self) -> float:
        """Of the worst picture."""
        return min(d.ssim for d in self.differences)

    @property
    def max_abs_diff(self) -> int:
        """Grey levels, at the worst pixel of all pictures."""
        return max(d.max_abs_diff for d in self.differences)

    @property
    def worst(self) -> int:
        """Index of the worst picture: the lowest PSNR."""
        return int(np.argmin([d.psnr_db for d in self.differences]))

    def summary(self) -> dict[str, float]:
        """What the artifact keeps of it in its own metadata."""
        return {
            "psnr_db": round(self.psnr_db, 2),
            "ssim": round(self.ssim, 5),
            "max_abs_diff": self.max_abs_diff,
            "images": len(self.differences),
        }


@dataclass(frozen=True)
class Comparison:
    """The pictures that artifacts are held against."""

    frames: Sequence[Image]
    """uint8 [H, W, 3] BGR of the artifacts' frame size."""
    references: Sequence[Image]
    """What the reference draws of them."""
    camera_frames: Sequence[Image]
    """Of a camera's size."""
    camera_references: Sequence[Image]
    other_frames: Sequence[Image] = ()
    """Those of a camera at the size that a dynamic artifact takes them at."""
    other_references: Sequence[Image] = ()

    @classmethod
    def drawn(
        cls, frames: Sequence[Image], reference: Draw, working_size_px: Callable[[Size], Size]
    ) -> Comparison:
        """Let the reference draw.

        Args:
            frames: of the artifacts' frame size.
            reference: draws a frame of any size that the artifact takes.
            working_size_px: from a frame's size to the one that the runtime brings it to.
        """
        camera = [resized(frame, CAMERA_SIZE_PX) for frame in frames[:CAMERA_PICTURES]]
        size_px = working_size_px(CAMERA_SIZE_PX)
        working = [resized(frame, size_px) for frame in camera]
        drawn = [reference(frame) for frame in working]
        is_other = any(frame.shape[:2] != size_px for frame in frames)
        return cls(
            frames,
            [reference(frame) for frame in frames],
            camera,
            [resized(picture, CAMERA_SIZE_PX) for picture in drawn],
            working if is_other else (),
            drawn if is_other else (),
        )


def check_parity(
    path: Path, comparison: Comparison, threshold: Threshold | None = None
) -> tuple[Parity, list[Image]]:
    """Run an artifact through the engine that ships, and compare it with the reference pictures.

    Args:
        path: an `.onnx` or `.engine` file.
        comparison: frames, and what the FP32 reference draws of them.
        threshold: None: the one of its precision.

    Returns:
        The finding, and the pictures that the artifact drew.

    Raises:
        EngineError: this machine cannot run it.
    """
    with Translator.load(path) as translator:
        precision = translator.meta.precision
        drawn = translator.batch(comparison.frames)
        again = translator.batch(comparison.frames[: translator.meta.batch])
        camera = translator.batch(comparison.camera_frames)
        finding = Parity(
            path.name,
            precision,
            translator.description,
            threshold or THRESHOLDS[precision],
            tuple(map(Difference.between, comparison.references, drawn)),
            tuple(map(Difference.between, comparison.camera_references, camera)),
            all(map(np.array_equal, drawn, again)),
        )
        return finding, drawn


def not_run(file: str, precision: str, why: str, threshold: Threshold | None = None) -> Parity:
    """The finding for an artifact that this machine cannot run."""
    return Parity(file, precision, why, threshold or THRESHOLDS[precision], ())


def ssim(first: Image, second: Image) -> float:
    """Structural similarity of two uint8 [H, W, 3] pictures, the mean over pixels and channels.

    Wang et al. 2004, "Image Quality Assessment", equation 13: Gaussian window of 11 pixels,
    sigma 1.5, K1 = 0.01, K2 = 0.03. At the border the picture is mirrored, as torchmetrics does,
    which measures the trainer's pictures; this one needs no torch.
    """
    height = len(first)
    total = 0.0
    # In bands: the many values between picture and result then stay in the processor's caches.
    for top in range(0, height, _BAND_PX):
        above, bottom = min(top, _HALO_PX), min(top + _BAND_PX, height)
        rows = slice(top - above, bottom + _HALO_PX)
        similar = _similarity(first[rows].astype(np.float64), second[rows].astype(np.float64))
        total += float(similar[above : above + bottom - top].sum())
    return total / first.size


def _similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """SSIM at each pixel and channel."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return np.asarray(luminance * structure, dtype=np.float64)


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred = cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float64)
