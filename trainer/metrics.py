"""How near a drawn picture is to its target: L1, PSNR, SSIM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure


@dataclass(frozen=True)
class Quality:
    """Means over pairs."""

    l1: float
    """Mean absolute difference in grey levels, 0 to 255; lower is better."""
    psnr: float
    """Peak signal-to-noise ratio in dB, the mean over pairs; higher is better."""
    ssim: float
    """Structural similarity, -1 to 1 (Wang et al. 2004, Gaussian window 11, sigma 1.5)."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def quality_of(drawn: NDArray[np.uint8], target: NDArray[np.uint8]) -> Quality:
    """Compare one picture with its target, both uint8 [H, W, 3], in the same colour order."""
    difference = drawn.astype(np.float64) - target.astype(np.float64)
    mean_square = float(np.mean(difference**2))
    psnr = 10 * np.log10(255**2 / mean_square) if mean_square else 100.0
    ssim = structural_similarity_index_measure(
        _as_tensor(drawn), _as_tensor(target), data_range=255.0
    )
    return Quality(float(np.mean(np.abs(difference))), float(psnr), float(ssim))


def mean_quality(qualities: Iterable[Quality]) -> Quality:
    """The mean of each measure; PSNR is averaged in dB."""
    rows = np.array([[q.l1, q.psnr, q.ssim] for q in qualities])
    return Quality(*(float(value) for value in rows.mean(axis=0)))


def _as_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
