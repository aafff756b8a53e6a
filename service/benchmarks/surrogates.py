"""The networks that stand in for BSESM, DSM and VFT: how far off on held-out surfaces, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Instrument, four_quadrant
from inference.calibration import calibrate
from inference.forward_model import captured_fractions, expected_electrons, linear_response
from inference.networks.vft_check import forward_and_backward_s, vft_fractions
from inference.registry import CALIBRATION, MODELS, SLOTS, find_model_set
from inference.session import OnnxSession
from inference.training.frames import calibrated, pixel_means
from inference.training.held_out import DARK_COUNTS, FLAT_COUNTS, SURFACES, held_out_scenes
from service.benchmarks.measured import Measured, tell_progress
from service.benchmarks.surfaces import made_surface

DOSE = 10_000.0
VFT_PX = 128
BARE_PCT = 0.1
SPEED_PX, VFT_SPEED_PX = 1024, 96
PEER = "classical linear re-rendering"
STEEP, MILD = "nanograins, 50 deg", "roughness, 20 deg"

Images = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean squares by family, in units of the segments' flat signal: of a network, of classical re-rendering, and of a
    picture without contrast."""

    ours: Mapping[str, float]
    theirs: Mapping[str, float]
    contrast: Mapping[str, float]

    def worst_rms_pct(self) -> tuple[str, float]:
        worst = max(self.ours, key=self.ours.__getitem__)
        return worst, 100.0 * self.ours[worst] ** 0.5

    def worst_contrast_pct(self) -> tuple[str, float]:
        """Among families that have a contrast at all."""
        share = {name: (self.ours[name] / contrast) ** 0.5 for name, contrast in self._seen().items()}
        worst = max(share, key=share.__getitem__)
        return worst, 100.0 * share[worst]

    def peer_rms_pct(self) -> float:
        return 100.0 * float(max(self.theirs.values()) ** 0.5)

    def peer_contrast_pct(self) -> float:
        return 100.0 * max(float((self.theirs[name] / contrast) ** 0.5) for name, contrast in self._seen().items())

    def listed(self) -> str:
        return ", ".join(
            f"{name} {100.0 * ours**0.5:.3f} (classical {100.0 * self.theirs[name] ** 0.5:.3f}, "
            f"contrast {100.0 * self.contrast[name] ** 0.5:.2f})"
            for name, ours in self.ours.items()
        )

    def _seen(self) -> Mapping[str, float]:
        return {name: value for name, value in self.contrast.items() if 100.0 * value**0.5 > BARE_PCT}


def dsm_rms_pct(model: str, quick: bool) -> Measured:
    """The worst family's rms error of the graph in slot `rerender` of set `model`."""
    errors = dsm_errors(model, quick)
    worst, value = errors.worst_rms_pct()
    conditions = [_dsm_setting(model, quick, worst), f"each family in % of flat: {errors.listed()}"]
    if not quick:
        conditions.append(_dsm_speeds(model))
    return Measured(value, ". ".join(conditions), PEER, errors.peer_rms_pct())


def dsm_contrast_error_pct(model: str, quick: bool) -> Measured:
    """The worst family's error against what a picture without contrast would leave."""
    errors = dsm_errors(model, quick)
    worst, value = errors.worst_contrast_pct()
    conditions = f"{_dsm_setting(model, quick, worst)}. Families of less than {BARE_PCT} % contrast left out"
    return Measured(value, conditions, PEER, errors.peer_contrast_pct())


def vft_rms_pct(model: str, quick: bool) -> Measured:
    """The worst family's rms error of the VFT `model`, a folder in the models' folder or the path of its weights."""
    errors = vft_errors(model, quick)
    worst, value = errors.worst_rms_pct()
    conditions = [_vft_setting(quick, worst), f"each family in % of flat: {errors.listed()}"]
    if not quick:
        conditions.append(_vft_speeds(_vft(model)))
    return Measured(value, ". ".join(conditions), PEER, errors.peer_rms_pct())


def vft_contrast_error_pct(model: str, quick: bool) -> Measured:
    errors = vft_errors(model, quick)
    worst, value = errors.worst_contrast_pct()
    conditions = f"{_vft_setting(quick, worst)}. Families of less than {BARE_PCT} % contrast left out"
    return Measured(value, conditions, PEER, errors.peer_contrast_pct())


@lru_cache(maxsize=4)
def dsm_errors(model: str, quick: bool, models: Path = MODELS) -> Errors:
    """True slopes in, noise-free frames as measured; judged against BSESM of the very heights, the sum being right."""
    ours, theirs = (_rerender(name, models) for name in (model, "classical"))

    def errors_of(height: NDArray[np.float32]) -> tuple[Images, Images, Images]:
        gains = [FLAT_COUNTS * 4 / DOSE] * 4
        instrument = calibrated(four_quadrant(), DOSE, 0.0, gains, [DARK_COUNTS] * 4)
        electrons = expected_electrons(height.astype(np.float64) * instrument.scan.pixel_size_m, instrument, DOSE)
        counts = electrons * gains[0] + DARK_COUNTS
        values = rerender_inputs(height, counts, instrument)
        share = np.asarray(values["response"], np.float64)[:, 2, None, None]
        flat, signal = share * DOSE * gains[0], counts - DARK_COUNTS
        level = share * signal.sum(axis=0)
        off = [session.run(values)["predicted"] - counts for session in (ours, theirs)]
        return off[0] / flat, off[1] / flat, (level - signal) / flat

    return _judged("DSM", errors_of, _held_out(quick))


