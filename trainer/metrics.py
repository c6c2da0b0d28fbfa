"""How near a drawn picture is to its target, pair by pair: L1, PSNR, SSIM, MS-SSIM, gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

MS_SSIM_LEAST_PX = 176
"""Five scales, the last 16 times smaller, each of which a window of 11 pixels must fit into."""


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


def ms_ssim_of(drawn: NDArray[np.uint8], target: NDArray[np.uint8]) -> float | None:
    """Multi-scale structural similarity, 0 to 1 (Wang, Simoncelli and Bovik 2003, five scales).

    Args:
        drawn: uint8 [H, W, 3].
        target: the same shape, the same colour order.

    Returns:
        None where a side is below `MS_SSIM_LEAST_PX`: five scales do not fit in.
    """
    if min(drawn.shape[:2]) < MS_SSIM_LEAST_PX:
        return None
    return float(
        multiscale_structural_similarity_index_measure(
            _as_tensor(drawn), _as_tensor(target), data_range=255.0
        )
    )


def gradient_energy(picture: NDArray[np.uint8]) -> float:
    """Mean squared magnitude of the gradient, in grey levels squared a pixel, over the channels.

    Divided by that of the targets it is 1 where a picture is as sharp as they are, less where it
    is blurred, more where it is noisy; it does not see whether the edges lie where they should.

    Args:
        picture: uint8 [H, W, 3], two pixels wide and high or more.
    """
    levels = picture.astype(np.float32)
    across = np.diff(levels, axis=1)[:-1]
    down = np.diff(levels, axis=0)[:, :-1]
    return float(np.mean(across**2 + down**2))


def _as_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
