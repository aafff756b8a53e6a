"""Facet angles as the fit to the electrons has them, on the facets of the fixed test set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.calibration import Calibration
from inference.metrology.facet_fit import facets_along
from inference.metrology.height_map import HeightMap
from service.benchmarks.theory import PROFILE_ROWS

BESIDE_PX = 8.0

Floats = NDArray[np.float64]
Point = tuple[float, float]


def fitted_angles_deg(
    images: NDArray[np.uint16], calibration: Calibration, height_px: Floats, known: Mapping[str, float]
) -> Floats:
    """(K,) angles of every facet of a `facet` case that lies in the frame with 8 pixels to each side, 128 rows of each,
    begun with `height_px`; NaN where that shows no faces to begin with. Only the line comes from what is known, as an
    operator would draw it."""
    surface = HeightMap(height_px, 1.0, 1.0)
    angles = []
    for sign, start_px, end_px in _lines(height_px.shape, known):
        try:
            found = facets_along(images, calibration, surface, start_px, end_px, round(PROFILE_ROWS))
        except BadInput:
            angles.append(math.nan)
        else:
            at_middle = int(np.searchsorted(found.edges_px, BESIDE_PX + 0.5 * known["width_px"]))
            angles.append(sign * float(found.angle_deg[at_middle]))
    return np.array(angles)


def _lines(shape: tuple[int, ...], known: Mapping[str, float]) -> Iterator[tuple[float, Point, Point]]:
    """Lines across each facet's middle, and whether the surface rises along them."""
    rows, columns = shape
    turn = math.radians(known["azimuth_deg"])
    ahead, aside = np.array([math.cos(turn), -math.sin(turn)]), np.array([math.sin(turn), math.cos(turn)])
    middle, last = np.array([0.5 * columns - 0.5, 0.5 * rows - 0.5]), np.array([columns - 1.0, rows - 1.0])
    reach = 0.5 * known["width_px"] + BESIDE_PX
    most = math.ceil(math.hypot(rows, columns) / known["pitch_px"])
    for ridge in range(-most, most + 1):
        for sign, offset in ((1.0, 0.0), (-1.0, 0.5 * known["pitch_px"])):
            at = known["start_px"] + ridge * known["pitch_px"] + offset + 0.5 * known["width_px"]
            for along in (-0.5 * PROFILE_ROWS, 0.5 * PROFILE_ROWS):
                start, end = (middle + (at + off) * ahead + along * aside for off in (-reach, reach))
                corners = [end_ + side * 0.5 * PROFILE_ROWS * aside for end_ in (start, end) for side in (-1, 1)]
                if all((corner >= 0).all() and (corner <= last).all() for corner in corners):
                    yield sign, (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))
