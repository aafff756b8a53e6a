"""A frame's height map beside an AFM's, or any other's, of the same place: what differs, and what the AFM adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from acquisition.errors import BadInput
from inference.metrology.alignment import align
from inference.metrology.bends import REACH_PX, external_angles_deg, find_bends
from inference.metrology.height_map import HeightMap
from inference.metrology.levelling import levelled, without_spikes
from inference.metrology.placement import Placement, resampled
from inference.metrology.probe import Probe, probe
from inference.metrology.scatter import MAD_TO_SIGMA

LEAST_BENDS = 5
LEAST_SHARED, TURNS = 8, 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepAngles:
    """External angles at the same bends of both surfaces. `deviation_deg`: the frame's turns less the AFM's, median;
    `scatter_deg`: its robust standard deviation over the bends."""

    frame_deg: Floats
    afm_deg: Floats

    @property
    def _excess_deg(self) -> Floats:
        """Positive where the frame's bend is the sharper, edge or foot."""
        sense = np.sign(self.afm_deg - 180.0)
        return np.asarray(sense * (self.frame_deg - self.afm_deg), np.float64)

    @property
    def deviation_deg(self) -> float:
        return float(np.median(self._excess_deg))

    @property
    def scatter_deg(self) -> float:
        return float(MAD_TO_SIGMA * np.median(np.abs(self._excess_deg - self.deviation_deg)))

    @property
    def turn_deg(self) -> float:
        """By how much the AFM's surface turns at these bends, median."""
        return float(np.median(np.abs(self.afm_deg - 180.0)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both on the AFM's pixels, levelled alike, (H, W) metres. `known`: where the frame covers the AFM's map; only
    there the heights mean anything. `placement` is of the frame on the AFM's map. `angles` is None where there are
    fewer than five bends to measure on."""

    frame: HeightMap
    afm: HeightMap
    known: NDArray[np.bool_]
    placement: Placement
    angles: StepAngles | None
    probe: Probe

    @property
    def difference_m(self) -> Floats:
        """(H, W) frame less AFM, NaN where one of them is not."""
        return np.where(self.known, self.frame.height_m - self.afm.height_m, np.nan)

    @property
    def rms_m(self) -> float:
        return float(np.sqrt(np.nanmean(self.difference_m**2)))

    @property
    def relief_m(self) -> float:
        """Standard deviation of the AFM's heights where both are."""
        return float(np.std(self.afm.height_m[self.known]))

    def profiles(self, ends_px: tuple[float, float, float, float] | None = None) -> tuple[Floats, Floats, Floats]:
        """Distance, the frame's and the AFM's height in metres along a line on the AFM's pixels (x0, y0, x1, y1), or
        along the middle of the longest scan lines; NaN where one of them is not."""
        x0, y0, x1, y1 = ends_px or self.longest_line()
        count = max(2, round(2.0 * float(np.hypot(x1 - x0, y1 - y0))))
        places = np.linspace(y0, y1, count), np.linspace(x0, x1, count)
        distance_m = np.hypot((places[1] - x0) * self.afm.pixel_size_m, (places[0] - y0) * self.afm.pixel_size_y_m)
        known = map_coordinates(self.known.astype(float), places, order=1, mode="constant") > 0.99
        frame_m, afm_m = (
            np.where(known, map_coordinates(part.height_m, places, order=1, mode="nearest"), np.nan)
            for part in (self.frame, self.afm)
        )
        return distance_m, frame_m, afm_m

    def longest_line(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 on the AFM's pixels: the middle one of the longest scan lines where both are."""
        lengths = self.known.sum(axis=1)
        longest = np.flatnonzero(lengths >= 0.95 * lengths.max())
        row = int(longest[len(longest) // 2])
        columns = np.flatnonzero(self.known[row])
        return float(columns[0]), float(row), float(columns[-1]), float(row)


def compare(frame: HeightMap, afm: HeightMap, tip_radius_m: float | None = None) -> Comparison:
    """Place `frame` on `afm` by their heights, level both over what they share, and measure the differences.

    The AFM loses its spikes and the offset of each scan line against the frame, which are the AFM's own: what is the
    same all along a scan line is not judged. The finer of both is averaged to the coarser one's pixel. Without
    `tip_radius_m` the bluntest tip that the map allows is taken. Raises `BadInput` where they do not fit each other.
    """
    if tip_radius_m is not None and not 0.0 < tip_radius_m < np.inf:
        raise BadInput(f"a tip radius of {tip_radius_m:g} m: it must be above 0 m")
    quiet = HeightMap(without_spikes(afm.height_m), afm.pixel_size_m, afm.pixel_size_y_m)
    placement = align(frame, HeightMap(levelled(afm.height_m), afm.pixel_size_m, afm.pixel_size_y_m))
    spacing_m = max(frame.pixel_size_m, frame.pixel_size_y_m, afm.pixel_size_m, afm.pixel_size_y_m)
    frame_m, known = resampled(frame, placement.inverse().places(quiet, frame), spacing_m)
    own = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in quiet.height_m.shape), indexing="ij")
    afm_m, _ = resampled(quiet, (own[0], own[1]), spacing_m)
    frame_m = _without_plane(frame_m, known)
    afm_m, offsets_m = without_lines(afm_m, frame_m, known)
    frame_map, afm_map = (HeightMap(part, afm.pixel_size_m, afm.pixel_size_y_m) for part in (frame_m, afm_m))
    mean = HeightMap(0.5 * (frame_m + afm_m), afm.pixel_size_m, afm.pixel_size_y_m)
    bends = find_bends(mean, known, REACH_PX * max(1.0, spacing_m / max(afm.pixel_size_m, afm.pixel_size_y_m)))
    angles = StepAngles(*(external_angles_deg(part, bends) for part in (frame_map, afm_map)))
    measured = None if len(bends.places) < LEAST_BENDS else angles
    inside_m = np.where(known, frame_m, float(np.median(frame_m[known])))
    told = probe(afm_map, offsets_m, inside_m, tip_radius_m)
    return Comparison(frame_map, afm_map, known, placement, measured, told)


def _without_plane(height_m: Floats, known: NDArray[np.bool_]) -> Floats:
    rows, columns = height_m.shape
    row, column = np.mgrid[:rows, :columns]
    basis = np.stack([np.ones_like(height_m), row / rows - 0.5, column / columns - 0.5], axis=-1)
    plane, *_ = np.linalg.lstsq(basis[known], height_m[known], rcond=None)
    return np.asarray(height_m - basis @ plane, np.float64)


def without_lines(afm_m: Floats, frame_m: Floats, known: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The AFM with the frame's plane, and each line's median difference to the frame taken out; those medians over
    the lines that both have. Plane and lines share the slope across the lines, so they are found in turns."""
    apart, offsets = afm_m - frame_m, np.zeros(len(afm_m))
    shared = known.sum(axis=1) >= LEAST_SHARED
    for _ in range(TURNS):
        apart = _without_plane(apart, known)
        medians = np.zeros(len(offsets))
        medians[shared] = np.nanmedian(np.where(known, apart, np.nan)[shared], axis=1)
        apart -= medians[:, None]
        offsets += medians
    return frame_m + apart, offsets[shared]
