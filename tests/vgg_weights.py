"""Random weights in the form of torchvision's VGG-19."""

from __future__ import annotations

import torch

# Position in torchvision's vgg19().features, name, inputs, outputs: written out by hand.
CONVOLUTIONS = [
    (0, "conv1_1", 3, 64),
    (2, "conv1_2", 64, 64),
    (5, "conv2_1", 64, 128),
    (7, "conv2_2", 128, 128),
    (10, "conv3_1", 128, 256),
    (12, "conv3_2", 256, 256),
    (14, "conv3_3", 256, 256),
    (16, "conv3_4", 256, 256),
    (19, "conv4_1", 256, 512),
    (21, "conv4_2", 512, 512),
    (23, "conv4_3", 512, 512),
    (25, "conv4_4", 512, 512),
    (28, "conv5_1", 512, 512),
]


def random_vgg() -> dict[str, torch.Tensor]:
    """Random weights of VGG-19's shapes, with a layer past conv5_1 and the classifier's last."""
    random = torch.Generator().manual_seed(5)
    weights = {}
    for position, _, inputs, outputs in CONVOLUTIONS:
        kernels = torch.randn(outputs, inputs, 3, 3, generator=random)
        weights[f"features.{position}.weight"] = kernels * (2 / (9 * inputs)) ** 0.5
        weights[f"features.{position}.bias"] = torch.randn(outputs, generator=random) * 0.1
    weights["features.30.weight"] = torch.zeros(512, 512, 3, 3)
    weights["classifier.6.bias"] = torch.zeros(1000)
    return weights
