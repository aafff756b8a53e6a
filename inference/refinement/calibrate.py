"""An instrument's numbers from frames: jointly with the surfaces, with standard errors.

The surface of an ordinary frame is a nuisance with one unknown per pixel. Its heights are fitted along and then taken
out of the normal equations exactly (Schur complement), so that what they could explain counts as unknown: standard
errors are those of the marginal posterior, in the linear neighbourhood of the solution. Heights, unlike free slopes,
have no curl: that pins the rotation modulo 180° (the prior chooses which half) and the relative gain of x and y. A
known sample leaves only its pose open, and gives the scale. Design: forward_model.md, Differentiable twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from inference.refinement.calibrated import Calibrated, Iteration, Progress
from inference.refinement.equations import Normal, columns_of, normal_of
from inference.refinement.identifiability import findings
from inference.refinement.local_law import derived_response
from inference.refinement.parameters import ParameterSet, Priors, parameter_set
from inference.refinement.pose_search import start_pose
from inference.refinement.views import Shown, Surface, View, shown, start_heights

MOST_ITERATIONS = 25
# Squared distance to the solution in joint standard errors, as Newton's step foresees it.
SETTLED, LEAST_GAIN = 0.05, 0.5
BRIGHTNESS_SIGMA = 1.0
# In prior standard deviations; and in units of slope.
LONGEST_STEP, STEEPEST_CHANGE = 2.0, 0.5
DAMPING, LEAST_DAMPING, TRIES = 1e-3, 1e-9, 4

Floats = NDArray[np.float64]


def calibrate(
    views: Sequence[View], instrument: Instrument, priors: Priors | None = None, progress: Progress = lambda _: None
) -> Calibrated:
    """Fit what `parameter_set` leaves free to `views` by damped Gauss-Newton, from `instrument`'s numbers.

    Derivatives: of the geometry by automatic differentiation through the twin's detector, of the surface by the exact
    law of a pixel that nothing occludes; the counts themselves always by all of BSESM, so the solution has occlusion
    and second scattering in it. What walls send on takes long: while the fit moves it may be that of an earlier step's
    surface and instrument, but no fit ends on it. Standard errors: the inverse of the Fisher information plus the
    prior's, the information lowered by the reduced chi squared where that exceeds 1. Raises `BadInput` without views,
    for an instrument without radii and for a sample that isn't found in its frame.
    """
    if not views:
        raise BadInput("there is nothing to calibrate on: give a run")
    free = parameter_set(instrument, priors or Priors(), any(view.sample is not None for view in views))
    with threadpool_limits(limits=1):
        return _Fit(list(views), free, progress).run(instrument)


@dataclass(frozen=True, slots=True)
class _State:
    values: Floats
    brightness: Floats
    surfaces: tuple[Surface, ...]


class _Fit:
    def __init__(self, views: list[View], free: ParameterSet, progress: Progress) -> None:
        self.views, self.free, self.progress = views, free, progress

    def run(self, file: Instrument) -> Calibrated:
        state = self._start()
        at = self._shown(state)
        before = [self._residual(number, one) for number, one in enumerate(at)]
        damping, history, renewed = DAMPING, [], True
        reason, settled = f"stopped after {MOST_ITERATIONS} steps before it had settled", False
        for number in range(MOST_ITERATIONS):
            matrix, vector, parts = self._equations(state, at)
            sigmas = self._sigmas(matrix, parts, at)
            history.append(self._iteration(number, state, sigmas, at))
            self.progress(history[-1])
            if number and float(vector @ np.linalg.solve(matrix, vector)) < SETTLED:
                ended = "settled: the next step would be a small part of the standard errors"
            else:
                state, at, damping, ended = self._stepped(state, at, (matrix, vector, parts), damping)
            if ended and renewed:
                settled, reason = ended.startswith("settled"), ended
                break
            if ended:
                # what walls send on may still be that of the file's instrument
                at, damping = self._shown(state), DAMPING
            renewed = bool(ended) or not any(one.walls.again.any() for one in at)
        matrix, _, parts = self._equations(state, at)
        sigmas = self._sigmas(matrix, parts, at)
        fitted = self.free.instrument(state.values)
        tilts = {"tilt_x_deg": file.specimen.tilt_x_deg, "tilt_y_deg": file.specimen.tilt_y_deg}
        names = [view.name for view in self.views]
        after = [self._residual(number, one) for number, one in enumerate(at)]
        return Calibrated(
            instrument=fitted.model_copy(update={"specimen": fitted.specimen.model_copy(update=tilts)}),
            findings=findings(self.free.free, list(state.values), list(sigmas)),
            reduced_chi2=self._chi2(at),
            history=tuple(history),
            surfaces=dict(zip(names, state.surfaces, strict=True)),
            residuals={name: (one, other) for name, one, other in zip(names, before, after, strict=True)},
            settled=settled,
            reason=reason,
        )

    def _stepped(
        self, state: _State, at: list[Shown], equations: tuple[Floats, Floats, list[Normal]], damping: float
    ) -> tuple[_State, list[Shown], float, str]:
        """One step downhill, the damping of the next, and why none should follow."""
        matrix, vector, parts = equations
        objective = self._objective(state, at, at)
        for _ in range(TRIES):
            step = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), vector)
            trial = self._moved(state, np.asarray(step, np.float64), parts)
            seen = self._shown(trial, at)
            gain = objective - self._objective(trial, seen, at)
            if gain >= 0:  # False also for what isn't a number
                ended = "settled: the last step explained the frames no better" if gain < LEAST_GAIN else ""
                return trial, seen, max(damping / 10.0, LEAST_DAMPING), ended
            damping *= 10.0
        return state, at, damping, "ended: no further descent was found"

    def _start(self) -> _State:
        instrument, surfaces, brightness = self.free.base, [], []
        derived = derived_response(instrument)
        for number, view in enumerate(self.views):
            measured = start_heights(view, instrument)
            pose: dict[str, float] = {}
            if view.sample is not None:
                pose = start_pose(view.sample, measured, view.pixel_m)
                poses = tuple(replace(one, start=pose[one.name]) for one in view.poses)
                measured = view.sample.heights_m(pose, (measured.shape[0], measured.shape[1]), view.pixel_m)
                self.views[number] = replace(view, poses=poses)
            surfaces.append(Surface(measured, pose))
            segments = instrument.detector.segments
            electrons = sum(
                (counts.mean() - (segment.dark_counts or 0.0)) / (segment.gain_counts_per_electron or 1.0)
                for counts, segment in zip(view.counts, segments, strict=True)
            )
            brightness.append(np.log(max(float(electrons), 1.0) / derived.response[:, 2].sum()))
        self.start_brightness = np.array(brightness)
        return _State(self.free.prior, self.start_brightness.copy(), tuple(surfaces))

    def _shown(self, state: _State, before: list[Shown] | None = None) -> list[Shown]:
        instrument = self.free.instrument(state.values)
        fitted = frozenset(one.name for one in self.free.free)
        known = [None] * len(self.views) if before is None else [one.walls for one in before]
        each = zip(self.views, state.surfaces, state.brightness, known, strict=True)
        return [shown(view, surface, instrument, float(b), fitted, around) for view, surface, b, around in each]

    def _equations(self, state: _State, at: list[Shown]) -> tuple[Floats, Floats, list[Normal]]:
        """Second and first derivatives by all dense unknowns: parameters, then brightness and poses view by view."""
        shared = len(self.free.free)
        size = shared + sum(view.dense for view in self.views)
        matrix, vector = np.zeros((size, size)), np.zeros(size)
        instrument = self.free.instrument(state.values)
        parts, first = [], shared
        for view, one, surface, brightness in zip(self.views, at, state.surfaces, state.brightness, strict=True):
            columns = columns_of(view, one, instrument, self.free, float(brightness))
            part = normal_of(view, one, columns, surface, instrument, float(brightness))
            places = np.r_[0:shared, first : first + view.dense]
            matrix[np.ix_(places, places)] += part.matrix
            vector[places] += part.vector
            parts.append(part)
            first += view.dense
        doubt = self._doubt(at)
        matrix, vector = matrix / doubt, vector / doubt
        pull, width = self._pull(state)
        matrix += np.diag(width**-2)
        vector += pull / width**2
        return matrix, vector, parts

    def _pull(self, state: _State) -> tuple[Floats, Floats]:
        """How far each dense unknown lies below its prior, and the prior's width."""
        pull, width = [self.free.prior - state.values], [self.free.prior_sigma]
        for view, surface, brightness, start in zip(
            self.views, state.surfaces, state.brightness, self.start_brightness, strict=True
        ):
            pull.append(np.array([start - brightness, *(one.start - surface.pose[one.name] for one in view.poses)]))
            width.append(np.array([BRIGHTNESS_SIGMA, *(one.sigma for one in view.poses)]))
        return np.concatenate(pull), np.concatenate(width)

    def _moved(self, state: _State, step: Floats, parts: list[Normal]) -> _State:
        """A step too long for the linear neighbourhood is taken in part, heights and all."""
        shared = len(self.free.free)
        part_taken = 1.0 / max(1.0, float(np.abs(step / self._pull(state)[1]).max()) / LONGEST_STEP)
        step = part_taken * step
        values = self.free.bounded(state.values + step[:shared])
        step = np.concatenate([values - state.values, step[shared:]])
        surfaces, brightness, first = [], state.brightness.copy(), shared
        for number, (view, surface, part) in enumerate(zip(self.views, state.surfaces, parts, strict=True)):
            own = step[first : first + view.dense]
            brightness[number] += own[0]
            if part.solved is not None:
                dense = np.concatenate([step[:shared], own])
                change = part_taken * part.solved[:, 0] - part.solved[:, 1:] @ dense
                change = change.reshape(surface.heights_m.shape)
                change *= min(1.0, STEEPEST_CHANGE / max(float(np.abs(np.gradient(change)).max()), 1e-12))
                surfaces.append(Surface(surface.heights_m + change * view.pixel_m, {}))
            else:
                assert view.sample is not None
                pose = {
                    one.name: surface.pose[one.name] + float(add) for one, add in zip(view.poses, own[1:], strict=True)
                }
                shape = (surface.heights_m.shape[0], surface.heights_m.shape[1])
                surfaces.append(Surface(view.sample.heights_m(pose, shape, view.pixel_m), pose))
            first += view.dense
        return _State(values, brightness, tuple(surfaces))

    def _objective(self, state: _State, at: list[Shown], weighted: list[Shown]) -> float:
        """With another state's weights: they are no part of what is minimised."""
        pull, width = self._pull(state)
        misfit = sum(float((by.weight * one.misfit**2).sum()) for one, by in zip(at, weighted, strict=True))
        return misfit / self._doubt(weighted) + float(((pull / width) ** 2).sum())

    def _sigmas(self, matrix: Floats, parts: list[Normal], at: list[Shown]) -> Floats:
        """The larger of Fisher's and the robust standard errors. The latter ("sandwich") take each tile of a frame as
        one piece of evidence, so misfits that neighbours share, a model's errors, don't count as so many."""
        shared = len(self.free.free)
        inverse = np.linalg.inv(matrix)
        prior = np.concatenate([self.free.prior_sigma**-2, np.zeros(len(matrix) - shared)])
        evidence, first = np.diag(prior), shared
        for number, (view, part) in enumerate(zip(self.views, parts, strict=True)):
            places = np.r_[0:shared, first : first + view.dense]
            measured, unknown = self._freedom(number, at[number])
            lost = measured / max(measured - unknown, 1)
            evidence[np.ix_(places, places)] += lost * part.scores.T @ part.scores / self._doubt(at) ** 2
            first += view.dense
        robust = np.diag(inverse @ evidence @ inverse)
        return np.asarray(np.sqrt(np.maximum(np.diag(inverse), robust))[:shared])

    def _doubt(self, at: list[Shown]) -> float:
        """What the information counts for: while frames aren't explained to the noise, the prior weighs more."""
        return max(1.0, *self._chi2(at).values())

    def _chi2(self, at: list[Shown]) -> dict[str, float]:
        """Reduced, by view."""
        found = {}
        for number, (view, one) in enumerate(zip(self.views, at, strict=True)):
            measured, unknown = self._freedom(number, one)
            found[view.name] = float((one.weight * one.misfit**2).sum()) / max(measured - unknown, 1)
        return found

    def _freedom(self, number: int, at: Shown) -> tuple[int, int]:
        """Numbers measured, and numbers fitted to them."""
        view = self.views[number]
        unknown = view.dense if view.sample is not None else int((at.weight > 0).any(axis=0).sum())
        return int((at.weight > 0).sum()), unknown

    def _residual(self, number: int, at: Shown) -> Floats:
        return np.asarray((np.sqrt(at.weight) * at.misfit).reshape(self.views[number].counts.shape))

    def _iteration(self, number: int, state: _State, sigmas: Floats, at: list[Shown]) -> Iteration:
        labels = [one.label for one in self.free.free]
        return Iteration(
            number,
            dict(zip(labels, map(float, state.values), strict=True)),
            dict(zip(labels, map(float, sigmas), strict=True)),
            self._chi2(at),
        )
