"""The VFT: attention over each pixel's vision field for what the surface hides, differentiable in heights and detector.

Only the horizon depends on the surface; the images follow through the detector's own acceptance, so one set of weights
serves every detector.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from acquisition.errors import ComponentFailed
from acquisition.instrument import Instrument
from inference.forward_model import acceptance
from inference.forward_model.exposure import search_limits
from inference.forward_model.intensity import ONE_AT_A_TIME
from inference.networks.dsm import centred
from inference.networks.poisson import slopes_of
from inference.networks.twin_tables import Tables

RADII = 18
RADIUS_RATIO = 1.25
DIRECTIONS = 32
FINER = 4
NEIGHBOURS = 5
OF_HEAD = 2
SIZE_OF_ADDED = 0.1
AZIMUTHS = DIRECTIONS * FINER
CHUNK_PX = 512


class Vft(nn.Module):
    """How high the surface rises in each direction around a pixel, from samples at radii that grow by a quarter each.

    Elevations on a log-polar grid around the pixel; within each direction attention over the radii, then among the
    directions. Starts as the steepest rise among the samples; attention adds what lies between them.
    """

    def __init__(self, width: int = 16, depth: int = 1, heads: int = 4) -> None:
        super().__init__()
        self.around = Mix(NEIGHBOURS, OF_HEAD * heads)
        self.look = Mix(OF_HEAD * heads, heads)
        self.sharpness = nn.Parameter(torch.linspace(4.0, 32.0, heads))
        self.gather = nn.Linear(heads * (1 + OF_HEAD) + 2, width)
        self.ring = nn.ModuleList(Ring(width) for _ in range(depth))
        self.leave = nn.Linear(width, FINER)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, heights: Tensor, places: Tensor) -> Tensor:
        """(B, P, AZIMUTHS) sines of the horizon's elevation at `places` (B, P, 2), rows and columns, of `heights`
        (B, H, W) in pixels. From azimuth 0, right, by way of the image's top. Own tangent plane not included."""
        elevations = self.elevations(heights, places)
        steepest = elevations.amax(dim=-1)
        grid = elevations.flatten(0, 1)  # (N, directions, radii)
        found = functional.gelu(self.around(neighbours(grid)))
        weights = (self.look(found) + self.sharpness[:, None, None, None] * grid).softmax(dim=3)
        values = torch.cat([grid.expand(1, len(weights), *grid.shape), found.reshape(OF_HEAD, -1, *grid.shape)])
        seen = (weights * values).sum(dim=4).flatten(0, 1)  # (what each head has seen, N, directions)
        given = torch.cat([seen, steepest.flatten(0, 1)[None], grid[None, :, :, 0]])
        tokens = self.gather(given.permute(1, 2, 0))
        for ring in self.ring:
            tokens = ring(tokens)
        added: Tensor = self.leave(functional.gelu(tokens)).reshape(*places.shape[:2], AZIMUTHS)
        return (between(steepest) + SIZE_OF_ADDED * added).clamp(-1.0, 1.0)

    def elevations(self, heights: Tensor, places: Tensor) -> Tensor:
        """(B, P, DIRECTIONS, RADII) sines of the elevations at which the samples stand, -1 beyond the frame."""
        rows, columns = heights.shape[1:]
        azimuth = torch.arange(DIRECTIONS, dtype=heights.dtype, device=heights.device) * (2.0 * math.pi / DIRECTIONS)
        radius = RADIUS_RATIO ** torch.arange(RADII, dtype=heights.dtype, device=heights.device)
        right, down = (along[:, None] * radius for along in (torch.cos(azimuth), -torch.sin(azimuth)))
        row, column = (places[:, :, axis, None, None].to(heights.dtype) for axis in (0, 1))
        x, y = column + right, row + down  # (B, P, directions, radii)
        tolerance = 1e-3
        inside = (x > -tolerance) & (x < columns - 1 + tolerance) & (y > -tolerance) & (y < rows - 1 + tolerance)
        there = bilinear(heights, y, x)
        own = bilinear(heights, row, column)
        rise = (there - own) / radius
        return torch.where(inside, rise * (1.0 + rise * rise).rsqrt(), -1.0)

    def at(self, heights: Tensor, places: Tensor, tables: Tables) -> Tensor:
        """(B, P, S) fractions of the electrons emitted at `places` that each segment captures."""
        p, q = (bilinear(slope, *(places[:, :, axis, None, None].to(heights.dtype) for axis in (0, 1)))
                for slope in central_slopes(heights))  # fmt: skip
        return captured(self(heights, places), p[..., 0, 0], q[..., 0, 0], tables)

    def fractions(self, heights_m: Tensor, instrument: Instrument, tables: Tables | None = None) -> Tensor:
        """(S, H, W), what `inference.forward_model.captured_fractions` gives for square pixels and a level specimen.

        Looks only at pixels that something could hide from the detector. In chunks, which are computed anew for the
        gradient instead of being kept.
        """
        tables = tables_of(instrument) if tables is None else tables
        heights = (heights_m / instrument.scan.pixel_size_m).float()[None]
        occluding = tables.occluding_slope
        p, q = central_slopes(heights)
        upright = (1.0 + p * p + q * q).rsqrt()
        linear = torch.einsum("sc,bchw->shw", tables.response, torch.stack([-p * upright, -q * upright, upright], 1))
        with ONE_AT_A_TIME:
            radius, _ = search_limits(np.ascontiguousarray(heights[0].detach().cpu().numpy()), occluding)
        steep = (p * p + q * q)[0].detach() > occluding**2
        chosen = (torch.from_numpy(radius > 0).to(steep.device) | steep).nonzero()
        if len(chosen) == 0:
            return linear
        parts = [
            checkpoint(self.at, heights, places[None], tables, use_reentrant=False)
            for places in torch.split(chosen, CHUNK_PX)
        ]
        seen = torch.cat([part[0] for part in parts])
        flat = linear.flatten(1).index_copy(1, chosen[:, 0] * linear.shape[2] + chosen[:, 1], seen.T)
        return flat.reshape(linear.shape)


