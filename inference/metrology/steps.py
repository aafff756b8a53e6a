"""Step lines: where a levelled surface is steepest across itself, linked at sub-pixel precision and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, uniform_filter1d
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

SMOOTHED_PX = 2.5
SHARE_OF_STEEPEST = 0.35
NOISE_MARGIN = 5.0
MAD_OF_NORMAL = 0.6745
LEAST_LENGTH = 6.0
SAMPLES = 65
REACH_SHARE = 0.6
ALONG_PX = 9
RIM = 1.5
CURVED_PX = 6.0
SAME_WAY = 0.7

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step, its points about a pixel apart. `places_px` (n, 2): row and column; `downhill` (n, 2): unit normals in
    metres' directions. `height_m` (n,): of the terrace above over the one below, NaN where too little of both is in
    view. `spacing_m` (n,): along the normal to the next step, the nearer one; NaN where none is. `curvature_per_m`
    (n,): positive where the upper terrace bulges out. `closed`: it comes back to itself."""

    places_px: Floats
    downhill: Floats
    height_m: Floats
    spacing_m: Floats
    curvature_per_m: Floats
    length_m: float
    closed: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """The step lines of one frame, longest first, and figures over all of them: medians, NaN where there are none.
    `height_error_m`: standard error of the height, by the scatter of pieces as long as they are averaged."""

    lines: tuple[StepLine, ...]
    pixel_m: tuple[float, float]
    shape: tuple[int, int]
    density_per_m: float
    height_m: float
    height_error_m: float
    spacing_m: float

    def places_m(self) -> Floats:
        """(n, 2) rows and columns of all points in metres."""
        found = [line.places_px * self.pixel_m for line in self.lines]
        return np.concatenate(found) if found else np.empty((0, 2))

    def only(self, kept: Sequence[bool]) -> Steps:
        """Those lines alone."""
        return _summed([line for line, keep in zip(self.lines, kept, strict=True) if keep], self.pixel_m, self.shape)

    def downhill(self) -> Floats:
        """(n, 2) of all points, in the order of `places_m`."""
        return np.concatenate([line.downhill for line in self.lines]) if self.lines else np.empty((0, 2))


def find_steps(map: HeightMap, smoothed_px: float = SMOOTHED_PX) -> Steps:
    """The steps of `map`: ridges of the slope's size, where the second derivative along the slope changes sign, as far
    as the slope stands above the noise of the terraces and above a third of the steepest. A narrow riser is seen
    `smoothed_px` wider; risers nearer to each other than three times that run together, and nearer to the rim than one
    and a half times nothing is told. Raises `BadInput` for a `smoothed_px` under 1."""
    if not smoothed_px >= 1.0:
        raise BadInput(f"smoothed over {smoothed_px:g} pixels: steps need 1 or more, for noise is found as steps below")
    pixel_m = (map.pixel_size_y_m, map.pixel_size_m)
    height_m = map.level().height_m
    q, p, along, sharper = _derivatives(height_m, smoothed_px, pixel_m)
    steep = np.hypot(p, q)
    # Terraces of a levelled staircase are tilted: what scatters about their tilt is noise.
    scatter = np.mean([np.median(np.abs(slope - np.median(slope))) for slope in (p, q)]) / MAD_OF_NORMAL
    least = max(SHARE_OF_STEEPEST * np.percentile(steep, 97), NOISE_MARGIN * float(scatter))
    rim = math.ceil(RIM * smoothed_px)
    inside = np.pad(np.ones(np.subtract(height_m.shape, 2 * rim).clip(0), np.bool_), rim)
    contours = find_contours(along, 0.0, mask=(steep > least) & (sharper < 0.0) & inside)
    places = [_evenly(found) for found in contours if _length(found) >= LEAST_LENGTH * smoothed_px]
    places.sort(key=len, reverse=True)
    normals = [_downhill(q, p, found) for found in places]
    spacings = _spacings_m(places, normals, pixel_m, smoothed_px)
    lines = []
    for found, normal, spacing_m in zip(places, normals, spacings, strict=True):
        lines.append(
            StepLine(
                places_px=found,
                downhill=normal,
                height_m=_heights_m(height_m, found, normal, spacing_m, pixel_m, smoothed_px),
                spacing_m=spacing_m,
                curvature_per_m=_curvature(found, normal, pixel_m),
                length_m=_length(found * pixel_m),
                closed=bool(np.hypot(*(found[0] - found[-1])) < 2.0),
            )
        )
    return _summed(lines, pixel_m, height_m.shape)


def _summed(lines: Sequence[StepLine], pixel_m: tuple[float, float], shape: tuple[int, ...]) -> Steps:
    heights = np.concatenate([np.empty(0), *(line.height_m for line in lines)])
    known = heights[np.isfinite(heights)]
    between = np.concatenate([np.empty(0), *(line.spacing_m for line in lines)])
    area_m2 = shape[0] * shape[1] * pixel_m[0] * pixel_m[1]
    return Steps(
        lines=tuple(lines),
        pixel_m=pixel_m,
        shape=(shape[0], shape[1]),
        density_per_m=sum(line.length_m for line in lines) / area_m2,
        height_m=float(np.median(known)) if len(known) else math.nan,
        height_error_m=1.25 * float(np.std(known)) / math.sqrt(max(len(known) / ALONG_PX, 1.0))
        if len(known)
        else math.nan,
        spacing_m=float(np.nanmedian(between)) if np.isfinite(between).any() else math.nan,
    )


