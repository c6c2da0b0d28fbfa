"""What every generator is and costs, counted from the real modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import EDGE_GENERATORS, GENERATORS, GeneratorConfig
from trainer.generators import build_generator

USUAL_SIDE_PX = 256
SIDES_PX = {"unet_512": 512}
"""Side of the square that a model is counted at, where it is not `USUAL_SIDE_PX`."""
DESCRIPTIONS = {
    "unet_128": "U-Net of Isola et al. 2017 with 7 halvings, for pictures of 128 pixels",
    "unet_256": "U-Net of Isola et al. 2017, 8 halvings",
    "unet_512": "U-Net of Isola et al. 2017 with 9 halvings, for pictures of 512 pixels",
    "encoder_decoder": "the same without skips, the paper's ablation",
    "resnet_6blocks": "ResNet of Johnson et al. 2016, 2 halvings, 6 residual blocks",
    "resnet_9blocks": "ResNet of Johnson et al. 2016, 2 halvings, 9 residual blocks",
    "dense_unet": "U-Net with the dense nested skips of Zhou et al. 2018 (UNet++), 5 halvings",
    "mobilenet_unet": "encoder of Sandler et al. 2018 (MobileNetV2), light decoder with skips",
    "edge_unet_s": "dense convolutions at a quarter of the size and below, INT8-ready; smallest",
    "edge_unet_m": "the same, medium",
    "edge_unet_l": "the same, large",
    "relight": "changes the frame's light: colour transform, shade, lamps (after HDRNet)",
    "relight_s": "the same, smallest",
    "pyramid": "draws the low band of a Laplacian pyramid, modulates the high one (after LPTN)",
}


@dataclass(frozen=True)
class ModelRow:
    """One generator."""

    name: str
    """As `--netG` takes it."""
    description: str
    """In a few words, with its source."""
    parameters: int
    """Learned values: weights, biases, scales and shifts of norms."""
    macs: int
    """Multiply-accumulates of all convolutions, for one picture of `side_px`."""
    side_px: int
    size_multiple: int
    """Height and width of its input are multiples of so many pixels."""


def catalogue(config: GeneratorConfig | None = None) -> list[ModelRow]:
    """Every generator of `trainer.config.GENERATORS`, in that order.

    Nothing is stored or computed: the modules are built on torch's meta device, which knows the
    shapes alone.

    Args:
        config: settings that all share; its name does not matter. None: the defaults.
    """
    shared = config or GeneratorConfig()
    rows = []
    for name in GENERATORS:
        # Edge generators have one way of doubling, and they alone may look at a smaller copy.
        is_edge = name in EDGE_GENERATORS
        usual = "upsample" if is_edge else "reduction"
        own: dict[str, Any] = {usual: getattr(GeneratorConfig, usual)}
        rows.append(_row(replace(shared, name=name, **own)))
    return rows


def macs_of(config: GeneratorConfig, side_px: int) -> int:
    """Multiply-accumulates of all convolutions for one square picture.

    A convolution does each at an output pixel, a transposed one at an input pixel: what is
    multiplied with inserted zeros is not counted. torch counts two operations for each.
    """
    return macs_of_generator(_without_values(config), config.input_channels, side_px)


def macs_of_generator(generator: nn.Module, channels: int, side_px: int) -> int:
    """The same of a network that is there, on its own device, `meta` too."""
    device = next(generator.parameters()).device
    picture = torch.zeros(1, channels, side_px, side_px, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(picture)
    return int(counter.get_total_flops()) // 2


def markdown_table(rows: Sequence[ModelRow]) -> str:
    """The rows as a table of GitHub's Markdown, numbers in millions and thousand millions."""
    lines = [
        "| `--netG` | what it is | parameters, M | MACs, G | at, px | sides are multiples of |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| `{row.name}` | {row.description} | {row.parameters / 1e6:.2f} "
            f"| {row.macs / 1e9:.2f} | {row.side_px} | {row.size_multiple} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(config: GeneratorConfig) -> ModelRow:
    side_px = SIDES_PX.get(config.name, USUAL_SIDE_PX)
    generator = _without_values(config)
    return ModelRow(
        name=config.name,
        description=DESCRIPTIONS[config.name],
        parameters=sum(values.numel() for values in generator.parameters()),
        macs=macs_of_generator(generator, config.input_channels, side_px),
        side_px=side_px,
        size_multiple=config.size_multiple,
    )


def _without_values(config: GeneratorConfig) -> nn.Module:
    with torch.device("meta"):
        return build_generator(config).eval()
