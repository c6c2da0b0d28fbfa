"""The perceptual distance: how far two pictures are apart in the features of VGG-19."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.errors import CheckpointError, ConfigError

_PLAN = (64, 64, "pool", 128, 128, "pool", *(256,) * 4, "pool", *(512,) * 4, "pool", 512)
"""Channels of VGG-19's 3x3 convolutions (Simonyan & Zisserman, "Very Deep Convolutional Networks
for Large-Scale Image Recognition", 2015, table 1, E), up to conv5_1; a ReLU follows each."""
_WEIGHT_AFTER = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
"""Position in torchvision's `vgg19().features` of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1
to the weight of its features."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_EXPECTED = (
    "the state dict of torchvision's vgg19 (vgg19-dcbb9e9d.pth, 548 MB), .pth or .safetensors"
)
_MEND = (
    'let torchvision fetch it: python -c "import torchvision; '
    "torchvision.models.vgg19(weights='IMAGENET1K_V1')\", and give its file as --vgg-weights"
)
_SMALLEST_PX = 16


class Perceptual(nn.Module):
    """Weighted L1 between the features relu1_1 to relu5_1 of two pictures, in a frozen VGG-19.

    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV
    2016, compares pictures in the features of a trained VGG; Wang et al. 2018 (pix2pixHD, section
    3.5 and code) does it by L1 in VGG-19, with the weights 1/32, 1/16, 1/8, 1/4 and 1.

    Pictures are brought from -1 to 1 to the mean and deviation of ImageNet, which the weights were
    trained with. pix2pixHD's code gives them to VGG as they are, from -1 to 1: a distance here
    is not the number that it prints.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path) -> None:
        """Build VGG-19 up to relu5_1 and fill it.

        Args:
            weights: torchvision's state dict of VGG-19, `features.N.weight` and `features.N.bias`.
                A `.pth` file is read as data (`weights_only`), never run.

        Raises:
            CheckpointError: no such file, not a state dict, or that of another network.
        """
        super().__init__()
        self.features = nn.Sequential(*_layers())
        self._fill(weights)
        self.register_buffer("mean", _per_channel(_IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(_IMAGENET_STD), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, drawn: Tensor, target: Tensor) -> Tensor:
        """The distance, a scalar; only `drawn` gets a gradient.

        Args:
            drawn: float [N, 3, H, W], RGB, -1 to 1.
            target: of the same shape.

        Raises:
            ConfigError: not RGB, or below 16 pixels a side.
        """
        height, width = drawn.shape[-2:]
        if drawn.shape[1] != 3 or min(height, width) < _SMALLEST_PX:
            raise ConfigError(
                f"pictures of {drawn.shape[1]} channels and {width}x{height} pixels for VGG-19",
                f"RGB of at least {_SMALLEST_PX}x{_SMALLEST_PX} pixels",
                "leave --lambda-vgg out",
            )
        x, y = self._normalised(drawn), self._normalised(target.detach())
        distance = x.new_zeros(())
        for position, layer in enumerate(self.features):
            x = layer(x)
            with torch.no_grad():
                y = layer(y)
            if weight := _WEIGHT_AFTER.get(position):
                # In float32 at least: a mean over many half-precision values loses the small ones.
                distance = distance + weight * (x - y).abs().mean(dtype=distance.dtype)
        return distance

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images + 1) / 2 - self.mean) / self.std

    def _fill(self, path: Path) -> None:
        own = {f"features.{name}": value for name, value in self.features.state_dict().items()}
        stored = _read(path, set(own))
        for name, value in own.items():
            if name not in stored:
                raise CheckpointError(f"{path} has no layer {name}", _EXPECTED, _MEND)
            if stored[name].shape != value.shape:
                raise CheckpointError(
                    f"the layer {name} of {path} has the shape {tuple(stored[name].shape)}, "
                    f"not {tuple(value.shape)}",
                    _EXPECTED,
                    _MEND,
                )
            value.copy_(stored[name])


def _layers() -> list[nn.Module]:
    """Those of torchvision's `vgg19().features`, in the same positions, up to relu5_1."""
    layers: list[nn.Module] = []
    inputs = 3
    for step in _PLAN:
        if isinstance(step, int):
            layers += [nn.Conv2d(inputs, step, 3, padding=1), nn.ReLU()]
            inputs = step
        else:
            layers.append(nn.MaxPool2d(2))
    return layers


def _read(path: Path, names: set[str]) -> dict[str, Tensor]:
    """The tensors of a file that have these names."""
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}", _EXPECTED, _MEND)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names & set(file.keys())}
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:
        raise CheckpointError(f"{path} cannot be read as weights", _EXPECTED, _MEND) from error
    if not isinstance(stored, dict):
        raise CheckpointError(
            f"{path} holds a {type(stored).__name__}, no weights by name", _EXPECTED, _MEND
        )
    return {name: stored[name] for name in names if isinstance(stored.get(name), Tensor)}


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
