"""Where a known sample lies in a frame, to start from: its slopes against those measured, at every place and turn."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.refinement.known_samples import Sample

TURN_STEP_DEG = 4.0
REFINED = 4
SMALLEST_PX, LARGEST_SHARE = 6.0, 1.0
LEAST_CORRELATION = 0.3

Floats = NDArray[np.float64]


def start_pose(sample: Sample, heights_m: Floats, pixel_m: float) -> dict[str, float]:
    """Values for `Sample.poses`, from roughly measured `heights_m` (H, W).

    The place of the highest correlation of both slopes, over azimuths and sizes; azimuth and size are then refined by
    halving. Raises `BadInput` when the best correlation stays below 0.3: another sample, or far too wrong a file.
    """
    pose = {one.name: one.start for one in sample.poses(pixel_m)}
    if not sample.moves:
        return pose
    shape = (heights_m.shape[0], heights_m.shape[1])
    measured = _slopes(heights_m)
    sizes = [size for size in sample.sizes_m if SMALLEST_PX < size / pixel_m < LARGEST_SHARE * max(shape)]
    if sample.sizes_m and not sizes:
        raise BadInput(f"sample {sample.told}: no size fits a frame of {shape} pixels of {pixel_m:g} m")
    turns = np.arange(0.0, sample.turns_deg, TURN_STEP_DEG)
    tried = [{"azimuth_deg": float(turn), "size_m": size} for turn, size in product(turns, sizes or [0.0])]
    best, found = max((_placed(sample, one, measured, shape, pixel_m) for one in tried), key=lambda one: one[0])
    step_deg, step_size = TURN_STEP_DEG, 0.2
    for _ in range(REFINED):
        step_deg, step_size = 0.5 * step_deg, 0.5 * step_size
        near = [
            {"azimuth_deg": found["azimuth_deg"] + a * step_deg, "size_m": found["size_m"] * (1.0 + b * step_size)}
            for a, b in product((-1, 0, 1), (-1, 0, 1) if len(sizes) > 1 else (0,))
        ]
        best, found = max((_placed(sample, one, measured, shape, pixel_m) for one in near), key=lambda one: one[0])
    if best < LEAST_CORRELATION:
        raise BadInput(
            f"the sample {sample.told} was not found: its slopes correlate by {best:.2f} with those measured at the "
            f"best place, at least {LEAST_CORRELATION} is needed; check the sample, the pixel size and the rotation"
        )
    return {name: found.get(name, start) for name, start in pose.items()}


def _placed(
    sample: Sample, pose: dict[str, float], measured: Floats, shape: tuple[int, int], pixel_m: float
) -> tuple[float, dict[str, float]]:
    known = _slopes(sample.heights_m(pose, shape, pixel_m))
    product_of = sum(
        np.fft.rfft2(one) * np.conj(np.fft.rfft2(other)) for one, other in zip(measured, known, strict=True)
    )
    strength = float(np.linalg.norm(measured) * np.linalg.norm(known))
    score = np.fft.irfft2(product_of, s=shape) / max(strength, 1e-30)
    row, column = np.unravel_index(int(np.argmax(score)), shape)
    down, across = ((int(at) + size // 2) % size - size // 2 for at, size in zip((row, column), shape, strict=True))
    return float(score[row, column]), {**pose, "x_m": across * pixel_m, "y_m": down * pixel_m}


def _slopes(heights_m: Floats) -> Floats:
    """(2, H, W), each of zero mean: a tilt is no structure."""
    along_y, along_x = np.gradient(heights_m)
    slopes = np.stack([along_y, along_x])
    return np.asarray(slopes - slopes.mean(axis=(1, 2), keepdims=True))