class Ring(nn.Module):
    """Directions look at each other: attention that knows only how far apart two of them are."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.apart = nn.Parameter(torch.zeros(heads, DIRECTIONS, 1))
        self.answer = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        steps = torch.arange(DIRECTIONS)
        self.turn: Tensor
        self.register_buffer("turn", (steps[None, :] - steps[:, None]) % DIRECTIONS, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, DIRECTIONS, width) to the same."""
        count, directions, width = tokens.shape
        asked = self.ask(self.norm(tokens)).reshape(count, directions, 3, self.heads, width // self.heads)
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)
        near = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5 + self.apart[:, self.turn, 0]
        heard = (near.softmax(dim=3) @ value).transpose(1, 2).reshape(count, directions, width)
        tokens = tokens + self.answer(heard)
        thought: Tensor = self.think(tokens)
        return tokens + thought


class Mix(nn.Module):
    """(inputs, ...) to (outputs, ...) by a matrix: channels first, as many small products are slow."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        mixed = torch.addmm(self.bias[:, None], self.weight, values.flatten(1))
        return mixed.reshape(-1, *values.shape[1:])


def captured(horizons: Tensor, p: Tensor, q: Tensor, tables: Tables) -> Tensor:
    """(B, P, S) fractions: horizons (B, P, AZIMUTHS) as `Vft` gives them, slopes p, q (B, P) of the pixels."""
    azimuth = tables.azimuth_rad
    place = torch.remainder(azimuth * (AZIMUTHS / (2.0 * math.pi)), AZIMUTHS)
    before, part = place.floor().long() % AZIMUTHS, place - place.floor()
    horizon = horizons[..., before] * (1.0 - part) + horizons[..., (before + 1) % AZIMUTHS] * part
    tangent = p[..., None] * torch.cos(azimuth) - q[..., None] * torch.sin(azimuth)
    horizon = torch.maximum(horizon, tangent * (1.0 + tangent * tangent).rsqrt()).clamp_min(0.0)
    last = tables.blocked.shape[1] - 1
    step = ((1.0 - horizon**2 - tables.sin2_low) / (last * tables.sin2_step)).clamp(0.0, 1.0) * last
    below = step.detach().floor().long().clamp_max(last - 1)
    rows = tables.blocked.flatten(0, 1)
    row = torch.arange(azimuth.shape[0], device=azimuth.device) * (last + 1) + below
    near, far = rows[row], rows[row + 1]  # (B, P, K, S, 3)
    lost = (near + (step - below)[..., None, None] * (far - near)).sum(dim=2)
    upright = (1.0 + p * p + q * q).rsqrt()
    normal = torch.stack([-p * upright, -q * upright, upright], dim=2)
    return torch.einsum("bpsc,bpc->bps", tables.response - lost, normal).clamp_min(0.0)


def save_vft(net: Vft, path: Path) -> None:
    """Weights for `load_vft`."""
    torch.save(net.state_dict(), path)


def load_vft(path: Path) -> Vft:
    """The network whose weights `path` holds, whatever its size. Raises `ComponentFailed` when they cannot be read."""
    try:
        state = torch.load(path, weights_only=True)
        depth = sum(name.endswith("answer.weight") for name in state)
        net = Vft(len(state["leave.weight"][0]), depth, len(state["sharpness"]))
        net.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ComponentFailed(
            f"{path} holds no weights of a VFT ({error}): build it with `eclips train vft`"
        ) from error
    return net.eval()


def tables_of(instrument: Instrument) -> Tables:
    """The acceptance tables of an instrument in single precision. Raises `BadInput` as `acceptance` does."""
    table = acceptance(instrument)
    values = (table.azimuth_rad, table.response, table.blocked, table.sin2_low, table.sin2_step)
    return Tables(*(torch.from_numpy(np.asarray(value, np.float32)) for value in values))


def neighbours(grid: Tensor) -> Tensor:
    """(NEIGHBOURS, N, directions, radii): each sample, the next and last direction's, the nearer and farther one."""
    near_far = functional.pad(grid, (1, 1), mode="replicate")
    turned = [torch.cat([grid[:, 1:], grid[:, :1]], dim=1), torch.cat([grid[:, -1:], grid[:, :-1]], dim=1)]
    return torch.stack([grid, *turned, near_far[:, :, :-2], near_far[:, :, 2:]])


