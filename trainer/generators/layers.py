"""What several networks share: the choice of norm, and the paper's initial weights."""

from __future__ import annotations

from torch import nn


def norm_layer(norm: str, channels: int) -> nn.Module:
    """`batch`, `instance` (no learned scale, as in pytorch-CycleGAN-and-pix2pix) or `none`."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.Identity()


def initialise_weights(network: nn.Module) -> None:
    """Draw every weight from N(0, 0.02), every norm's scale from N(1, 0.02); biases are 0.

    Source: Isola et al. 2017, section 6.2.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
