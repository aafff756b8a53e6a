"""TIFF pages as the recorder writes them, read with the library that everybody reads them with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.recording.tiff_chain import walk_pages
from acquisition.recording.tiff_series import TiffSeries

ODD = 15
"""A size whose pixels do not fill whole units of anything."""


@pytest.mark.parametrize(("dtype", "unit"), [("uint16", None), ("float32", "metres")])
def test_pages_come_back_with_the_tags_of_a_plain_tifffile_page(tmp_path: Path, dtype: str, unit: str | None) -> None:
    pages = np.arange(4 * 8 * ODD).reshape(4, 8, ODD).astype(dtype)
    series = TiffSeries(tmp_path, "pages", 5.3e-9, value_unit=unit)
    series.append(pages[:3])
    series.append(pages[3:])
    series.close()
    with tifffile.TiffWriter(tmp_path / "plain.tif", byteorder="<") as plain:
        plain.write(
            pages[0],
            photometric="minisblack",
            metadata=None,
            description=None if unit is None else "values in metres; pixel size 5.3e-09 m",
            software="eclips-live",
            resolution=(1 / 5.3e-7, 1 / 5.3e-7),
            resolutionunit="CENTIMETER",
        )
    with tifffile.TiffFile(tmp_path / "pages-0000.tif") as ours, tifffile.TiffFile(tmp_path / "plain.tif") as theirs:
        np.testing.assert_array_equal(ours.asarray(key=range(4)), pages)
        tags = {tag.name: tag.value for tag in ours.pages[1].tags.values()}
        for tag in theirs.pages[0].tags.values():
            assert tags[tag.name] == tag.value or tag.name == "StripOffsets"


def test_the_chain_leads_to_pages_only_when_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acquisition.recording import tiff_series

    series = TiffSeries(tmp_path, "pages", 5e-9)
    series.append(np.zeros((2, 8, ODD), np.uint16))
    write, left = tiff_series._write, [3]

    def full_disk(file: object, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(file, data)  # type: ignore[arg-type]

    monkeypatch.setattr(tiff_series, "_write", full_disk)
    with pytest.raises(OSError, match="No space"):
        series.append(np.ones((2, 8, ODD), np.uint16))
    series.close()
    assert len(list(walk_pages(tmp_path / "pages-0000.tif"))) == 2
    with tifffile.TiffFile(tmp_path / "pages-0000.tif") as file:
        assert len(file.pages) == 2
