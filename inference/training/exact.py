"""What BSESM itself shows of a batch's surfaces: the truth of the networks that stand in for it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from inference.forward_model import expected_electrons
from inference.training.batches import Batch, turned_back, turned_maps
from inference.training.surfaces.canvas import STEEPEST_RMS_DEG

MOST_STEEPENED = 20.0


def steepened(batch: Batch) -> Tensor:
    """(B, H, W) heights in pixels, each steepened by a factor of its own, at most to the steepest that is trained on.

    The surfaces of a group come back in several batches: so they are new ones each time, and hide more. What is drawn
    depends on the batch's images alone, so that a run can go on where it stopped.
    """
    drawn = torch.from_numpy(drawn_from(batch).random(len(batch.height)).astype(np.float32))
    q, p = torch.gradient(batch.height, dim=(1, 2))
    rms_slope = (p**2 + q**2).mean(dim=(1, 2)).sqrt().clamp_min(1e-6)
    steepest = (math.tan(math.radians(STEEPEST_RMS_DEG)) / rms_slope).clamp(1.0, MOST_STEEPENED)
    return batch.height * (steepest**drawn)[:, None, None]


def drawn_from(batch: Batch) -> np.random.Generator:
    return np.random.default_rng(int(batch.images.double().sum()))


def exact_images(batch: Batch, heights: Tensor) -> Tensor:
    """(B, S, H, W) float32 electrons of `heights` (B, H, W) before the batch's detector, turned as it is: those that
    BSESM expects at a dose of 1, the beam's width included. Nothing lies beyond the frame."""
    pixel_m = batch.geometry.scan.pixel_size_m
    frames = []
    for height, sigma_px in zip(turned_back(heights, batch.turn), batch.numbers["beam_sigma_px"], strict=True):
        beam = batch.geometry.beam.model_copy(update={"sigma_px": float(sigma_px)})
        instrument = batch.geometry.model_copy(update={"beam": beam})
        frames.append(expected_electrons(height.double().numpy() * pixel_m, instrument, 1.0))
    return turned_maps(torch.from_numpy(np.stack(frames)), batch.turn)
