"""BSESM against an independent Monte Carlo: how wrong, how fast, and how its cost grows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numba
import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import four_quadrant
from inference.forward_model import MARCHED, SWEPT, Horizons, Swept, captured_fractions, linear_response
from inference.forward_model.paths import capture_checks
from service.benchmarks.agreement import Agreement, agreement, random_pixels
from service.benchmarks.inverse import map_against_classical, twin_gradient
from service.benchmarks.measured import Measured, tell_progress
from service.benchmarks.monte_carlo import area_fractions, monte_carlo_fractions
from service.benchmarks.rays import Sampler
from service.benchmarks.surfaces import Surface, made_surface, made_surfaces, real_surfaces, tiled

SIZE = 256
PIXELS, QUICK_PIXELS = 1000, 150
RAYS = 65_536
AMBIGUITY_PIXELS, AMBIGUITY_RAYS = 200, 16_384
SIDES = (256, 512, 1024, 2048, 4096)
PEER_PIXELS, PEER_RAYS = 200, 16_384
CONE_RAYS = (32, 64, 128, 256, 512, 1024)
RATE_RAYS = 20_000_000
AIM_PCT = 1.0
DEEP, DEEPER = "nanograins, 50 deg", 8.0

Floats = NDArray[np.float64]


def measure(quick: bool, data: Path | None) -> Mapping[str, Measured]:
    """Rows of [physics]. Real maps come from `data`/afm; without them made surfaces stand in, and the row says so."""
    real = real_surfaces(data)
    smooth = next((surface for surface in real if surface.name == "st_ps"), None)
    smooth = smooth or made_surface("roughness, 20 deg", SIZE)
    _compile(smooth)
    judged = _judge(made_surfaces(SIZE) + real, quick)
    rows = {
        "bsesm_exact_rms_pct": bsesm_exact_rms_pct(judged, quick),
        "bsesm_exact_max_pct": bsesm_exact_max_pct(judged, quick),
    }
    rows["bsesm_fast_rms_pct"] = bsesm_fast_rms_pct(list(judged))
    tell_progress("fields, gradients and 1024 x 1024")
    rows["acceptance_vs_closed_form_pct"] = acceptance_vs_closed_form_pct()
    rows["twin_gradient_rel_error"] = twin_gradient()
    afm = bsesm_1024_afm_s(smooth)
    if quick:
        return {**rows, "bsesm_1024_afm_s": afm}
    rows["bsesm_1024_steep_s"] = bsesm_1024_steep_s()
    tell_progress("plain Monte Carlo and cone sampling at 1 % error")
    plain, cone = _peers(smooth)
    rows["bsesm_1024_afm_s"] = Measured(afm.value, afm.conditions, "plain Monte Carlo", plain.seconds)
    rows["speedup_vs_plain_monte_carlo"] = speedup(plain, "plain Monte Carlo (Embree)", afm.value)
    rows["speedup_vs_cone_sampling"] = speedup(cone, "cone-sampled ray tracing (Embree)", afm.value)
    tell_progress("256 x 256 to 4096 x 4096")
    rows["cost_exponent_pixels"] = cost_exponent_pixels(smooth)
    tell_progress("MAP on the real maps")
    fitted = map_against_classical(data)
    return rows if fitted is None else {**rows, "map_afm_slope_vs_classical": fitted}


def bsesm_exact_rms_pct(judged: Mapping[Surface, Agreement], quick: bool) -> Measured:
    """The worst rms among real AFM maps and sharp steps, the reference's own scatter not subtracted."""
    worst = max((surface for surface in judged if surface.is_anchor), key=lambda surface: judged[surface].rms_pct)
    listed = ", ".join(f"{surface.name} {found.rms_pct:.3f}" for surface, found in judged.items())
    scatter = max(found.reference_error_pct for found in judged.values())
    conditions = [
        f"worst of real AFM maps and sharp steps: {worst.name}. {_reference(judged, quick)}",
        f"its own standard error, included: up to {scatter:.3f} %. Each surface: {listed}",
    ]
    if not quick:
        conditions.append(_ambiguity(worst))
    return Measured(judged[worst].rms_pct, ". ".join(conditions))


def bsesm_exact_max_pct(judged: Mapping[Surface, Agreement], quick: bool) -> Measured:
    worst = max((surface for surface in judged if surface.is_anchor), key=lambda surface: judged[surface].max_pct)
    listed = ", ".join(f"{surface.name} {found.max_pct:.2f}" for surface, found in judged.items())
    conditions = f"worst sampled pixel and segment: {worst.name}. {_reference(judged, quick)}. Each surface: {listed}"
    return Measured(judged[worst].max_pct, conditions)


