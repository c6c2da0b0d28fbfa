"""The generators of other projects, for tests alone: a second opinion on their layout.

Nothing of `trainer` is in here. Each network is put together from torch's own layers so that the
names in its state dict are those which pytorch-CycleGAN-and-pix2pix and pix2pixHD write.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def norm_of(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)
    return nn.Identity()


class Named(nn.Module):
    """A chain whose parameters begin with `model.`"""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.model = chain

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Nest(nn.Module):
    """One level of the U-Net with all deeper levels inside it."""

    def __init__(self, *chain: nn.Module, is_outermost: bool = False) -> None:
        super().__init__()
        self.model = nn.Sequential(*chain)
        self.is_outermost = is_outermost

    def forward(self, x: Tensor) -> Tensor:
        deeper = self.model(x)
        return deeper if self.is_outermost else torch.cat((x, deeper), dim=1)


def unet(
    levels: int,
    ngf: int,
    norm: str,
    inputs: int = 3,
    outputs: int = 3,
    dropout: bool = False,
    biases: bool | None = None,
) -> nn.Module:
    """`biases` everywhere is what the first versions had, before a norm too."""
    biased = norm == "instance" if biases is None else biases

    def down(wide: int, wider: int) -> nn.Module:
        return nn.Conv2d(wide, wider, 4, stride=2, padding=1, bias=biased)

    def up(wide: int, narrow: int, bias: bool) -> nn.Module:
        return nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=bias)

    widths = [min(2**level, 8) * ngf for level in range(levels)]
    nest = Nest(
        nn.LeakyReLU(0.2, inplace=True),
        down(widths[-2], widths[-1]),
        nn.ReLU(inplace=True),
        up(widths[-1], widths[-2], biased),
        norm_of(norm, widths[-2]),
    )
    for level in range(levels - 2, 0, -1):
        outer, inner = widths[level - 1], widths[level]
        chain = [
            nn.LeakyReLU(0.2, inplace=True),
            down(outer, inner),
            norm_of(norm, inner),
            nest,
            nn.ReLU(inplace=True),
            up(2 * inner, outer, biased),
            norm_of(norm, outer),
        ]
        if dropout and outer == inner:
            chain.append(nn.Dropout(0.5))
        nest = Nest(*chain)
    last = up(2 * ngf, outputs, True)
    outermost = (down(inputs, ngf), nest, nn.ReLU(inplace=True), last, nn.Tanh())
    return Named(Nest(*outermost, is_outermost=True))


class Residual(nn.Module):
    def __init__(self, channels: int, norm: str, biases: bool, dropout: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=biases),
            norm_of(norm, channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=biases),
            norm_of(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x) + x


def stem(inputs: int, ngf: int, norm: str, biases: bool) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, ngf, 7, bias=biases)
    return [nn.ReflectionPad2d(3), conv, norm_of(norm, ngf), nn.ReLU(inplace=True)]


def halving(channels: int, norm: str, biases: bool) -> list[nn.Module]:
    conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=biases)
    return [conv, norm_of(norm, 2 * channels), nn.ReLU(inplace=True)]


def doubling(channels: int, norm: str, biases: bool) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(
        2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=biases
    )
    return [conv, norm_of(norm, channels), nn.ReLU(inplace=True)]


def head(ngf: int, outputs: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()]


def trunk(
    blocks: int,
    halvings: int,
    ngf: int,
    norm: str,
    inputs: int,
    biases: bool,
    dropout: bool = False,
) -> list[nn.Module]:
    chain = stem(inputs, ngf, norm, biases)
    for level in range(halvings):
        chain += halving(ngf * 2**level, norm, biases)
    chain += [Residual(ngf * 2**halvings, norm, biases, dropout) for _ in range(blocks)]
    for level in reversed(range(halvings)):
        chain += doubling(ngf * 2**level, norm, biases)
    return chain


def resnet(
    blocks: int, ngf: int, norm: str, dropout: bool = False, inputs: int = 3, outputs: int = 3
) -> nn.Module:
    chain = trunk(blocks, 2, ngf, norm, inputs, norm == "instance", dropout)
    return Named(nn.Sequential(*chain, *head(ngf, outputs)))


def hd_global(
    blocks: int, halvings: int, ngf: int, norm: str, inputs: int = 3, outputs: int = 3
) -> nn.Module:
    chain = trunk(blocks, halvings, ngf, norm, inputs, biases=True)
    return Named(nn.Sequential(*chain, *head(ngf, outputs)))


class HdLocal(nn.Module):
    def __init__(
        self, enhancers: int, local_blocks: int, blocks: int, halvings: int, ngf: int, norm: str
    ) -> None:
        super().__init__()
        self.enhancers = enhancers
        self.model = nn.Sequential(
            *trunk(blocks, halvings, ngf * 2**enhancers, norm, inputs=3, biases=True)
        )
        for number in range(1, enhancers + 1):
            width = ngf * 2 ** (enhancers - number)
            into = [*stem(3, width, norm, True), *halving(width, norm, True)]
            out = [Residual(2 * width, norm, True, dropout=False) for _ in range(local_blocks)]
            out += doubling(width, norm, True)
            if number == enhancers:
                out += head(width, 3)
            self.add_module(f"model{number}_1", nn.Sequential(*into))
            self.add_module(f"model{number}_2", nn.Sequential(*out))
        self.shrink = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        sizes = [x]
        while len(sizes) <= self.enhancers:
            sizes.insert(0, self.shrink(sizes[0]))
        drawn = self.model(sizes[0])
        for number in range(1, self.enhancers + 1):
            seen = self.get_submodule(f"model{number}_1")(sizes[number])
            drawn = self.get_submodule(f"model{number}_2")(seen + drawn)
        return drawn


def lively(network: nn.Module, picture: Tensor) -> nn.Module:
    """Random weights whose picture uses the range, and running statistics that are true."""
    torch.manual_seed(7)
    last = None
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    module.bias.normal_(0, 0.3)
                last = module
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.momentum = None
        raw = []
        handle = last.register_forward_hook(lambda _m, _i, out: raw.append(out.std()))
        network.train()
        for _ in range(3):
            network(torch.cat([picture, torch.rand_like(picture) * 2 - 1]))
        network.eval()(picture)
        handle.remove()
        last.weight.div_(raw[-1])
        last.bias.div_(raw[-1])
    return network.eval()
