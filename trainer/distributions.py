"""Whole sets of pictures by what a classifier sees in them: FID and the Inception Score.

Frechet Inception Distance: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium". Inception Score: Salimans et al. 2016, "Improved Techniques
for Training GANs". The network is a local file; nothing is downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from trainer.errors import CheckpointError, DataError

ENOUGH_PICTURES = 2048
"""With fewer pictures than features the covariance has no full rank, and FID comes out too high;
the paper's authors use 10,000 and more."""
_BATCH = 16
_EXPECTED = "Inception as StyleGAN's authors publish it in TorchScript (inception-2015-12-05.pt)"


class Inception:
    """A TorchScript classifier, which takes uint8 [N, 3, H, W] RGB and resizes it itself.

    Called with `return_features=True` it gives the features that FID compares, [N, D] (2,048 in
    Inception), and with `no_output_bias=True` the probabilities of its classes, [N, C], without
    the last layer's bias, as the Inception Score of the paper was computed.

    Args:
        path: a local file.

    Raises:
        CheckpointError: missing, damaged, or no TorchScript.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise CheckpointError(f"no such file: {path}", _EXPECTED, "check --inception")
        try:
            with warnings.catch_warnings():
                # It is the one loader of the format that the file is published in.
                warnings.filterwarnings("ignore", ".*torch.jit.load.*", DeprecationWarning)
                self._network = torch.jit.load(  # type: ignore[no-untyped-call]
                    str(path), map_location="cpu"
                ).eval()
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged or no TorchScript", _EXPECTED, "check --inception"
            ) from error

    def features(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Of uint8 [N, H, W, 3] BGR: double [N, D].

        Raises:
            CheckpointError: the network does not take such pictures, or gives something else.
        """
        return self._run(pictures, return_features=True)

    def probabilities(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Of uint8 [N, H, W, 3] BGR: double [N, C], each row sums to 1.

        Raises:
            CheckpointError: as `features`.
        """
        found = self._run(pictures, no_output_bias=True)
        if found.min() < 0 or not torch.allclose(found.sum(dim=1), found.new_ones(()), atol=1e-3):
            raise self._wrong("what is no probability")
        return found

    @torch.inference_mode()
    def _run(self, pictures: NDArray[np.uint8], **asked: bool) -> Tensor:
        found: list[Tensor] = []
        for start in range(0, len(pictures), _BATCH):
            rgb = np.ascontiguousarray(pictures[start : start + _BATCH, ..., ::-1])
            batch = torch.from_numpy(rgb).permute(0, 3, 1, 2)
            try:
                given = self._network(batch, **asked)
            except RuntimeError as error:
                raise self._wrong(f"an error ({str(error).strip().splitlines()[-1]})") from error
            if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != len(batch):
                raise self._wrong("no [N, D] tensor")
            found.append(given.double())
        return torch.cat(found)

    def _wrong(self, given: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} gives {given} for {_BATCH} pictures, uint8 [N, 3, H, W]",
            _EXPECTED,
            "check --inception",
        )


def frechet_distance(drawn: Tensor, targets: Tensor) -> float:
    """Frechet distance of the Gaussians of two sets of features, each double [N, D]; lower is
    better.

    Raises:
        DataError: fewer than 2 pictures.
    """
    if min(len(drawn), len(targets)) < 2:
        raise DataError(
            "FID of one picture",
            "2 pictures or more, and better 2,048",
            "evaluate more pairs, or leave --inception out",
        )
    metric = FrechetInceptionDistance(feature=_HandOn(drawn.shape[1]))
    metric.update(targets, real=True)
    metric.update(drawn, real=False)
    # Where the covariances have no full rank, rounding may take it below zero.
    return max(0.0, float(metric.compute()))


def inception_score(probabilities: Tensor) -> float:
    """Inception Score of class probabilities, double [N, C]: 1 to C, higher is better.

    Over all pictures at once: the paper's mean over ten parts needs tens of thousands of them.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # That it keeps the features, which are few; and that one part has no deviation.
        warnings.filterwarnings("ignore", ".*save all extracted features.*", UserWarning)
        warnings.filterwarnings("ignore", ".*degrees of freedom.*", UserWarning)
        metric = InceptionScore(feature=_HandOn(probabilities.shape[1]), splits=1)
        metric.update(probabilities.clamp_min(1e-16).log())
        mean, _ = metric.compute()
    return float(mean)


class SeenByInception:
    """Sets of pictures against the same targets, which are looked at once.

    Args:
        inception: the network.
        targets: uint8 [N, H, W, 3] BGR, 2 pictures or more.
    """

    def __init__(self, inception: Inception, targets: NDArray[np.uint8]) -> None:
        self._inception = inception
        self._targets = inception.features(targets)

    def compare(self, pictures: NDArray[np.uint8]) -> tuple[float, float]:
        """(FID, Inception Score) of uint8 [N, H, W, 3] BGR."""
        same = pictures.strides[0] == 0  # one picture, broadcast: it is looked at once
        shown = pictures[:1] if same else pictures
        features = self._inception.features(shown).expand(len(pictures), -1)
        return (
            frechet_distance(features, self._targets),
            inception_score(self._inception.probabilities(shown)),
        )


class _HandOn(nn.Module):
    """Gives back features that were computed already, so that each picture is looked at once."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Any) -> Any:
        return features
