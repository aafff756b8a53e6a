"""Labs without a laboratory: images that fall into a folder, or are pushed by a program, become heights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from acquisition.errors import BadInput
from programs import Program, free_ports, wait_until, write_settings
from service import wiring
from service.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
SIZE_PX = 64
KEY = "a-key-that-is-long-enough"


def test_images_that_fall_into_a_folder_become_heights(start: Callable[..., Program], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    program = start(
        "up",
        "--frames",
        "2",
        size_px=SIZE_PX,
        microscope='kind = "real"',
        **{"instruments.detector": f'kind = "tiff_folder"\nfolder = "{folder.as_posix()}"\nsettle_s = 0.2'},
    )
    program.wait_for("recording")
    rng = np.random.default_rng(1)
    for number in range(2):
        for segment in "ABCD":
            counts = (200 + 8 * rng.poisson(200, (SIZE_PX, SIZE_PX))).astype(np.uint16)
            tifffile.imwrite(folder / f"scan{number}_{segment}.tif", counts)
    program.wait_for("complete: 2 frames, 2 heights")
    wait_until(lambda: program.process.poll() is not None, lambda: "never ended")
    assert program.process.returncode == 0


def test_images_that_a_program_sends_become_heights_on_a_lab_of_a_detector_alone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "key").write_text(KEY)
    detector = f'kind = "push"\nkey_file = "key"\nport = {port}'
    config = write_settings(tmp_path, SIZE_PX, microscope='kind = "real"', **{"instruments.detector": detector})
    # What the example sends is not square.
    config.write_text(config.read_text().replace("height_px = 64", "height_px = 48"))
    program = Program("up", "--config", str(config), runs=tmp_path / "runs")
    try:
        program.wait_for("recording")
        with program.client() as client:
            sender = [sys.executable, str(DEPLOY / "push_sender.py"), f"127.0.0.1:{port}", KEY, "3"]
            sent = subprocess.run(sender, capture_output=True, text=True)
            assert sent.returncode == 0, sent.stderr
            wait_until(lambda: client.get("/status").json()["run"]["frames"] == 3, lambda: "no three frames")
            status = client.get("/status").json()
            assert list(status["devices"]) == ["detector"] and not status["simulated"]
            assert client.post("/devices/heater:off").status_code == 409
            client.post("/run:stop").raise_for_status()
        program.wait_for("complete: 3 frames, 3 heights")
    finally:
        program.close()


def test_a_push_source_without_its_key_is_refused_at_the_start(tmp_path: Path) -> None:
    detector = {"kind": "push", "key_file": str(tmp_path / "none")}
    with pytest.raises(BadInput, match=r"instruments\.detector\.key_file"):
        wiring.check(load_settings(None, {"microscope": {"kind": "real"}, "instruments": {"detector": detector}}))
