"""BSESM, the electron-optics truth: heights in, segmented backscattered-electron images out. Sees nothing else here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.forward_model.intensity import MARCHED, Horizons, captured_fractions, near_border, vision_field_px
    from inference.forward_model.optics import Acceptance, acceptance, linear_response
    from inference.forward_model.rendering import expected_counts, expected_electrons, render
    from inference.forward_model.sweeping import SWEPT, Swept

__all__ = [
    "MARCHED",
    "SWEPT",
    "Acceptance",
    "Horizons",
    "Swept",
    "acceptance",
    "captured_fractions",
    "expected_counts",
    "expected_electrons",
    "linear_response",
    "near_border",
    "render",
    "vision_field_px",
]
_ROOMS = ("optics", "intensity", "rendering", "sweeping")


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562): who inverts needs the optics alone, not the kernels and their compiler,
    which take half a second of every program's start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    rooms = (import_module(f"{__name__}.{room}") for room in _ROOMS)
    return next(vars(room)[name] for room in rooms if name in vars(room))
