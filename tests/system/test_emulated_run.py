"""A run through real drivers on emulated instruments, in one process: state joined to frames, growth that follows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from acquisition.clock import SystemClock
from acquisition.recording import RecordedRun
from programs import Laboratory
from service import wiring
from service.benchmarks.experiment import lab_settings
from service.benchmarks.kinetics import film_of
from service.settings import load_settings

FRAMES_EACH = 16
WARM_A, HOT_A, HURRY_A = 1.15, 1.3, 1.5
OXYGEN_MOL_PER_S = 24 * 7.436e-7
CHANNELS = {
    "detector.beam_current_a",
    "stage.x_m",
    "heater.current_a",
    "heater.emission",
    "pyrometer.temperature_k",
    "pyrometer.emissivity",
    "gauge.pressure_pa",
    "oxygen.flow_mol_per_s",
}


async def heat(laboratory: Laboratory, current_a: float, temperature_k: float) -> None:
    """With all that the diode has until it is as hot, then at the current that keeps it so: settled at once."""
    await laboratory.ask("set", device="heater", values={"current_a": HURRY_A})
    await laboratory.ask("arm", device="heater")
    latest = laboratory.program.node.state.latest
    await laboratory.until(lambda: latest()["pyrometer.temperature_k"].value >= temperature_k)
    await laboratory.ask("set", device="heater", values={"current_a": current_a})


async def take_frames(laboratory: Laboratory, count: int) -> None:
    progress = laboratory.program.node.machine.progress
    assert progress is not None
    wanted = progress.frames + count
    await laboratory.until(lambda: progress.frames >= wanted)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    return RecordedRun(asyncio.run(experiment(tmp_path_factory.mktemp("emulated"))))


async def experiment(folder: Path) -> Path:
    """Warm, then hot, in oxygen that is still rising; the run's folder."""
    config = folder / "lab.toml"
    config.write_text(lab_settings(folder, 128, 10e-6), encoding="utf-8")
    settings = load_settings(config)
    async with (
        wiring.emulated_instruments(settings, SystemClock()),
        Laboratory(config, with_worker=True) as laboratory,
    ):
        latest = laboratory.program.node.state.latest
        await laboratory.ask("set", device="pyrometer", values={"emissivity": 0.05})
        await laboratory.ask("set", device="oxygen", values={"flow_mol_per_s": OXYGEN_MOL_PER_S})
        await laboratory.until(lambda: latest()["gauge.pressure_pa"].value > 1.5)
        await heat(laboratory, WARM_A, 1055)
        started = await laboratory.ask("start")
        await take_frames(laboratory, FRAMES_EACH)
        await heat(laboratory, HOT_A, 1170)
        await take_frames(laboratory, FRAMES_EACH)
        await laboratory.ask("stop")
        run: Path = laboratory.settings.runs_folder / str(started["run_id"])
        await laboratory.until(lambda: any(line.startswith(f"run {run} complete") for line in laboratory.said))
    return run


def test_every_frame_has_the_state_of_every_device_with_ages_below_a_second(recorded: RecordedRun) -> None:
    assert len(recorded.frames) >= 2 * FRAMES_EACH
    for frame in recorded.frames.values():
        state = frame.header.state
        assert set(state) >= CHANNELS
        assert {channel for channel, joined in state.items() if not joined.valid} == set()
        assert max(joined.age_s for joined in state.values()) < 1.0


def test_no_frame_of_the_run_is_lost_or_without_height(recorded: RecordedRun) -> None:
    assert recorded.finished is not None
    assert recorded.sequences == list(range(recorded.finished.frames))
    assert recorded.missing_heights == []


def law(temperature_k: NDArray[np.float64], oxygen_pa: NDArray[np.float64]) -> NDArray[np.float64]:
    """1.1 eV and the square root of the oxygen (`hardware_drivers/simulated/world.py`), but for a factor."""
    growth: NDArray[np.float64] = np.sqrt(oxygen_pa) * np.exp(-1.1 / 8.617e-5 / temperature_k)
    return growth


def test_hotter_steps_advance_faster_by_the_ratio_that_the_recorded_state_says(recorded: RecordedRun) -> None:
    """Some four times as fast, within 20 %: half of that is for drift and for what the frames at one place see."""
    film = film_of(recorded)
    headers = [recorded.frames[sequence].header for sequence in recorded.heights]
    current_a = np.array([header.state["heater.current_a"].value for header in headers], np.float64)
    seen, expected = [], []
    for level_a in (WARM_A, HOT_A):
        level = np.abs(current_a - level_a) < 1e-3
        assert level.sum() >= FRAMES_EACH // 2
        seen.append(np.polyfit(film.time_s[level], film.advance[level], 1)[0])
        expected.append(law(film.temperature_k[level], film.oxygen_pa[level]).mean())
    assert expected[1] / expected[0] > 2.5
    assert seen[1] / seen[0] == pytest.approx(expected[1] / expected[0], rel=0.2)
