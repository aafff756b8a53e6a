"""Closed loops on the simulated microscope: a velocity held through a loss of oxygen, and a spiral quenched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from acquisition.devices import ScanRequest
from acquisition.errors import ComponentFailed
from acquisition.leaping import run_leaping
from acquisition.recipes.parsing import read_recipe, recipe_of
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM, Hold, Recipe
from acquisition.rehearsal import Rehearsal
from acquisition.stamping import stamp, start_run
from inference.metrology.live import LiveMetrology
from inference.pipeline import Pipeline
from service import wiring
from service.benchmarks.measured import Report, Request, tell_progress
from service.settings import Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
HOLD, QUENCH = DEPLOY / "hold-velocity.toml", DEPLOY / "quench-at-spiral.toml"
FRAMES, QUICK_FRAMES = 100, 30
SETTLING_FRAMES = 20
SIZE_PX, DWELL_TIME_S, DOSE = 256, 25e-6, 10_000.0
CHAIN_S = 0.5
"""A height and its figures come this much after their frame."""
EVERY_FRAME = 1e9
LESS_OXYGEN_SCCM = 10.0
MOST_FRAMES = 250
VELOCITY, SPIRALS = "figures.step_velocity_m_per_s", "figures.spirals"
CURRENT, OXYGEN, PRESSURE = "heater.current_a", "oxygen.flow_mol_per_s", "gauge.pressure_pa"

Floats = NDArray[np.float64]
AtFrame = Callable[[Rehearsal, int], Awaitable[None]]


@dataclass(slots=True)
class Film:
    """What a recipe came to, frame by frame: `figures` as measured, `true` the world's velocity, `state` by channel.
    `began`: how many frames had been taken when the first hold of a figure began."""

    state: str = ""
    reason: str = ""
    began: int = -1
    time_s: list[float] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    true_m_per_s: list[float] = field(default_factory=list)
    readings: list[dict[str, float]] = field(default_factory=list)

    def series(self, channel: str) -> Floats:
        """(frames,), NaN where a frame does not tell it."""
        name = channel.removeprefix("figures.")
        return np.array(
            [{**readings, **told}.get(name, np.nan) for readings, told in zip(self.readings, self.figures, strict=True)]
        )


def measure(request: Request) -> Report:
    """No rows: `hold-velocity.toml` and `quench-at-spiral.toml` of deploy/ as they are, in leaping time, on frames that
    are reconstructed and measured. Raises `ComponentFailed` for a recipe that fails."""
    pipeline, frames = Pipeline(request.models[0]), QUICK_FRAMES if request.quick else FRAMES
    tell_progress(f"{frames} frames of {SIZE_PX} x {SIZE_PX} in a closed loop, with half the oxygen from the middle on")
    held = hold_velocity(pipeline, frames)
    tell_progress("frames until a spiral appears")
    quenched = watch(read_recipe(QUENCH), settings("first-spirals"), pipeline)
    for film in (held, quenched):
        if film.state != "finished":
            raise ComponentFailed(f"the recipe {film.state}: {film.reason}")
    return Report({}, table=_table(held, quenched, frames), draw=lambda folder: [_picture(folder, held)])


def settings(scene: str) -> Settings:
    scan = {"width_px": SIZE_PX, "height_px": SIZE_PX, "dwell_time_s": DWELL_TIME_S}
    return load_settings(None, {"microscope": {"scene": scene, "dose": DOSE}, "scan": scan})


def hold_velocity(pipeline: Pipeline, frames: int) -> Film:
    """`frames` under the hold; from the middle on its gas controller gives half the oxygen, which the recipe does not
    know of."""
    tree = read_recipe(HOLD).tree()
    for step in tree["steps"]:
        if step["do"] == "wait" and "seconds" in step:
            step["seconds"] = (frames + 1) * (SIZE_PX**2 * DWELL_TIME_S + SIZE_PX * 50e-6)

    async def less_oxygen(host: Rehearsal, held: int) -> None:
        if held == frames // 2:
            oxygen = next(gas for gas in host.lab.gases if gas.gas == "oxygen")
            await oxygen.set_flow(LESS_OXYGEN_SCCM * MOL_PER_S_PER_SCCM)

    return watch(recipe_of(tree), settings("cu2o-spiral"), pipeline, less_oxygen)


def watch(recipe: Recipe, used: Settings, pipeline: Pipeline, at_frame: AtFrame | None = None) -> Film:
    """Perform a recipe on the simulated lab, taking frames while it lets a run go on. `at_frame` is awaited before each
    frame with the number of frames since a figure is held, below 0 before. Blocks."""
    limits = used.interlocks.limits()

    async def perform() -> Film:
        async with Rehearsal(lambda clock: wiring.lab(used, clock), limits) as host:
            film = Film()
            host.runner.start(recipe)
            taking = asyncio.create_task(_take(host, film, pipeline, at_frame))
            await host.runner.wait()
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            film.state, film.reason = host.runner.state, host.runner.reason
            return film

    return run_leaping(perform())


async def _take(host: Rehearsal, film: Film, pipeline: Pipeline, at_frame: AtFrame | None) -> None:
    await host.scanning.wait()
    detector, live = host.lab.detector, LiveMetrology(EVERY_FRAME)
    used = await detector.configure(ScanRequest(SIZE_PX, SIZE_PX))
    await detector.arm()
    run = start_run(host.clock.now(), "loop", "simulated microscope", used, (SIZE_PX, SIZE_PX), None, "")
    host.figures.begin()
    loop = asyncio.get_running_loop()
    async for exposure in detector.exposures(None):
        if not host.scanning.is_set():
            break
        if len(film.time_s) == MOST_FRAMES:
            await host.runner.abort(f"{MOST_FRAMES} frames were taken")
        state = host.state.join(exposure.start, exposure.end)
        frame = stamp(run, len(film.time_s), exposure, state)
        result = live.measured(frame, used, pipeline.reconstruct(frame, used))
        host.figures.exposed(frame.header)
        loop.call_later(CHAIN_S, host.figures.take, result.header)
        film.time_s.append(host.elapsed_s)
        film.figures.append(dict(result.header.figures))
        film.true_m_per_s.append(host.lab.truth()["step_velocity_m_per_s"] if host.lab.truth else float("nan"))
        film.readings.append({name: joined.value for name, joined in state.items() if joined.value is not None})
        if film.began < 0 and any(hold["channel"] == VELOCITY for hold in host.runner.tree()["holds"]):
            film.began = len(film.time_s)
        if at_frame is not None and film.began >= 0:
            await at_frame(host, len(film.time_s) - film.began)


def target_m_per_s() -> float:
    """What `hold-velocity.toml` holds."""
    return next(step.target for step in read_recipe(HOLD).steps if isinstance(step, Hold) and step.target is not None)


def deviations(film: Film, frames: int) -> dict[str, tuple[float, float, float]]:
    """By part of the held frames: rms and largest deviation of the measured velocity from its target, and the true
    velocity's rms, all in shares of the target. A frame that told no velocity is left out."""
    target, middle = target_m_per_s(), film.began + frames // 2
    measured = film.series(VELOCITY) / target - 1.0
    true = np.array(film.true_m_per_s) / target - 1.0
    parts = {
        "settled, before": slice(film.began + SETTLING_FRAMES, middle),
        "after, with the disturbance itself": slice(middle, film.began + frames),
        "after, once answered": slice(middle + (frames // 2) // 2, film.began + frames),
        "all": slice(film.began, film.began + frames),
    }
    return {
        name: (_rms(measured[part]), float(np.nanmax(np.abs(measured[part]))), _rms(true[part]))
        for name, part in parts.items()
    }


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.nanmean(values**2)))


