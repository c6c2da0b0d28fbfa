"""A picture as the exported generator will draw it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@torch.inference_mode()
def draw_picture(generator: nn.Module, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Translate one picture with a generator in evaluation mode, where its weights are.

    Args:
        generator: from float [1, 3, H, W], RGB, -1 to 1, to the same.
        source: uint8 [H, W, 3], BGR.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    weights: Tensor = next(generator.parameters())
    rgb = torch.from_numpy(np.ascontiguousarray(source[..., ::-1].transpose(2, 0, 1)))
    x = rgb[None].to(weights.device).to(weights.dtype) / 127.5 - 1.0
    levels = (generator(x)[0] * 127.5 + 127.5).clamp(0, 255).round()
    drawn: NDArray[np.uint8] = levels.byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(drawn[..., ::-1])
