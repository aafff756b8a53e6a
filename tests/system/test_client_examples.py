"""The examples in `deploy/microscope_program.py`, run as their users would: the program itself, and the client's."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image

from acquisition.recording import RecordedRun, find_runs
from programs import wait_until, write_settings
from service_here import KEY, Served, served

PROGRAM = Path(__file__).parents[2] / "deploy" / "microscope_program.py"
SIDE_PX = 64


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(write_settings(tmp_path_factory.mktemp("examples"), SIDE_PX), with_worker=True) as service:
        yield service


def link(here: Served, key: str = KEY) -> str:
    return f"{here.base_url}/?key={key}"


def notebook_example() -> str:
    """The client's version of the program, as its docstring shows it."""
    begin = "    from service.client import connect\n"
    told = PROGRAM.read_text().split('"""')[1]
    return textwrap.dedent(begin + told.partition(begin)[2])


def run_to_its_end(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_it_did_all_that_it_says(here: Served, folder: Path) -> None:
    newest = RecordedRun(next(find_runs(here.laboratory.settings.runs_folder)))
    assert newest.manifest.status == "complete"
    assert newest.manifest.notes == "heated step by step"
    height_m = tifffile.imread(folder / "height.tif")
    assert (height_m.shape, height_m.dtype) == ((SIDE_PX, SIDE_PX), np.float32)
    assert np.ptp(height_m) > 0
    assert any(np.array_equal(height_m, newest.read_height(number)) for number in newest.sequences)
    with Image.open(folder / "height.png") as picture:
        assert picture.size == (SIDE_PX, SIDE_PX)
    with np.load(folder / "ramp.npz") as arrays:
        assert arrays["sequence"].tolist() == newest.sequences
        np.testing.assert_array_equal(arrays["heights_m"][-1], newest.read_height(newest.sequences[-1]))
    setpoints = [event.text for event in newest.events if event.name == "setpoint"]
    assert [text for text in setpoints if text.startswith("heater")] == [
        f"heater: current_a {current_a}" for current_a in (0.3, 0.6, 0.9)
    ]
    assert "stage: x_m 2e-06" in setpoints

    def target_a() -> float:
        heater = httpx.get(f"{here.base_url}/api/v1/devices/heater", headers=here.headers).json()
        return float(heater["readings"]["current_target_a"]["value"])

    wait_until(lambda: target_a() == 0, lambda: f"the laser's target stays at {target_a()} A")


def test_the_standard_library_program_does_all_that_it_says(here: Served, tmp_path: Path) -> None:
    httpx.post(f"{here.base_url}/api/v1/run", headers=here.headers, json={"record": False}).raise_for_status()
    run_to_its_end(str(PROGRAM), link(here), str(tmp_path))
    assert_it_did_all_that_it_says(here, tmp_path)


def test_the_standard_library_program_imports_nothing_else() -> None:
    imported = [line.split()[1] for line in PROGRAM.read_text().split('"""')[2].splitlines() if "import " in line]
    assert imported
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def test_the_client_example_does_all_that_it_says(here: Served, tmp_path: Path) -> None:
    given = f"from pathlib import Path\nLINK, FOLDER = {link(here)!r}, {str(tmp_path)!r}\n"
    run_to_its_end("-c", given + notebook_example())
    assert_it_did_all_that_it_says(here, tmp_path)


def test_a_refusal_ends_the_program_with_its_reason(here: Served, tmp_path: Path) -> None:
    wrong = link(here, "wrong")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), wrong, str(tmp_path)], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 1
    assert "a key is needed" in done.stderr
    assert "Traceback" not in done.stderr
