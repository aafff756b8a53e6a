"""The emulated lab end to end: an experiment through real drivers, and from its recording alone what drives growth."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from acquisition.errors import ComponentFailed
from acquisition.recording import RecordedRun
from hardware_drivers.simulated.pyrometer import (
    SECOND_RADIATION_CONSTANT_M_K,
    WAVELENGTH_M,
    shown_temperature_k,
)
from hardware_drivers.simulated.scenes import StepBunches
from hardware_drivers.simulated.world import (
    ACTIVATION_ENERGY_EV,
    BOLTZMANN_EV_PER_K,
    COPPER_EMISSIVITY,
    OXIDE_EMISSIVITY,
    OXYGEN_ORDER,
    REFERENCE_OXYGEN_PA,
    REFERENCE_STEP_VELOCITY_M_PER_S,
)
from inference.registry import find_model_set
from service.benchmarks.experiment import carry_out
from service.benchmarks.kinetics import USUAL_K, USUAL_PA, Film, Kinetics, film_of, fit
from service.benchmarks.measured import Report, Request, tell_progress

FRAMES, QUICK_FRAMES = 200, 60
SIZE_PX = 128
DWELL_TIME_S = 25e-6
ATTEMPTS = 3
EMISSIVITY_UNKNOWN = 0.2
OXIDISED = 0.1

Floats = NDArray[np.float64]


def measure(request: Request) -> Report:
    """No rows: what is found stands beside the world's own numbers in the table. Heights are those of the first of the
    request's sets. The steps stay copper, so that one emissivity is right all along; the table also has what a wrong
    one, and copper that oxidises unnoticed, would have made of the same recording. A run that fails, as when a busy
    machine lets a device answer too late for the laser's permit, is told with that device and repeated. Raises
    `ComponentFailed` when all attempts fail and `BadInput` for a set that is not installed."""
    model, frames = find_model_set(request.models[0]).name, QUICK_FRAMES if request.quick else FRAMES
    with tempfile.TemporaryDirectory(prefix="eclips-bench-") as folder:
        recorded, failed = _carried_out(Path(folder), frames, model)
        film = film_of(recorded)
        account = [*_account(recorded, frames), ("attempts that failed before this one", str(failed))]
    found = fit(film)
    return Report({}, table=_table(account, film, found), draw=lambda pictures: [_picture(pictures, found)])


def _carried_out(folder: Path, frames: int, model: str) -> tuple[RecordedRun, int]:
    """The first attempt that goes to its end, and how many did not."""
    for failed in range(ATTEMPTS):
        tell_progress(f"{frames} frames of {SIZE_PX} x {SIZE_PX} with heater and oxygen changed")
        own = folder / str(failed)
        own.mkdir()
        try:
            return carry_out(own, frames, SIZE_PX, DWELL_TIME_S, model), failed
        except ComponentFailed as error:
            tell_progress(f"attempt {failed + 1} of {ATTEMPTS}: {error}")
            last = error
    raise ComponentFailed(f"{ATTEMPTS} attempts failed, the last one so: {last}")


def misread(film: Film, emissivity_set: float, emissivity_true: Floats | float) -> Floats:
    """Kelvin, (frames,): what the film's pyrometer, which was set right, would have shown otherwise."""
    true = np.broadcast_to(emissivity_true, film.temperature_k.shape)
    return np.array([shown_temperature_k(k, e, emissivity_set) for k, e in zip(film.temperature_k, true, strict=True)])


def _table(account: list[tuple[str, str]], film: Film, found: Kinetics) -> Table:
    table = Table(title="the emulated lab: from the recording alone, beside what the world was made with")
    for heading in ("what", "found", "the world's"):
        table.add_column(heading)
    hot_k = float(np.nanmax(film.temperature_k))
    unsure_k = hot_k**2 * WAVELENGTH_M / SECOND_RADIATION_CONSTANT_M_K * EMISSIVITY_UNKNOWN
    for what, kinetics in _readings(film, found).items():
        energy = f"{kinetics.energy_ev:.3f} ± {kinetics.energy_error_ev:.3f} eV"
        share = 100.0 * (kinetics.energy_ev / ACTIVATION_ENERGY_EV - 1.0)
        table.add_row(f"activation energy, {what}", f"{energy} ({share:+.1f} %)", f"{ACTIVATION_ENERGY_EV:g} eV")
        order = f"{kinetics.order:.3f} ± {kinetics.order_error:.3f}"
        table.add_row("  order in oxygen", order, f"{OXYGEN_ORDER:g}")
        velocity = f"{kinetics.velocity_m_per_s * 1e9:.3g} nm/s"
        made = f"{_made_m_per_s(film) * 1e9:.3g} nm/s on terraces of {film.terrace_m * 1e9:.0f} nm"
        table.add_row(f"  velocity at {USUAL_K:g} K and {USUAL_PA:g} Pa", velocity, made)
    drift = f"{found.drift_m_per_s * 1e9:+.3f} nm/s and {found.expansion_m_per_k * 1e9:+.3f} nm/K"
    table.add_row("drift and expansion along the steps' normal", drift, "at most 0.15 nm/s, 0.22 nm/K")
    table.add_row("hottest, and what 20 % of emissivity make of it", f"{hot_k:.0f} ± {unsure_k:.0f} K", "")
    for what, value in account:
        table.add_row(what, value, "")
    return table


