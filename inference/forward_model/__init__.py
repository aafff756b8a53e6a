"""BSESM, the electron-optics truth: heights in, segmented backscattered-electron images out. Sees nothing else here."""

from inference.forward_model.optics import Acceptance, acceptance, linear_response

__all__ = ["Acceptance", "acceptance", "linear_response"]
