"""Whether known truth comes back when physical parameters and a network are refined together.

Frames of a still surface, seen by an instrument that is turned and whose gains are wrong against its file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from acquisition.instrument import Instrument, four_quadrant, parse_instrument
from inference.accuracy import compare
from inference.forward_model import render
from inference.registry import DEFAULT_MODEL, find_model_set
from service.benchmarks.measured import Measured, Report, Request, tell_progress
from service.benchmarks.surfaces import made_surface

SURFACE, SIZE, FRAMES, DOSE = "roughness, 20 deg", 48, 8, 3_000.0
STEPS, QUICK_STEPS = 100, 40
ROTATION_DEG, GAINS = 6.0, (1.15, 0.92, 1.05, 0.9)
FADED = 0.985
ARMS = {"as stated": (False, False), "physics": (True, False), "network": (False, True), "both": (True, True)}


@dataclass(frozen=True, slots=True)
class Refined:
    """`gain_error` is rms over segments, relative, their common factor apart, which shares cannot tell."""

    arm: str
    rotation_error_deg: float
    gain_error: float
    slope_error_deg: float


def measure(request: Request) -> Report:
    """Rows of [refinement]: both together, beside physical parameters alone with the network as it was."""
    try:
        found = refine(QUICK_STEPS if request.quick else STEPS, request.models[0])
    except ModuleNotFoundError as error:
        return Report({}, f"{error.name} is not installed: install the extra `train`")
    start, physics, network, both = found
    conditions = (
        f"{SURFACE}, {SIZE} px, {FRAMES} frames at N = {DOSE:g}; turned by {ROTATION_DEG:g} deg, gains off by "
        f"{', '.join(f'{100 * (gain - 1):+.0f}' for gain in GAINS)} %"
    )
    told = f"slopes {start.slope_error_deg:.2f} as stated, {network.slope_error_deg:.2f} by the network alone"
    peer = "physical parameters alone"
    return Report(
        {
            "rotation_error_deg": Measured(both.rotation_error_deg, conditions, peer, physics.rotation_error_deg),
            "gain_error_pct": Measured(100 * both.gain_error, "common factor apart", peer, 100 * physics.gain_error),
            "slope_error_deg": Measured(both.slope_error_deg, told, peer, physics.slope_error_deg),
        },
        table=_table(found),
    )


def refine(steps: int, model: str = DEFAULT_MODEL) -> list[Refined]:
    """In the order of `ARMS`. Raises `ModuleNotFoundError` without torch."""
    from inference.refinement.joint import JointFit

    slopes = find_model_set("unet" if model == DEFAULT_MODEL else model).graph("slopes")
    stated, rng = four_quadrant(), np.random.default_rng(17)
    height_m = made_surface(SURFACE, SIZE).heights_m
    images = np.stack([render(height_m - height_m.mean(), _real(stated), rng, DOSE) for _ in range(FRAMES)])
    found = []
    for arm, (physics, network) in ARMS.items():
        tell_progress(f"refining: {arm}")
        fit = JointFit(stated, slopes, physics=physics, network=network)
        for step in range(steps if physics or network else 0):
            one, other = rng.choice(FRAMES - 1, 2, replace=False)
            fit.step(images[one], images[other], FADED**step)
        rotation_deg, gains, refined_m = fit.found(images[-1])
        gain_error = float(np.std(np.log(gains / np.array(GAINS))))
        slopes_now = compare(refined_m, height_m, stated.scan.pixel_size_m)
        found.append(Refined(arm, abs(rotation_deg - ROTATION_DEG), gain_error, slopes_now.slope_error_deg))
    return found


def _real(stated: Instrument) -> Instrument:
    tree = stated.model_dump()
    tree["detector"]["rotation_deg"] += ROTATION_DEG
    for segment, factor in zip(tree["detector"]["segments"], GAINS, strict=True):
        segment["gain_counts_per_electron"] *= factor
    return parse_instrument(tree, "the instrument as it is")


def _table(found: list[Refined]) -> Table:
    table = Table(title="refined on frames of a still surface, judged on one that was held out")
    for heading in ("free", "rotation off by", "gains off by", "slope error"):
        table.add_column(heading)
    for one in found:
        numbers = (f"{one.rotation_error_deg:.2f}°", f"{100 * one.gain_error:.2f} %", f"{one.slope_error_deg:.2f}°")
        table.add_row(one.arm, *numbers)
    return table
