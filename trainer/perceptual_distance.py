"""LPIPS: how different two pictures look, by the features of a network that classifies pictures.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", with
AlexNet and the linear layers of version 0.1. Nothing is downloaded: AlexNet's weights are a file
of the user's, the linear layers come with torchmetrics.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.errors import CheckpointError, DataError

LEAST_SIDE_PX = 31
"""Below, AlexNet's pooling leaves nothing."""


@dataclass(frozen=True)
class _Convolution:
    name: str
    """As torchvision's state dict has it."""
    shape: tuple[int, int, int, int]
    """Of its weight: [out, in, height, width]."""
    stride: int
    padding: int
    pooled_before: bool


_ALEXNET = (
    _Convolution("features.0", (64, 3, 11, 11), 4, 2, False),
    _Convolution("features.3", (192, 64, 5, 5), 1, 2, True),
    _Convolution("features.6", (384, 192, 3, 3), 1, 1, True),
    _Convolution("features.8", (256, 384, 3, 3), 1, 1, False),
    _Convolution("features.10", (256, 256, 3, 3), 1, 1, False),
)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation for pictures of -1 to 1, RGB, as LPIPS rounds them."""


class PerceptualDistance:
    """LPIPS with AlexNet; 0: the same, above about 0.5: nothing alike.

    Args:
        alexnet: torchvision's state dict of AlexNet, a local file (`alexnet-owt-*.pth`).

    Raises:
        CheckpointError: the file is missing, damaged, or of another network; or torchmetrics does
            not bring the linear layers.
    """

    def __init__(self, alexnet: Path) -> None:
        weights = _state_dict(alexnet, "torchvision's weights of AlexNet (alexnet-owt-*.pth)")
        self._layers: list[tuple[_Convolution, Tensor, Tensor]] = []
        for layer in _ALEXNET:
            weight, bias = (weights.get(f"{layer.name}.{part}") for part in ("weight", "bias"))
            if weight is None or bias is None or tuple(weight.shape) != layer.shape:
                found = "nothing" if weight is None else "x".join(map(str, weight.shape))
                raise CheckpointError(
                    f"{alexnet} has {found} as {layer.name}",
                    f"torchvision's AlexNet, {'x'.join(map(str, layer.shape))}",
                    "name its file alexnet-owt-*.pth with --lpips-weights",
                )
            self._layers.append((layer, weight.float(), bias.float()))
        self._linear = _linear_layers()

    @torch.inference_mode()
    def between(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        """LPIPS of two pictures, both uint8 [H, W, 3], BGR.

        Raises:
            DataError: a side is below `LEAST_SIDE_PX`.
        """
        if min(a.shape[:2]) < LEAST_SIDE_PX:
            raise DataError(
                f"LPIPS of pictures of {a.shape[1]}x{a.shape[0]}",
                f"{LEAST_SIDE_PX} pixels or more, which AlexNet can see",
                "leave --lpips-weights out, or evaluate at a larger size",
            )
        values = torch.stack([_as_network_takes(a), _as_network_takes(b)])
        distance = 0.0
        for (layer, weight, bias), linear in zip(self._layers, self._linear, strict=True):
            if layer.pooled_before:
                values = functional.max_pool2d(values, 3, 2)
            values = functional.conv2d(values, weight, bias, layer.stride, layer.padding).relu()
            unit = values / (values.norm(dim=1, keepdim=True) + 1e-10)
            difference = (unit[0] - unit[1]) ** 2
            distance += float((difference * linear).sum(dim=0).mean())
        return distance


def _as_network_takes(picture: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] BGR to float [3, H, W] RGB, as AlexNet was trained."""
    rgb = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1])).permute(2, 0, 1)
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (_SHIFT, _SCALE))
    return (rgb.float() / 127.5 - 1 - shift) / scale


def _linear_layers() -> list[Tensor]:
    """Weights of the five sums over channels, each [C, 1, 1]."""
    spec = find_spec("torchmetrics")
    places = list(spec.submodule_search_locations or []) if spec else []
    inside = Path("functional", "image", "lpips_models", "alex.pth")
    files = [Path(place) / inside for place in places if (Path(place) / inside).is_file()]
    if not files:
        raise CheckpointError(
            "torchmetrics does not bring the linear layers of LPIPS",
            f"{inside} in its package",
            "install another version: pip install --upgrade torchmetrics",
        )
    weights = _state_dict(files[0], "the linear layers of LPIPS")
    return [
        weights[f"lin{number}.model.1.weight"].float().view(-1, 1, 1)
        for number in range(len(_ALEXNET))
    ]


def _state_dict(path: Path, expected: str) -> dict[str, Tensor]:
    """Tensors by name from a `.pth` file; no code in it is run."""
    mend = "check the path, or get the file again"
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be read ({error.strerror})", expected, mend
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no state dict", expected, mend) from error
    if not isinstance(weights, dict) or not all(
        isinstance(weight, Tensor) for weight in weights.values()
    ):
        raise CheckpointError(f"{path} is no state dict", expected, mend)
    return weights
