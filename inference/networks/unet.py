"""The U-Net of the method: depthwise convolutions on a grid half as fine as the image, any image size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class UNet(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W). Starts as zero everywhere: what it adds to is then what comes out.

    `width` channels at the finest of `depth` levels, half as fine as the image, twice as many at each coarser one. Odd
    sizes are padded inside.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 3, blocks: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.enter = nn.Conv2d(inputs, width, 4, stride=2, padding=1)
        self.down = nn.ModuleList(nn.Sequential(*(Block(size) for _ in range(blocks))) for size in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(size, 2 * size, 2, stride=2) for size in widths[:-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in widths[:-1])
        self.up = nn.ModuleList(nn.Sequential(*(Block(size) for _ in range(blocks))) for size in widths[:-1])
        self.leave = nn.ConvTranspose2d(width, outputs, 4, stride=2, padding=1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, values: Tensor) -> Tensor:
        found = self.enter(_padded(values))
        kept = []
        for level, blocks in enumerate(self.down):
            found = blocks(found)
            if level < len(self.shrink):
                kept.append(found)
                found = self.shrink[level](_padded(found))
        for level in reversed(range(len(self.grow))):
            found = self.up[level](_like(self.grow[level](found), kept[level]) + kept[level])
        return _like(self.leave(found), values)


class Block(nn.Module):
    """Looks around (7 x 7 depthwise), mixes channels, adds to what it got."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 7, padding=3, groups=width, padding_mode="replicate")
        self.norm = nn.GroupNorm(1, width)
        self.widen = Mix(width, 2 * width)
        self.narrow = Mix(2 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(functional.gelu(self.widen(self.norm(self.around(values)))))
        return values + mixed


def _padded(values: Tensor) -> Tensor:
    """One more row and column, so that halving an odd size rounds up."""
    return functional.pad(values, (0, 1, 0, 1), mode="replicate")


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Without what rounding up has added."""
    cut: Tensor = values[:, :, : other.shape[2], : other.shape[3]]
    return cut


class Mix(nn.Module):
    """A convolution of 1 x 1 whose weights are a matrix, as Muon takes them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        return functional.conv2d(values, self.weight[:, :, None, None], self.bias)


def parameters_of(net: nn.Module) -> int:
    return sum(int(torch.tensor(weights.shape).prod()) for weights in net.parameters())
