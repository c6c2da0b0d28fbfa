"""The discriminators of Isola et al. 2017, section 6.1.2: each output judges one patch.

"Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainer.config import DiscriminatorConfig
from trainer.errors import ConfigError
from trainer.generators.layers import initialise_weights, norm_layer

_BLOCKS = {1: 2, 16: 2, 70: 4, 286: 6}
"""Receptive field in pixels to the number of blocks before the logits."""


def build_discriminator(
    config: DiscriminatorConfig, condition_channels: int, image_channels: int
) -> PatchDiscriminator:
    """A discriminator with fresh weights, N(0, 0.02), drawn from torch's global generator.

    Args:
        config: which one.
        condition_channels: of the generator's input; without meaning when `config.conditional`
            is false.
        image_channels: of the picture that is judged.
    """
    return PatchDiscriminator(
        blocks=_BLOCKS[config.receptive_field_px],
        per_pixel=config.receptive_field_px == 1,
        ndf=config.ndf,
        condition_channels=condition_channels if config.conditional else 0,
        image_channels=image_channels,
        norm=config.norm,
        spectral=config.spectral_norm,
    )


class Block(nn.Module):
    """Convolution, norm, LeakyReLU(0.2): the paper's Ck.

    A convolution that a norm follows has no bias: the norm would take it away again.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, norm: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=norm == "none")
        self.norm = norm_layer(norm, outputs)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class PatchDiscriminator(nn.Module):
    """Blocks Ck and one map of logits, each of which judges one patch of the picture.

    The paper lists C64-C128 for a receptive field of 1 pixel (1x1 convolutions) and of 16,
    C64-C128-C256-C512 for 70, and C64-C128-C256-C512-C512-C512 for 286. Its text gives every 4x4
    convolution stride 2, which would not come to these sizes. As in the authors' code, the last
    block and the convolution to the logits have stride 1: so C64-C128-C256-C512 sees 70 pixels.
    The first block has no norm. The paper's sigmoid is part of the losses.

    With 64 channels, batch norm and 3 + 3 input channels, 70 has 2,768,705 weights, as in
    pytorch-CycleGAN-and-pix2pix: the first convolution and that to the logits have biases.

    Inside DistributedDataParallel call it through `forward` alone, and keep DDP from broadcasting
    buffers in each forward pass: with batch norm, two forward passes before one backward pass may
    then fail (pytorch/pytorch issue 175024).
    """

    def __init__(
        self,
        blocks: int,
        per_pixel: bool,
        ndf: int,
        condition_channels: int,
        image_channels: int,
        norm: str,
        spectral: bool,
    ) -> None:
        """Build the layers; `condition_channels` 0 makes it ignore the condition.

        Args:
            spectral: divide the weight of every convolution by its largest singular value
                (Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
                ICLR 2018). Each forward pass in training mode refines the estimate of that value.
        """
        super().__init__()
        self.is_conditional = condition_channels > 0
        kernel, padding = (1, 0) if per_pixel else (4, 1)
        widths = [ndf * min(2**number, 8) for number in range(blocks)]
        inputs = [condition_channels + image_channels, *widths]
        self.blocks = nn.ModuleList(
            Block(
                inputs[number],
                widths[number],
                kernel,
                stride=1 if per_pixel or number == blocks - 1 else 2,
                padding=padding,
                norm=norm if number else "none",
            )
            for number in range(blocks)
        )
        self.logits = nn.Conv2d(inputs[-1], 1, kernel, 1, padding)
        initialise_weights(self, norm, head=self.logits)
        if spectral:
            for conv in self._convolutions():
                spectral_norm(conv)
        self.smallest_px = 1
        """Side of the smallest picture for which at least one logit comes out."""
        for conv in reversed(self._convolutions()):
            inner = (self.smallest_px - 1) * conv.stride[0] + conv.kernel_size[0]
            self.smallest_px = inner - 2 * int(conv.padding[0])

    @property
    def receptive_field_px(self) -> int:
        """Side of the patch that one logit depends on, from the kernels and the strides."""
        side = 1
        for conv in reversed(self._convolutions()):
            side = (side - 1) * conv.stride[0] + conv.kernel_size[0]
        return side

    def forward(
        self, condition: Tensor, image: Tensor, with_features: bool = False
    ) -> Tensor | list[Tensor]:
        """Judge a picture.

        Args:
            condition: float [N, C, H, W], -1 to 1, what the picture was made from.
            image: float [N, C, H, W], -1 to 1, real or generated.
            with_features: return `features` in place of the logits.

        Returns:
            Logits [N, 1, h, w], one for each patch; above 0 means real.

        Raises:
            ConfigError: the picture is smaller than `smallest_px`.
        """
        features = self.features(condition, image)
        return features if with_features else features[-1]

    def features(self, condition: Tensor, image: Tensor) -> list[Tensor]:
        """The outputs of the blocks, float [N, C, h, w] each, in order, and at last the logits.

        Raises:
            ConfigError: the picture is smaller than `smallest_px`.
        """
        self.check_size(min(image.shape[-2:]))
        x = torch.cat([condition, image], dim=1) if self.is_conditional else image
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        outputs.append(self.logits(x))
        return outputs

    def check_size(self, side_px: int) -> None:
        """Raises ConfigError when no logit comes of a picture whose shorter side is `side_px`."""
        if side_px < self.smallest_px:
            raise ConfigError(
                f"pictures of {side_px} pixels for a discriminator of patches of "
                f"{self.receptive_field_px}",
                f"at least {self.smallest_px} pixels a side",
                f"use a smaller --patch, or --crop-size {self.smallest_px} or more",
            )

    def _convolutions(self) -> list[nn.Conv2d]:
        """All of them, in order."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]
