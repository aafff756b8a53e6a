"""Facets of a height map: where many neighbouring pixels have one slope."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, find_objects, gaussian_filter
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.segmentation import watershed

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.scatter import MAD_TO_SIGMA

SMOOTHING_PX = 1.5
RESOLUTION_DEG = 2.0
BIN_DEG = 0.5
REACH_DEG = 6.0
LEAST_PX = 100
LEAST_PEAK = 0.01
BLOCKS = 4
CLIPPED_SIGMAS = 3.0

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Facet:
    """One connected face. `cluster` is the number of its slope: faces far from each other may share it.

    `azimuth_deg` is where it looks down to, 0 to the right and 90 to the top of the image. `area_m2` is that of the
    face, not of its projection. `normal` (3,) is in right-handed axes: to the right, to the top, to the viewer;
    `sigma_deg` the standard uncertainty of its direction, per axis. `centre_px` is (x, y).
    """

    number: int
    cluster: int
    inclination_deg: float
    sigma_inclination_deg: float
    azimuth_deg: float
    sigma_azimuth_deg: float
    area_m2: float
    sigma_area_m2: float
    pixels: int
    centre_px: tuple[float, float]
    normal: Floats
    sigma_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Facets:
    """`facets` by falling area, and `labels` (H, W) int32: their numbers, 0 where there is none. `smoothing_px`: the
    Gaussian by whose derivative slopes were taken to tell faces apart; their planes are fitted to unsmoothed heights.
    """

    facets: tuple[Facet, ...]
    labels: Labels
    smoothing_px: float


def find_facets(
    surface: HeightMap,
    smoothing_px: float = SMOOTHING_PX,
    resolution_deg: float = RESOLUTION_DEG,
    least_px: int = LEAST_PX,
) -> Facets:
    """Slopes as a density over all directions (equal areas of the sphere are equal there), parted at its saddles by a
    watershed; what lies within 6 degrees of a peak and hangs together in the image, `least_px` or more, is a facet.

    Each gets a plane by least squares, once clipped at 3 sigma, on its pixels less a margin of the smoothing. Its
    uncertainty is the jackknife over 4 x 4 blocks of it, which holds for noise correlated over less than a block.
    Raises `BadInput` for a smoothing or resolution that is not above zero.
    """
    if not (smoothing_px > 0 and resolution_deg > 0 and least_px >= 16):
        raise BadInput(f"smoothing {smoothing_px:g} px, resolution {resolution_deg:g}°, {least_px} px: above 0, and 16")
    clusters = _clusters(_directions_deg(surface, smoothing_px), resolution_deg)
    parts = label(clusters, connectivity=1, background=0)
    margin = max(1, round(smoothing_px))
    found: list[tuple[Facet, NDArray[np.bool_], tuple[slice, ...]]] = []
    for number, box in enumerate(find_objects(parts), 1):
        inside = parts[box] == number
        core = binary_erosion(np.pad(inside, 1), iterations=margin)[1:-1, 1:-1]
        if np.count_nonzero(inside) < least_px or np.count_nonzero(core) < max(16, least_px // 5):
            continue  # too small, or so thin that it is a rounded edge
        cluster = int(clusters[box][inside][0])
        found.append((_facet(surface, inside, core, box, cluster), inside, box))
    found.sort(key=lambda one: -one[0].area_m2)
    labels, facets = np.zeros(clusters.shape, np.int32), []
    for number, (facet, inside, box) in enumerate(found, 1):
        labels[box][inside] = number
        facets.append(replace(facet, number=number))
    return Facets(tuple(facets), labels, smoothing_px)


def slopes(surface: HeightMap, smoothing_px: float) -> tuple[Floats, Floats]:
    """(p, q): dz/dx and dz/dy, y down, by the derivative of a Gaussian."""
    p, q = (gaussian_filter(surface.height_m, smoothing_px, order=order, mode="nearest") for order in ((0, 1), (1, 0)))
    return p / surface.pixel_size_m, q / surface.pixel_size_y_m


def _directions_deg(surface: HeightMap, smoothing_px: float) -> Floats:
    """(H, W, 2) Lambert's equal-area projection of the normals: distances near each other are angles in degrees."""
    p, q = slopes(surface, smoothing_px)
    up = 1.0 / np.sqrt(1.0 + p**2 + q**2)
    scale = np.degrees(np.sqrt(2.0 / (1.0 + up)) * up)
    return np.stack([-p * scale, q * scale], axis=-1)