def bsesm_fast_rms_pct(surfaces: list[Surface]) -> Measured:
    """Sweeping wherever it may be used against marching, and what it gains on relief so deep that it is worthwhile."""
    always = Swept(worthwhile_px=0.0)
    errors = {}
    for surface in surfaces:
        exact, swept = (captured_fractions(surface.heights_m, surface.instrument, way) for way in (MARCHED, always))
        to_pct = 100.0 / linear_response(surface.instrument)[:, 2, None, None]
        errors[surface.name] = float(np.sqrt(np.mean(((swept - exact) * to_pct) ** 2)))
    deep = made_surface(DEEP, SIZE)
    deep = replace(deep, heights_m=deep.heights_m * DEEPER)
    seconds = {name: median(_seconds(deep, way)) for name, way in (("marched", MARCHED), ("swept", SWEPT))}
    listed = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return Measured(
        max(errors.values()),
        f"worst surface, against the exact variant: {listed}. {DEEP}, {DEEPER} times as high, {SIZE} x {SIZE}: "
        f"{seconds['swept']:.3g} s against {seconds['marched']:.3g} s",
    )


def acceptance_vs_closed_form_pct() -> Measured:
    """Capture of the default annulus by electrons traced through the solved field, against the uniform field's."""
    detector = four_quadrant().detector
    inner_m, outer_m = detector.segments[0].inner_radius_m, detector.segments[0].outer_radius_m
    assert inner_m is not None and outer_m is not None
    checks = capture_checks(detector.working_distance_m, inner_m, outer_m)
    worst = max(checks, key=lambda check: abs(check.traced / check.uniform - 1.0))
    return Measured(
        100.0 * abs(worst.traced / worst.uniform - 1.0),
        f"worst of {len(checks)} biases and landing energies: {worst.bias_v:g} V, {worst.energy_ev:g} eV",
        "classical parabola",
        100.0 * max(abs(check.parabola / check.uniform - 1.0) for check in checks),
    )


def bsesm_1024_afm_s(smooth: Surface) -> Measured:
    return Measured(median(_seconds(_grown(smooth, 1024))), f"{smooth.name} continued to 1024 x 1024, {_setting()}")


def bsesm_1024_steep_s() -> Measured:
    steep = made_surface("nanograins, 50 deg", 1024)
    return Measured(median(_seconds(steep)), f"{steep.name}, 1024 x 1024, {_setting()}")


def speedup(peer: _Peer, name: str, bsesm_s: float) -> Measured:
    """Times that BSESM is faster than `peer` would be for every pixel of the same surface, on the same cores."""
    conditions = (
        f"{peer.seconds:.3g} s against {bsesm_s:.3g} s for 1024 x 1024: {peer.rays:.0f} rays a pixel for an error of "
        f"1 % of each segment's flat signal, rms, extrapolated from {PEER_PIXELS} pixels; "
        f"{peer.rays_per_second / 1e6:.1f} million rays/s on a core, credited with all {numba.get_num_threads()}"
    )
    return Measured(peer.seconds / bsesm_s, conditions, peer=name, peer_value=1.0)


def cost_exponent_pixels(smooth: Surface) -> Measured:
    """Slope of log time over log pixels. All sizes mirror the same patch, lest the relief changes with them."""
    patch = _grown(smooth, SIDES[0])
    grown = [_grown(patch, side) for side in SIDES]
    seconds = [min(_seconds(surface, times=5)) for surface in grown]
    log_pixels, log_seconds = 2.0 * np.log(SIDES), np.log(seconds)
    exponent, from_1024 = (np.polyfit(log_pixels[part], log_seconds[part], 1)[0] for part in (np.s_[:], np.s_[2:]))
    listed = ", ".join(f"{side}: {value:.3g} s" for side, value in zip(SIDES, seconds, strict=True))
    arrays = _peak_arrays(grown[-1])
    memory = (
        "memory not told by this system" if arrays is None else f"at most {arrays:.1f} arrays of 4096 x 4096 float32"
    )
    return Measured(
        float(exponent),
        f"{smooth.name}, one patch mirrored, best of 5: {listed}; {from_1024:.2f} from 1024 x 1024 up; {memory}, "
        "heights not counted",
    )


def _judge(surfaces: list[Surface], quick: bool) -> dict[Surface, Agreement]:
    """Quick: only those that the targets are for."""
    judged = {}
    for index, surface in enumerate(surfaces):
        if quick and not surface.is_anchor:
            continue
        tell_progress(f"BSESM against Monte Carlo: {surface.name}")
        rng = np.random.default_rng([2, index])
        pixels = random_pixels(surface.heights_m.shape, QUICK_PIXELS if quick else PIXELS, rng)
        judged[surface] = agreement(surface.heights_m, surface.instrument, pixels, RAYS, rng)
    return judged


def _reference(judged: Mapping[Surface, Agreement], quick: bool) -> str:
    real = sum(surface.is_real for surface in judged)
    source = f"{real} real maps" if real else "no real maps: name the data folder with --data"
    pixels = QUICK_PIXELS if quick else PIXELS
    return f"{source}. Reference: {RAYS} cone-sampled Embree rays from each of {pixels} random pixels a surface"


