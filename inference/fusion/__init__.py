"""Frames of one place become one picture of less noise: drift taken out, weighted by variance, forgotten where it moves."""

from inference.fusion.estimator import Fused, Fusion

__all__ = ["Fused", "Fusion"]
