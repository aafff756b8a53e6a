"""Files from outside, changed in any way: settings, instruments, images. Each is read as it is or refused as bad input;
no other exception, no hang, no memory beyond what the file can hold."""

from __future__ import annotations

import datetime
import io
import math
import struct
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from acquisition.endpoints import check_reachable_only_by_friends
from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant, load_instrument
from hardware_drivers.tiff.image_file import read_image_file
from hardware_drivers.tiff.sets import read_image_sets
from hostile import Change, bounded_memory, changed, changes, few, replace_somewhere, usual
from microscopes import HITACHI_TEXT, JEOL_TEXT, ZEISS_TEXT, tescan_bytes, tescan_tags, zeiss_tags
from service import wiring
from service.settings import load_settings

ROOT = Path(__file__).parents[2]
INSTRUMENTS = ("four-quadrant.toml", "copper-in-gas.toml")
SETTINGS = ("node.toml", "gpu-box.toml", "workstation.toml")
IMAGE_MEMORY_BYTES = 96 * 2**20
"""A file of some kilobytes, unpacked as far as any method packs, a few times over."""

toml_values = st.recursive(
    st.sampled_from(
        [0, -1, 2**63 - 1, -(2**63), 10**400, 1e308, 5e-324, math.nan, math.inf, -math.inf, "", "~nobody/x"]
    )
    | st.sampled_from(["\x00", "[", "x" * 5000, "\n", "..", "simulated", datetime.date(2026, 1, 1)])
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats()
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=6,
)


@contextmanager
def file_of(content: bytes, name: str = "file.toml") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def take_instrument(content: bytes) -> None:
    with file_of(content) as path, bounded_memory():
        try:
            instrument = load_instrument(path)
        except BadInput as refused:
            assert str(path) in str(refused)
            return
        assert math.isfinite(instrument.scan.pixel_size_m) and instrument.scan.pixel_size_m > 0
        with file_of(instrument.to_toml().encode()) as again:
            assert load_instrument(again).calibration_hash == instrument.calibration_hash


def take_settings(content: bytes) -> None:
    """Read settings as a command with options does, and ask for all that is only looked at later."""
    with file_of(content) as path, bounded_memory():
        try:
            settings = load_settings(path, {"scan": {"width_px": 64}, "microscope": {"scene": None}, "stream": {}})
            _ = settings.stream.keys
            for address in (settings.stream.endpoints.data, settings.stream.endpoints.control):
                check_reachable_only_by_friends(address, None)
            wiring.instrument(settings)
        except BadInput:
            return
        assert settings.scan.width_px == 64
        assert settings.interlocks.limits().stale_after_s > 0
        assert settings.runs_folder == settings.runs_folder.expanduser()


@pytest.mark.soak
@few
@given(st.sampled_from(INSTRUMENTS), st.lists(changes, min_size=1, max_size=3))
def test_an_instrument_file_with_changed_bytes_is_read_or_refused(name: str, several: list[Change]) -> None:
    take_instrument(changed((ROOT / "deploy" / name).read_bytes(), several))


@pytest.mark.soak
@usual
@given(st.data(), st.sampled_from(INSTRUMENTS), toml_values)
def test_an_instrument_file_with_a_changed_value_is_read_or_refused(data: st.DataObject, name: str, value: Any) -> None:
    tree = replace_somewhere(data, tomllib.loads((ROOT / "deploy" / name).read_text()), value)
    if isinstance(tree, dict):
        take_instrument(tomli_w.dumps(tree).encode())


@pytest.mark.soak
@few
@given(st.sampled_from(SETTINGS), st.lists(changes, min_size=1, max_size=3))
def test_a_settings_file_with_changed_bytes_is_read_or_refused(name: str, several: list[Change]) -> None:
    take_settings(changed((ROOT / "deploy" / name).read_bytes(), several))


