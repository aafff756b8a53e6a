"""The VFT as arrays and as seconds, for benchmarks that know no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acquisition.instrument import Instrument
from inference.networks.twin import Twin
from inference.networks.vft import load_vft, tables_of


def vft_fractions(weights: Path, heights_m: NDArray[np.float64], instrument: Instrument) -> NDArray[np.float32]:
    """(S, H, W) of the network with these weights. Raises `ComponentFailed` as `load_vft` does."""
    with torch.no_grad():
        found = load_vft(weights).fractions(torch.from_numpy(heights_m), instrument)
    return np.asarray(found.numpy(), np.float32)


def forward_and_backward_s(
    weights: Path, heights_m: NDArray[np.float64], instrument: Instrument
) -> Mapping[str, tuple[float, float]]:
    """Seconds forward and backward of the VFT and of the exact twin, their tables made before; median of three."""
    net, tables = load_vft(weights), tables_of(instrument)
    twin = Twin(instrument).requires_grad_(False)
    of_twin = twin.geometry.tables()
    heights = torch.from_numpy(heights_m).requires_grad_(True)
    return {
        "VFT": _seconds(lambda: net.fractions(heights, instrument, tables)),
        "exact twin": _seconds(lambda: twin.fractions(heights, of_twin)),
    }


def _seconds(way: Callable[[], Tensor]) -> tuple[float, float]:
    forward, backward = [], []
    for _ in range(4):
        began = time.perf_counter()
        found = way().sum()
        between = time.perf_counter()
        torch.autograd.backward(found)
        forward.append(between - began)
        backward.append(time.perf_counter() - between)
    return median(forward[1:]), median(backward[1:])
