"""The U-Net of the method: depthwise convolutions on a grid half as fine as the image, any image size."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.1
WIDEST = 128


class UNet(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W). Starts as zero everywhere: what it adds to is then what comes out."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.body = Body(inputs, width, depth, blocks)
        self.leave = nn.ConvTranspose2d(width, outputs, 4, stride=2, padding=1)
        start_at_zero(self.leave)

    def forward(self, *values: Tensor) -> Tensor:
        """The inputs may come in parts."""
        return inside(self.leave(self.body(values)[0]), values[0])


class Body(nn.Module):
    """(B, inputs, H, W) to what is found at each of `depth` levels, finest first.

    The finest level is half as fine as the image and has `width` channels, each coarser one twice as many up to 128,
    and `blocks` blocks on the way down and up, but one where pixels are many. Every level has a border of one of its
    pixels round the frame: that rounds any odd size up and keeps layers free of paddings of their own. Nothing is
    normalised over the frame, so that a fault in one place changes nothing far away, and a large frame is seen as the
    small ones of the training are. `told` channels more may come in at each level.
    """

    def __init__(self, inputs: int, width: int, depth: int, blocks: int, told: int = 0) -> None:
        super().__init__()
        self.widths = [min(width * 2**level, max(width, WIDEST)) for level in range(depth)]
        stacks = [(size, blocks if level else 1) for level, size in enumerate(self.widths)]
        self.enter = nn.Conv2d(inputs, width, 4, stride=2, padding=2)
        self.tell = nn.ModuleList(Mix(told, size) for size in self.widths if told)
        self.down = nn.ModuleList(_stack(size, count) for size, count in stacks)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=2) for a, b in pairwise(self.widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(self.widths))
        self.up = nn.ModuleList(_stack(size, count) for size, count in stacks[:-1])

    def forward(self, values: Sequence[Tensor], told: Sequence[Tensor] = ()) -> list[Tensor]:
        """`values`: the inputs in parts, that need not be laid side by side."""
        found = summed(self.enter, values)
        levels = []
        for level, blocks in enumerate(self.down):
            found = blocks(found + self.tell[level](told[level]) if told else found)
            levels.append(found)
            if level < len(self.shrink):
                found = self.shrink[level](found)
        for level in reversed(range(len(self.grow))):
            grown = inside(self.grow[level](levels[level + 1]), levels[level])
            levels[level] = self.up[level](times_one(grown) + levels[level])
        return levels


class Block(nn.Module):
    """Looks around (5 x 5 depthwise), mixes channels, adds a share of that to what it got."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.widen = Mix(width, 2 * width)
        self.narrow = Mix(2 * width, width)
        self.share = nn.Parameter(torch.full((width, 1, 1), 0.2))

    def forward(self, values: Tensor) -> Tensor:
        wide = functional.leaky_relu(self.widen(self.around(values)), LEAK)
        # The share of the weights, not of what they give: it is worked out once, and the sum comes with the product.
        weight, bias = self.share * self.narrow.weight[:, :, None], self.share.flatten() * self.narrow.bias
        return values + functional.conv2d(wide, weight[..., None], bias)


class Mix(nn.Module):
    """A convolution of 1 x 1 whose weights are a matrix, as Muon takes them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        return functional.conv2d(values, self.weight[:, :, None, None], self.bias)


def summed(layer: nn.Conv2d, parts: Sequence[Tensor]) -> Tensor:
    """The layer on its inputs, of which each part has some: the runtime's fast convolutions take fewer than 16 channels
    as they are, and more only by the 16."""
    stride, padding, first = layer.stride, layer.padding, 0
    found: list[Tensor] = []
    for part in parts:
        weights = layer.weight[:, first : first + part.shape[1]]
        assert isinstance(padding, tuple)
        found.append(functional.conv2d(part, weights, None if found else layer.bias, stride, padding))
        first += part.shape[1]
    return functools.reduce(torch.add, found)


def inside(values: Tensor, finer: Tensor) -> Tensor:
    """Values made twice as fine, without the border that `Body` has around each level."""
    cut: Tensor = values[:, :, 1 : 1 + finer.shape[2], 1 : 1 + finer.shape[3]]
    return cut


def times_one(values: Tensor) -> Tensor:
    """The same values, out of a convolution: so the runtime has them in the layout of its fast ones, takes the sum with
    others of that layout into it, and need not take those back."""
    ones = values.new_ones(values.shape[1], 1, 1, 1)
    return functional.conv2d(values, ones, groups=values.shape[1])


def start_at_zero(layer: Mix | nn.ConvTranspose2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def parameters_of(net: nn.Module) -> int:
    return sum(int(torch.tensor(weights.shape).prod()) for weights in net.parameters())


def _stack(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(count)))
