"""BSESM, the electron-optics truth: heights in, segmented backscattered-electron images out. Sees nothing else here."""

from inference.forward_model.intensity import captured_fractions
from inference.forward_model.optics import Acceptance, acceptance, linear_response
from inference.forward_model.rendering import expected_counts, expected_electrons, render

__all__ = [
    "Acceptance",
    "acceptance",
    "captured_fractions",
    "expected_counts",
    "expected_electrons",
    "linear_response",
    "render",
]