@lru_cache(maxsize=4)
def vft_errors(model: str, quick: bool) -> Errors:
    """Against BSESM of the same heights, 128 x 128 of each surface; classical is BSESM where nothing is hidden."""
    weights, instrument = _vft(model), four_quadrant()
    response = linear_response(instrument)
    flat = response[:, 2, None, None]

    def errors_of(height: NDArray[np.float32]) -> tuple[Images, Images, Images]:
        height_m = height.astype(np.float64) * instrument.scan.pixel_size_m
        true = captured_fractions(height_m, instrument) / flat
        found = vft_fractions(weights, height_m, instrument) / flat
        q, p = np.gradient(height.astype(np.float64))
        normal = np.stack([-p, -q, np.ones_like(p)]) / np.sqrt(1.0 + p * p + q * q)
        linear = np.einsum("sc,chw->shw", response, normal) / flat
        return found - true, linear - true, true - 1.0

    start = slice(64, 64 + VFT_PX)
    return _judged("VFT", errors_of, ((name, height[start, start]) for name, height in _held_out(quick)))


def rerender_inputs(
    height: NDArray[np.float32], counts: NDArray[np.floating], instrument: Instrument
) -> dict[str, Any]:
    """What the slot `rerender` takes: true slopes of `height` (H, W) in pixels, and `counts` (S, H, W) measured."""
    images = np.clip(np.rint(counts), 0, np.iinfo(np.uint16).max).astype(np.uint16)
    calibration = calibrate(instrument, images)
    rows, columns = height.shape
    return {
        "images": images,
        "frames_held": np.ones(height.shape, np.float32),
        **{name: getattr(calibration, name) for name in CALIBRATION},
        "p": np.diff(height, axis=1).astype(np.float32),
        "q": np.diff(height, axis=0).astype(np.float32),
        "sigma_p": np.full((rows, columns - 1), 1e-3, np.float32),
        "sigma_q": np.full((rows - 1, columns), 1e-3, np.float32),
        "rejected": np.zeros((rows, columns), np.uint8),
    }


def _judged(
    what: str,
    errors_of: Callable[[NDArray[np.float32]], tuple[Images, Images, Images]],
    surfaces: Iterator[tuple[str, NDArray[np.float32]]],
) -> Errors:
    found: dict[str, list[list[float]]] = {}
    for family, height in surfaces:
        if family not in found:
            tell_progress(f"{what} on held-out surfaces: {family}")
        squares = [float(np.mean(np.square(error, dtype=np.float64))) for error in errors_of(height)]
        found.setdefault(family, []).append(squares)
    ours, theirs, contrast = (
        {family: float(np.mean([squares[index] for squares in all_squares])) for family, all_squares in found.items()}
        for index in range(3)
    )
    return Errors(ours, theirs, contrast)


def _held_out(quick: bool) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for scene in held_out_scenes(quick=quick):
        if scene.family in SURFACES:
            yield scene.family, pixel_means(scene.surface)


@lru_cache(maxsize=8)
def _rerender(model: str, models: Path, threads: int = 0) -> OnnxSession:
    return OnnxSession(find_model_set(model, models).graph("rerender"), SLOTS["rerender"], "cpu", threads)


def _vft(model: str) -> Path:
    path = Path(model)
    return path if path.suffix == ".pt" else MODELS / model / f"{model}.pt"


def _dsm_setting(model: str, quick: bool, worst: str) -> str:
    return (
        f"worst family: {worst}. Set {model}, true slopes in, against BSESM of the same heights, no noise, sum of the "
        f"segments as measured; {_surfaces(quick)}"
    )


def _vft_setting(quick: bool, worst: str) -> str:
    return f"worst family: {worst}. Against BSESM of the same heights, {VFT_PX} x {VFT_PX}; {_surfaces(quick)}"


def _surfaces(quick: bool) -> str:
    return f"{'one surface' if quick else 'four surfaces'} of each of {len(SURFACES)} held-out families"


def _dsm_speeds(model: str) -> str:
    """Each on all the cores that numba has."""
    threads = numba.get_num_threads()
    session = _rerender(model, MODELS, threads)
    told = []
    for name in (MILD, STEEP):
        surface = made_surface(name, SPEED_PX)
        height = (surface.heights_m / surface.pixel_size_m).astype(np.float32)
        instrument = calibrated(surface.instrument, DOSE, 0.0, [1.0] * 4, [0.0] * 4)
        counts = expected_electrons(surface.heights_m, instrument, DOSE)
        ours = _seconds(partial(session.run, rerender_inputs(height, counts, instrument)))
        bsesm = _seconds(partial(expected_electrons, surface.heights_m, instrument, DOSE))
        told.append(f"{name}: {ours:.3g} s against {bsesm:.3g} s of BSESM, {bsesm / ours:.2g} times as fast")
    return f"{SPEED_PX} x {SPEED_PX}, {threads} threads, median of 3: {'; '.join(told)}"


def _vft_speeds(weights: Path) -> str:
    """On a part, because the cost is the same for every pixel that something could hide."""
    surface = made_surface(STEEP, VFT_SPEED_PX)
    to_whole = (SPEED_PX / VFT_SPEED_PX) ** 2
    told = ", ".join(
        f"{name} {forward * to_whole:.3g} s forward and {backward * to_whole:.3g} s backward"
        for name, (forward, backward) in forward_and_backward_s(weights, surface.heights_m, surface.instrument).items()
    )
    return f"{STEEP}, {SPEED_PX} x {SPEED_PX} extrapolated from {VFT_SPEED_PX} x {VFT_SPEED_PX}: {told}"


def _seconds(work: Callable[[], object]) -> float:
    """Median of three, after one that isn't counted."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])
