"""Real height maps as a scene: read from .npz, .tif or .gsf, levelled line by line, continued by mirroring."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, median_filter, spline_filter

from acquisition.errors import BadInput

Floats = NDArray[np.float64]

SPIKE_DEVIATIONS = 6.0


class HeightMap:
    """A measured surface, which doesn't grow. Place (0, 0) is its middle.

    Scan-line noise would turn into false slope along y: each line loses its median step against the line before, then
    the whole its mean plane; single pixels far off their neighbourhood are replaced by its median.
    """

    def __init__(self, path: Path) -> None:
        heights_m, (dy_m, dx_m) = read_height_map(path)
        self._pixel_m = (dy_m, dx_m)
        self._shape = heights_m.shape
        self._spline = spline_filter(_levelled(heights_m), order=3, mode="mirror")

    @property
    def pixel_size_m(self) -> float | None:
        return min(self._pixel_m)

    def heights_m(self, x_m: Floats, y_m: Floats, growth_m: float) -> Floats:
        rows = y_m / self._pixel_m[0] + 0.5 * (self._shape[0] - 1)
        columns = x_m / self._pixel_m[1] + 0.5 * (self._shape[1] - 1)
        places = np.meshgrid(rows, columns, indexing="ij")
        heights: Floats = map_coordinates(self._spline, places, order=3, mode="mirror", prefilter=False)
        return heights

    def oxide_fraction(self, growth_m: float) -> float:
        return 0.0


def read_height_map(path: Path) -> tuple[Floats, tuple[float, float]]:
    """Heights (H, W) float64 in metres and the pixel's (height, width) in metres.

    .npz holds `height_m` and `pixel_m` (one number, or dy and dx); .gsf is Gwyddion's simple field; .tif holds metres
    as floating point and its resolution tags. Raises `BadInput` naming the file and what is missing or wrong.
    """
    readers = {".npz": _read_npz, ".tif": _read_tiff, ".tiff": _read_tiff, ".gsf": _read_gsf}
    if not path.is_file():
        raise BadInput(f"height map {path} does not exist")
    try:
        heights, pixel_m = readers[path.suffix.lower()](path)
    except (OSError, KeyError, ValueError, struct.error, zipfile.BadZipFile, tifffile.TiffFileError) as error:
        raise BadInput(f"height map {path} cannot be read: {error}") from error
    if heights.ndim != 2 or min(heights.shape) < 4:
        raise BadInput(f"height map {path} has shape {heights.shape}: expected (H, W) with at least 4 x 4 pixels")
    if not np.isfinite(heights).all():
        raise BadInput(f"height map {path} has heights that are not finite; fill them first")
    if not all(np.isfinite(side) and side > 0 for side in pixel_m):
        raise BadInput(f"height map {path} has a pixel of {pixel_m[0]:g} m by {pixel_m[1]:g} m: it must be above 0 m")
    return heights.astype(np.float64), pixel_m


def _read_npz(path: Path) -> tuple[NDArray[np.floating], tuple[float, float]]:
    with np.load(path, allow_pickle=False) as archive:
        pixel = np.broadcast_to(np.asarray(archive["pixel_m"], np.float64), (2,))
        return np.asarray(archive["height_m"], np.float64), (float(pixel[0]), float(pixel[1]))


def _read_tiff(path: Path) -> tuple[NDArray[np.floating], tuple[float, float]]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if page.dtype is None or page.dtype.kind != "f":
            raise ValueError(f"pixels are {page.dtype}, expected floating point heights in metres")
        unit_m = {2: 0.0254, 3: 0.01, 4: 1e-3, 5: 1e-6}.get(int(page.tags["ResolutionUnit"].value))
        if unit_m is None:
            raise ValueError("its resolution has no unit, so the pixel size is unknown")
        across, down = (page.tags[tag].value for tag in ("XResolution", "YResolution"))
        return page.asarray(), (unit_m * down[1] / down[0], unit_m * across[1] / across[0])


def _read_gsf(path: Path) -> tuple[NDArray[np.floating], tuple[float, float]]:
    content = path.read_bytes()
    magic = b"Gwyddion Simple Field 1.0\n"
    if not content.startswith(magic):
        raise ValueError("it does not start as a Gwyddion simple field")
    end = content.index(b"\0")
    lines = content[len(magic) : end].decode("utf-8").splitlines()
    header = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    columns, rows = int(header["XRes"]), int(header["YRes"])
    start = (end // 4 + 1) * 4
    heights = np.frombuffer(content, "<f4", columns * rows, start).reshape(rows, columns)
    return heights, (float(header.get("YReal", rows)) / rows, float(header.get("XReal", columns)) / columns)


def _levelled(heights_m: Floats) -> Floats:
    steps = np.median(np.diff(heights_m, axis=0), axis=1)
    level = heights_m - np.concatenate([[0.0], np.cumsum(steps)])[:, None]
    smooth = median_filter(level, size=3, mode="nearest")
    residual = level - smooth
    typical = 1.4826 * np.median(np.abs(residual)) + 1e-15
    level = np.where(np.abs(residual) > SPIKE_DEVIATIONS * typical, smooth, level)
    rows, columns = level.shape
    row, column = np.mgrid[:rows, :columns]
    basis = np.stack([np.ones(level.size), row.ravel() - rows / 2, column.ravel() - columns / 2], axis=1)
    plane, *_ = np.linalg.lstsq(basis, level.ravel(), rcond=None)
    flat: Floats = level - (basis @ plane).reshape(level.shape)
    return flat
