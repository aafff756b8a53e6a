"""What is true of a simulated frame: heights ride with it, slopes and electrons are worked out when asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Instrument
from inference import forward_model

# The surface beyond the frame casts shadows and beam tails into it.
MARGIN_PX = 16
INSIDE = np.s_[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


@dataclass(frozen=True, slots=True)
class Truth:
    """`surface_m`: (H, W) float64 with a margin of 16 pixels all around, which the frame does not have.

    `instrument` is as it was for this frame, the gas and charge of the moment in its effects; `brightness` is what the
    charge left of earlier frames makes of an uncharged surface's 1.
    """

    surface_m: NDArray[np.float64]
    instrument: Instrument
    dose: float | None
    brightness: float = 1.0

    @property
    def height_m(self) -> NDArray[np.float32]:
        """(H, W) metres about their mean."""
        inside = self.surface_m[INSIDE]
        # Centred first: single precision would round nanometres on a surface that has grown for long.
        return np.ascontiguousarray(inside - inside.mean(), dtype=np.float32)

    @property
    def slopes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """dz/dx and dz/dy, each (H, W), from the neighbours on both sides."""
        scan = self.instrument.scan
        q, p = np.asarray(np.gradient(self.surface_m, scan.pixel_size_y_m or scan.pixel_size_m, scan.pixel_size_m))
        return p[INSIDE].astype(np.float32), q[INSIDE].astype(np.float32)

    @property
    def electrons(self) -> NDArray[np.float32]:
        """(S, H, W) electrons that each segment detects on average, before chance, gain and the scan's own faults."""
        electrons = forward_model.expected_electrons(self.surface_m, self.instrument, self.dose, self.relative_yield)
        return np.ascontiguousarray(electrons[INSIDE])

    @property
    def relative_yield(self) -> NDArray[np.float32] | None:
        if self.brightness == 1.0:
            return None
        return np.full(self.surface_m.shape, self.brightness, np.float32)
