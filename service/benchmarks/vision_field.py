"""The vision field: how far around a pixel relief can change its signal, and what looking less far costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Instrument
from inference.forward_model import captured_fractions, linear_response
from service.benchmarks.agreement import random_pixels
from service.benchmarks.measured import tell_progress
from service.benchmarks.monte_carlo import first_obstacles
from service.benchmarks.surfaces import Surface, made_surface, real_surfaces

SIZE = 256
PIXELS, QUICK_PIXELS = 1000, 200
RAYS = 4096
WINDOWED_PIXELS = 60
SHORT_WORKING_DISTANCE_M = 4.5e-3
RADII = np.linspace(0.02, 1.2, 60)
LOWEST_PCT = 1e-3
WINDOWED_RADII = np.array([0.1, 0.25, 0.5, 1.0, 1.15])

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VisionField:
    """Curves over `radius` (K,), the distance within which relief counts, in units of each pixel's own bound r*.

    `error_pct`: rms over pixels of the detected signal that is taken for free though relief further off blocks it, in %
    of the flat signal. `blocked_beyond`: probability that a ray free within the radius is blocked further off, in
    emitted electrons. `farthest`: distance of the farthest obstacle of all, in the same units; never above 1.
    """

    radius: Floats
    error_pct: Floats
    blocked_beyond: Floats
    farthest: float


def vision_field(
    heights_m: NDArray[np.floating],
    instrument: Instrument,
    pixels: NDArray[np.integer],
    rays: int,
    rng: np.random.Generator,
    radius: Floats = RADII,
) -> VisionField:
    """By the reference's rays, so that it says nothing about BSESM but about the surface (forward_model.md, stage 2).

    r* = rise * tan(theta_out) is a bound for certain: rise is the height of the highest point of the whole relief above
    the pixel, theta_out the largest polar angle that the detector sees. A ray to the detector has theta <= theta_out,
    so where it is at the horizontal distance r it stands r / tan(theta) >= r / tan(theta_out) above the pixel. What
    blocks it there rises as high, and nothing rises above `rise`: r <= rise * tan(theta_out). Square pixels.
    """
    site, weight, distance = first_obstacles(heights_m, instrument, pixels, rays, rng)
    bound = bounds_px(heights_m, instrument)[pixels[:, 0], pixels[:, 1]]
    # The highest pixel of all has the bound 0, and nothing blocks it.
    share = np.where(np.isfinite(distance), distance / np.maximum(bound, 1e-9)[site], np.inf)
    blocked = np.isfinite(share)
    beyond = np.stack(
        [np.bincount(site, np.where(blocked & (share > reach), weight, 0.0), len(pixels)) for reach in radius]
    )
    free = float(weight[~blocked].sum())
    flat = float(linear_response(instrument)[:, 2].sum())
    return VisionField(
        radius=radius,
        error_pct=100.0 / flat * np.sqrt(np.mean(beyond**2, axis=1)),
        blocked_beyond=beyond.sum(axis=1) / (beyond.sum(axis=1) + free),
        farthest=float(share[blocked].max(initial=0.0)),
    )


def windowed_error_pct(
    heights_m: NDArray[np.floating], instrument: Instrument, pixels: NDArray[np.integer], radius: float
) -> float:
    """The same rms error, of `captured_fractions` itself when only relief within `radius` times r* counts.

    Pixels further off are sunk out of sight, but for those that hold up a cell of the grid which the circle cuts.
    """
    whole = captured_fractions(heights_m, instrument).sum(axis=0)
    bound = bounds_px(heights_m, instrument)
    differences = []
    for row, column in pixels:
        reach = radius * bound[row, column] + math.sqrt(2.0)
        half = max(math.ceil(reach), 1)
        top, left = max(row - half, 0), max(column - half, 0)
        window = heights_m[top : row + half + 1, left : column + half + 1].copy()
        far_row, far_column = np.indices(window.shape)
        far = np.hypot(far_row + top - row, far_column + left - column) > reach
        window[far] = np.minimum(window[far], heights_m[row, column])
        seen = captured_fractions(window, instrument)[:, row - top, column - left].sum()
        differences.append(float(seen - whole[row, column]))
    flat = float(linear_response(instrument)[:, 2].sum())
    return 100.0 / flat * math.sqrt(float(np.mean(np.square(differences))))


def bounds_px(heights_m: NDArray[np.floating], instrument: Instrument) -> Floats:
    """(H, W): r* of each pixel, in pixels. The frame's own relief only: what stands outside is unknown here."""
    detector = instrument.detector
    reach_m = max(segment.outer_radius_m or 0.0 for segment in detector.segments)
    reach_m += math.hypot(detector.offset_x_m, detector.offset_y_m)
    bounds: Floats = (
        (heights_m.max() - heights_m) / instrument.scan.pixel_size_m * reach_m / detector.working_distance_m
    )
    return bounds


def draw(folder: Path, quick: bool, data: Path | None) -> list[Path]:
    """Writes `vision-field.png`: curves by rays, and dots by `captured_fractions` with the relief cut off."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for name, surface, instrument in _cases(data):
        tell_progress(f"vision field: {name}")
        rng = np.random.default_rng(7)
        pixels = random_pixels(surface.heights_m.shape, QUICK_PIXELS if quick else PIXELS, rng)
        field = vision_field(surface.heights_m, instrument, pixels, RAYS, rng)
        (line,) = left.semilogy(field.radius, field.error_pct, label=f"{name}; farthest {field.farthest:.2f}")
        right.semilogy(field.radius, field.blocked_beyond, color=line.get_color())
        for radius in () if quick else WINDOWED_RADII:
            error_pct = windowed_error_pct(surface.heights_m, instrument, pixels[:WINDOWED_PIXELS], radius)
            left.plot(radius, max(error_pct, LOWEST_PCT), "o", color=line.get_color())
    left.set(title="error when relief further off is left out", ylabel="% of flat signal, rms", ylim=(LOWEST_PCT, 30))
    right.set(title="a ray free within is blocked further off", ylabel="probability", ylim=(1e-6, 1))
    for axes in (left, right):
        axes.axvline(1.0, color="0.7", linestyle="--")
        axes.set_xlabel("distance within which relief counts / (highest rise x tan theta_out)")
    figure.legend(loc="outside lower center", fontsize="small", ncols=2, frameon=False)
    figure.savefig(folder / "vision-field.png", dpi=110)
    plt.close(figure)
    return [folder / "vision-field.png"]


def _cases(data: Path | None) -> list[tuple[str, Surface, Instrument]]:
    names = ("terraces, 12 px walls", "roughness, 45 deg", "nanograins, 50 deg")
    surfaces = [made_surface(name, SIZE) for name in names]
    grains = surfaces[-1]
    surfaces += [surface for surface in real_surfaces(data) if surface.name == "st_ps"]
    short = grains.instrument.with_scan(working_distance_m=SHORT_WORKING_DISTANCE_M)
    cases = [(surface.name, surface, surface.instrument) for surface in surfaces]
    return [*cases, (f"{grains.name}, working distance 4.5 mm", grains, short)]