def _clusters(directions_deg: Floats, resolution_deg: float) -> Labels:
    """(H, W) the number of the peak of slope density that each pixel belongs to, 0 for none."""
    places = np.round(directions_deg / BIN_DEG).astype(np.intp)
    low = places.reshape(-1, 2).min(axis=0) - 4
    shape = tuple(places.reshape(-1, 2).max(axis=0) - low + 5)
    flat = np.ravel_multi_index(tuple(np.moveaxis(places - low, -1, 0)), shape)
    counts = np.bincount(flat.ravel(), minlength=math.prod(shape)).reshape(shape).astype(np.float64)
    density = gaussian_filter(counts, resolution_deg / BIN_DEG, mode="constant")
    apart = max(1, round(2.0 * resolution_deg / BIN_DEG))
    peaks = peak_local_max(density, min_distance=apart, threshold_rel=LEAST_PEAK, exclude_border=False)
    markers = np.zeros(shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    basins = watershed(-density, markers)
    cluster = basins.ravel()[flat]
    away = np.linalg.norm(directions_deg - ((peaks + low) * BIN_DEG)[cluster - 1], axis=-1)
    return np.asarray(np.where(away <= REACH_DEG, cluster, 0), np.int32)


def _facet(
    surface: HeightMap, inside: NDArray[np.bool_], core: NDArray[np.bool_], box: tuple[slice, ...], cluster: int
) -> Facet:
    (p, q), covariance = _plane(surface, core, surface.height_m[box][core])
    steepness = math.hypot(p, q)
    along = np.array([p, q]) / steepness if steepness > 0 else np.array([1.0, 0.0])
    aside = np.array([-along[1], along[0]])
    sigma_along, sigma_aside = (math.sqrt(max(0.0, float(way @ covariance @ way))) for way in (along, aside))
    stretch = math.sqrt(1.0 + steepness**2)
    sigma_inclination, count = sigma_along / stretch**2, int(np.count_nonzero(inside))
    area_m2 = count * surface.pixel_size_m * surface.pixel_size_y_m * stretch
    # Half a pixel of doubt at each pixel of the border, independent of its neighbours.
    border_px = count - int(np.count_nonzero(binary_erosion(np.pad(inside, 1))))
    sigma_area = math.hypot(0.5 * math.sqrt(border_px) / count, steepness * sigma_along / stretch**2)
    rows, columns = np.nonzero(inside)
    return Facet(
        0,
        cluster,
        math.degrees(math.atan(steepness)),
        math.degrees(sigma_inclination),
        math.degrees(math.atan2(q, -p)) % 360.0,
        min(180.0, math.degrees(sigma_aside / steepness)) if steepness > 0 else 180.0,
        area_m2,
        area_m2 * sigma_area,
        count,
        (float(columns.mean() + box[1].start), float(rows.mean() + box[0].start)),
        np.array([-p, q, 1.0]) / stretch,
        math.degrees(math.hypot(sigma_inclination, sigma_aside / stretch) / math.sqrt(2.0)),
    )


def _plane(surface: HeightMap, core: NDArray[np.bool_], height_m: Floats) -> tuple[tuple[float, float], Floats]:
    """Slopes (p, q) of the heights on the pixels `core`, and their covariance (2, 2)."""
    y, x = np.nonzero(core)
    unit_m = surface.pixel_size_m * math.sqrt(len(x))
    columns = (x - x.mean()) * surface.pixel_size_m / unit_m, (y - y.mean()) * surface.pixel_size_y_m / unit_m
    design = np.column_stack([np.ones(len(x)), *columns])
    rest = height_m - design @ np.linalg.lstsq(design, height_m, rcond=None)[0]
    limit = CLIPPED_SIGMAS * MAD_TO_SIGMA * float(np.median(np.abs(rest)))
    kept = np.abs(rest) <= max(limit, 1e-9 * unit_m)
    design, height_m = design[kept], height_m[kept]
    block = _blocks(y[kept], x[kept])
    squares = np.array([design[block == one].T @ design[block == one] for one in np.unique(block)])
    products = np.array([design[block == one].T @ height_m[block == one] for one in np.unique(block)])
    plane = np.linalg.solve(squares.sum(axis=0), products.sum(axis=0))
    less = zip(squares.sum(axis=0) - squares, products.sum(axis=0) - products, strict=True)
    without = np.array([np.linalg.solve(*one) for one in less])[:, 1:] / unit_m
    spread = without - without.mean(axis=0)
    return (float(plane[1] / unit_m), float(plane[2] / unit_m)), (len(without) - 1) / len(without) * spread.T @ spread


def _blocks(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.intp]:
    """The number of the block of about equally many pixels that each lies in: strips of rows, parted by columns."""
    block = np.empty(len(y), np.intp)
    for strip, rows in enumerate(np.array_split(np.argsort(y, kind="stable"), BLOCKS)):
        for part, chosen in enumerate(np.array_split(rows[np.argsort(x[rows], kind="stable")], BLOCKS)):
            block[chosen] = strip * BLOCKS + part
    return block
