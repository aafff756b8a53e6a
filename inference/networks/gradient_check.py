"""How far the twin's gradients lie from finite differences: the figure behind everything that is fitted with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acquisition.instrument import Instrument
from inference.networks.twin import Twin

DOSE = 1000.0
STEP_PX = 1e-6
RELATIVE_STEP = 1e-6
SMALLEST = 1e-3


def largest_gradient_error(instrument: Instrument, shape: tuple[int, int], pixels: int, seed: int = 0) -> float:
    """Of random weights on the images of a surface as rough as to lie in its own shadows, relative.

    By the heights of random pixels, relative to the largest of the gradient, and by each number of the geometry,
    relative to itself. Central differences.
    """
    rng = np.random.default_rng(seed)
    pixel_m = instrument.scan.pixel_size_m
    twin = Twin(instrument, dose=DOSE)
    heights = torch.from_numpy(rng.normal(size=shape) * 1.5).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(len(instrument.detector.segments), *shape)))

    def weighted(surface: Tensor) -> Tensor:
        return (twin.electrons(surface * pixel_m) * weights).sum()

    torch.autograd.backward(weighted(heights))
    assert heights.grad is not None
    errors = []
    with torch.no_grad():
        largest = float(heights.grad.abs().max())
        for row, column in rng.integers(0, shape, (pixels, 2)):
            nudge = torch.zeros_like(heights)
            nudge[row, column] = STEP_PX
            rise = float(weighted(heights + nudge) - weighted(heights - nudge)) / (2 * STEP_PX)
            errors.append(abs(rise - float(heights.grad[row, column])) / largest)
        for parameter in twin.geometry.parameters():
            assert parameter.grad is not None
            values, gradient = parameter.view(-1), parameter.grad.view(-1)
            for index, value in enumerate(values.tolist()):
                step = RELATIVE_STEP * max(abs(value), SMALLEST)
                sums = []
                for moved in (value + step, value - step):
                    values[index] = moved
                    sums.append(float(weighted(heights)))
                values[index] = value
                rise = (sums[0] - sums[1]) / (2 * step)
                errors.append(abs(rise - float(gradient[index])) / abs(float(gradient[index])))
    return max(errors)
