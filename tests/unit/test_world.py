"""The simulated world: its physics against closed forms, its scenes against what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from acquisition.clock import Instant, VirtualClock
from acquisition.devices import Limits, ScanRequest, StagePosition
from acquisition.errors import BadInput
from acquisition.frames import Exposure
from acquisition.instrument import Effects, Gas, four_quadrant
from hardware_drivers.simulated import (
    SimulatedDetector,
    SimulatedPressureGauge,
    SimulatedPyrometer,
    World,
    scene_names,
)

SCCM = 7.436e-7
PIXEL_M = (5e-9, 5e-9)
NAMED_SCENES = (
    "cu2o-spiral",
    "first-spirals",
    "cu2o-crystal",
    "step-bunches",
    "crossed-steps",
    "oxide-islands",
    "grating",
    "flat",
)


def make_world(scene: str = "flat", seed: int = 1, dose: float | None = None) -> World:
    return World(scene, four_quadrant(), VirtualClock(Instant(0, 0)), seed, dose)


async def at_work(world: World, current_a: float = 1.2, oxygen_sccm: float = 20.0) -> World:
    """Hot and in gas, settled, at the working point of 1100 K and 121 Pa by default."""
    world.set_flow("hydrogen", 100 * SCCM)
    world.set_flow("oxygen", oxygen_sccm * SCCM)
    world.drive_laser(current_a, emitting=True)
    await world.clock.sleep(200.0)
    return world


def view(world: World, size: int = 128) -> NDArray[np.float64]:
    return world.heights_m(size, size, PIXEL_M, world.clock.now())


async def frames(world: World, count: int, size: int = 64) -> list[Exposure]:
    async with SimulatedDetector("detector", world, Limits(8, 8192, "detector.size_limit_px")) as detector:
        await detector.configure(ScanRequest(size, size))
        await detector.arm()
        return [exposure async for exposure in detector.exposures(count)]


async def test_working_point_is_1100_kelvin_and_121_pascal() -> None:
    world = await at_work(make_world())
    assert world.temperature_k == pytest.approx(1100, abs=2)
    assert world.pressure_pa == pytest.approx(121, abs=1)
    partial = world.partial_pressures_pa
    assert partial["hydrogen"] / partial["oxygen"] == pytest.approx(5.0, rel=1e-6)


async def test_heating_is_first_order() -> None:
    """After one time constant the temperature has covered 1 - 1/e of its way, in whatever steps time passed."""
    world = make_world()
    world.drive_laser(1.2, emitting=True)
    for _ in range(7):
        await world.clock.sleep(4.0 / 7)
    assert (world.temperature_k - 295) / (1100 - 295) == pytest.approx(1 - np.exp(-1), abs=2e-3)


async def test_laser_below_its_threshold_heats_nothing() -> None:
    world = make_world()
    world.drive_laser(0.15, emitting=True)
    await world.clock.sleep(60.0)
    assert world.temperature_k == pytest.approx(295.0)


async def test_opening_the_interlock_lets_the_specimen_cool() -> None:
    world = await at_work(make_world())
    world.set_interlock(False)
    await world.clock.sleep(60.0)
    assert world.temperature_k == pytest.approx(295.0, abs=1.0)


async def test_steps_advance_by_an_arrhenius_law() -> None:
    velocities, inverse_temperatures = [], []
    for current_a in (1.1, 1.2, 1.3):
        world = await at_work(make_world(), current_a)
        velocities.append(world.step_velocity_m_per_s())
        inverse_temperatures.append(1 / world.temperature_k)
    slopes = np.diff(np.log(velocities)) / np.diff(inverse_temperatures)
    np.testing.assert_allclose(slopes, -1.1 / 8.617e-5, rtol=1e-3)


async def test_four_times_the_oxygen_doubles_the_step_velocity() -> None:
    slow, fast = [await at_work(make_world(), oxygen_sccm=sccm) for sccm in (10.0, 40.0)]
    assert fast.step_velocity_m_per_s() == pytest.approx(2 * slow.step_velocity_m_per_s(), rel=1e-4)


async def test_cold_surface_does_not_grow_and_a_hot_one_grows_at_the_step_velocity() -> None:
    """Seen where the drift has carried it, the hot surface is the scene advanced by velocity times time."""
    world = await at_work(make_world("step-bunches"))
    before = view(world)
    velocity = world.step_velocity_m_per_s()
    ahead = world.heights_m(128, 128, PIXEL_M, world.clock.now().later(10.0))
    assert velocity == pytest.approx(12e-9, rel=0.02)
    assert np.abs(ahead - before).max() > 0.5 * 18e-9
    world.drive_laser(0.0, emitting=False)
    await world.clock.sleep(100.0)
    assert world.step_velocity_m_per_s() < 1e-9 * velocity
    later = world.heights_m(128, 128, PIXEL_M, world.clock.now().later(10.0))
    np.testing.assert_allclose(later, view(world), atol=1e-15)


async def test_stage_move_shows_another_part_of_the_same_surface() -> None:
    world = make_world("cu2o-spiral")
    here = view(world)
    world.stage = StagePosition(32 * 5e-9, -16 * 5e-9)
    there = view(world)
    np.testing.assert_allclose(there[16:, :-32], here[:-16, 32:], atol=2e-11)


async def test_drift_moves_the_view_slowly_and_steadily() -> None:
    world = make_world()
    await world.clock.sleep(100.0)
    first = np.array(world.drift_m())
    await world.clock.sleep(100.0)
    np.testing.assert_allclose(world.drift_m(), 2 * first, rtol=1e-9)
    assert 0 < np.hypot(*first) < 100e-9


async def test_wrong_emissivity_misreads_by_200_kelvin_at_900() -> None:
    """Oxide looked at as if it were copper, and the other way round (hardware.md, simulated microscope)."""
    limits = Limits(0.02, 1.0, "pyrometer.emissivity_limits")
    world = make_world("flat")
    world.drive_laser(0.2 + 605 / 805, emitting=True)
    await world.clock.sleep(200.0)
    assert world.temperature_k == pytest.approx(900, abs=1)
    async with SimulatedPyrometer("pyrometer", world, limits, Limits(523, 1673, "range"), emissivity=0.7) as pyrometer:
        assert (await pyrometer.read())["temperature_k"].value == pytest.approx(712, abs=5)
        await pyrometer.set_emissivity(0.05)
        assert (await pyrometer.read())["temperature_k"].value == pytest.approx(900, abs=3)


async def test_pirani_reads_hydrogen_double_and_a_capacitance_gauge_does_not() -> None:
    world = make_world()
    world.set_flow("hydrogen", 100 * SCCM)
    await world.clock.sleep(300.0)
    async with (
        SimulatedPressureGauge("a", world, "pirani") as pirani,
        SimulatedPressureGauge("b", world, "capacitance") as capacitance,
    ):
        assert (await pirani.read())["pressure_pa"].value == pytest.approx(2 * world.pressure_pa, rel=0.02)
        assert (await capacitance.read())["pressure_pa"].value == pytest.approx(world.pressure_pa, rel=0.02)


async def test_growing_islands_turn_copper_into_oxide() -> None:
    world = make_world("oxide-islands")
    first = world.emissivity
    await at_work(world)
    assert 0.05 < first < world.emissivity <= 0.7


async def test_same_seed_gives_the_same_frames_and_another_seed_another() -> None:
    first, again, other = [await frames(make_world("cu2o-spiral", seed), 2) for seed in (1, 1, 2)]
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.images, same.images)
    assert not np.array_equal(first[0].images, first[1].images)
    assert not np.array_equal(first[0].images, other[0].images)


async def test_frame_time_is_pixels_and_flyback() -> None:
    (exposure,) = await frames(make_world(), 1)
    assert exposure.end.seconds_since(exposure.start) == pytest.approx(64 * 64 * 1e-6 + 64 * 50e-6)


async def test_frames_carry_the_dose_asked_for_and_the_truth() -> None:
    (exposure,) = await frames(make_world("flat", dose=2000.0), 1)
    electrons = (exposure.images.astype(float) - 200).sum(axis=0) / 8
    assert electrons.mean() == pytest.approx(2000, rel=0.01)
    assert exposure.flags == {"simulated"}
    assert exposure.truth_m is not None and not exposure.truth_m.any()


async def test_the_gas_of_the_moment_dilutes_the_contrast() -> None:
    contrast = []
    for oxygen_sccm in (20.0, 200.0):
        effects = Effects(gases=(Gas(formula="O2", pressure_pa=0.0),))
        instrument = four_quadrant().model_copy(update={"effects": effects})
        world = World("grating", instrument, VirtualClock(Instant(0, 0)), dose=1e4)
        await at_work(world, current_a=0.0, oxygen_sccm=oxygen_sccm)
        (exposure,) = await frames(world, 1, size=128)
        contrast.append(float(np.percentile(exposure.images[0], 95) - np.percentile(exposure.images[0], 5)))
    assert contrast[1] < 0.6 * contrast[0]


async def test_saturated_frames_say_so() -> None:
    (exposure,) = await frames(make_world(dose=1e5), 1)
    assert exposure.flags == {"simulated", "saturated"}


@pytest.mark.parametrize("scene", NAMED_SCENES)
def test_every_scene_is_continuous_and_sized_like_the_real_thing(scene: str) -> None:
    """Relief of nanometres to tens of them, no slope above 60 degrees that isn't a lone pixel, no gaps."""
    heights = view(make_world(scene), 256)
    assert np.isfinite(heights).all()
    assert heights.shape == (256, 256)
    q, p = np.gradient(heights, 5e-9)
    assert np.mean(np.hypot(p, q) > np.tan(np.radians(60))) < 1e-3
    assert np.ptp(heights) < 400e-9
    assert (np.ptp(heights) > 20e-9) == (scene != "flat")


