"""Frames of one place become one picture of less noise: drift taken out, and forgotten where the surface moves."""

from inference.fusion.estimator import Fused, Fusion

__all__ = ["Fused", "Fusion"]