def between(values: Tensor) -> Tensor:
    """(..., DIRECTIONS) on a ring to (..., AZIMUTHS), linear in between."""
    parts = torch.arange(FINER, dtype=values.dtype, device=values.device) / FINER
    after = torch.cat([values[..., 1:], values[..., :1]], dim=-1)
    return (values[..., None] * (1.0 - parts) + after[..., None] * parts).flatten(-2)


def bilinear(maps: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Values of `maps` (B, H, W) at places (B, P, ...), those of its border beyond it."""
    rows, columns = maps.shape[1:]
    y, x = row.clamp(0, rows - 1), column.clamp(0, columns - 1)
    top, left = y.floor().clamp_max(rows - 2), x.floor().clamp_max(columns - 2)
    down, right = y - top, x - left
    first = (top * columns + left).long()
    shape, flat = first.shape, maps.flatten(1)
    corners = [flat.gather(1, (first + step).flatten(1)).reshape(shape) for step in (0, 1, columns, columns + 1)]
    above = corners[0] + right * (corners[1] - corners[0])
    below = corners[2] + right * (corners[3] - corners[2])
    return above + down * (below - above)


def central_slopes(heights: Tensor) -> tuple[Tensor, Tensor]:
    """p and q (B, H, W) at the pixels' centres, one-sided at the border, as BSESM has them."""
    return centred(*slopes_of(heights))
