"""A generator at a camera's frame: what its export does with a larger frame, in floats."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.stock import Size
from export.resampling import Resampling
from trainer.generators.retouch import Layer, RetouchingGenerator


def at_frame_size(
    generator: nn.Module, frame_size_px: Size, network_size_px: Size, *, coloured: bool
) -> nn.Module:
    """A generator that looks at a small copy of its frame, as `export.to_onnx` writes it.

    Args:
        generator: float [1, C, h, w] -1 to 1 to the same.
        frame_size_px: (H, W) of what comes in and goes out.
        network_size_px: (h, w) that the generator sees.
        coloured: whether it takes and gives three colours; of grey frames the export, too, only
            resizes what comes out.
    """
    if isinstance(generator, RetouchingGenerator) and coloured:
        return _Retouched(generator, frame_size_px, network_size_px).eval()
    return _Resized(generator, frame_size_px, network_size_px).eval()


class _Resized(nn.Module):
    """The small picture, bilinear, is all that comes back."""

    def __init__(self, generator: nn.Module, frame_size_px: Size, network_size_px: Size) -> None:
        super().__init__()
        self.generator = generator
        self.frame_size_px, self.network_size_px = frame_size_px, network_size_px

    def forward(self, frame: Tensor) -> Tensor:
        small = functional.interpolate(frame, size=self.network_size_px, mode="bilinear")
        return functional.interpolate(
            self.generator(small), size=self.frame_size_px, mode="bilinear"
        )


class _Retouched(nn.Module):
    """Gain and offsets of the small copy change the frame itself."""

    def __init__(
        self, generator: RetouchingGenerator, frame_size_px: Size, network_size_px: Size
    ) -> None:
        super().__init__()
        self.generator = generator.eval()
        copy_px = generator.copy_size_px(network_size_px)
        self.small = Resampling(frame_size_px, copy_px, torch.eye(3))
        with torch.no_grad():
            example = generator.retouch(torch.zeros(1, 3, *copy_px))
        self.gain = _enlarging(example.gain, frame_size_px)
        self.offsets = nn.ModuleList(
            _enlarging(offset, frame_size_px) for offset in example.offsets
        )

    def forward(self, frame: Tensor) -> Tensor:
        retouch = self.generator.retouch(_apart(self.small, frame))
        drawn = _apart(self.gain, retouch.gain.values) * frame
        for offset, enlarging in zip(retouch.offsets, self.offsets, strict=True):
            drawn = drawn + _apart(enlarging, offset.values)
        return drawn


def _enlarging(layer: Layer, to_px: Size) -> Resampling:
    height, width = layer.values.shape[2:]
    return Resampling(
        (height, width), to_px, torch.eye(3) if layer.colours is None else layer.colours
    )


def _apart(resampling: nn.Module, planes: Tensor) -> Tensor:
    """[1, C, H, W] through a resampling that takes [1, H, W, C]."""
    resampled: Tensor = resampling(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return resampled
