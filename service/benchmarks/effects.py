"""What gas skirt, interaction volume and emission law do to a 10 nm step and a 20 degree facet: figures and picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Beam, Effects, Gas, Instrument, four_quadrant
from inference.forward_model import expected_counts
from inference.forward_model.probe import gas_skirt, kanaya_okayama_range_m
from inference.pipeline import Pipeline
from service.benchmarks.frames import frame_of, with_gain
from service.benchmarks.measured import Measured

PIXEL_M = 5e-9
SIZE_PX = 256
MARGIN_PX = 64
STEP_M = 10e-9
FACET_DEG = 20.0
FACET_WIDTH_PX = 40
# The working point of the paper's oxidation runs: 121 Pa of hydrogen and oxygen 5:1.
REACTION_GAS = (Gas(formula="H2", pressure_pa=100.8), Gas(formula="O2", pressure_pa=20.2))
COPPER = {"atomic_weight": 63.55, "atomic_number": 29.0, "density_kg_m3": 8960.0}
# Estimates: half of the electrons come from deeper than a pixel, from within a third of their range.
TAIL_SHARE = 0.5
TAIL_PART_OF_RANGE = 1.0 / 3.0
EMISSION_EXPONENT = 1.3
COUNTS_PER_ELECTRON = 0.05
DOSE = 1e6

Floats = NDArray[np.float64]


class Case(NamedTuple):
    """An instrument as it really is, beside the plain one that the inversion assumes."""

    name: str
    told: str
    instrument: Instrument


def measure(quick: bool, data: Path | None) -> Mapping[str, Measured]:
    """Rows of [effects]: errors of classical reconstruction without noise when an effect is there but not known."""
    rows: dict[str, Measured] = {}
    for case in cases():
        step_m, _ = _step(case.instrument)
        facet_deg, _ = _facet(case.instrument)
        read = f"{case.told}; a 10 nm step reads {step_m * 1e9:.2f} nm"
        rows[f"{case.name}_step_error_pct"] = Measured(100.0 * abs(step_m / STEP_M - 1.0), read)
        read = f"{case.told}; a facet of 20 deg, {FACET_WIDTH_PX} px wide, reads {facet_deg:.2f} deg"
        rows[f"{case.name}_facet_error_deg"] = Measured(abs(facet_deg - FACET_DEG), read)
    return rows


def cases() -> list[Case]:
    plain = _plain()
    beam = plain.beam
    skirt = gas_skirt(Effects(gases=REACTION_GAS), beam.energy_ev)
    depth_m = kanaya_okayama_range_m(beam.energy_ev, **COPPER)
    tail_m = depth_m * TAIL_PART_OF_RANGE
    with_tail: Beam = beam.model_copy(update={"tail_fraction": TAIL_SHARE, "tail_sigma_m": tail_m})
    return [
        Case("no_effect", "as the inversion assumes", plain),
        Case(
            "gas_skirt",
            f"121 Pa H2 and O2 5:1, 8 mm, 10 keV: {skirt.share:.0%} in a skirt of sigma {skirt.sigma_m * 1e6:.0f} um",
            plain.model_copy(update={"effects": Effects(gases=REACTION_GAS)}),
        ),
        Case(
            "interaction_volume",
            f"copper, 10 keV: range {depth_m * 1e6:.2f} um, {TAIL_SHARE:.0%} in a tail of {tail_m * 1e6:.2f} um",
            plain.model_copy(update={"beam": with_tail}),
        ),
        Case(
            "emission_law",
            f"cos^{EMISSION_EXPONENT} instead of cosine",
            plain.model_copy(update={"effects": Effects(emission_exponent=EMISSION_EXPONENT)}),
        ),
    ]


def draw(folder: Path, quick: bool, data: Path | None) -> list[Path]:
    """Writes `effects.png`: profiles of all cases across the step and the facet."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    x_nm = (np.arange(SIZE_PX) - 0.5 * SIZE_PX) * PIXEL_M * 1e9
    for case in cases():
        _, step = _step(case.instrument)
        _, facet = _facet(case.instrument)
        left.plot(x_nm, step * 1e9, label=case.told)
        right.plot(x_nm, np.degrees(np.arctan(np.gradient(facet, PIXEL_M))))
    left.set(title="10 nm step", xlabel="nm", ylabel="height, nm", xlim=(-300, 300))
    right.set(title="facet of 20°, 200 nm wide", xlabel="nm", ylabel="slope, °", xlim=(-300, 300))
    told = left.get_legend_handles_labels()
    figure.legend(*told, loc="outside lower center", fontsize="small", ncols=2, frameon=False)
    figure.savefig(folder / "effects.png", dpi=110)
    plt.close(figure)
    return [folder / "effects.png"]


def _step(instrument: Instrument) -> tuple[float, Floats]:
    """Height read between terraces, and the profile. The step is rounded over two pixels, lest it shadows."""
    along = np.arange(SIZE_PX + 2 * MARGIN_PX) - 0.5 * (SIZE_PX + 2 * MARGIN_PX)
    profile = _reconstructed(STEP_M * 0.5 * (1.0 + np.tanh(along / 2.0)), instrument)
    near = slice(SIZE_PX // 2 - 40, SIZE_PX // 2 - 10), slice(SIZE_PX // 2 + 10, SIZE_PX // 2 + 40)
    return float(profile[near[1]].mean() - profile[near[0]].mean()), profile - profile[:40].mean()


def _facet(instrument: Instrument) -> tuple[float, Floats]:
    """Angle in the middle half of the facet, and the profile."""
    along = np.arange(SIZE_PX + 2 * MARGIN_PX) - 0.5 * (SIZE_PX + 2 * MARGIN_PX)
    half = 0.5 * FACET_WIDTH_PX
    heights = np.clip(along, -half, half) * math.tan(math.radians(FACET_DEG)) * PIXEL_M
    profile = _reconstructed(heights, instrument)
    middle = slice(SIZE_PX // 2 - FACET_WIDTH_PX // 4, SIZE_PX // 2 + FACET_WIDTH_PX // 4)
    rise = np.polyfit(np.arange(middle.start, middle.stop) * PIXEL_M, profile[middle], 1)[0]
    return math.degrees(math.atan(rise)), profile


def _reconstructed(profile_m: Floats, instrument: Instrument) -> Floats:
    """What plain inversion makes of a surface that runs along y; without noise."""
    heights = np.broadcast_to(profile_m, (64, len(profile_m)))
    counts = expected_counts(heights, instrument, DOSE)[:, :, MARGIN_PX:-MARGIN_PX]
    images = np.ascontiguousarray(np.rint(counts), dtype=np.uint16)
    height = _classical().reconstruct(frame_of(images, instrument, "effects"), _plain()).height_m
    return np.asarray(height.mean(axis=0), np.float64)


@cache
def _classical() -> Pipeline:
    return Pipeline("classical")


def _plain() -> Instrument:
    """With so little gain that a frame without noise fits into 16 bits."""
    return with_gain(four_quadrant().with_scan(pixel_size_m=PIXEL_M), COUNTS_PER_ELECTRON)
