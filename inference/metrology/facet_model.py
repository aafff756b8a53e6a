"""What a strip across straight faces shows: parameters to expected electrons, and least squares back.

A pixel at an edge shows the mean of the normals of both faces, which is not the normal of their mean slope: a slope
that is taken from it lies too low, and a step that is summed up from such slopes too. So beam and pixel mix normals
here; but where an edge itself is round, the surface does have the slopes between, which show more. How round edges are
is fitted, held by what is known of the beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares
from scipy.special import ndtr

from acquisition.errors import BadInput
from inference.calibration import Calibration

PIXEL_VARIANCE = 1.0 / 12.0
LEAST_BLUR_PX = 0.1
LEAST_PIXELS = 4
LEAST_FACE_PX = 2.0
MOST_TURN_RAD = math.radians(15.0)
LEAST_ELECTRONS = 1.0
CELL_PX = (0.5, 4.0)
"""Along and aside: so little that an edge which crosses the line by up to 6 degrees aslant is not blurred by it."""
ROUNDS, MOST_TRIALS, TOLERANCE = 3, 60, 1e-6
BEAM_ERROR_SHARE, LEAST_BEAM_ERROR_PX, UNKNOWN_BEAM_ERROR_PX = 0.05, 0.03, 0.5
"""A stated beam width is taken to be right within 5 %; one of 0 was not measured."""
ROUNDING_PX, ROUNDING_ERROR_PX = 0.25, 0.25
"""Edges are taken to be round by up to half a pixel until the strip says otherwise."""

CHANGE, TURN, ALONG, BLUR, ROUNDING = range(5)
OTHERS = 5
AT = np.linspace(-5.0, 5.0, 81)
PASSED = ndtr(AT)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strip:
    """Unsaturated pixels around a line, means of neighbours beside each other: `along`, `aside` (N,) in pixels from its
    start, `electrons` (S, N), and how many `pixels` (N,) each is the mean of. `direction`: of the line as x and y in
    the image, where the line is bent of each pixel (2, N)."""

    along: Floats
    aside: Floats
    electrons: Floats
    pixels: Floats
    direction: Floats
    length_px: float


def strip_of(
    images: NDArray[np.uint16],
    calibration: Calibration,
    start_px: tuple[float, float],
    end_px: tuple[float, float],
    width_px: float,
) -> Strip:
    """Raises `BadInput` for a line shorter than two faces and where too few unsaturated pixels are in the frame."""
    rows, columns = images.shape[1:]
    (x0, y0), (x1, y1) = start_px, end_px
    length = math.hypot(x1 - x0, y1 - y0)
    if length < 2 * LEAST_FACE_PX:
        raise BadInput(f"the line is {length:.3g} pixels long; two faces take {2 * LEAST_FACE_PX:g}")
    cosine, sine = (x1 - x0) / length, (y1 - y0) / length
    y, x = np.mgrid[:rows, :columns]
    along, aside = (x - x0) * cosine + (y - y0) * sine, (y - y0) * cosine - (x - x0) * sine
    inside = (along >= 0) & (along <= length) & (np.abs(aside) <= 0.5 * width_px)
    inside &= ~(images >= calibration.saturation_counts).any(axis=0)
    if inside.sum() < LEAST_PIXELS * length:
        raise BadInput(
            f"the strip holds {inside.sum()} unsaturated pixels of this frame; make it wider than {width_px:g}"
        )
    dark, gain = calibration.dark_counts[:, None], calibration.gain_counts_per_electron[:, None]
    electrons = (images[:, inside].astype(np.float64) - dark) / gain
    cells = np.stack([np.floor(along[inside] / CELL_PX[0]), np.floor(aside[inside] / CELL_PX[1])], axis=1)
    cell, pixels = np.unique(cells, axis=0, return_inverse=True, return_counts=True)[1:]

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(cell.ravel(), values) / pixels)

    means = np.stack([mean(values) for values in electrons])
    return Strip(
        mean(along[inside]), mean(aside[inside]), means, pixels.astype(np.float64), np.array([cosine, sine]), length
    )


@dataclass(frozen=True, slots=True)
class Solution:
    """`values` of the parameters and their `covariance` by counting noise, at a reduced chi² of 1."""

    values: Floats
    covariance: Floats
    reduced_chi2: float


class StraightFaces:
    """Parameters: change of brightness along the strip, turn of the edges against the line's normal, rise along the
    edges, blur of what edges show, rounding of the edges, then edges, slopes of faces, brightness of faces: a tilted
    face of the same material sends out more."""

    def __init__(self, strip: Strip, calibration: Calibration, faces: int, frames_held: float) -> None:
        self.strip, self.faces, self.frames_held = strip, faces, frames_held
        self.edges = slice(OTHERS, OTHERS + faces - 1)
        self.slopes = slice(OTHERS + faces - 1, OTHERS + 2 * faces - 1)
        self.levels = slice(self.slopes.stop, self.slopes.stop + faces)
        self.response = calibration.response.astype(np.float64)
        self.flat_share = float(calibration.flat_share)
        self.brightness = float(np.average(strip.electrons.sum(axis=0), weights=strip.pixels))
        stated_px = float(calibration.beam_sigma_px)
        self.beam_px = math.hypot(stated_px, math.sqrt(PIXEL_VARIANCE))
        share = max(BEAM_ERROR_SHARE * stated_px, LEAST_BEAM_ERROR_PX)
        self.beam_error_px = share if stated_px > 0.0 else UNKNOWN_BEAM_ERROR_PX

    def solve(self, edges: Floats, slopes: Floats) -> Solution:
        """From a first guess. Raises `BadInput` for a fit that doesn't settle."""
        blur = math.hypot(self.beam_px, ROUNDING_PX)
        start = np.concatenate([[0.0, 0.0, 0.0, blur, ROUNDING_PX], edges, slopes, np.ones(self.faces)])
        scales = np.repeat([0.1, 0.01, 0.1, 0.1, 0.1, 0.5, 0.1], [1, 1, 1, 1, 1, self.faces - 1, 2 * self.faces])
        values = start
        # Noise that follows the expectation within one search would favour bright answers; held, it makes the search
        # one for the greatest likelihood.
        for _ in range(ROUNDS):
            noise = self._noise(values)
            found: OptimizeResult = least_squares(
                self._off, values, x_scale=scales, ftol=TOLERANCE, max_nfev=MOST_TRIALS, args=(noise,)
            )
            values = np.asarray(found.x, np.float64)
        if not found.success:
            raise BadInput(f"no straight faces explain this strip ({found.message}): look at the edges it began with")
        measured = found.fun[: self.strip.electrons.size]
        covariance = np.linalg.pinv(found.jac.T @ found.jac)
        chi2 = float(measured @ measured) / max(measured.size - values.size, 1)
        return Solution(values, covariance, chi2)

    def _off(self, values: Floats, noise: Floats) -> Floats:
        """Measured minus expected electrons over their noise, flat; then what is known of beam and rounding."""
        blur, rounding = values[BLUR], values[ROUNDING]
        beam = math.sqrt(max(blur * abs(blur) - rounding * abs(rounding), LEAST_BLUR_PX**2))
        known = [(beam - self.beam_px) / self.beam_error_px, (rounding - ROUNDING_PX) / ROUNDING_ERROR_PX]
        return np.concatenate([((self.strip.electrons - self._expected(values)) / noise).ravel(), known])

    def _noise(self, values: Floats) -> Floats:
        expected = self._expected(values)
        return np.asarray(np.sqrt(np.maximum(expected, LEAST_ELECTRONS) / (self.frames_held * self.strip.pixels)))

    def _expected(self, values: Floats) -> Floats:
        change, turn, along, blur, rounding = values[:OTHERS]
        edges, slopes, levels = values[self.edges], values[self.slopes], values[self.levels]
        turn = float(np.clip(turn, -MOST_TURN_RAD, MOST_TURN_RAD))
        blur = max(blur, LEAST_BLUR_PX)
        turned = math.cos(turn), math.sin(turn)
        across = self.strip.along * turned[0] + self.strip.aside * turned[1]
        from_edge = (across[None] - edges[:, None] * turned[0]) / blur
        faces = levels * self._normals(slopes, along)
        seen = faces[:, :1] + np.diff(faces, axis=1) @ ndtr(from_edge)
        # What a round edge shows more than both its faces, mixed, do: all of it, as wide as the edge looks.
        between, level = (one[:-1, None] + np.diff(one)[:, None] * PASSED for one in (slopes, levels))
        mixed = faces[:, :-1, None] + np.diff(faces, axis=1)[:, :, None] * PASSED
        more = (level * self._normals(between, along) - mixed).sum(axis=2) * (AT[1] - AT[0])
        seen += rounding / (math.sqrt(2.0 * math.pi) * blur) * more @ np.exp(-0.5 * from_edge**2)
        right, down = self.strip.direction
        across_x, across_y = right * turned[0] - down * turned[1], down * turned[0] + right * turned[1]
        seen = np.stack([seen[0] * across_x - seen[1] * across_y, seen[0] * across_y + seen[1] * across_x, seen[2]])
        brightness = self.brightness * (1.0 + change * (self.strip.along / self.strip.length_px - 0.5))
        return np.asarray(brightness * (self.response @ seen))

    def _normals(self, slopes: Floats, along: float) -> Floats:
        """(3, ...): across the edges, along them, and what follows the height, as `response` is multiplied with."""
        upright = 1.0 / np.sqrt(1.0 + slopes**2 + along**2)
        return np.stack([-slopes * upright, -along * upright, self.flat_share * upright + 1.0 - self.flat_share])