@pytest.mark.soak
@usual
@given(st.data(), toml_values)
def test_a_settings_file_with_a_changed_value_is_read_or_refused(data: st.DataObject, value: Any) -> None:
    defaults = load_settings().model_dump(mode="json", exclude_none=True)
    tree = replace_somewhere(data, defaults, value)
    if isinstance(tree, dict):
        take_settings(tomli_w.dumps(tree).encode())


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "9" * 5000,
        "x = " + "[" * 20_000,
        "x" + ".x" * 500 + " = 1",
        'runs_folder = "~no-such-user/runs"',
        'instrument = "~no-such-user/instrument.toml"',
        '[stream]\nown_key = "~no-such-user/a"\npeer_keys = "b"',
        '[stream]\nhost = "[x"',
        "scan = 5",
        "scan = [1, 2]",
        "microscope = 'simulated'",
        "\x00",
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_a_settings_file_that_cannot_be_is_refused(text: str) -> None:
    with file_of(text.encode()) as path, bounded_memory(), pytest.raises(BadInput):
        settings = load_settings(path, {"scan": {"width_px": 64}})
        _ = settings.stream.keys
        check_reachable_only_by_friends(settings.stream.endpoints.data, None)


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, "x = " + "[" * 20_000, "[detector]\nsegments = 3", ""])
def test_an_instrument_file_that_cannot_be_is_refused(text: str) -> None:
    with file_of(text.encode()) as path, bounded_memory(), pytest.raises(BadInput, match=r"file\.toml"):
        load_instrument(path)


def test_an_instrument_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine.toml").write_text(four_quadrant().to_toml())
    with file_of(b'instrument = "~/mine.toml"') as path:
        assert wiring.instrument(load_settings(path)) == four_quadrant()


# Images

PIXELS = np.random.default_rng(0).integers(0, 60_000, (4, 20, 24), dtype=np.uint16)
FEI_TEXT = (
    "[User]\r\nDate=03/14/2019\r\nTime=02:15:26 PM\r\n[EBeam]\r\nHV=7000\r\nWD=0.00501\r\nBeamCurrent=5.25e-10\r\n"
    "[Scan]\r\nPixelWidth=6.5104e-08\r\nDwelltime=2e-05\r\n[Image]\r\nResolutionX=24\r\nResolutionY=16\r\n"
)
OME_TEXT = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
    'ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeX="24" SizeY="20" SizeC="4" SizeZ="1" SizeT="1" '
    'Type="uint16" PhysicalSizeX="12.5" PhysicalSizeXUnit="nm"><Channel ID="Channel:0:0" Name="A"/><TiffData/></Pixels>'
    "</Image></OME>"
)


def _tiff(images: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, images, photometric="minisblack", metadata=None, **options)
    return stream.getvalue()


IMAGE_FILES = {
    "ours": (ROOT / "tests" / "data" / "recording-v1" / "frames-0000.tif").read_bytes(),
    "heights": (ROOT / "tests" / "data" / "recording-v1" / "heights-0000.tif").read_bytes(),
    "pages": _tiff(PIXELS),
    "fei": _tiff(PIXELS, extratags=[(34682, "s", 0, FEI_TEXT, True)]),
    "zeiss": _tiff(PIXELS, extratags=zeiss_tags()),
    "tescan": _tiff(PIXELS, extratags=tescan_tags(tescan_bytes())),
    "8 bit": _tiff((PIXELS >> 8).astype(np.uint8)),
    "deflated": _tiff(PIXELS, compression="zlib"),
    "tiled": _tiff(PIXELS, tile=(16, 16)),
    "big": _tiff(PIXELS, bigtiff=True, byteorder=">", resolution=(1e6, 1e6), resolutionunit="CENTIMETER"),
}


def take_image(content: bytes, beside: bytes | None = None) -> None:
    with file_of(content, "scan.tif") as path, bounded_memory(IMAGE_MEMORY_BYTES):
        if beside is not None:
            path.with_suffix(".txt").write_bytes(beside)
        try:
            (found,) = read_image_sets([path], four_quadrant())
        except BadInput as refused:
            assert "scan.t" in str(refused) or "instrument" in str(refused)
            return
        assert found.images.dtype == np.uint16 and found.images.ndim == 3 and len(found.images) == 4
        assert found.images.size > 0
        assert math.isfinite(found.instrument.scan.pixel_size_m) and found.instrument.scan.pixel_size_m > 0


@pytest.mark.soak
@usual
@given(st.sampled_from(sorted(IMAGE_FILES)), st.lists(changes, min_size=1, max_size=4))
def test_an_image_file_with_changed_bytes_is_read_or_refused(name: str, several: list[Change]) -> None:
    take_image(changed(IMAGE_FILES[name], several))


