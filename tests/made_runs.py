"""Runs for tests of the export: a real checkpoint with weights that draw something."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from trainer.checkpoint import GENERATOR_FILE, GeneratorInfo, save_generator
from trainer.config import GeneratorConfig
from trainer.generators import build_generator


def lively_generator(config: GeneratorConfig) -> nn.Module:
    """A generator whose picture uses the whole range: fresh weights draw plain grey."""
    torch.manual_seed(1)
    generator = build_generator(config)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.mul_(3 if config.norm != "none" else 5)
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3)
        generator.train()
        for _ in range(20):  # running statistics that are true
            generator(torch.rand(4, 3, 256, 256) * 2 - 1)
    return generator.eval()


def write_run(
    folder: Path, config: GeneratorConfig, data: str = "scenes", size_px: int = 256
) -> Path:
    """A run's folder with a generator of `config`."""
    info = GeneratorInfo(config, 10, data, "AtoB", size_px, {"l1": 1.0, "psnr": 2.0, "ssim": 0.3})
    save_generator(folder / GENERATOR_FILE, lively_generator(config).state_dict(), info)
    return folder
