"""Gwyddion for tests: its conversion of files, and its statistics by its C library; neither needs a display."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from ctypes import POINTER, byref, c_double, c_int, c_void_p
from pathlib import Path
from typing import Any

import gwyfile
import numpy as np
import pytest
from scipy.ndimage import label

MISSING = "Gwyddion is not installed (Debian: gwyddion)"


def needed() -> None:
    """Leave the test out, or fail it where CI is set, when Gwyddion is not here."""
    if shutil.which("gwyddion") is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)


def opened(path: Path, folder: Path) -> dict[str, Any]:
    """The first channel of a file as Gwyddion reads it, from the .gwy it makes of it."""
    needed()
    out = folder / f"{path.stem}-from-gwyddion.gwy"
    done = subprocess.run(
        ["gwyddion", f"--convert-to-gwy={out}", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    tree = gwyfile.load(str(out))
    channel: dict[str, Any] = tree["/0/data"]
    return channel


def statistics(height_m: np.ndarray, pixel_size_m: float, pixel_size_y_m: float) -> dict[str, float]:
    """What Gwyddion's statistical quantities are: Sku less 3 as it tells it, Sdr as a share."""
    needed()
    process, field = _field(height_m, pixel_size_m, pixel_size_y_m)
    values = [c_double() for _ in range(7)]
    process.gwy_data_field_get_stats(field, *map(byref, values[:5]))
    process.gwy_data_field_get_min_max(field, *map(byref, values[5:]))
    mean, ra, rms, skew, excess, low, high = (value.value for value in values)
    area = process.gwy_data_field_get_surface_area(field)
    slope = process.gwy_data_field_get_surface_slope(field)
    return {
        "sa_m": ra,
        "sq_m": rms,
        "ssk": skew,
        "sku": excess + 3.0,
        "sp_m": high - mean,
        "sv_m": mean - low,
        "sz_m": high - low,
        "sdr": area / (height_m.size * pixel_size_m * pixel_size_y_m) - 1.0,
        "sdq": slope,
    }


def autocovariance(height_m: np.ndarray) -> np.ndarray:
    """Gwyddion's 2D autocovariance, of heights as they are, for lags of up to half the map."""
    needed()
    process, field = _field(height_m, 1.0, 1.0)
    target = process.gwy_data_field_new(1, 1, 1.0, 1.0, 1)
    rows, columns = height_m.shape
    process.gwy_data_field_area_2dacf(field, target, 0, 0, columns, rows, columns // 2 + 1, rows // 2 + 1)
    shape = (process.gwy_data_field_get_yres(target), process.gwy_data_field_get_xres(target))
    return np.ctypeslib.as_array(process.gwy_data_field_get_data(target), shape).copy()


def decay_lengths(height_m: np.ndarray, pixel_size_m: float, pixel_size_y_m: float) -> tuple[float, float]:
    """Sal and the slowest decay length as Gwyddion 2.62 has them (module acf2d, no masks, threshold 0.2): the nearest
    and the farthest pixel corner on the rim of what hangs together around lag 0 above the threshold, of its own
    autocovariance. The module needs a display, so its rule is written down here."""
    function = autocovariance(height_m - height_m.mean())
    rows, columns = (side // 2 for side in function.shape)
    parts, _ = label(function > 0.2 * function[rows, columns])
    inside = np.pad(parts == parts[rows, columns], 1)
    touching = inside[:-1, :-1].astype(int) + inside[:-1, 1:] + inside[1:, :-1] + inside[1:, 1:]
    down, right = np.nonzero((touching > 0) & (touching < 4))
    lengths = np.hypot((down - rows - 0.5) * pixel_size_y_m, (right - columns - 0.5) * pixel_size_m)
    return float(lengths.min()), float(lengths.max())


def _field(height_m: np.ndarray, pixel_size_m: float, pixel_size_y_m: float) -> tuple[ctypes.CDLL, int]:
    ctypes.CDLL("libgwyddion2.so.0", ctypes.RTLD_GLOBAL)
    process = ctypes.CDLL("libgwyprocess2.so.0")
    process.gwy_process_type_init()
    pointer = POINTER(c_double)
    for name, returned, arguments in (
        ("gwy_data_field_new", c_void_p, [c_int, c_int, c_double, c_double, c_int]),
        ("gwy_data_field_get_data", pointer, [c_void_p]),
        ("gwy_data_field_get_xres", c_int, [c_void_p]),
        ("gwy_data_field_get_yres", c_int, [c_void_p]),
        ("gwy_data_field_get_stats", None, [c_void_p, *[pointer] * 5]),
        ("gwy_data_field_get_min_max", None, [c_void_p, pointer, pointer]),
        ("gwy_data_field_get_surface_area", c_double, [c_void_p]),
        ("gwy_data_field_get_surface_slope", c_double, [c_void_p]),
        ("gwy_data_field_area_2dacf", None, [c_void_p, c_void_p, *[c_int] * 6]),
    ):
        function = getattr(process, name)
        function.restype, function.argtypes = returned, arguments
    rows, columns = height_m.shape
    field = process.gwy_data_field_new(columns, rows, columns * pixel_size_m, rows * pixel_size_y_m, 1)
    np.ctypeslib.as_array(process.gwy_data_field_get_data(field), height_m.shape)[:] = height_m
    return process, field
