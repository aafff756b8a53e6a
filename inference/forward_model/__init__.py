"""BSESM, the electron-optics truth: heights in, segmented backscattered-electron images out. Sees nothing else here."""

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