def test_an_image_file_whose_pages_go_round_in_a_circle_is_refused() -> None:
    content = bytearray(IMAGE_FILES["pages"])
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        first, last = file.pages[0].offset, file.pages[len(file.pages) - 1].offset
    (tags,) = struct.unpack_from("<H", content, last)
    struct.pack_into("<I", content, last + 2 + 12 * tags, first)
    with file_of(bytes(content), "scan.tif") as path, pytest.raises(BadInput, match="round in a circle after 4"):
        read_image_sets([path], four_quadrant())


@pytest.mark.soak
@few
@given(st.sampled_from(["ours", "pages", "deflated", "tiled"]), st.data())
def test_an_image_file_whose_tags_lie_about_its_size_asks_for_no_memory(name: str, data: st.DataObject) -> None:
    content = bytearray(IMAGE_FILES[name])
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        tags = [tag for page in file.pages for tag in page.tags if tag.name in ("ImageWidth", "ImageLength")]
        offsets = [(tag.valueoffset, tag.dtype) for tag in tags]
    for offset, kind in data.draw(st.lists(st.sampled_from(offsets), min_size=1, unique=True)):
        size = 2 if kind == 3 else 4
        content[offset : offset + size] = data.draw(st.integers(1, 2 ** (8 * size) - 1)).to_bytes(size, "little")
    take_image(bytes(content))


@pytest.mark.soak
@usual
@given(st.lists(changes, min_size=1, max_size=2))
def test_metadata_of_a_microscope_with_changed_bytes_is_read_or_refused(several: list[Change]) -> None:
    text = changed(FEI_TEXT.encode(), several)[:2000]
    take_image(
        _tiff(PIXELS, extratags=[(34682, "s", 0, text.decode("ascii", "replace").encode("ascii", "replace"), True)])
    )


@pytest.mark.soak
@few
@given(st.lists(changes, min_size=1, max_size=2))
def test_metadata_of_zeiss_with_changed_bytes_is_read_or_refused(several: list[Change]) -> None:
    text = changed(ZEISS_TEXT.encode(), several)[:2000].decode("ascii", "replace").encode("ascii", "replace")
    take_image(_tiff(PIXELS, extratags=[(34118, "s", 0, text, True)]))


@pytest.mark.soak
@few
@given(st.lists(changes, min_size=1, max_size=2))
def test_chunks_of_tescan_with_changed_bytes_are_read_or_refused(several: list[Change]) -> None:
    take_image(_tiff(PIXELS, extratags=tescan_tags(changed(tescan_bytes(), several) or b"\0")))


@pytest.mark.soak
@few
@given(st.sampled_from([HITACHI_TEXT, JEOL_TEXT]), st.sampled_from(["ascii", "utf-16"]), st.lists(changes, min_size=1))
def test_a_sidecar_with_changed_bytes_is_read_or_refused(text: str, coding: str, several: list[Change]) -> None:
    take_image(_tiff(PIXELS), beside=changed(text.encode(coding), several))


@pytest.mark.soak
@few
@given(st.lists(changes, min_size=1, max_size=2))
def test_ome_metadata_with_changed_bytes_is_read_or_refused(several: list[Change]) -> None:
    text = changed(OME_TEXT.encode(), several).decode("ascii", "replace").encode("ascii", "replace").rstrip(b"\0")
    take_image(_tiff(PIXELS, description=text.replace(b"\0", b"?")))


@pytest.mark.parametrize("rows", ["0", "-5", "many", "9" * 5000, "1e3"])
def test_rows_that_cannot_be_are_refused(rows: str, tmp_path: Path) -> None:
    text = FEI_TEXT.replace("ResolutionY=16", f"ResolutionY={rows}")
    (tmp_path / "scan.tif").write_bytes(_tiff(PIXELS, extratags=[(34682, "s", 0, text, True)]))
    with pytest.raises(BadInput, match="FEI metadata"):
        read_image_file(tmp_path / "scan.tif")


@pytest.mark.soak
@few
@given(st.binary(max_size=400), st.sampled_from([b"", b"II*\x00", b"MM\x00*", b"II+\x00\x08\x00\x00\x00"]))
def test_random_bytes_are_no_image(content: bytes, head: bytes) -> None:
    with file_of(head + content, "scan.tif") as path, bounded_memory(), pytest.raises(BadInput):
        read_image_file(path)
