"""What the verdicts of one pass say in the rows of [accuracy]: values, peers in the same run, conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, median

import numpy as np

from service.benchmarks.judged import CLASSICAL, FC, FITTED, SMOOTHED, WIENER, Verdict
from service.benchmarks.judgement import LEAST_DOSE, Judgement, family_medians, over_families, worst_of
from service.benchmarks.measured import Measured
from service.benchmarks.theory import OCCLUDED_DEG

HEADLINE_DOSES = (600.0, 3_000.0, 10_000.0, 40_000.0)
HIGHEST_DOSE, FACET_DOSE, NOISY_FACET_DOSE = 40_000.0, 10_000.0, 1_000.0
HONEST_INSIDE = 0.6827
LOW_INDEX_DEG, ATTRACTION_DEG = (35.26, 45.0, 54.74), 3.0
GENTLE_DEG, LEAK = 3.5, 0.95


def rows(judgement: Judgement, quick: bool, missing: str) -> Mapping[str, Measured]:
    """All rows but those of other modules. `missing`: sets that were asked for and aren't there, in words."""
    told = f"; {missing}" if missing else ""
    doses = [dose for dose in HEADLINE_DOSES if dose in judgement.doses()]
    found = {f"slope_vs_classical_n{dose:.0f}": _slope_vs_classical(judgement, dose, told) for dose in doses}
    found |= {
        "slope_vs_oracle_smoothing": _slope_vs_oracle(judgement, told),
        "worst_family_vs_classical": _worst_family(judgement),
        "facet_angle_error_n10000_deg": _facet_angle_error(judgement, told),
        "facet_fit_error_n10000_deg": _facet_fit_error(judgement),
        "height_rmse_over_std_n10000": _height(judgement, told),
        "sigma_coverage_error": _coverage(judgement),
    }
    if quick:
        return found
    found |= {
        "facet_angle_linearity_error": _linearity(judgement),
        "low_frequency_drift_vs_fc": _drift(judgement),
        "wiener_bound_ratio": _wiener(judgement),
        "transfer_half_nyquist": _transfer(judgement),
        "cycle_height_over_std": _cycle(judgement),
    }
    if any(one.occluded for one in judgement.of_families(HIGHEST_DOSE)):
        found["slope_occluded_n40000"] = _slope_occluded(judgement, told)
        found["height_vs_classical_occluded"] = _height_occluded(judgement)
    return found


def _over_sets(judgement: Judgement, of: Callable[[str], float], told: str) -> tuple[float, str]:
    """A figure of the judged set, and that of each set in words."""
    found = {name: of(name) for name in judgement.models}
    spread = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    seeds = f"; sets: {spread}" if len(found) > 1 else ""
    return found[judgement.model], f"set {judgement.model}{seeds}{told}"


def _slope_vs_classical(judgement: Judgement, dose: float, missing: str) -> Measured:
    verdicts = judgement.of_families(dose)
    value, told = _over_sets(judgement, lambda name: _ratio(verdicts, name), missing)
    by_family = family_medians(verdicts, lambda one: one.ratio(judgement.model))
    worst, ratio = worst_of(by_family)
    with_afm = "real AFM maps together one" if "afm" in by_family else "no real AFM maps: name them with --data"
    others = [name for name in verdicts[0].figures if name not in (CLASSICAL, *judgement.models)]
    peers = ", ".join(f"{peer} {_ratio(verdicts, peer):.2f}" for peer in others)
    conditions = (
        f"{told}; median of {len(by_family)} families' medians ({with_afm}), {len(verdicts)} cases at N = {dose:.0f}; "
        f"worst {worst} {ratio:.2f}; peers: {peers}"
    )
    return Measured(value, conditions, SMOOTHED, _ratio(verdicts, SMOOTHED))


def _ratio(verdicts: list[Verdict], method: str) -> float:
    return over_families(verdicts, lambda one: one.ratio(method))


def _slope_occluded(judgement: Judgement, missing: str) -> Measured:
    verdicts = [one for one in judgement.of_families(HIGHEST_DOSE) if one.occluded]
    value, told = _over_sets(judgement, lambda name: median(one.ratio(name) for one in verdicts), missing)
    worst = max(verdicts, key=lambda one: one.ratio(judgement.model))
    conditions = (
        f"{told}; median of {len(verdicts)} surfaces of {len({one.family for one in verdicts})} families on which "
        f"shadows alone turn the classical normals without noise by more than {OCCLUDED_DEG:g} deg rms; worst "
        f"{worst.name} {worst.ratio(judgement.model):.2f}"
    )
    return Measured(value, conditions, SMOOTHED, median(one.ratio(SMOOTHED) for one in verdicts))


