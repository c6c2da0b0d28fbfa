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

from runtime.engines import open_engine

Image: TypeAlias = NDArray[np.uint8]
Draw: TypeAlias = Callable[[Image], Image]
"""uint8 [H, W, 3] BGR to the same."""

EQUAL_PSNR_DB = 100.0
"""Stands for pictures that do not differ at all, whose PSNR is infinite."""


@dataclass(frozen=True)
class Threshold:
    """What an artifact must keep on every picture to pass."""

    min_psnr_db: float
    max_abs_diff: int
    """Grey levels, at any pixel of any picture."""

    def __str__(self) -> str:
        levels = "1 grey level" if self.max_abs_diff == 1 else f"{self.max_abs_diff} grey levels"
        return f"PSNR at least {self.min_psnr_db:g} dB and at most {levels} off anywhere"


THRESHOLDS = {"fp32": Threshold(50.0, 1), "fp16": Threshold(45.0, 3)}


@dataclass(frozen=True)
class Difference:
    """How one picture differs from its reference."""

    psnr_db: float
    ssim: float
    max_abs_diff: int

    @classmethod
    def between(cls, reference: Image, candidate: Image) -> Difference:
        """Compare two uint8 [H, W, 3] pictures."""
        difference = candidate.astype(np.int16) - reference.astype(np.int16)
        mean_square = float(np.mean(difference.astype(np.float64) ** 2))
        psnr_db = 10 * np.log10(255**2 / mean_square) if mean_square else EQUAL_PSNR_DB
        return cls(float(psnr_db), ssim(reference, candidate), int(np.abs(difference).max()))


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

    @property
    def passed(self) -> bool | None:
        """None: could not be run here, so nothing is known."""
        if not self.differences:
            return None
        return (
            self.psnr_db >= self.threshold.min_psnr_db
            and self.max_abs_diff <= self.threshold.max_abs_diff
        )

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


def check_parity(
    path: Path, references: Sequence[Image], frames: Sequence[Image]
) -> tuple[Parity, list[Image]]:
    """Run an artifact through the engine that ships, and compare it with the reference pictures.

    Args:
        path: an `.onnx` or `.engine` file.
        references: what the FP32 PyTorch generator draws, uint8 [H, W, 3] BGR.
        frames: what it was given, of the artifact's frame size.

    Returns:
        The finding, and the pictures that the artifact drew.

    Raises:
        EngineError: this machine cannot run it.
    """
    engine = open_engine(path)
    try:
        drawn = [engine.infer(frame[None])[0].copy() for frame in frames]
        differences = tuple(map(Difference.between, references, drawn))
        precision = engine.meta.precision
        threshold = THRESHOLDS[precision]
        return Parity(path.name, precision, engine.description, threshold, differences), drawn
    finally:
        engine.close()


def not_run(file: str, precision: str, why: str) -> Parity:
    """The finding for an artifact that this machine cannot run."""
    return Parity(file, precision, why, THRESHOLDS[precision], ())


def ssim(first: Image, second: Image) -> float:
    """Structural similarity of two uint8 [H, W, 3] pictures, the mean over pixels and channels.

    Wang et al. 2004, "Image Quality Assessment", equation 13: Gaussian window of 11 pixels,
    sigma 1.5, K1 = 0.01, K2 = 0.03. At the border the picture is mirrored, as torchmetrics does,
    which measures the trainer's pictures; this one needs no torch.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred = cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float64)
