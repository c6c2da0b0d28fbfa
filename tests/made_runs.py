"""Runs for tests of the export: a real checkpoint with weights that draw something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pairs import picture
from torch import Tensor, nn

from trainer.checkpoint import GENERATOR_FILE, GeneratorInfo, save_generator
from trainer.config import UNET_LEVELS, GeneratorConfig
from trainer.generators import build_generator


def side_of(config: GeneratorConfig) -> int:
    """The smallest square that shows all that a generator does, in pixels."""
    return 2 ** UNET_LEVELS[config.name] if config.name in UNET_LEVELS else 64


def pictures(count: int, side_px: int, channels: int = 3) -> Tensor:
    """float [N, C, H, W], -1 to 1: smooth coloured pictures."""
    frames = np.stack([picture(100 + seed, side_px, side_px) for seed in range(count)])
    scaled = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    return scaled[:, :channels].contiguous()


def lively_generator(config: GeneratorConfig) -> nn.Module:
    """A generator whose picture uses the whole range: fresh weights draw plain grey."""
    torch.manual_seed(1)
    generator = build_generator(config)
    seen = pictures(4, side_of(config), config.input_channels)
    convolutions = [
        m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
            if convolution.bias is not None:
                convolution.bias.normal_(0, 0.3)
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3)
                module.momentum = None  # the mean of all that was seen
        generator.train()
        for _ in range(3):  # running statistics that are true
            generator(seen)
        spread = {}
        handles = [
            one.register_forward_hook(lambda m, _i, out: spread.update({m: out.std()}))
            for one in convolutions
        ]
        generator.eval()(seen)
        for handle in handles:
            handle.remove()
        last = next(one for one in reversed(convolutions) if one in spread)
        for values in last.parameters():
            values.div_(spread[last])
    return generator.eval()


def write_run(
    folder: Path, config: GeneratorConfig, data: str = "scenes", size_px: int | None = None
) -> Path:
    """A run's folder with a generator of `config`, trained at `size_px` (its own) on `data`."""
    measured = {"l1": 1.0, "psnr": 2.0, "ssim": 0.3}
    info = GeneratorInfo(config, 10, data, "AtoB", size_px or side_of(config), measured)
    save_generator(folder / GENERATOR_FILE, lively_generator(config).state_dict(), info)
    return folder
