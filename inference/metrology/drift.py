"""The run's coordinate frame: how far the specimen lies from where its reference frame shows it, frame by frame.

Images tell a shift to a hundredth of a pixel, but of what they show: where steps flow, they take growth for drift, and
are sure of it. Smoothed over some steps, heights only rise where steps flow, so they decide: where both agree the
images' shift is taken, where they do not the heights'. A region that is declared not to grow settles it: the images of
that region alone then tell the drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as shifted

from inference.calibration import Calibration
from inference.fusion.registration import Shift, find_shift, look_at, overlap
from inference.metrology.height_map import HeightMap
from inference.metrology.volume import Region

LEAST_OVERLAP = 0.6
SMOOTHED_SHARE = 1.0 / 16.0
AGREE_PX = 0.5
AGREE_ERRORS = 2.0
ROUNDS = 20
SETTLED_PX = 5e-3
MOST_HEIGHT_ERROR_PX = 2.0
GROWTH_ERROR_PX = 0.5

Floats = NDArray[np.float64]
Pair = tuple[float, float]
Source = Literal["reference", "images", "unchecked", "heights", "undetermined"]


@dataclass(frozen=True, slots=True)
class View:
    """What one frame tells about its place. `stage_px`: rows and columns by which the stage alone moved the content
    since the run began, down and right."""

    sequence: int
    time_s: float
    images: NDArray[np.uint16]
    calibration: Calibration
    map: HeightMap | None = None
    stage_px: Pair = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Drift:
    """Rows and columns by which the specimen lies further down and right than in the run's first frame: `stage_px`
    through the stage, `drift_px` beyond it, the latter to a standard deviation of `error_px`.

    `source`: by what it was told. 'unchecked' is by images that no height map could confirm: where steps flow all one
    way that is their flow. 'undetermined' ones are interpolated between their neighbours. `reference`: the frame
    it was compared with. `apart_px`: how far images and heights disagree, None without heights.
    """

    sequence: int
    time_s: float
    stage_px: Pair
    drift_px: Pair
    error_px: Pair
    source: Source
    reference: int
    apart_px: float | None = None

    @property
    def shift_px(self) -> Floats:
        return np.add(self.stage_px, self.drift_px)


def find_drift(views: Iterable[View], region: Region | None = None) -> list[Drift]:
    """The drift of each view against the first (metrology.md, 1), those that nothing tells interpolated in time."""
    tracker = Tracker(region)
    return interpolated([tracker.add(view) for view in views])


class Tracker:
    """Follows a run in the order of its frames. The reference is renewed when less than `LEAST_OVERLAP` of it is left
    in view or when it is no longer recognised; errors then add up. With a `region` only its images are compared."""

    def __init__(self, region: Region | None = None) -> None:
        self._region = region
        self._grows = False
        self._reference: tuple[View, Drift] | None = None
        self._last: tuple[View, Drift] | None = None

    def add(self, view: View) -> Drift:
        """The drift of `view`; zero and `inf` of error where it is undetermined."""
        if self._reference is None or self._last is None:
            first = Drift(view.sequence, view.time_s, view.stage_px, (0.0, 0.0), (0.0, 0.0), "reference", view.sequence)
            self._reference = self._last = (view, first)
            return first
        found = self._against(self._reference, view)
        if (found is None or self._shared(found, view) < LEAST_OVERLAP) and self._last[0] is not self._reference[0]:
            nearer = self._against(self._last, view)
            if nearer is not None:
                self._reference, found = self._last, nearer
        if found is None:
            none = (math.inf, math.inf)
            reference = self._reference[0].sequence
            return Drift(view.sequence, view.time_s, view.stage_px, (0.0, 0.0), none, "undetermined", reference)
        self._last = (view, found)
        return found

    def _against(self, base: tuple[View, Drift], view: View) -> Drift | None:
        """The drift by comparison with one earlier view, or None."""
        kept, known = base
        assert self._last is not None
        expected = np.subtract(view.stage_px, kept.stage_px) + np.subtract(self._last[1].drift_px, known.drift_px)
        guess = (round(float(expected[0])), round(float(expected[1])))
        if kept.images.shape != view.images.shape:
            return None
        look = look_at(view.images, view.calibration)
        if self._region is not None:
            before, now = (
                self._region.within(view.images.shape[1:], at) for at in (known.shift_px, expected + known.shift_px)
            )
            part = find_shift(kept.images[:, *before], 1.0, view.images[:, *now], 1.0, look)
            moved = np.array([now[axis].start - before[axis].start for axis in (0, 1)])
            chosen, source, apart_px = _decide(replace(part, shift_px=part.shift_px + moved), None, False)
            source = "images" if chosen else source
        else:
            images = find_shift(kept.images, 1.0, view.images, 1.0, look, guess)
            heights = None
            if kept.map and view.map:
                # Heights are climbed from where the place is expected, and from where images see it.
                starts = [expected, images.shift_px] if images.trusted else [expected]
                climbed = [_find_height_shift(kept.map, view.map, start) for start in starts]
                heights = max(climbed, key=lambda shift: (shift.trusted, shift.evidence))
            chosen, source, apart_px = _decide(images, heights, self._grows)
            self._grows = self._grows or (source == "heights" and images.trusted)
        if chosen is None:
            return None
        total = chosen.shift_px - np.subtract(view.stage_px, kept.stage_px) + known.drift_px
        error = np.hypot(chosen.error_px, known.error_px)
        return Drift(
            view.sequence, view.time_s, view.stage_px, _pair(total), _pair(error), source, kept.sequence, apart_px
        )

    def _shared(self, found: Drift, view: View) -> float:
        assert self._reference is not None
        down, right = np.abs(found.shift_px - self._reference[1].shift_px) / view.images.shape[1:]
        return float(max(1.0 - down, 0.0) * max(1.0 - right, 0.0))


def interpolated(drifts: Sequence[Drift]) -> list[Drift]:
    """Undetermined drifts from their neighbours in time; they stay so called. Their error is how far the neighbours lie
    apart, infinite where one is missing."""
    known = [drift for drift in drifts if drift.source != "undetermined"]
    times_s, places = [drift.time_s for drift in known], np.array([drift.drift_px for drift in known])
    filled = []
    for drift in drifts:
        if drift.source == "undetermined":
            after = int(np.searchsorted(times_s, drift.time_s))
            between = 0 < after < len(known)
            here = [float(np.interp(drift.time_s, times_s, places[:, axis])) for axis in (0, 1)]
            error = np.abs(places[after] - places[after - 1]) + AGREE_PX if between else np.full(2, math.inf)
            drift = replace(drift, drift_px=(here[0], here[1]), error_px=_pair(error))
        filled.append(drift)
    return filled


def _decide(images: Shift, heights: Shift | None, grows: bool) -> tuple[Shift | None, Source, float | None]:
    """Once the surface `grows`, images are right at most by chance."""
    if heights is None or not heights.trusted:
        return (images, "unchecked", None) if images.trusted and not grows else (None, "undetermined", None)
    if not images.trusted:
        return heights, "heights", None
    apart = np.abs(images.shift_px - heights.shift_px)
    agree = (apart < AGREE_PX + AGREE_ERRORS * np.hypot(images.error_px, heights.error_px)).all()
    chosen: tuple[Shift, Source] = (images, "images") if agree and not grows else (heights, "heights")
    return *chosen, float(np.hypot(*apart))


def _find_height_shift(kept: HeightMap, new: HeightMap, guess_px: Floats) -> Shift:
    """Least squares of the new heights against the moved old ones, both smoothed over several steps, with a plane of
    its own; errors by the scatter that is left, one independent value per smoothed area, and what growth adds unseen:
    where mounds meet, they do not only rise."""
    if kept.height_m.shape != new.height_m.shape:
        return Shift(np.zeros(2), np.full(2, np.inf), 0.0, False)
    sigma = SMOOTHED_SHARE * min(kept.height_m.shape)
    unit_m = max(float(np.std(kept.height_m)), 1e-15)
    before, after = (gaussian_filter(one.height_m / unit_m, sigma, mode="nearest") for one in (kept, new))
    shift, error = np.asarray(guess_px, np.float64).copy(), np.full(2, np.inf)
    evidence, settled = 0.0, False
    for _ in range(ROUNDS):
        whole = np.rint(shift)
        mine, theirs = overlap(before.shape, (int(whole[0]), int(whole[1])))
        rim = math.ceil(sigma)
        if min(part.stop - part.start for part in mine) < 4 * rim:
            break
        inner = (slice(rim, -rim), slice(rim, -rim))
        old = shifted(before[mine], shift - whole, order=3, mode="nearest")
        down, right = (np.asarray(np.gradient(old, axis=axis))[inner].ravel() for axis in (0, 1))
        rows, columns = (axis[inner].ravel() for axis in np.indices(old.shape) / max(old.shape))
        unknowns = np.column_stack([-down, -right, np.ones_like(rows), rows, columns])
        wanted = (after[theirs] - old)[inner].ravel()
        normal = unknowns.T @ unknowns
        if np.linalg.cond(normal[:2, :2]) > 1e6:
            break
        found = np.linalg.lstsq(unknowns, wanted, rcond=None)[0]
        left = wanted - unknowns @ found
        independent = max(len(left) / (4 * math.pi * sigma**2), 6.0)
        covariance = np.linalg.inv(normal) * len(left) / independent * float(left @ left) / max(len(left) - 5, 1)
        error = np.hypot(np.sqrt(np.diag(covariance)[:2]), GROWTH_ERROR_PX)
        evidence = float(np.std(old[inner]) / max(np.std(left), 1e-30))
        step = np.clip(found[:2], -0.5 * sigma, 0.5 * sigma)
        shift = shift + step
        settled = bool(np.abs(step).max() < SETTLED_PX)
        if settled:
            break
    return Shift(shift, error, evidence, settled and bool((error < MOST_HEIGHT_ERROR_PX).all()))


def _pair(values: NDArray[np.floating]) -> Pair:
    return float(values[0]), float(values[1])