@pytest.mark.parametrize("scene", ["cu2o-spiral", "oxide-islands", "grating"])
def test_terraces_are_level_and_sides_stand_at_45_degrees(scene: str) -> None:
    q, p = np.gradient(view(make_world(scene), 512), 5e-9)
    slope_deg = np.degrees(np.arctan(np.hypot(p, q)))
    assert np.mean(slope_deg < 3) > 0.5
    assert np.mean(np.abs(slope_deg - 45) < 3) > 0.03


def test_spirals_climb_one_step_for_each_terrace_width_grown() -> None:
    world = make_world("cu2o-spiral")
    along = np.arange(-6e-6, 6e-6, 20e-9)
    heights = world.scene.heights_m(along, along, 0.0)
    later = world.scene.heights_m(along, along, 240e-9)
    np.testing.assert_allclose(later - heights, 24e-9, atol=1e-12)


def test_scene_names_are_listed_with_the_default_first() -> None:
    assert tuple(scene_names()) == NAMED_SCENES


def test_unknown_scene_is_refused_naming_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'cu2o-spiral'") as refusal:
        make_world("cu2o-spirals")
    assert set(refusal.value.permitted) == set(NAMED_SCENES)


def measured_map() -> NDArray[np.float64]:
    row, column = np.mgrid[:48, :64]
    return 20e-9 * np.sin(2 * np.pi * column / 32) * np.sin(2 * np.pi * row / 24)


