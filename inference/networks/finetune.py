"""What a real instrument does beyond the model: simulated segment images to those that this instrument shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 4
REACH_PX = 12
WIDEST_SIGMA_PX = 4.0


class FinetuneNet(nn.Module):
    """For one instrument of `segments`: narrow on purpose, so that it can't absorb errors of slopes.

    Three things, in the order in which they happen: emission that differs from the model's (a small function of the
    normal as a segment sees it, the same for all), signal from around and from everywhere (two learned Gaussians and
    the frame's mean: interaction volume and skirt), and each segment's own gain and offset. Untrained it changes
    nothing. Sees slopes of pixels and no neighbourhood of them: what isn't local and isn't a blur stays the model's.
    """

    def __init__(self, segments: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(FEATURES, width, 1)
        self.more = nn.Conv2d(width, width, 1)
        self.factor = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.factor.weight)
        assert self.factor.bias is not None
        nn.init.zeros_(self.factor.bias)
        self.log_sigma_px = nn.Parameter(torch.log(torch.tensor([0.8, 2.5])))
        # Parts of the signal from the pixel itself, from either Gaussian, and from the whole frame, as a softmax.
        self.parts = nn.Parameter(torch.tensor([8.0, 0.0, 0.0, 0.0]))
        self.log_gain = nn.Parameter(torch.zeros(segments))
        self.offset = nn.Parameter(torch.zeros(segments))

    def forward(self, shares: Tensor, p: Tensor, q: Tensor, directions: Tensor) -> Tensor:
        """`shares` (B, S, H, W) simulated electrons over those of a flat specimen in all segments; `p`, `q` (B, H, W)
        slopes at pixels; `directions` (B, S, 2) unit vectors towards the segments. Returns shares, (B, S, H, W)."""
        batch, segments, rows, columns = shares.shape
        upright = (1.0 + p**2 + q**2).rsqrt()
        x, y = directions[:, :, 0, None, None], directions[:, :, 1, None, None]
        along = -(p[:, None] * x + q[:, None] * y) * upright[:, None]
        across = (p[:, None] * y - q[:, None] * x) * upright[:, None]
        level = shares / shares.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        seen = torch.stack([along, across**2, upright[:, None].expand_as(along), level], dim=2)
        flat = seen.reshape(batch * segments, FEATURES, rows, columns)
        inner = functional.leaky_relu(self.more(functional.leaky_relu(self.hidden(flat), 0.1)), 0.1)
        emitted = shares * torch.exp(self.factor(inner).reshape(shares.shape))
        spread = self._spread(emitted)
        found: Tensor = spread * torch.exp(self.log_gain)[:, None, None] + self.offset[:, None, None]
        return found

    def _spread(self, values: Tensor) -> Tensor:
        own, near, far, everywhere = torch.softmax(self.parts, dim=0)
        blurred = [_blurred(values, sigma) for sigma in torch.exp(self.log_sigma_px).clamp(0.3, WIDEST_SIGMA_PX)]
        found: Tensor = (
            own * values + near * blurred[0] + far * blurred[1] + everywhere * values.mean(dim=(2, 3), keepdim=True)
        )
        return found


def _blurred(values: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian along both axes, borders continued."""
    places = torch.arange(-REACH_PX, REACH_PX + 1, dtype=values.dtype)
    kernel = torch.softmax(-0.5 * (places / sigma_px) ** 2, dim=0)
    batch, segments, rows, columns = values.shape
    padded = functional.pad(values, (REACH_PX,) * 4, mode="replicate")
    flat = padded.reshape(batch * segments, 1, rows + 2 * REACH_PX, columns + 2 * REACH_PX)
    blurred: Tensor = functional.conv2d(
        functional.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :]
    )
    return blurred.reshape(values.shape)
