"""Networks that measures look through, with made weights in the published files' format."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

_ALEXNET = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}


def write_alexnet(path: Path) -> Path:
    """A state dict as torchvision's `alexnet-owt-*.pth`, with weights of no training."""
    random = torch.Generator().manual_seed(0)
    weights = {"classifier.1.bias": torch.zeros(4096)}
    for name, shape in _ALEXNET.items():
        scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        weights[f"{name}.weight"] = torch.randn(shape, generator=random) * scale
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=random) * 0.1
    torch.save(weights, path)
    return path


class SmallInception(nn.Module):
    """Takes and gives what StyleGAN's `inception-2015-12-05.pt` does; its features are the mean
    colour of the picture (R, G, B) and of its two halves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.output = nn.Linear(9, 5)

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        assert img.dtype == torch.uint8
        assert img.shape[0] <= 16
        values = img.float()
        half = values.shape[3] // 2
        left, right = values[:, :, :, :half], values[:, :, :, half:]
        features = torch.cat([part.mean(dim=[2, 3]) for part in [values, left, right]], dim=1)
        if return_features:
            return features
        logits = features @ self.output.weight.t() * 0.02
        if not no_output_bias:
            logits = logits + self.output.bias
        return logits.softmax(dim=1)


def write_inception(path: Path) -> Path:
    """TorchScript of `SmallInception`."""
    return write_torchscript(path, SmallInception())


def write_torchscript(path: Path, network: nn.Module) -> Path:
    """A network in the format that Inception is published in, deprecated or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    return path
