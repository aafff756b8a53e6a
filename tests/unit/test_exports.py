"""Exports opened by the programs and validators they are for: the same heights, the same scale, the same way up."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
import trimesh
import zarr
from ome_types import from_tiff
from ome_zarr_models.v04 import Image

import gwyddion
from acquisition.errors import BadInput
from acquisition.frames import Frame, Result, RunFinished, checksum
from acquisition.instrument import four_quadrant
from acquisition.recording import Recorder
from inference.metrology.afm_files import read_map
from recordings import finish, frame, record, result, run_started
from service.client_types import ExportFormat
from service.exports import FORMATS, Format, export, export_run

SHAPE = (48, 64)
DX_M, DY_M = 5e-9, 6e-9
COUNT = 3


def spiral_m(sequence: int) -> np.ndarray:
    """Rises by 3 nm each turn anticlockwise about the middle, as the image is shown; the ramp sits on a slope."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    up, right = 23.5 - row, column - 31.5
    turn = np.arctan2(up, right) / (2 * np.pi) % 1.0
    return (3e-9 * turn + 1e-10 * (sequence + 1) * column).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "spiral"
    shape = (4, *SHAPE)
    plain = four_quadrant()
    instrument = plain.model_copy(update={"scan": plain.scan.model_copy(update={"pixel_size_y_m": DY_M})})
    recorder = Recorder(folder, replace(run_started(), shape=shape), instrument, lambda _: None, simulated=False)
    for sequence in range(COUNT):
        images = np.full(shape, 100 + sequence, np.uint16)
        moment = {"monotonic_ns": 4_000_000_000 * sequence, "utc_ns": 10**18 + 4_000_000_000 * sequence}
        recorder.write_frame(
            Frame(replace(frame(sequence).header, shape=shape, xxh3=checksum(images), **moment), images)
        )
    for sequence in range(COUNT):
        recorder.write_result(Result(result(sequence).header, {"height": spiral_m(sequence)}))
    recorder.finish_frames(RunFinished("run", "test", 0, 0, 0, COUNT, COUNT - 1, "asked", recorder.digest))
    recorder.close("complete")
    return folder


def exported(run: Path, format: Format, out: Path, frame: int | None = None) -> Path:
    told: list[tuple[int, int]] = []
    export(run, format, out, lambda done, total: told.append((done, total)), frame)
    assert told[-1][0] == told[-1][1] > 0
    return out


def test_gwyddion_reads_every_frame_of_a_gwy(run: Path, tmp_path: Path) -> None:
    field = gwyddion.opened(exported(run, "gwy", tmp_path / "run.gwy"), tmp_path)
    np.testing.assert_array_equal(field.data, spiral_m(0))
    assert (field.xreal, field.yreal) == (64 * DX_M, 48 * DY_M)
    assert (field.si_unit_z.unitstr, field.si_unit_xy.unitstr) == ("m", "m")
    last = read_map(exported(run, "gwy", tmp_path / "last.gwy", frame=2))
    np.testing.assert_array_equal(last.height_m, spiral_m(2))


def test_gwyddion_reads_a_gsf_of_the_last_frame(run: Path, tmp_path: Path) -> None:
    field = gwyddion.opened(exported(run, "gsf", tmp_path / "run.gsf"), tmp_path)
    np.testing.assert_array_equal(field.data, spiral_m(2))
    assert (field.xreal, field.yreal) == (64 * DX_M, 48 * DY_M)


def test_ome_tiff_is_valid_and_tells_sizes_and_times(run: Path, tmp_path: Path) -> None:
    out = exported(run, "ome-tiff", tmp_path / "run.ome.tiff")
    pixels = from_tiff(out).images[0].pixels
    assert (pixels.size_t, pixels.size_y, pixels.size_x, pixels.type.value) == (COUNT, *SHAPE, "float")
    assert (pixels.physical_size_x_unit.value, pixels.physical_size_y_unit.value) == ("nm", "nm")
    assert (pixels.physical_size_x, pixels.physical_size_y) == (pytest.approx(5.0, rel=1e-12), pytest.approx(6.0))
    assert [plane.delta_t for plane in pixels.planes] == [0.0, 4.0, 8.0]
    np.testing.assert_array_equal(tifffile.imread(out), [spiral_m(number) for number in range(COUNT)])


