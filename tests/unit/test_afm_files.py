"""Height maps read from files: the same heights, the same way up, with their scale, whoever wrote them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gsffile
import gwyfile.objects
import numpy as np
import pytest
import tifffile

import gwyddion
from acquisition.errors import BadInput
from inference.metrology import afm_files
from inference.metrology.afm_files import read_map

HEIGHT_M = np.random.default_rng(7).normal(0.0, 20e-9, (40, 50))
DX_M, DY_M = 4e-9, 8e-9
SDF = """aISO-1.0
ManufacID   = test
CreateDate  = 010120260000
ModDate     = 010120260000
NumPoints   = 50
NumProfiles = 40
Xscale      = 4e-9
Yscale      = 8e-9
Zscale      = 1e-9
Zresolution = -1
Compression = 0
DataType    = 7
CheckType   = 0
*
"""


def write_npz(path: Path) -> None:
    np.savez(path, height_m=HEIGHT_M, pixel_m=(DY_M, DX_M))


def write_gsf(path: Path) -> None:
    scale = {"XReal": 50 * DX_M, "YReal": 40 * DY_M, "XYUnits": "m", "ZUnits": "m"}
    gsffile.write_gsf(path, HEIGHT_M.astype(np.float32), scale)


def write_gwy(path: Path) -> None:
    def unit(name: str) -> gwyfile.objects.GwySIUnit:
        return gwyfile.objects.GwySIUnit(unitstr=name)

    def field(values: np.ndarray, z: str) -> gwyfile.objects.GwyDataField:
        return gwyfile.objects.GwyDataField(values, 50 * DX_M, 40 * DY_M, si_unit_xy=unit("m"), si_unit_z=unit(z))

    tree = gwyfile.objects.GwyContainer()
    for number, (title, z, factor) in enumerate([("Phase", "deg", 3.0), ("Error", "m", 2.0), ("Height", "m", 1.0)]):
        tree[f"/{number}/data"] = field(factor * HEIGHT_M, z)
        tree[f"/{number}/data/title"] = title
    tree.tofile(str(path))


def write_tiff(path: Path) -> None:
    resolution = (0.01 / DX_M, 0.01 / DY_M)
    tifffile.imwrite(path, HEIGHT_M.astype(np.float32), resolution=resolution, resolutionunit="CENTIMETER")


def write_sdf(path: Path) -> None:
    """ISO 25178-71, as makers of profilers write it."""
    rows = (" ".join(f"{value:.9f}" for value in row) for row in HEIGHT_M * 1e9)
    path.write_text(SDF + "\n".join(rows) + "\n*\n")


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.npz", write_npz), ("a.gsf", write_gsf), ("a.gwy", write_gwy), ("a.tif", write_tiff), ("a.sdf", write_sdf)],
)
def test_heights_and_scale_are_those_of_the_file(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / name)
    found = read_map(tmp_path / name)
    np.testing.assert_allclose(found.height_m, HEIGHT_M, rtol=1e-6, atol=1e-17)
    assert (found.pixel_size_m, found.pixel_size_y_m) == (pytest.approx(DX_M), pytest.approx(DY_M))


def test_makers_files_are_read_by_gwyddion_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gwyddion.needed()
    monkeypatch.setitem(sys.modules, "SurfaceTopography.IO", None)
    write_sdf(tmp_path / "a.sdf")
    found = read_map(tmp_path / "a.sdf")
    np.testing.assert_allclose(found.height_m, HEIGHT_M, rtol=1e-6, atol=1e-17)
    assert found.pixel_size_y_m == pytest.approx(DY_M)


def test_makers_file_without_anything_that_reads_it_tells_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SurfaceTopography.IO", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    write_sdf(tmp_path / "scan.sdf")
    with pytest.raises(BadInput, match=r"scan\.sdf cannot be read.*extra `afm`.*\.gsf"):
        read_map(tmp_path / "scan.sdf")


@pytest.mark.parametrize("suffix", sorted(afm_files.READERS))
def test_broken_files_are_told_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"no height map at all" * 20)
    with pytest.raises(BadInput, match=f"broken{suffix} cannot be read.*Gwyddion"):
        read_map(path)


def test_holes_in_a_map_are_told(tmp_path: Path) -> None:
    heights = HEIGHT_M.copy()
    heights[3, 4] = np.nan
    np.savez(tmp_path / "holes.npz", height_m=heights, pixel_m=DX_M)
    with pytest.raises(BadInput, match=r"holes\.npz: 1 of 2000 heights are not finite"):
        read_map(tmp_path / "holes.npz")


def test_a_channel_that_is_no_height_is_told(tmp_path: Path) -> None:
    gsffile.write_gsf(tmp_path / "volts.gsf", HEIGHT_M.astype(np.float32), {"ZUnits": "V", "XYUnits": "m"})
    with pytest.raises(BadInput, match=r"volts\.gsf cannot be read: it is 'V' over 'm'"):
        read_map(tmp_path / "volts.gsf")
