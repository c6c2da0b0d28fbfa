"""A U-Net whose skips are the dense nested ones of UNet++: Zhou et al., "UNet++: A Nested U-Net
Architecture for Medical Image Segmentation", DLMIA 2018, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.generators.layers import initialise_weights, norm_layer
from trainer.generators.unet import (
    DROPOUT_BLOCKS,
    UpBlock,
    down_path,
    unet_widths,
)


class Joint(nn.Module):
    """One node X[i, j] of the paper's figure 1: all nodes of its size so far and the one below.

    The lower node is doubled as in the U-Net's decoder. ReLU and a 3x3 convolution then bring
    the joined channels back to one node's; the paper has two such convolutions.
    """

    def __init__(
        self, nodes: int, below: int, width: int, norm: str, dropout: float, upsample: str
    ) -> None:
        super().__init__()
        self.up = UpBlock(below, width, norm, 0.0, upsample)
        self.activation = nn.ReLU()
        self.conv = nn.Conv2d((nodes + 1) * width, width, 3, padding=1, bias=norm != "batch")
        self.norm = norm_layer(norm, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, row: list[Tensor], below: Tensor) -> Tensor:
        """`nodes` times float [N, width, H, W] and float [N, below, H/2, W/2] to one more node."""
        joined = torch.cat([*row, self.up(below)], dim=1)
        return self.dropout(self.norm(self.conv(self.activation(joined))))  # type: ignore[no-any-return]


class DenseUNet(nn.Module):
    """`levels` halvings of a U-Net, between which every pair of neighbours is joined at once.

    Row i holds the nodes of one size: the encoder's, then one for each step in which the row
    below has brought up something coarser; each sees all before it. So a fine detail meets coarse
    context by short ways as well as by the long one through the bottom. As in the U-Net, the
    first row is the halved picture, and nothing but the last doubling works at full size; the
    first and the deepest encoder layer and the output layer have no norm. Dropout, the noise z,
    is in the first three nodes of the way up from the bottom. There is no deep supervision.
    """

    def __init__(
        self,
        levels: int,
        ngf: int,
        input_channels: int,
        output_channels: int,
        norm: str,
        dropout: float,
        upsample: str = "transposed",
    ) -> None:
        super().__init__()
        widths = unet_widths(levels, ngf)
        self.down = down_path(widths, input_channels, norm)
        self.joints = nn.ModuleList()
        """One list for each column j = 1, 2, ..., from the finest row to the coarsest."""
        for column in range(1, levels):
            rows = range(levels - column)
            noise = dropout if column <= DROPOUT_BLOCKS else 0.0
            self.joints.append(
                nn.ModuleList(
                    Joint(
                        nodes=column,
                        below=widths[row + 1],
                        width=widths[row],
                        norm=norm,
                        dropout=noise if row == rows[-1] else 0.0,
                        upsample=upsample,
                    )
                    for row in rows
                )
            )
        self.head = UpBlock(widths[0], output_channels, "none", 0.0, upsample)
        initialise_weights(self, norm, head=self.head.conv)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], -1 to 1, to the same; H and W are multiples of 2 ** levels."""
        rows: list[list[Tensor]] = []
        for block in self.down:
            x = block(x)
            rows.append([x])
        for column in self.joints:
            assert isinstance(column, nn.ModuleList)
            # From fine to coarse: each joint takes the lower row's node of the column before.
            for row, joint in enumerate(column):
                rows[row].append(joint(rows[row], rows[row + 1][-1]))
        return torch.tanh(self.head(rows[0][-1]))
