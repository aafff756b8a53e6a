"""Instruments that aren't what their file says: found from frames within their errors, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from acquisition.instrument import Effects, Instrument, four_quadrant, parse_instrument
from inference.accuracy import Accuracy, compare
from inference.calibration import calibrate as calibration_of
from inference.forward_model import expected_electrons
from inference.plain_inversion import electrons_of, integrated, slopes_of
from service.benchmarks.measured import Measured, NotMeasured, Report, Request, tell_progress

DRAWS, QUICK_DRAWS = 30, 1
SIZE, FINER = 48, 2
FRAMES, DOSE = 8, 20_000.0
DARK_FRAMES, READ_COUNTS = 4, 3.0
GAIN_ERROR, DARK_ERROR_COUNTS, ROTATION_DEG, OFFSET_M, DISTANCE_ERROR = 0.2, 20.0, 7.0, 0.3e-3, 0.05
EFFECTS = Effects(tilt_yield_exponent=1.67, second_scattering=0.3, read_noise_counts=READ_COUNTS)
GRATING = "grating:pitch=120nm,depth=25nm"
COARSE_PX, SLOPE = 7.0, 0.25

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draw:
    """One random instrument: `z` by parameter, and errors on a surface that no calibration saw with the stated, the
    calibrated and the true instrument."""

    z: dict[str, float]
    share: dict[str, float]
    before: Accuracy
    after: Accuracy
    floor: Accuracy


def measure(request: Request) -> Report:
    """Rows of [calibration]; those of the real imprint with --data alone."""
    try:
        draws = list(_draws(request.draws or (QUICK_DRAWS if request.quick else DRAWS)))
    except ModuleNotFoundError as error:
        return Report({}, f"{error.name} is not installed: install the extra `train`")
    rows: dict[str, Measured | NotMeasured] = {}
    z = np.array([list(draw.z.values()) for draw in draws])
    inside = 100.0 * float((np.abs(z) < 1.0).mean())
    told = f"{z.size} numbers of {len(draws)} instruments; within 2: {100.0 * float((np.abs(z) < 2.0).mean()):.0f} %"
    rows["covered_1_sigma_pct"] = Measured(inside, f"{told}; largest {np.abs(z).max():.1f}")
    rows["slope_error_removed_pct"] = _removed(draws, "slope_error_deg", "deg", 1.0)
    rows["height_error_removed_pct"] = _removed(draws, "height_error_m", "nm", 1e9)
    if request.data is not None and not request.quick:
        from service.benchmarks import imprint_prior

        rows |= imprint_prior.measure(request.data)
    left_out = "" if request.data is not None else "name the data folder with --data"
    return Report(rows, left_out, _table(draws))


def _removed(draws: list[Draw], figure: str, unit: str, scale: float) -> Measured:
    before, after, floor = (
        scale * np.array([getattr(getattr(draw, when), figure) for draw in draws])
        for when in ("before", "after", "floor")
    )
    removed = 100.0 * (before - after) / (before - floor)
    told = f"{np.median(before):.3g} -> {np.median(after):.3g} {unit}, with the true instrument {np.median(floor):.3g}"
    return Measured(float(np.median(removed)), f"medians of {len(draws)}: {told}; worst draw {removed.min():.1f} %")


def _draws(count: int) -> Iterator[Draw]:
    for number in range(count):
        tell_progress(f"instrument {number + 1} of {count}")
        yield _draw(np.random.default_rng(1000 + number))


def _draw(rng: np.random.Generator) -> Draw:
    from inference.refinement.calibrate import calibrate
    from inference.refinement.known_samples import parse_sample
    from inference.refinement.parameters import PLACES, Priors
    from inference.refinement.photon_transfer import dark_levels, photon_transfer
    from inference.refinement.views import view_of

    stated, real = _stated(), _real(rng)
    pixel_m = stated.scan.pixel_size_m / FINER
    rough, unseen = (_frames(_rough(rng) * pixel_m, real, rng) for _ in range(2))
    sample = parse_sample(GRATING)
    pose = {"azimuth_deg": float(rng.uniform(0.0, 180.0)), "x_m": float(rng.uniform(0.0, 60e-9))}
    grating = _frames(sample.heights_m(pose, (FINER * SIZE, FINER * SIZE), pixel_m), real, rng)
    darks = dark_levels(_blanked(real, rng))
    gains = photon_transfer(rough.images, darks)
    views = [view_of("rough", rough.images, stated, None), view_of("grating", grating.images, stated, sample)]
    fit = calibrate(views, stated, Priors(gains=gains, darks=darks))
    z, share = {}, {}
    for one in fit.findings:
        name, _, place = one.label.rstrip("]").partition("[")
        part: Any = real
        for step in PLACES[name].split("."):
            part = getattr(part, step)
        truth = float(getattr(part[int(place)] if place else part, name))
        if name != "sigma_px":  # its truth lies on the border of what is possible
            z[one.label], share[one.label] = (one.value - truth) / one.sigma, one.share
    errors = [_error(unseen, used) for used in (stated, fit.instrument, real)]
    return Draw(z, share, *errors)


@dataclass(frozen=True, slots=True)
class _Scene:
    images: list[NDArray[np.uint16]]
    truth_m: Floats


def _error(scene: _Scene, instrument: Instrument) -> Accuracy:
    """Of difference over sum and a Poisson solve, on the first frame."""
    images = scene.images[0]
    numbers = calibration_of(instrument, images)
    moments = np.einsum("cs,syx->cyx", numbers.inversion.astype(np.float64), electrons_of(images, numbers))
    pixel_m = instrument.scan.pixel_size_m
    return compare(integrated(slopes_of(moments, 1.0)) * pixel_m, scene.truth_m, pixel_m)


def _frames(heights_m: Floats, real: Instrument, rng: np.random.Generator) -> _Scene:
    """Pixels are means over 2 x 2 points, so that no discretisation is inverted with itself."""
    fine = real.with_scan(pixel_size_m=real.scan.pixel_size_m / FINER)
    electrons = _means(expected_electrons(heights_m, fine, DOSE))
    gain, dark = _levels(real)
    images = [
        np.rint(rng.poisson(electrons) * gain + dark + rng.normal(0.0, READ_COUNTS, electrons.shape))
        for _ in range(FRAMES)
    ]
    return _Scene([np.clip(one, 0, 65535).astype(np.uint16) for one in images], _means(heights_m))


def _blanked(real: Instrument, rng: np.random.Generator) -> list[NDArray[np.uint16]]:
    _, dark = _levels(real)
    noise = [rng.normal(0.0, READ_COUNTS, (len(dark), SIZE, SIZE)) for _ in range(DARK_FRAMES)]
    return [np.clip(np.rint(dark + one), 0, 65535).astype(np.uint16) for one in noise]


def _rough(rng: np.random.Generator) -> Floats:
    """(H, W) in its own pixels, rms slope 0.25 along each axis."""
    size = FINER * SIZE
    rough = gaussian_filter(rng.normal(size=(size, size)), FINER * COARSE_PX, mode="reflect")
    return np.asarray(rough * SLOPE / np.gradient(rough)[0].std())


def _stated() -> Instrument:
    return _with_errors(np.zeros(4), np.zeros(4))


def _real(rng: np.random.Generator) -> Instrument:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    side = rng.choice([-1.0, 1.0], 2)
    made = _with_errors(
        rng.uniform(-GAIN_ERROR, GAIN_ERROR, 4),
        rng.normal(0.0, DARK_ERROR_COUNTS, 4),
        rotation_deg=float(side[0] * ROTATION_DEG),
        offset_x_m=float(OFFSET_M * np.cos(turn)),
        offset_y_m=float(OFFSET_M * np.sin(turn)),
        working_distance_m=four_quadrant().detector.working_distance_m * float(1.0 + side[1] * DISTANCE_ERROR),
    )
    return made.model_copy(update={"effects": EFFECTS})


def _with_errors(gains: Floats, darks: Floats, **detector: float) -> Instrument:
    tree = four_quadrant().model_dump()
    tree["detector"].update(detector)
    for segment, gain, dark in zip(tree["detector"]["segments"], gains, darks, strict=True):
        segment["gain_counts_per_electron"] = 4.0 * float(1.0 + gain)
        segment["dark_counts"] += float(dark)
    return parse_instrument(tree, "the drawn instrument")


def _levels(instrument: Instrument) -> tuple[Floats, Floats]:
    segments = instrument.detector.segments
    if any(None in (one.gain_counts_per_electron, one.dark_counts) for one in segments):
        raise BadInput("a drawn instrument needs its gains and dark levels")
    gain = np.array([one.gain_counts_per_electron or 0.0 for one in segments])
    dark = np.array([one.dark_counts or 0.0 for one in segments])
    return gain[:, None, None], dark[:, None, None]


def _means(values: NDArray[np.floating]) -> Floats:
    rows, columns = (size // FINER for size in values.shape[-2:])
    parts = values.reshape(*values.shape[:-2], rows, FINER, columns, FINER)
    return np.asarray(parts.mean(axis=(-3, -1), dtype=np.float64))


def _table(draws: list[Draw]) -> Table:
    table = Table(title=f"{len(draws)} instruments: error over standard error, and that over the prior's")
    for heading in ("parameter", "rms z", "within 1", "within 2", "standard error / prior"):
        table.add_column(heading)
    for label in draws[0].z:
        z = np.array([draw.z[label] for draw in draws])
        share = float(np.median([draw.share[label] for draw in draws]))
        inside = (f"{100.0 * float((np.abs(z) < limit).mean()):.0f} %" for limit in (1.0, 2.0))
        table.add_row(label, f"{float(np.sqrt((z**2).mean())):.2f}", *inside, f"{share:.3f}")
    return table