def _derivatives(height_m: Floats, sigma: float, pixel_m: tuple[float, float]) -> tuple[Floats, Floats, Floats, Floats]:
    """Slopes down and right; the second derivative along the slope, and how that one changes going on along it."""

    def derivative(rows: int, columns: int) -> Floats:
        return np.asarray(
            gaussian_filter(height_m, sigma, order=(rows, columns)) / (pixel_m[0] ** rows * pixel_m[1] ** columns)
        )

    q, p = derivative(1, 0), derivative(0, 1)
    square = np.maximum(p * p + q * q, 1e-30)
    along = (p * p * derivative(0, 2) + 2 * p * q * derivative(1, 1) + q * q * derivative(2, 0)) / square
    down, right = np.gradient(along, *pixel_m)
    return q, p, along, down * q + right * p


def _length(places: Floats) -> float:
    return float(np.hypot(*np.diff(places, axis=0).T).sum())


def _evenly(places: Floats) -> Floats:
    """The same line with points one pixel apart."""
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(places, axis=0).T))])
    at = np.linspace(0.0, travelled[-1], max(round(travelled[-1]) + 1, 2))
    return np.column_stack([np.interp(at, travelled, places[:, axis]) for axis in (0, 1)])


def _downhill(q: Floats, p: Floats, places: Floats) -> Floats:
    slope = np.column_stack([map_coordinates(part, places.T, order=1, mode="nearest") for part in (q, p)])
    return np.asarray(-slope / np.maximum(np.hypot(*slope.T), 1e-30)[:, None])


def _spacings_m(
    places: list[Floats], normals: list[Floats], pixel_m: tuple[float, float], smoothed_px: float
) -> list[Floats]:
    """For each point: how far along its normal, up or down, the next point of any step lies that falls the same
    way."""
    if not places:
        return []
    points, directions = np.concatenate(places) * pixel_m, np.concatenate(normals)
    tree, pixel = cKDTree(points), min(pixel_m)
    nearest = np.full(len(points), math.inf)
    widest = 0.7 * float(np.hypot(*(points.max(axis=0) - points.min(axis=0))))
    for distance in np.geomspace(3.0 * smoothed_px * pixel, max(widest, 4.0 * smoothed_px * pixel), 80):
        waiting = np.flatnonzero(np.isinf(nearest))
        for way in (1.0, -1.0):
            probe = points[waiting] + way * distance * directions[waiting]
            hit = np.asarray(tree.query(probe, distance_upper_bound=0.06 * distance + pixel)[1])
            found = hit < len(points)
            mine, other = waiting[found], hit[found]
            away = np.sum((points[other] - points[mine]) * directions[mine], axis=1) * way
            same = np.sum(directions[other] * directions[mine], axis=1) > SAME_WAY
            good = same & (away > 2.5 * smoothed_px * pixel)
            nearest[mine[good]] = np.minimum(nearest[mine[good]], away[good])
    spacing = np.where(np.isinf(nearest), math.nan, nearest)
    return np.split(spacing, np.cumsum([len(found) for found in places])[:-1])


def _heights_m(
    height_m: Floats,
    places: Floats,
    normals: Floats,
    spacing_m: Floats,
    pixel_m: tuple[float, float],
    smoothed_px: float,
) -> Floats:
    """Straight lines of one slope through both terraces, the riser left out on both sides, give the height between
    them (in the manner of ISO 5436-1), from profiles that are averaged along the step."""
    pixel = min(pixel_m)
    usual = np.nanmedian(spacing_m) if np.isfinite(spacing_m).any() else 40.0 * pixel
    reach = REACH_SHARE * np.where(np.isfinite(spacing_m), spacing_m, usual)
    at = np.linspace(-1.0, 1.0, SAMPLES) * reach[:, None]
    where = (places[:, :, None] * np.array(pixel_m)[:, None] + normals[:, :, None] * at[:, None, :]) / np.array(
        pixel_m
    )[:, None]
    profile = map_coordinates(height_m, where.transpose(1, 0, 2), order=1, mode="nearest")
    profile = uniform_filter1d(profile, min(ALONG_PX, len(profile)), axis=0, mode="nearest")
    inside = np.all((where >= 0) & (where <= np.array(height_m.shape)[:, None] - 1), axis=1)
    # The riser's half width: it is left where the profile's steepness has fallen to a quarter.
    steep = gaussian_filter1d(np.abs(np.gradient(np.median(profile, axis=0))), 1.0)
    wide = np.median(np.abs(at), axis=0)[steep > 0.25 * steep.max()].max(initial=0.0)
    gap = np.clip(max(1.5 * pixel, 1.2 * float(wide)), 0.0, 0.5 * reach)[:, None]
    weight = ((np.abs(at) > gap) & (np.abs(at) < 0.8 * reach[:, None]) & inside).astype(np.float64)
    terms = np.stack([np.ones_like(at), at / reach[:, None], -0.5 * np.sign(at)], axis=-1)
    normal = np.einsum("nsi,ns,nsj->nij", terms, weight, terms)
    right = np.einsum("nsi,ns,ns->ni", terms, weight, profile)
    enough = np.minimum((weight * (at < 0)).sum(axis=1), (weight * (at > 0)).sum(axis=1)) >= 4
    found = np.full(len(places), math.nan)
    if enough.any():
        found[enough] = np.linalg.solve(normal[enough], right[enough][..., None])[:, 2, 0]
    return found


def _curvature(places: Floats, normals: Floats, pixel_m: tuple[float, float]) -> Floats:
    """Of the line smoothed over `CURVED_PX`, positive where its centre lies uphill."""
    if len(places) < 5:
        return np.zeros(len(places))
    line = gaussian_filter1d(places * pixel_m, CURVED_PX, axis=0, mode="nearest")
    first = np.gradient(line, axis=0)
    second = np.gradient(first, axis=0)
    speed = np.maximum(np.sum(first**2, axis=1), 1e-30)
    return np.asarray(-np.sum(second * normals, axis=1) / speed)
