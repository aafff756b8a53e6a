"""A recording opens in ImageJ as it is: every page, every value, the pixel size."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from acquisition.recording import RecordedRun
from programs import eclips

IMAGEJ = Path("/usr/share/java/ij.jar")
MACRO = """
open("{path}");
getVoxelSize(width, height, depth, unit);
print("slices " + nSlices + " pixel " + d2s(width * 1e9, 6) + " unit " + unit);
for (slice = 1; slice <= nSlices; slice++) {{
    setSlice(slice);
    getStatistics(area, mean, min, max);
    print("slice " + slice + " mean " + d2s(mean * {scale}, 9) + " corner " + d2s(getPixel(0, 0) * {scale}, 9));
}}
eval("script", "System.exit(0);");
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    if not (IMAGEJ.is_file() and shutil.which("xvfb-run") and shutil.which("java")):
        reason = "ImageJ, Xvfb or Java is not installed (Debian: imagej xvfb)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("imagej") / "run"
    assert eclips("simulate", "--frames", "3", "--size", "96", "--out", str(path)).returncode == 0
    assert eclips("reprocess", str(path)).returncode == 0
    return RecordedRun(path)


def in_imagej(path: Path, folder: Path, scale: float) -> list[list[str]]:
    macro = folder / "look.ijm"
    macro.write_text(MACRO.format(path=path, scale=f"{scale:.0f}"))
    done = subprocess.run(
        ["xvfb-run", "-a", "java", "-jar", str(IMAGEJ), "-batch", str(macro)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("slice")]
    assert lines, done.stdout + done.stderr
    return lines


def test_imagej_shows_every_segment_of_every_frame(run: RecordedRun, tmp_path: Path) -> None:
    head, *slices = in_imagej(run.path / "frames-0000.tif", tmp_path, 1)
    assert head[1] == "12"
    images = np.concatenate([run.read_frame(sequence).images for sequence in run.sequences])
    for image, (_, _, _, mean, _, corner) in zip(images, slices, strict=True):
        assert float(mean) == pytest.approx(image.mean(), rel=1e-6)
        assert float(corner) == image[0, 0]


def test_imagej_shows_heights_in_metres_with_the_pixel_size(run: RecordedRun, tmp_path: Path) -> None:
    head, *slices = in_imagej(run.path / "heights-0000.tif", tmp_path, 1e9)
    assert head[1] == "3"
    pixel_m = float(head[3]) * 1e-9 * {"cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "micron": 1e-6, "nm": 1e-9}[head[5]]
    assert pixel_m == pytest.approx(5e-9, rel=1e-3)
    for sequence, line in zip(run.sequences, slices, strict=True):
        assert float(line[5]) == pytest.approx(run.read_height(sequence)[0, 0] * 1e9, rel=1e-4)


def test_imagej_shows_exported_heights_as_a_movie_in_micrometres(run: RecordedRun, tmp_path: Path) -> None:
    out = tmp_path / "heights.tif"
    assert eclips("export", str(run.path), "--format", "tiff", "--out", str(out)).returncode == 0
    head, *slices = in_imagej(out, tmp_path, 1e9)
    assert head[1] == "3"
    assert head[5] in ("µm", "micron")
    assert float(head[3]) * 1e-9 == pytest.approx(0.005, rel=1e-9)
    for sequence, line in zip(run.sequences, slices, strict=True):
        assert float(line[5]) == pytest.approx(run.read_height(sequence)[0, 0] * 1e9, abs=1e-9)
