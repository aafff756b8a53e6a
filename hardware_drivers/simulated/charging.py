"""The charge that the beam leaves on a surface: it brightens or darkens what is scanned, and it takes time to leak."""

from __future__ import annotations

import math

from acquisition.clock import Instant
from acquisition.instrument import Instrument

LEAK_TIME_S = 20.0


class SurfaceCharge:
    """Where a field of the surface was scanned last, which fills it with charge, and how much of that is still there.

    An instrument's `effects.charging` is the relative change of brightness over one frame of a fresh surface. The
    next frame at the same place begins where this one ended, less what leaked away meanwhile.
    """

    def __init__(self) -> None:
        self._filled: Instant | None = None
        self._place_m = self._field_m = (0.0, 0.0)

    def left(self, at: Instant, place_m: tuple[float, float], field_m: tuple[float, float]) -> float:
        """Charge of a field before it is scanned, from 0 to 1; `place_m` is its middle, `field_m` its width and height.

        A field that was scanned in part has its share of the charge.
        """
        if self._filled is None:
            return 0.0
        shared = 1.0
        for here, there, wide, filled in zip(place_m, self._place_m, field_m, self._field_m, strict=True):
            overlap_m = 0.5 * (wide + filled) - abs(here - there)
            shared *= min(max(overlap_m / wide, 0.0), 1.0)
        return shared * math.exp(-max(at.seconds_since(self._filled), 0.0) / LEAK_TIME_S)

    def fill(self, at: Instant, place_m: tuple[float, float], field_m: tuple[float, float]) -> None:
        """A field has been scanned as a whole at that time."""
        self._filled, self._place_m, self._field_m = at, place_m, field_m


def charged(instrument: Instrument, left: float) -> tuple[Instrument, float]:
    """The instrument for a frame of a surface with that charge left, and the brightness that the frame begins with."""
    charging = instrument.effects.charging
    begins = 1.0 + charging * left
    effects = instrument.effects.model_copy(update={"charging": (1.0 + charging) / begins - 1.0})
    return instrument.model_copy(update={"effects": effects}), begins
