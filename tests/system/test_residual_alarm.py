"""A segment that charges during a run sounds an alarm through the real service; a right calibration never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from acquisition.clock import SystemClock
from acquisition.frames import Exposure
from acquisition.instrument import four_quadrant
from acquisition.node import HOUSEKEEPING_INTERVAL_S
from acquisition.recording.offline import record_offline
from acquisition.stamping import optics_of, start_run
from inference.forward_model import render
from programs import Laboratory, write_settings
from service.cli import app

SIDE, FRAMES = 64, 14
CHARGED = 1.35


def recorded(folder: Path, charges_from: int) -> Path:
    """A run in which the first segment shows too much from that frame on."""
    stated, at, rng = four_quadrant(), SystemClock().now(), np.random.default_rng(4)
    run = start_run(at, folder.name, "import", stated, (SIDE, SIDE), FRAMES, "")
    y, x = np.mgrid[:SIDE, :SIDE]
    heights = 6e-9 * (np.sin(x / 4.0) + np.cos(y / 5.0 + x / 9.0))

    async def exposures() -> AsyncIterator[Exposure]:
        for number in range(FRAMES):
            images = render(heights, stated, rng, 608.0).astype(np.float64)
            if number >= charges_from:
                images[0] = 200.0 + CHARGED * (images[0] - 200.0)
            yield Exposure(np.rint(images).astype(np.uint16), at, at, optics_of(stated))

    asyncio.run(record_offline(folder, run, stated, exposures(), lambda _: None, simulated=False))
    return folder


def test_a_charging_segment_is_told_with_value_band_and_way_out_and_a_right_calibration_is_not(tmp_path: Path) -> None:
    charging, right = recorded(tmp_path / "charging", 7), recorded(tmp_path / "right", FRAMES)

    async def alarms() -> list[list[str]]:
        found = []
        async with Laboratory(write_settings(tmp_path, SIDE), with_worker=True) as lab:
            for run in (right, charging):
                await lab.recorded("replay", run=str(run), speed="max", record=True)
                await asyncio.sleep(2.0 * HOUSEKEEPING_INTERVAL_S)
                tree = await lab.ask("status")
                assert {"residual_median", "residual_low", "cycle_height"} <= tree["figures"].keys()
                found.append([f"{one['text']}: {one['way_out']}" for one in tree["alarms"] if one["id"] == "residual"])
        return found

    without, (told,) = asyncio.run(alarms())
    assert without == []
    assert "above their band" in told and "is expected" in told and "eclips calibrate" in told


def test_check_prints_residual_band_and_cycle(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(recorded(tmp_path / "run", 0)), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["consistency"]
    assert told["residual"] > told["high"] > told["expected"] > told["low"]
    assert 0.0 < told["cycle"] < 0.2
