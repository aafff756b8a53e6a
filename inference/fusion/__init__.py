"""Frames of one place become one picture of less noise: drift taken out, and forgotten where the surface moves."""