def test_ome_zarr_is_valid_and_its_levels_lie_on_each_other(run: Path, tmp_path: Path) -> None:
    group = zarr.open_group(exported(run, "ome-zarr", tmp_path / "run.ome.zarr"), mode="r")
    image = Image.from_zarr(group).attributes.multiscales[0]
    assert [(axis.name, axis.unit) for axis in image.axes] == [("t", "second"), ("y", "nanometer"), ("x", "nanometer")]
    scale = image.datasets[0].coordinateTransformations[0].scale
    assert scale == pytest.approx([4.0, 1e9 * DY_M, 1e9 * DX_M], rel=1e-12)
    np.testing.assert_array_equal(group["0"][2], spiral_m(2))
    with pytest.raises(BadInput, match="exists already"):
        exported(run, "ome-zarr", tmp_path / "run.ome.zarr")


@pytest.mark.parametrize("format", ["stl", "ply"])
def test_surface_keeps_size_and_the_sense_of_a_spiral(format: Format, run: Path, tmp_path: Path) -> None:
    mesh = trimesh.load_mesh(exported(run, format, tmp_path / f"run.{format}", frame=1))
    assert mesh.is_winding_consistent
    assert (mesh.face_normals[:, 2] > 0).all()
    np.testing.assert_allclose(mesh.extents[:2], [63 * DX_M * 1e6, 47 * DY_M * 1e6], rtol=1e-6)
    # Anticlockwise as seen from above, the spiral rises by its pitch but for the step; so does the image as shown.
    x, y, z = mesh.vertices.T
    x, y, z = x - 31.5 * DX_M * 1e6, y + 23.5 * DY_M * 1e6, z - 2e-4 * x / (DX_M * 1e6)
    turn = np.arctan2(y / (DY_M * 1e6), x / (DX_M * 1e6)) / (2 * np.pi) % 1.0
    np.testing.assert_allclose(z, 3e-3 * turn, atol=1e-6)


def test_movie_has_a_picture_per_height(run: Path, tmp_path: Path) -> None:
    reader = imageio_ffmpeg.read_frames(str(exported(run, "mp4", tmp_path / "run.mp4")))
    told = next(reader)
    pictures = [np.frombuffer(picture, np.uint8).reshape(*told["size"][::-1], 3) for picture in reader]
    assert (len(pictures), told["codec"]) == (COUNT, "h264")
    assert min(told["size"]) >= min(SHAPE)
    assert pictures[0].std() > 10.0


def test_npy_is_a_stack_or_one_height(run: Path, tmp_path: Path) -> None:
    stack = np.load(exported(run, "npy", tmp_path / "run.npy"))
    np.testing.assert_array_equal(stack, [spiral_m(number) for number in range(COUNT)])
    np.testing.assert_array_equal(np.load(exported(run, "npy", tmp_path / "one.npy", frame=1)), spiral_m(1))


def test_a_task_makes_one_file_of_a_folder(run: Path, tmp_path: Path) -> None:
    told = export_run(run, "ome-zarr", lambda done, total: None, tmp_path, frame=1)
    assert told["file"] == "spiral-1.ome.zarr.zip"
    with zipfile.ZipFile(tmp_path / told["file"]) as archive:
        assert "spiral-1.ome.zarr/.zattrs" in archive.namelist()


def test_what_cannot_be_exported_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"frame 7 of .* has no height"):
        exported(run, "gwy", tmp_path / "a.gwy", frame=7)
    with pytest.raises(BadInput, match="leave out the frame"):
        exported(run, "zip", tmp_path / "a.zip", frame=0)
    finish(record(tmp_path / "bare", 1, []))
    for format in FORMATS[1:]:
        with pytest.raises(BadInput, match="no heights"):
            exported(tmp_path / "bare", format, tmp_path / "a")
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for format in ("ome-zarr", "mp4"):
        with pytest.raises(BadInput, match="the extra `exports`"):
            exported(run, format, tmp_path / "a")


def test_the_client_knows_every_format() -> None:
    assert get_args(ExportFormat) == FORMATS
