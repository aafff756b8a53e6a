"""Motion and growth measured where the answer is known: drift, steps, spirals, descriptors, an activation energy."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
from rich.table import Table

from acquisition.clock import VirtualClock
from acquisition.devices import ScanRequest
from acquisition.frames import Exposure, JoinedValue
from acquisition.recording import RecordedRun
from acquisition.recording.offline import record_offline
from acquisition.stamping import start_run
from hardware_drivers.catalog import MOL_PER_S_PER_SCCM
from hardware_drivers.simulated.scenes import CuprousOxideSpirals
from hardware_drivers.simulated.world import ACTIVATION_ENERGY_EV
from inference.calibration import calibrate
from inference.metrology.descriptors import KINDS, shipped
from inference.metrology.drift import View, find_drift
from inference.metrology.height_map import HeightMap
from inference.metrology.patches import confusion
from inference.metrology.spirals import Track, find_spirals, join
from inference.metrology.step_advance import find_advance
from inference.metrology.steps import find_steps
from inference.metrology.steps_fit import fit_pitches
from inference.metrology.tracking import Tracked, track_run
from inference.pipeline import Pipeline
from inference.reprocess import reprocess
from service import wiring
from service.benchmarks.fusion import PIXEL_M, Scene, film
from service.benchmarks.measured import Measured, NotMeasured, tell_progress
from service.settings import load_settings

DOSES = (600.0, 2500.0, 10000.0)
SIZE_PX, FRAMES, TURN_FRAMES = 256, 5, 7
DRIFT_PX = (1.37, -0.81)
DRIFT_SCENES = ("cu2o-spiral", "oxide-islands", "crossed-steps")
GROWTH_M, SPIRAL_PIXEL_M = 40e-9, 5e-9
LOWEST_DOSE, EACH, JUDGED_SEED = 100.0, 400, 99
CURRENTS_A = (1.05, 1.13, 1.21, 1.29)
FRAMES_EACH, INTERVAL_S, HEATED_PX = 4, 3.0, 320
SETTLING_S, FLOWS_SCCM = 100.0, {"hydrogen": 100.0, "oxygen": 20.0}

Rows = dict[str, Measured | NotMeasured]


def motion_rows(model: str = "classical", quick: bool = False) -> Rows:
    """All rows by name; `quick` leaves out the simulated experiment."""
    pipeline = Pipeline(model)
    rows: Rows = {"drift_error_px": _drift(pipeline), **_spirals(pipeline), **descriptor_rows()}
    rows["arrhenius_error_pct"] = NotMeasured("left out when quick") if quick else _arrhenius(pipeline)
    return rows


def descriptor_rows() -> Rows:
    shares = confusion(shipped(), LOWEST_DOSE, EACH, JUDGED_SEED)
    listed = ", ".join(f"{kind} {share:.3f}" for kind, share in zip(KINDS, np.diag(shares), strict=True))
    told = f"synthetic patches at {LOWEST_DOSE:g} electrons a pixel, {EACH} of each kind, told right: {listed}"
    return {"descriptors_right_n100": Measured(float(np.mean(np.diag(shares))), told)}


def confusion_table() -> Table:
    """Rows: what a patch is; columns: what it is taken for, in percent."""
    table = Table("is / taken for", *KINDS, title=f"descriptors at {LOWEST_DOSE:g} electrons a pixel, percent")
    for kind, shares in zip(KINDS, confusion(shipped(), LOWEST_DOSE, EACH, JUDGED_SEED), strict=True):
        table.add_row(kind, *(f"{100 * share:.1f}" for share in shares))
    return table


def heated_run(folder: Path, currents_a: Sequence[float] = CURRENTS_A, size_px: int = HEATED_PX) -> RecordedRun:
    """Spirals that grow at several laser currents in turn, some frames at each once it is warm, into `folder`."""
    settings = load_settings(None, {"scan": {"width_px": size_px, "height_px": size_px}})
    clock = VirtualClock()
    lab = wiring.lab(settings, clock)
    heater = lab.heater
    assert heater is not None

    async def record() -> None:
        state: dict[str, JoinedValue] = {}
        async with AsyncExitStack() as stack:
            for device in lab.devices.values():
                await stack.enter_async_context(device)
            for gas in lab.gases:
                await gas.set_flow(FLOWS_SCCM[gas.gas] * MOL_PER_S_PER_SCCM)
            used = await lab.detector.configure(ScanRequest(size_px, size_px))
            frames = FRAMES_EACH * len(currents_a)
            run = start_run(
                clock.now(), folder.name, "simulated microscope", used, (size_px, size_px), frames, "heated"
            )

            async def exposures() -> AsyncIterator[Exposure]:
                await heater.set_current(currents_a[0])
                await heater.arm()
                await lab.detector.arm()
                taken = 0
                async for exposure in lab.detector.exposures(frames):
                    for name, device in lab.devices.items():
                        for quantity, reading in (await device.read()).items():
                            value = reading.value if reading.valid else None
                            state[f"{name}.{quantity}"] = JoinedValue(value, reading.valid, 0.0)
                    yield exposure
                    taken += 1
                    if taken < frames and taken % FRAMES_EACH == 0:
                        await heater.set_current(currents_a[taken // FRAMES_EACH])
                        await clock.sleep(SETTLING_S)
                    await clock.sleep(INTERVAL_S)

            await clock.sleep(SETTLING_S)
            await record_offline(folder, run, used, exposures(), lambda _: None, lambda: dict(state), simulated=True)

    asyncio.run(record())
    return RecordedRun(folder)


def _drift(pipeline: Pipeline) -> Measured:
    errors: dict[str, float] = {}
    for name in DRIFT_SCENES:
        tell_progress(f"drift of {name}")
        for dose in DOSES:
            views = list(_views(pipeline, Scene("drift", name, drift_px=DRIFT_PX), dose, PIXEL_M, FRAMES))
            found = np.array([drift.drift_px for drift in find_drift(views)])
            off = found - np.outer(np.arange(len(found)), DRIFT_PX)
            errors[f"{name} at {dose:g}"] = float(np.sqrt(np.mean(off[1:] ** 2)))
    listed = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    told = f"rms along an axis, {SIZE_PX} x {SIZE_PX}, {FRAMES - 1} frames each; the worst of: {listed}"
    return Measured(max(errors.values()), told)


def _spirals(pipeline: Pipeline) -> Rows:
    """Of growing spirals: step velocity and height, pitch, rotation rate and sense, the worst over the doses."""
    velocity, pitch, rate, wrong = {}, {}, {}, {}
    terrace_m = CuprousOxideSpirals.terrace_m
    for dose in DOSES:
        tell_progress(f"spirals at {dose:g}")
        tracks: list[Track] = []
        before, advances = None, []
        for view in _views(
            pipeline, Scene("growth", "cu2o-spiral", growth_m=GROWTH_M), dose, SPIRAL_PIXEL_M, TURN_FRAMES
        ):
            assert view.map is not None
            steps = find_steps(view.map)
            if before is not None:
                advances.append(find_advance(before, steps).mean_m)
            reach_px = 0.5 * terrace_m / SPIRAL_PIXEL_M
            spirals = fit_pitches(find_spirals(view.map, steps), steps, view.images, view.calibration)
            join(tracks, view.sequence, view.time_s, spirals, (0.0, 0.0), reach_px)
            before = steps
        followed = [track for track in tracks if 2 * len(track.seen) > TURN_FRAMES]
        name = f"{dose:g}"
        velocity[name] = 100 * abs(float(np.mean(advances)) / GROWTH_M - 1)
        wrong[name] = float(sum(track.sense != _true_sense(track) for track in followed))
        turn = 2 * math.pi * GROWTH_M / terrace_m
        pitch[name] = max(
            (100 * abs(track.pitch_m() / CuprousOxideSpirals.step_m - 1) for track in followed), default=100.0
        )
        rate[name] = max(
            (100 * abs(abs(track.rotation_rad_per_s()[0]) / turn - 1) for track in followed), default=100.0
        )
        wrong[name] += float(not followed)
    found = {
        "step_velocity_error_pct": velocity,
        "spiral_pitch_error_pct": pitch,
        "spiral_rotation_error_pct": rate,
        "spiral_senses_wrong": wrong,
    }
    told = (
        f"{SIZE_PX} x {SIZE_PX} of {SPIRAL_PIXEL_M * 1e9:g} nm, {TURN_FRAMES} frames over a whole turn, "
        f"{GROWTH_M * 1e9:g} nm of growth between them; worst of doses"
    )
    return {
        name: Measured(max(values.values()), f"{told}: " + ", ".join(f"{at} {one:.3g}" for at, one in values.items()))
        for name, values in found.items()
    }


def _arrhenius(pipeline: Pipeline) -> Measured:
    tell_progress("simulated experiment at four temperatures")
    with tempfile.TemporaryDirectory() as folder:
        run = heated_run(Path(folder) / "heated")
        reprocess(run.path, pipeline, lambda done, total: None)
        found: Tracked = track_run(RecordedRun(run.path))
    if found.law is None:
        return Measured(100.0, found.no_law)
    law = found.law
    told = (
        f"{law.energy_ev:.3f} ± {law.energy_error_ev:.3f} eV of {ACTIVATION_ENERGY_EV} eV from {FRAMES_EACH} frames of "
        f"{HEATED_PX} x {HEATED_PX} at each of {len(CURRENTS_A)} laser currents"
    )
    return Measured(100 * abs(law.energy_ev / ACTIVATION_ENERGY_EV - 1), told)


def _views(pipeline: Pipeline, scene: Scene, dose: float, pixel_m: float, frames: int) -> Iterator[View]:
    for number, (frame, instrument, _) in enumerate(film(scene, SIZE_PX, dose, frames, pixel_m=pixel_m)):
        height_m = pipeline.reconstruct(frame, instrument).height_m.astype(np.float64)
        map = HeightMap(height_m, pixel_m, pixel_m)
        yield View(number, float(number), frame.images, calibrate(instrument, frame.images), map)


def _true_sense(track: Track) -> str:
    """Of the scene's mound nearest to the track."""
    row, column = track.place_px()
    along_m = SPIRAL_PIXEL_M * (np.arange(SIZE_PX, dtype=np.float64) - 0.5 * (SIZE_PX - 1))
    y_m, x_m = ((place - 0.5 * (SIZE_PX - 1)) * SPIRAL_PIXEL_M for place in (row, column))
    mounds = CuprousOxideSpirals(1)._mounds_that_show(along_m, along_m)
    nearest = min(mounds, key=lambda mound: math.dist((x_m, y_m), mound[:2]))
    return "counter-clockwise" if nearest[3] > 0 else "clockwise"