def _ambiguity(surface: Surface) -> str:
    """What the sampled heights leave open: the cut of cells into triangles, and where in its area a pixel emits."""
    heights, instrument = surface.heights_m, surface.instrument
    pixels = random_pixels(heights.shape, AMBIGUITY_PIXELS, np.random.default_rng(3))
    lower, higher = (
        monte_carlo_fractions(heights, instrument, pixels, AMBIGUITY_RAYS, np.random.default_rng(4), "cone", cut=cut)[0]
        for cut in ("lower", "higher")
    )
    area = area_fractions(heights, instrument, pixels, AMBIGUITY_RAYS // 16, np.random.default_rng(5))
    to_pct = 100.0 / linear_response(instrument)[:, 2:]
    cut_pct, area_pct = (float(np.sqrt(np.mean(((other - lower) * to_pct) ** 2))) for other in (higher, area))
    return (
        f"What the heights of {surface.name} leave open between pixels: {cut_pct:.2g} % rms by the other cut of cells "
        f"into triangles, {area_pct:.2g} % by facets' normals over the pixel's area instead of its centre's"
    )


@dataclass(frozen=True, slots=True)
class _Peer:
    """A way of ray tracing: rays that a pixel needs for the error aimed at, rays/s of one core, all cores' time."""

    rays: float
    rays_per_second: float

    @property
    def seconds(self) -> float:
        return float(self.rays * 1024 * 1024 / (self.rays_per_second * numba.get_num_threads()))


def _peers(smooth: Surface) -> tuple[_Peer, _Peer]:
    """Plain Monte Carlo and cone sampling, each at 1 % error."""
    surface = _grown(smooth, 1024)
    heights, instrument = surface.heights_m, surface.instrument
    rng = np.random.default_rng(6)
    pixels = random_pixels(heights.shape, PEER_PIXELS, rng)
    to_pct = 100.0 / linear_response(instrument)[:, 2:]

    def trace(rays: int, sampler: Sampler, scrambles: int, chosen: NDArray[np.int64] = pixels) -> tuple[Floats, Floats]:
        return monte_carlo_fractions(heights, instrument, chosen, rays, rng, sampler, scrambles)

    def rms_pct(error: Floats) -> float:
        return float(np.sqrt(np.mean((error * to_pct) ** 2)))

    _, plain_error = trace(PEER_RAYS, "plain", 1)
    plain_rays = PEER_RAYS * (rms_pct(plain_error) / AIM_PCT) ** 2
    converged, _ = trace(RAYS, "cone", 8)
    # Of one scramble, its best; converged rays are the truth, as one scramble doesn't know its error.
    cone_pct = [rms_pct(trace(rays, "cone", 1)[0] - converged) for rays in CONE_RAYS]
    cone_rays = float(np.exp(np.interp(-math.log(AIM_PCT), -np.log(cone_pct), np.log(CONE_RAYS))))

    def rays_per_second(rays: int, sampler: Sampler) -> float:
        """In processor time, as tracing runs on one core and must not pay for whoever else is at work; from the
        difference between many and half as many pixels, so that building the mesh isn't counted."""
        many = random_pixels(heights.shape, RATE_RAYS // rays, rng)
        half = len(many) // 2
        seconds = []
        for chosen in (many[:half], many):
            began = time.process_time()
            trace(rays, sampler, 1, chosen)
            seconds.append(time.process_time() - began)
        return (len(many) - half) * rays / (seconds[1] - seconds[0])

    nearest_power = int(2 ** round(math.log2(cone_rays)))
    return (
        _Peer(plain_rays, rays_per_second(PEER_RAYS, "plain")),
        _Peer(cone_rays, rays_per_second(nearest_power, "cone")),
    )


def _compile(surface: Surface) -> None:
    """numba's first compilation belongs to no row."""
    captured_fractions(surface.heights_m[:32, :32], surface.instrument)


def _grown(surface: Surface, side: int) -> Surface:
    return replace(surface, heights_m=tiled(surface.heights_m, side, side))


def _seconds(surface: Surface, way: Horizons = MARCHED, times: int = 3) -> list[float]:
    """Of each of so many renderings, after one that isn't counted."""
    seconds = []
    instrument = surface.instrument
    for _ in range(times + 1):
        began = time.perf_counter()
        captured_fractions(surface.heights_m, instrument, way)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def _setting() -> str:
    return f"4 segments, {numba.get_num_threads()} threads, median of 3 after a warm-up"


def _peak_arrays(surface: Surface) -> float | None:
    """Memory that rendering takes at its peak, in float32 arrays of the frame; None where the system can't tell."""
    status = Path("/proc/self/status")

    def kilobytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        captured_fractions(surface.heights_m, surface.instrument)
        return (kilobytes("VmHWM") - before) * 1024 / (4 * surface.heights_m.size)
    except (OSError, StopIteration):
        return None