def _slope_vs_oracle(judgement: Judgement, missing: str) -> Measured:
    verdicts = judgement.of_families()

    def of(name: str) -> float:
        return over_families(verdicts, lambda one: one.ratio(name, SMOOTHED))

    value, told = _over_sets(judgement, of, missing)
    worst, ratio = worst_of(family_medians(verdicts, lambda one: one.ratio(judgement.model, SMOOTHED)))
    conditions = (
        f"{told}; median of families' medians over all doses from N = 600; worst {worst} {ratio:.2f}; the oracle "
        f"chooses width and kind (images or slopes) of each case's smoothing with its truth"
    )
    return Measured(value, conditions, CLASSICAL, of(CLASSICAL))


def _worst_family(judgement: Judgement) -> Measured:
    found = _family_and_dose(judgement, lambda one: one.ratio(judgement.model))
    worst, ratio = worst_of(found)
    case = max(judgement.of_families(), key=lambda one: one.ratio(judgement.model))
    above = sum(value > 1.0 for value in found.values())
    return Measured(
        ratio,
        f"set {judgement.model}; {worst}, of {len(found)} medians of a family at a dose, {above} of them above 1; "
        f"worst single case {case.name}: {case.ratio(judgement.model):.2f}",
        SMOOTHED,
        worst_of(_family_and_dose(judgement, lambda one: one.ratio(SMOOTHED)))[1],
    )


def _family_and_dose(judgement: Judgement, of: Callable[[Verdict], float]) -> dict[str, float]:
    return {
        f"{family} at N = {dose:.0f}": value
        for dose in judgement.doses()
        for family, value in family_medians((one for one in judgement.of_families() if one.dose == dose), of).items()
    }