def _table(held: Film, quenched: Film, frames: int) -> Table:
    target = target_m_per_s()
    table = Table(title=f"step velocity held at {target * 1e9:g} nm/s by the laser's current, {frames} frames")
    for heading in ("frames", "rms deviation", "largest", "rms of the true velocity"):
        table.add_column(heading)
    for name, shares in deviations(held, frames).items():
        table.add_row(name, *(f"{100 * share:.1f} %" for share in shares))
    current_a, oxygen = held.series(CURRENT), held.series(OXYGEN) / MOL_PER_S_PER_SCCM
    told = int(np.isfinite(held.series(VELOCITY)[held.began :]).sum())
    lost = 1 - float(np.sqrt(oxygen[-1] / oxygen[held.began]))
    between = current_a[held.began :]
    for what in (
        f"oxygen {oxygen[held.began]:.0f} -> {oxygen[-1]:.0f} sccm: -{100 * lost:.0f} % without a loop",
        f"laser {np.nanmin(between):.3f} to {np.nanmax(between):.3f} A",
        f"{told} of {len(between)} frames told a velocity",
        _quench_told(quenched),
    ):
        table.add_section()
        table.add_row(what)
    return table


def _quench_told(film: Film) -> str:
    spirals, current_a = film.series(SPIRALS), film.series(CURRENT)
    first = int(np.argmax(spirals > 0))
    off = first + int(np.argmax(current_a[first:] == 0.0))
    return (
        f"first spiral in frame {first} of {len(spirals)}, {film.time_s[first]:.0f} s; laser off "
        f"{film.time_s[off] - film.time_s[first]:.0f} s later"
    )


def _picture(folder: Path, film: Film) -> Path:
    """Velocity, laser and oxygen over time."""
    import matplotlib.pyplot as plt

    time_s = np.array(film.time_s) - film.time_s[film.began]
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained", height_ratios=(2, 1, 1))
    axes[0].plot(time_s, film.series(VELOCITY) * 1e9, ".", color="tab:blue", label="measured on the frames")
    axes[0].plot(time_s, np.array(film.true_m_per_s) * 1e9, color="0.5", label="the world's")
    axes[0].axhline(target_m_per_s() * 1e9, color="tab:red", linestyle="--", label="setpoint")
    axes[0].set(ylabel="step velocity, nm/s", title="steps held at their velocity by steering the laser")
    axes[0].legend(loc="lower right")
    axes[1].plot(time_s, film.series(CURRENT), color="tab:orange")
    axes[1].set_ylabel("laser, A")
    axes[2].plot(time_s, film.series(OXYGEN) / MOL_PER_S_PER_SCCM, color="tab:green")
    axes[2].set(ylabel="oxygen, sccm", xlabel="seconds since the hold began", ylim=(0, None))
    pressure = axes[2].twinx()
    pressure.plot(time_s, film.series(PRESSURE), color="0.4")
    pressure.set_ylabel("pressure, Pa")
    path = folder / "closed-loop.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
