"""An instrument that isn't what its file says: the simulated gap between model and reality, in one place."""

from __future__ import annotations

from typing import NamedTuple

from acquisition.instrument import Effects, Instrument, four_quadrant

GAIN_ERRORS = (1.02, 0.985, 1.01, 0.98)
DARK_ERRORS_COUNTS = (6.0, -4.0, 10.0, 0.0)
EFFECTS = Effects(
    emission_exponent=1.2,
    forward_lobe=0.1,
    tilt_yield_exponent=1.67,
    second_scattering=0.3,
    lag_s=0.4e-6,
    glow_counts=6.0,
)
TAIL_SHARE, TAIL_SIGMA_M = 0.3, 0.153e-6


class Mismatch(NamedTuple):
    """An instrument as it is, and as the model takes it to be."""

    real: Instrument
    stated: Instrument


def mismatched() -> Mismatch:
    """The default instrument with faults of moderate, realistic size; always the same.

    Emission cos^1.2 with a tenth in a forward lobe, copper's tilt-dependent yield 9 / sqrt(29), a second scattering
    with about copper's yield (forward_model.md, "Beyond the paper" and "What limits metrology"); three tenths of the
    signal from copper's interaction volume at 10 keV, a third of its Kanaya-Okayama range wide, 31 pixels; a
    preamplifier that forgets within 0.4 of a dwell time; gains known to 2 %, dark levels and the heater's glow to 1 %
    of a flat specimen's signal. All are estimates. No gas: its skirt is known from the pressure, and no fault. No
    drift or jitter: what moves is found by registration. No wrong geometry: that would be an error of slopes.
    """
    stated = four_quadrant()
    segments = tuple(
        segment.model_copy(
            update={
                "gain_counts_per_electron": (segment.gain_counts_per_electron or 1.0) * gain,
                "dark_counts": (segment.dark_counts or 0.0) + dark,
            }
        )
        for segment, gain, dark in zip(stated.detector.segments, GAIN_ERRORS, DARK_ERRORS_COUNTS, strict=True)
    )
    real = stated.model_copy(
        update={
            "beam": stated.beam.model_copy(update={"tail_fraction": TAIL_SHARE, "tail_sigma_m": TAIL_SIGMA_M}),
            "detector": stated.detector.model_copy(update={"segments": segments}),
            "effects": EFFECTS,
        }
    )
    return Mismatch(real, stated)


def beside_faultless(real: Instrument) -> Mismatch:
    """`real` as its file has it, beside the model of it: no effects and no tail of the beam."""
    beam = real.beam.model_copy(update={"tail_fraction": 0.0})
    return Mismatch(real, real.model_copy(update={"beam": beam, "effects": Effects()}))