def _facet_angle_error(judgement: Judgement, missing: str) -> Measured:
    def errors(name: str, dose: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        cases = judgement.of_special("facet", dose)
        return np.concatenate([np.abs(one.facets_deg[name] - one.known["angle_deg"]) for one in cases])

    value, told = _over_sets(judgement, lambda name: float(np.median(errors(name, FACET_DOSE))), missing)
    found = errors(judgement.model, FACET_DOSE)
    noisy = {name: float(np.median(errors(name, NOISY_FACET_DOSE))) for name in (judgement.model, CLASSICAL)}
    conditions = (
        f"{told}; median of {len(found)} facets of 8 px in profiles averaged over 128 rows, beam 1 px, "
        f"90 % within {np.quantile(found, 0.9):.2f} deg; at N = 1000: {noisy[judgement.model]:.3f} deg, classical "
        f"{noisy[CLASSICAL]:.3f}"
    )
    return Measured(value, conditions, CLASSICAL, float(np.median(errors(CLASSICAL, FACET_DOSE))))


def _facet_fit_error(judgement: Judgement) -> Measured:
    def errors(dose: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        cases = judgement.of_special("facet", dose)
        return np.concatenate([np.abs(one.facets_deg[FITTED] - one.known["angle_deg"]) for one in cases])

    found, noisy = errors(FACET_DOSE), errors(NOISY_FACET_DOSE)
    at_dose = judgement.of_special("facet", FACET_DOSE)
    peer = np.concatenate([np.abs(one.facets_deg[CLASSICAL] - one.known["angle_deg"]) for one in at_dose])
    conditions = (
        f"faces fitted to the images of 128 rows, begun with the classical height; median of {len(found)} facets of 8 "
        f"px, {int(np.isnan(found).sum())} not found, 90 % within {np.nanquantile(found, 0.9):.3f} deg; at N = 1000: "
        f"{np.nanmedian(noisy):.3f} deg, {int(np.isnan(noisy).sum())} of {len(noisy)} not found"
    )
    return Measured(float(np.nanmedian(found)), conditions, f"{CLASSICAL} height", float(np.median(peer)))


def _linearity(judgement: Judgement) -> Measured:
    def line(name: str, dose: float) -> tuple[float, float, float]:
        """Slope, its standard error, and the part of the way to a low-index angle that close ones are drawn."""
        cases = judgement.of_special("facet", dose)
        true = np.array([one.known["angle_deg"] for one in cases])
        found = np.array([one.facets_deg[name].mean() for one in cases])
        slope, offset = np.polyfit(true, found, 1)
        left = found - slope * true - offset
        error = math.sqrt(float((left**2).sum()) / (len(true) - 2) / float(((true - true.mean()) ** 2).sum()))
        off = np.array([min((low - angle for low in LOW_INDEX_DEG), key=abs) for angle in true])
        near = np.abs(off) < ATTRACTION_DEG
        return float(slope), error, float((left[near] * off[near]).sum() / (off[near] ** 2).sum())

    slope, error, drawn = line(judgement.model, FACET_DOSE)
    noisy, _, noisy_drawn = line(judgement.model, NOISY_FACET_DOSE)
    conditions = (
        f"set {judgement.model}; slope {slope:.4f} +- {error:.4f} of measured against true angle at N = 10000, "
        f"{noisy:.4f} at N = 1000; within 3 deg of 35.26, 45 and 54.74 deg drawn {100 * drawn:.1f} % of the way there "
        f"({100 * noisy_drawn:.1f} % at N = 1000)"
    )
    return Measured(abs(slope - 1.0), conditions, CLASSICAL, abs(line(CLASSICAL, FACET_DOSE)[0] - 1.0))


def _height(judgement: Judgement, missing: str) -> Measured:
    verdicts = judgement.of_families(FACET_DOSE)

    def of(name: str) -> float:
        return over_families(verdicts, lambda one: one.figures[name].height_over_std)

    value, told = _over_sets(judgement, of, missing)
    families = family_medians(verdicts, lambda one: one.figures[judgement.model].height_over_std)
    listed = ", ".join(f"{family} {error:.3g}" for family, error in sorted(families.items(), key=lambda one: one[1]))
    conditions = f"{told}; median of families' medians, plane removed: {listed}"
    gentle = [one for one in judgement.of_special("known_spectrum", FACET_DOSE) if _is_gentle(one)]
    if gentle:
        known = ", ".join(f"{name} {_height_median(gentle, name):.3g}" for name in (judgement.model, WIENER, CLASSICAL))
        conditions += f"; what the dose allows, on gentle surfaces whose spectrum the Wiener filter knows: {known}"
    return Measured(value, conditions, CLASSICAL, of(CLASSICAL))


def _height_median(verdicts: list[Verdict], name: str) -> float:
    return median(one.figures[name].height_over_std for one in verdicts)


def _height_occluded(judgement: Judgement) -> Measured:
    verdicts = [one for one in judgement.of_families() if one.occluded]

    def of(name: str, dose: float | None = None) -> float:
        return median(
            one.figures[name].height_px / one.figures[CLASSICAL].height_px
            for one in verdicts
            if dose in (None, one.dose)
        )

    by_dose = ", ".join(f"{of(judgement.model, dose):.2f} at {dose:.0f}" for dose in HEADLINE_DOSES)
    conditions = f"set {judgement.model}; median over occluded surfaces (as above) and N from 600: {by_dose}"
    return Measured(of(judgement.model), conditions, FC, of(FC))


def _drift(judgement: Judgement) -> Measured:
    verdicts = judgement.of_families()

    def of(name: str) -> float:
        return over_families(verdicts, lambda one: one.figures[name].drift / one.figures[FC].drift)

    worst, ratio = worst_of(_family_and_dose(judgement, lambda one: _drift_ratio(one, judgement.model)))
    conditions = (
        f"set {judgement.model}; power of the height error in cosine modes up to 3 cycles per frame, plane removed, "
        f"over Frankot-Chellappa's with classical slopes; median of families' medians; worst {worst} {ratio:.2f}"
    )
    gentle = [one for one in judgement.of_special("known_spectrum") if _is_gentle(one)]
    known = ", ".join(
        f"{name} {median(_drift_ratio(one, name) for one in gentle):.2f}" for name in (judgement.model, WIENER)
    )
    conditions += f"; what the dose allows, on gentle surfaces whose spectrum the Wiener filter knows: {known}"
    return Measured(of(judgement.model), conditions, CLASSICAL, of(CLASSICAL))


def _drift_ratio(one: Verdict, name: str) -> float:
    return one.figures[name].drift / one.figures[FC].drift


def _wiener(judgement: Judgement) -> Measured:
    cases = {one.name: one for one in judgement.of_special("known_spectrum") if one.bound_deg}

    def of(method: str) -> dict[str, float]:
        return {name: one.inner_deg[method] / (one.bound_deg or 1.0) for name, one in cases.items()}

    found, filtered = of(judgement.model), of(WIENER)
    gentle = [name for name, one in cases.items() if _is_gentle(one)]
    worst = max(gentle, key=lambda name: found[name])
    leaks = [name for name in gentle if found[name] < LEAK * filtered[name]]
    listed = ", ".join(f"{name} {ratio:.2f} ({filtered[name]:.2f})" for name, ratio in found.items())
    conditions = (
        f"set {judgement.model}; worst of the surfaces of 3 deg, 16 px and more from the border: {worst}; "
        f"{'BELOW THE BOUND, which means a leak: ' + ', '.join(leaks) if leaks else 'none below the bound'}; error "
        f"over bound (and that of a Wiener filter that knows the spectrum): {listed}"
    )
    return Measured(found[worst], conditions, WIENER, max(filtered[name] for name in gentle))


def _is_gentle(one: Verdict) -> bool:
    return one.dose >= LEAST_DOSE and _rms_slope_deg(one) < GENTLE_DEG


def _rms_slope_deg(one: Verdict) -> float:
    return math.degrees(math.atan(2.0 * one.known["deviation_px"] / one.known["correlation_px"]))


def _transfer(judgement: Judgement) -> Measured:
    sharp, blurred = sorted(judgement.of_special("chirp"), key=lambda one: one.beam_px)
    images_own = math.exp(-2.0 * (math.pi * blurred.beam_px * 0.25) ** 2)
    conditions = (
        f"set {judgement.model}; real part of the amplitude of a chirp at 0.25 cycles per pixel, 10 deg, N = 40000, "
        f"no beam width; with a beam of {blurred.beam_px:g} px {blurred.transfer[judgement.model].real:.2f} (classical "
        f"{blurred.transfer[CLASSICAL].real:.2f}), the images' own {images_own:.2f}"
    )
    return Measured(sharp.transfer[judgement.model].real, conditions, CLASSICAL, sharp.transfer[CLASSICAL].real)


def _cycle(judgement: Judgement) -> Measured:
    found = judgement.cycles[judgement.model]
    worst = max(found, key=lambda one: one.over_std)
    chi2 = [one.chi2 for one in found]
    conditions = (
        f"set {judgement.model}; median over one surface of each family at N = 10000, frame' by BSESM without noise; "
        f"worst {worst.family} {worst.over_std:.3f}; reduced chi2 of the measured frames {median(chi2):.2f} "
        f"({min(chi2):.2f} to {max(chi2):.2f}, no degrees of freedom taken off); height error to the truth "
        f"{median(one.truth_over_std for one in found):.3f} of std"
    )
    peer = median(one.over_std for one in judgement.cycles[CLASSICAL])
    return Measured(median(one.over_std for one in found), conditions, CLASSICAL, peer)


def _coverage(judgement: Judgement) -> Measured:
    verdicts = judgement.of_families()

    def off(name: str) -> tuple[str, float]:
        shares: dict[str, list[float]] = {}
        for one in verdicts:
            shares.setdefault(one.family, []).append(one.coverage[name].inside)
        return worst_of({family: 100.0 * abs(fmean(share) - HONEST_INSIDE) for family, share in shares.items()})

    worst, value = off(judgement.model)
    inside = fmean(one.coverage[judgement.model].inside for one in verdicts)
    gains = family_medians(verdicts, lambda one: one.coverage[judgement.model].gain_nats)
    poorest = min(gains, key=lambda family: gains[family])
    by_dose = _family_and_dose(judgement, lambda one: 100.0 * one.coverage[judgement.model].inside)
    farthest = max(by_dose, key=lambda one: abs(by_dose[one] - 100.0 * HONEST_INSIDE))
    conditions = (
        f"set {judgement.model}; {worst}, of errors of the slopes p and q between pixels that are not rejected, mean "
        f"over a family's cases from N = 600; {100 * inside:.1f} % inside over all, farthest at one dose {farthest} "
        f"{by_dose[farthest]:.0f} %; log-likelihood above the best constant sigma {median(gains.values()):+.3f} nats a "
        f"slope, worst {poorest} {gains[poorest]:+.3f}"
    )
    return Measured(value, conditions, CLASSICAL, off(CLASSICAL)[1])