def _made_m_per_s(film: Film) -> float:
    """The world's velocity at 1100 K and 20 Pa for the terraces in view: each feeds its step."""
    supply: float = (USUAL_PA / REFERENCE_OXYGEN_PA) ** OXYGEN_ORDER
    return REFERENCE_STEP_VELOCITY_M_PER_S * supply * film.terrace_m / StepBunches.terrace_m


def _readings(film: Film, found: Kinetics) -> dict[str, Kinetics]:
    """The fit, and those of what pyrometers set wrong would have shown. A constant error shifts 1/T by a constant: the
    energy stays, the velocity at a temperature is wrong many times over. An oxide that grows unnoticed bends it all."""
    oxidising = COPPER_EMISSIVITY + OXIDISED * (OXIDE_EMISSIVITY - COPPER_EMISSIVITY) * film.time_s / film.time_s[-1]
    as_oxide = misread(film, OXIDE_EMISSIVITY, COPPER_EMISSIVITY)
    off_k = float(np.nanmedian(as_oxide[film.heated] - film.temperature_k[film.heated]))
    return {
        f"emissivity set to copper's {COPPER_EMISSIVITY:g}": found,
        f"had it been set to oxide's {OXIDE_EMISSIVITY:g} ({off_k:+.0f} K)": fit(film, as_oxide),
        f"had {100 * OXIDISED:.0f} % turned to oxide unnoticed meanwhile": fit(
            film, misread(film, COPPER_EMISSIVITY, oxidising)
        ),
    }


def _account(recorded: RecordedRun, frames: int) -> list[tuple[str, str]]:
    """How old the state is that was joined to the frames, and what is missing of `frames`."""
    headers = [frame.header for frame in recorded.frames.values()]
    joined = [value for header in headers for value in header.state.values()]
    p50_s, p99_s, most_s = np.percentile([value.age_s for value in joined], (50, 99, 100))
    invalid = sum(not value.valid for value in joined)
    seconds = (headers[-1].monotonic_ns - headers[0].monotonic_ns) / 1e9
    missing = f"{frames - len(headers)}, {len(recorded.missing_heights)}"
    return [
        ("age of the state joined to frames: p50, p99, max", f"{p50_s:.3f}, {p99_s:.3f}, {most_s:.3f} s"),
        ("values joined, those of them invalid", f"{len(joined)}, {invalid}"),
        (f"of {frames} frames those lost, and those without height", missing),
        ("frames a second", f"{(len(headers) - 1) / seconds:.2f}"),
    ]


def _picture(folder: Path, found: Kinetics) -> Path:
    """Growth at 20 Pa of oxygen against 1/T: a point for each window, the fit, and the world's slope through it."""
    import matplotlib.pyplot as plt

    rates = found.rates
    growth = rates.growth_m_per_s * (USUAL_PA / rates.oxygen_pa) ** found.order * 1e9
    # Where more drifts than grows, as while it is heated up, the difference of the two says nothing about growth.
    hot = (rates.fitted_m_per_s > np.abs(rates.drift_m_per_s)) & (growth > 0)
    inverse = 1 / np.array([rates.temperature_k[hot].max(), rates.temperature_k[hot].min()])
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for energy_ev, style, name in (
        (found.energy_ev, "-", f"fit: {found.energy_ev:.3f} ± {found.energy_error_ev:.3f} eV"),
        (ACTIVATION_ENERGY_EV, "--", f"the world's: {ACTIVATION_ENERGY_EV:g} eV"),
    ):
        line = found.velocity_m_per_s * np.exp(-energy_ev / BOLTZMANN_EV_PER_K * (inverse - 1 / USUAL_K)) * 1e9
        axes.semilogy(1e3 * inverse, line, style, color="0.4", label=name)
    points = axes.scatter(1e3 / rates.temperature_k[hot], growth[hot], c=rates.oxygen_pa[hot], cmap="viridis", zorder=3)
    figure.colorbar(points, label="oxygen, Pa")
    title = f"steps of the emulated lab; order in oxygen {found.order:.2f} ± {found.order_error:.2f}, drift taken off"
    axes.set(xlabel="1000 K / T", ylabel=f"velocity of steps at {USUAL_PA:g} Pa, nm/s", title=title)
    axes.legend()
    path = folder / "lab-arrhenius.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
