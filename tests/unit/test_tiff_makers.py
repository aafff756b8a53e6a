"""Files as each maker writes them: what they say is read in SI units, the data bar is cut, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from hardware_drivers.tiff.image_file import ImageFile, read_image_file
from hardware_drivers.tiff.metadata import Told
from hardware_drivers.tiff.sets import read_image_sets
from hardware_drivers.tiff.structure import check_whole
from hostile import bounded_memory
from microscopes import (
    HITACHI_TEXT,
    JEOL_TEXT,
    TESCAN_MAIN,
    TESCAN_SEM,
    ZEISS_TEXT,
    fei_tags,
    tescan_bytes,
    tescan_tags,
    zeiss_tags,
)

ROOT = Path(__file__).parents[2]
IMAGE = np.random.default_rng(0).integers(0, 60_000, (40, 48), dtype=np.uint16)
IMAGES = np.random.default_rng(1).integers(0, 60_000, (4, 40, 48), dtype=np.uint16)
OME_MICRONS = {"axes": "CYX", "PhysicalSizeX": 0.0125, "PhysicalSizeXUnit": "µm", "Channel": {"Name": list("DCBA")}}


def write(path: Path, tags: Any = ()) -> ImageFile:
    tifffile.imwrite(path, IMAGE, extratags=tags, metadata=None)
    return read_image_file(path)


def fei(path: Path) -> ImageFile:
    return write(path, fei_tags("C"))


def zeiss(path: Path) -> ImageFile:
    return write(path, zeiss_tags(3))


def tescan(path: Path) -> ImageFile:
    return write(path, tescan_tags(tescan_bytes(strip=8)))


def tescan_sidecar(path: Path) -> ImageFile:
    text = "[MAIN]\n" + TESCAN_MAIN.format(strip=8) + "[SEM]\n" + TESCAN_SEM
    path.with_name(f"{path.stem}-tif.hdr").write_text(text)
    return write(path)


def hitachi(path: Path) -> ImageFile:
    path.with_suffix(".txt").write_text(HITACHI_TEXT, encoding="ascii")
    return write(path)


def hitachi_wide(path: Path) -> ImageFile:
    path.with_suffix(".txt").write_text(HITACHI_TEXT, encoding="utf-16")
    return write(path)


def jeol(path: Path) -> ImageFile:
    path.with_suffix(".txt").write_text(JEOL_TEXT, encoding="ascii")
    return write(path)


TESCAN = Told(2.5e-08, 3.2e-06, 15e3, 0.0095, 3.2e-10, datetime(2014, 8, 18, 10, 20, 30), -8)
HITACHI = Told(9.921875e-09, None, 15e3, 0.0081, None, datetime(2014, 10, 22, 14, 7, 56), 32)
MAKERS: dict[Callable[[Path], ImageFile], tuple[Told, int]] = {
    fei: (Told(6.5104e-08, 2e-05, 7e3, 0.00501, 5.25e-10, datetime(2019, 3, 14, 14, 15, 26), 32, ("C",)), 32),
    zeiss: (Told(1.25e-08, 4e-07, 7e3, 0.0051, 2.5e-10, datetime(2014, 11, 25, 11, 33, 5), None, ("Q3",)), 40),
    tescan: (TESCAN, 32),
    tescan_sidecar: (TESCAN, 32),
    hitachi: (HITACHI, 32),
    hitachi_wide: (HITACHI, 32),
    jeol: (Told(5e-09, None, 15e3, 0.008, None, datetime(2014, 6, 10, 12, 7, 56), 32), 32),
}
NUMBERS = ("pixel_size_m", "dwell_time_s", "energy_ev", "working_distance_m", "current_a")


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_what_a_maker_writes_is_read_in_si_units_and_the_data_bar_is_cut(
    maker: Callable[[Path], ImageFile], tmp_path: Path
) -> None:
    found, (expected, rows) = maker(tmp_path / "x.tif"), MAKERS[maker]
    for name in NUMBERS:
        value = getattr(expected, name)
        assert getattr(found.told, name) == (None if value is None else pytest.approx(value, rel=1e-9)), name
    assert (found.told.taken, found.told.rows, found.told.channels) == (
        expected.taken,
        expected.rows,
        expected.channels,
    )
    np.testing.assert_array_equal(found.pages, IMAGE[None, :rows])


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_sets_of_every_maker_are_imported(maker: Callable[[Path], ImageFile], tmp_path: Path) -> None:
    paths = [tmp_path / f"x{place}.tif" for place in "1234"]
    for path in paths:
        maker(path)
    expected, rows = MAKERS[maker]
    if expected.channels == ("C",):
        with pytest.raises(BadInput, match=r"both say that they are of segment C"):
            read_image_sets(paths, four_quadrant())
        return
    (found,) = read_image_sets(paths, four_quadrant())
    assert found.images.shape == (4, rows, 48)
    assert found.instrument.scan.pixel_size_m == pytest.approx(expected.pixel_size_m)
    assert found.instrument.beam.energy_ev == pytest.approx(expected.energy_ev)
    assert found.assumed == ()


def test_files_know_their_segments_better_than_their_names_do(tmp_path: Path) -> None:
    for place, segment, image in zip("1234", "DBCA", IMAGES, strict=True):
        tifffile.imwrite(tmp_path / f"x{place}.tif", image, extratags=fei_tags(segment), metadata=None)
    (found,) = read_image_sets(sorted(tmp_path.iterdir()), four_quadrant())
    np.testing.assert_array_equal(found.images, IMAGES[[3, 1, 2, 0], :32])


def test_the_landing_energy_counts_where_the_beam_is_slowed_down(tmp_path: Path) -> None:
    (code, kind, count, text, once) = fei_tags()[0]
    slowed = text.replace("ModeOn=Off", "ModeOn=On")
    assert write(tmp_path / "x.tif", [(code, kind, count, slowed, once)]).told.energy_ev == 500


@pytest.mark.parametrize(("size", "unit", "expected_m"), [(0.0125, "µm", 1.25e-8), (12.5, "nm", 1.25e-8)])
def test_ome_channels_are_the_segments_in_the_order_of_their_names(
    size: float, unit: str, expected_m: float, tmp_path: Path
) -> None:
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, IMAGES, metadata={**OME_MICRONS, "PhysicalSizeX": size, "PhysicalSizeXUnit": unit})
    (found,) = read_image_sets([path], four_quadrant())
    assert found.instrument.scan.pixel_size_m == pytest.approx(expected_m)
    np.testing.assert_array_equal(found.images, IMAGES[::-1])


def test_ome_pixels_without_a_unit_are_micrometres(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.ome.tif", IMAGES, metadata={"axes": "CYX", "PhysicalSizeX": 0.25})
    assert read_image_file(tmp_path / "x.ome.tif").told.pixel_size_m == pytest.approx(2.5e-7)


def test_an_ome_series_in_time_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.ome.tif", IMAGES, metadata={"axes": "TYX"})
    with pytest.raises(BadInput, match="holds 4 times"):
        read_image_file(tmp_path / "x.ome.tif")


def test_ome_entities_are_not_unfolded(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><OME><Pixels SizeX="&l11;"/></OME>'
    tifffile.imwrite(tmp_path / "x.tif", IMAGE, description=text, metadata=None)
    with bounded_memory(), pytest.raises(BadInput, match="OME metadata"):
        read_image_file(tmp_path / "x.tif")


def test_a_recording_of_ours_tells_its_pixel_size() -> None:
    found = read_image_file(ROOT / "tests" / "data" / "recording-v1" / "frames-0000.tif")
    assert found.told.pixel_size_m is not None and 1e-10 < found.told.pixel_size_m < 1e-5


@pytest.mark.parametrize("text", ["notes of the operator\nPixelSize=3\n", "", "$HOME is no key"])
def test_a_text_beside_the_image_that_no_microscope_wrote_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert write(tmp_path / "x.tif").told == Told()


DAMAGED: dict[str, Any] = {
    r"\[Scan\] PixelWidth is 'wide', expected a number": fei_tags(pixel_size_m="wide"),
    r"\[EBeam\] HV is 'inf', expected a finite number": fei_tags(energy_ev="inf"),
    r"\[Image\] ResolutionY is '-5', expected a whole number": fei_tags(height_px="-5"),
    "ap_wd is '5.1 ell', expected a number": zeiss_tags(text=ZEISS_TEXT.replace("5.1 mm", "5.1 ell")),
    "ap_image_pixel_size is 'wide'": zeiss_tags(text=ZEISS_TEXT.replace("12.50 nm", "wide")),
    "HV is 'high'": tescan_tags(tescan_bytes(sem="HV=high\n")),
    r"chunk length at byte \d+ is \d+": tescan_tags(tescan_bytes()[:-20]),
    "chunk length at byte 0 is 4294967295": tescan_tags(b"\xff" * 40),
    "40 rows, of which 4000": tescan_tags(tescan_bytes(strip=4000)),
}


@pytest.mark.parametrize("told", DAMAGED)
def test_damaged_tags_are_refused_with_file_key_and_value(told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"x\.tif.*{told}"):
        write(tmp_path / "x.tif", DAMAGED[told])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HITACHI_TEXT.replace("9.921875", "fine"), "PixelSize is 'fine'"),
        (HITACHI_TEXT.replace("48x32", "large"), "DataSize is 'large'"),
        (HITACHI_TEXT.replace("15000 Volt", "15000 Bolt"), "AcceleratingVoltage is '15000 Bolt'"),
        (JEOL_TEXT.replace("48 32", "48"), r"\$CM_FULL_SIZE is '48'"),
        (JEOL_TEXT.replace("1um", "one"), r"\$\$SM_MICRON_MARKER is 'one'"),
        (JEOL_TEXT.replace("15.00", "9" * 5000), r"\$CM_ACCEL_VOLT is '9{40}\.\.\.', expected a finite number"),
    ],
)
def test_a_damaged_sidecar_is_refused_with_file_key_and_value(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(BadInput, match=rf"x\.txt.*{told}"):
        write(tmp_path / "x.tif")


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}]
)
def test_a_file_that_was_cut_off_is_not_whole(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, IMAGES, metadata=None, photometric="minisblack", **options)
    content = path.read_bytes()
    assert check_whole(path) == 4
    for kept in (0, 4, 9, len(content) // 3, len(content) // 2, len(content) - 64):
        path.write_bytes(content[:kept])
        with pytest.raises(BadInput, match=r"x\.tif"):
            check_whole(path)


def test_a_chain_of_pages_that_was_cut_off_is_no_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as writer:
        for image in IMAGES:
            writer.write(image, metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as file:
        last = file.pages[3].offset
    path.write_bytes(path.read_bytes()[: last - 1])
    with pytest.raises(BadInput, match="cut off"):
        read_image_file(path)
