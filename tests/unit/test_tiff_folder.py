"""Image files of a microscope: metadata read, data bar cut, sets found, everything wrong said plainly."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from hardware_drivers.tiff.image_file import read_image_file
from hardware_drivers.tiff.naming import Naming, order_of
from hardware_drivers.tiff.sets import read_image_sets
from hostile import usual

FEI_TEXT = "\r\n".join(
    [
        "[User]\r\nDate=03/14/2019\r\nTime=02:15:26 PM",
        "[EBeam]\r\nHV=7000\r\nWD=0.00501\r\nBeamCurrent=5.25e-10",
        "[Scan]\r\nPixelWidth=6.5104e-08\r\nDwelltime=2e-05",
        "[Image]\r\nResolutionX=48\r\nResolutionY=32\r\nDatabarHeight=0\r\n",
    ]
)
IMAGES = np.random.default_rng(0).integers(0, 60_000, (4, 40, 48), dtype=np.uint16)


def write(folder: Path, names: list[str], images: NDArray[np.uint16] = IMAGES, fei: bool = False) -> list[Path]:
    tags = [(34682, "s", 0, FEI_TEXT, True)] if fei else []
    paths = [folder / name for name in names]
    for path, image in zip(paths, images, strict=False):
        tifffile.imwrite(path, image, extratags=tags, metadata=None)
    return paths


def test_fei_metadata_wins_over_the_instrument_file_and_the_data_bar_is_cut(tmp_path: Path) -> None:
    (found,) = read_image_sets(write(tmp_path, [f"x_{n}.tif" for n in "ABCD"], fei=True), four_quadrant())
    np.testing.assert_array_equal(found.images, IMAGES[:, :32])
    assert found.instrument.scan.pixel_size_m == 6.5104e-08
    assert found.instrument.detector.working_distance_m == 0.00501
    assert found.instrument.beam.energy_ev == 7000
    assert found.instrument.beam.current_a == 5.25e-10
    assert found.instrument.beam.dwell_time_s == 2e-05


def test_channels_follow_the_instrument_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    paths = write(tmp_path, [f"x_{n}.tif" for n in "ABCD"])
    (found,) = read_image_sets(paths[::-1], four_quadrant())
    np.testing.assert_array_equal(found.images, IMAGES)
    assert [path.name for path in found.files] == [path.name for path in paths]


def test_many_frames_fall_into_sets(tmp_path: Path) -> None:
    names = [f"f{frame}_q{channel}.tif" for frame in (8, 9, 10) for channel in "1234"]
    sets = read_image_sets(write(tmp_path, names, np.concatenate([IMAGES] * 3)), four_quadrant())
    assert len(sets) == 3
    for found in sets:
        np.testing.assert_array_equal(found.images, IMAGES)


def test_a_pattern_says_how_names_differ(tmp_path: Path) -> None:
    names = [f"{place}-image.tif" for place in ("top", "left", "bottom", "right")]
    (found,) = read_image_sets(write(tmp_path, names), four_quadrant(), r"(?P<channel>\w+)-image")
    assert [path.name.split("-")[0] for path in found.files] == ["bottom", "left", "right", "top"]


def test_one_file_with_a_page_per_segment_is_a_set(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "all.tif", IMAGES, metadata=None, photometric="minisblack")
    (found,) = read_image_sets([tmp_path / "all.tif"], four_quadrant())
    np.testing.assert_array_equal(found.images, IMAGES)


def test_eight_bit_images_are_widened(tmp_path: Path) -> None:
    (found,) = read_image_sets(write(tmp_path, list("ABCD"), (IMAGES >> 8).astype(np.uint8)), four_quadrant())
    assert found.images.dtype == np.uint16


def test_a_missing_segment_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a segment missing"):
        read_image_sets(write(tmp_path, [f"x_{n}.tif" for n in "ABC"]), four_quadrant())


def test_mixed_sizes_are_said_with_names_and_sizes(tmp_path: Path) -> None:
    paths = write(tmp_path, [f"x_{n}.tif" for n in "ABCD"])
    tifffile.imwrite(paths[2], IMAGES[2, :20])
    with pytest.raises(BadInput, match=r"x_C\.tif \(20, 48\)"):
        read_image_sets(paths, four_quadrant())


@pytest.mark.parametrize("content", [b"", b"not a tiff at all", b"II*\x00\xff\xff\xff\xff"])
def test_what_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.tif cannot be read as TIFF"):
        read_image_sets([path], four_quadrant())


def test_a_half_written_file_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, [f"x_{n}.tif" for n in "ABCD"])
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"x_B\.tif"):
        read_image_sets(paths, four_quadrant())


def test_colour_images_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(BadInput, match="greyscale"):
        read_image_sets([tmp_path / "x.tif"], four_quadrant())


def test_white_of_eight_bits_is_full_scale_so_that_saturation_is_seen(tmp_path: Path) -> None:
    narrow = np.zeros((4, 8, 8), np.uint8)
    narrow[:, 0, 0] = 255
    (found,) = read_image_sets(write(tmp_path, [f"x_{n}.tif" for n in "ABCD"], narrow), four_quadrant())
    assert found.images.max() == 65535 and found.images.min() == 0


def test_a_pixel_size_that_no_file_tells_is_named_as_assumed(tmp_path: Path) -> None:
    (silent,) = read_image_sets(write(tmp_path, [f"x_{n}.tif" for n in "ABCD"]), four_quadrant())
    assert "5e-09 m" in silent.assumed[0] and silent.taken is None
    (telling,) = read_image_sets(write(tmp_path, [f"y_{n}.tif" for n in "ABCD"], fei=True), four_quadrant())
    assert telling.assumed == ()
    assert telling.taken == datetime(2019, 3, 14, 14, 15, 26)


@pytest.mark.parametrize(("per_cm", "expected_m"), [(2_000_000, 5e-9), (28, None)])
def test_a_resolution_in_centimetres_is_believed_unless_it_is_a_screen_s(
    tmp_path: Path, per_cm: int, expected_m: float | None
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", IMAGES[0], resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    assert read_image_file(tmp_path / "x.tif").told.pixel_size_m == (expected_m and pytest.approx(expected_m))


def test_names_that_can_be_grouped_in_two_ways_are_not_guessed(tmp_path: Path) -> None:
    paths = write(tmp_path, [f"{row}{column}.tif" for row in "wxyz" for column in "1234"], np.concatenate([IMAGES] * 4))
    with pytest.raises(BadInput, match=r"in 2 ways .*--pattern"):
        read_image_sets(paths, four_quadrant())
    assert len(read_image_sets(paths, four_quadrant(), r"(?P<channel>\d)\.tif")) == 4


def test_letters_of_the_segments_names_decide_between_two_ways(tmp_path: Path) -> None:
    paths = write(
        tmp_path, [f"{channel}{frame}.tif" for frame in "1234" for channel in "ABCD"], np.tile(IMAGES, (4, 1, 1))
    )
    sets = read_image_sets(paths, four_quadrant())
    assert [[path.name for path in found.files] for found in sets][1] == ["A2.tif", "B2.tif", "C2.tif", "D2.tif"]


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"f{frame}_{channel}.tif" for frame in (10, 9, 100) for channel in "ABCD"]
    sets = read_image_sets(write(tmp_path, names, np.tile(IMAGES, (3, 1, 1))), four_quadrant())
    assert [found.files[0].name for found in sets] == ["f9_A.tif", "f10_A.tif", "f100_A.tif"]


def test_files_of_the_same_name_in_two_folders_are_two_sets(tmp_path: Path) -> None:
    paths: list[Path] = []
    for place in ("before", "after"):
        (tmp_path / place).mkdir()
        paths += write(tmp_path / place, [f"x_{n}.tif" for n in "ABCD"])
    sets = read_image_sets(paths, four_quadrant())
    assert [{path.parent.name for path in found.files} for found in sets] == [{"after"}, {"before"}]


def test_a_file_with_pages_of_different_sizes_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        for rows in (8, 8, 8, 6):
            writer.write(np.zeros((rows, 8), np.uint16), metadata=None)
    with pytest.raises(BadInput, match="pages of different sizes"):
        read_image_sets([tmp_path / "x.tif"], four_quadrant())


@usual
@given(
    st.sampled_from([tuple("ABCD"), ("Q1", "Q2", "Q3"), ("1", "2", "3", "4"), ("top", "left", "low")]),
    st.lists(st.sets(st.text(st.sampled_from("AB1Q2_. -xé٣²top"), min_size=1, max_size=9), max_size=12), max_size=3),
)
def test_whatever_files_are_called_each_belongs_to_one_group(
    segments: tuple[str, ...], arriving: list[set[str]]
) -> None:
    naming = Naming(segments)
    for names in arriving:
        groups = naming.groups(names)
        assert sorted(name for group in groups for name in group.files.values()) == sorted(names)
        assert len(sorted(groups, key=lambda group: order_of(group.key))) == len(groups)
        for group in groups:
            assert sorted(naming.in_order(group.files)) == sorted(group.files.values())