def write_map(path: Path) -> Path:
    heights, pixel_m = measured_map(), 10e-9
    if path.suffix == ".npz":
        np.savez(path, height_m=heights.astype(np.float32), pixel_m=(pixel_m, pixel_m))
    elif path.suffix == ".tif":
        per_cm = 0.01 / pixel_m
        tifffile.imwrite(path, heights.astype(np.float32), resolution=(per_cm, per_cm), resolutionunit=3)
    else:
        text = f"Gwyddion Simple Field 1.0\nXRes = 64\nYRes = 48\nXReal = {64 * pixel_m}\nYReal = {48 * pixel_m}\n"
        header = text.encode() + b"\0" * (4 - len(text) % 4)
        path.write_bytes(header + heights.astype("<f4").tobytes())
    return path


@pytest.mark.parametrize("suffix", [".npz", ".tif", ".gsf"])
def test_height_map_from_a_file_is_scanned_at_its_own_pixels(tmp_path: Path, suffix: str) -> None:
    world = make_world(str(write_map(tmp_path / f"sample{suffix}")))
    assert world.instrument.scan.pixel_size_m == pytest.approx(10e-9, rel=1e-6)
    seen, truth = world.heights_m(64, 48, (10e-9, 10e-9), world.clock.now()), measured_map()
    inside = np.s_[4:-4, 4:-4]
    assert np.corrcoef(seen[inside].ravel(), truth[inside].ravel())[0, 1] > 0.99


def test_scan_line_jumps_and_spikes_are_taken_out_of_a_map(tmp_path: Path) -> None:
    heights = measured_map()
    noisy = heights + np.random.default_rng(0).normal(scale=15e-9, size=(48, 1))
    noisy[20, 30] += 500e-9
    np.savez(tmp_path / "noisy.npz", height_m=noisy, pixel_m=10e-9)
    world = make_world(str(tmp_path / "noisy.npz"))
    seen = world.heights_m(64, 48, (10e-9, 10e-9), world.clock.now())
    assert np.ptp(seen) < 1.6 * np.ptp(heights)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("absent.npz", None, "does not exist"),
        ("broken.npz", b"not a zip", "cannot be read"),
        ("broken.gsf", b"Gwyddion Simple Field 1.0\nXRes = 4\n\0", "cannot be read"),
        ("broken.tif", b"II", "cannot be read"),
    ],
)
def test_unusable_height_map_is_refused_with_its_name(
    tmp_path: Path, name: str, content: bytes | None, named: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=named) as refusal:
        make_world(str(tmp_path / name))
    assert name in str(refusal.value)


def test_height_map_with_holes_is_refused(tmp_path: Path) -> None:
    heights = measured_map()
    heights[3, 3] = np.nan
    np.savez(tmp_path / "holes.npz", height_m=heights, pixel_m=10e-9)
    with pytest.raises(BadInput, match="not finite"):
        make_world(str(tmp_path / "holes.npz"))


def test_simulated_devices_load_neither_onnxruntime_nor_torch() -> None:
    program = "import sys, hardware_drivers.simulated; print({'onnxruntime', 'torch'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
