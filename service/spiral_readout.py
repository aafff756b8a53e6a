"""What a growing crystal shows, frame by frame: conditions, spirals, the facet beside the top, steps that cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.crossings import Crossing, find_crossings, usual_angle
from inference.metrology.crystal import Named, load_crystal, name_facets, top_facet
from inference.metrology.facet_angle import FacetAngle
from inference.metrology.facets import Facet, find_facets
from inference.metrology.height_map import HeightMap, frame_map
from inference.metrology.kinetics import TEMPERATURE, TOTAL_PRESSURE, Series
from inference.metrology.scatter import MAD_TO_SIGMA
from inference.metrology.steps import Steps, find_steps
from inference.metrology.tracking import Tracked, step_velocity
from service.measurements import LineMeasures, measure_line

CRYSTAL, TOP = "cu2o", "100"
CROSSED_ARMS = 3
MOST_SIGMA_DEG = 1.0
SAME_ANGLE_DEG = 6.0
BESIDE_FACET_PX = 6
BEYOND_FACET_PX = 22.0
PROFILE_WIDTH_PX = 15
NM = 1e9

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The largest face beside the top that has another family: `inside` (H, W) its pixels, `line_px` a profile (x, y)
    across it from above, and what was measured along that."""

    facet: Facet
    named: Named
    inside: NDArray[np.bool_]
    line_px: tuple[Pair, Pair]
    line: LineMeasures | None

    @property
    def edge(self) -> FacetAngle | None:
        """The sharpest convex edge of the profile: the top's with the side."""
        convex = [one for one in self.line.edges if one.convex] if self.line else []
        return min(convex, key=lambda one: one.external_deg, default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One frame. `steps` are those that are no side of the crystal."""

    time_s: float
    steps: Steps
    side: Side | None
    crossings: tuple[Crossing, ...]

    @property
    def crossed(self) -> tuple[Crossing, ...]:
        """Where steps go through each other, less what is not known to a degree."""
        return tuple(one for one in self.crossings if one.arms >= CROSSED_ARMS and one.sigma_deg < MOST_SIGMA_DEG)

    @property
    def corners(self) -> tuple[Crossing, ...]:
        return tuple(one for one in self.crossings if one.arms < CROSSED_ARMS and one.sigma_deg < MOST_SIGMA_DEG)


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """All frames, the velocity of steps without the sides, and the last frame's true heights read alike, if known."""

    found: Tracked
    looks: tuple[Look, ...]
    velocity: Series
    truth: Look | None

    def lines(self) -> list[str]:
        """What the figure says, each number with its uncertainty."""
        told = [self._conditions(), *self._spirals(), *self._facet(), *self._crossings()]
        if self.truth is not None:
            told.append(f"on the true heights of the last frame: {_in_short(self.truth)}")
        return told

    def external_deg(self) -> tuple[float, float]:
        """Of the side, over all frames: the median, and the larger of its usual uncertainty and the scatter."""
        return _over_frames([(s.named.external_deg, s.named.sigma_deg) for s in self._sides()])

    def edge_deg(self) -> tuple[float, float]:
        """The same by tangents on the profile across its upper edge."""
        edges = [side.edge for side in self._sides()]
        return _over_frames([(edge.external_deg, edge.sigma_deg) for edge in edges if edge is not None])

    def crossing_deg(self) -> tuple[float, float, int]:
        """The most frequent angle at which steps cross, its uncertainty, and at how many places over all frames."""
        return _most_frequent([one for look in self.looks for one in look.crossed])

    def corner_deg(self) -> tuple[float, float, int]:
        """The same where steps turn."""
        return _most_frequent([one for look in self.looks for one in look.corners])

    def _sides(self) -> list[Side]:
        return [look.side for look in self.looks if look.side is not None]

    def _conditions(self) -> str:
        states = [seen.state for seen in self.found.seen]

        def usual(name: str) -> float:
            return float(np.median([one.get(name, math.nan) for one in states]))

        told = f"{len(states)} frames over {self.found.seen[-1].time_s:.0f} s at {usual(TEMPERATURE):.0f} K"
        gases = {gas: usual(f"{gas}.flow_mol_per_s") for gas in self.velocity.gases()}
        least = min(gases.values(), default=math.nan)
        parts = ":".join(f"{flow / least:.3g}" for flow in gases.values()) if least > 0 else ""
        told += f" and {usual(TOTAL_PRESSURE):.0f} Pa" + (f" of {' and '.join(gases)} {parts}" if parts else "")
        mean, sigma = _over_frames(list(zip(self.velocity.values, self.velocity.errors, strict=True)))
        return told + ("" if math.isnan(mean) else f"; steps advance by {mean * NM:.2f} ± {sigma * NM:.2f} nm/s")

    def _spirals(self) -> list[str]:
        told = []
        for track in self.found.tracks:
            if 2 * len(track.seen) > len(self.found.seen):
                rate, error = track.rotation_rad_per_s()
                pitch_error = float(np.median([one.spiral.pitch_error_m for one in track.seen]))
                told.append(
                    f"spiral {track.id}: {track.sense}, pitch {track.pitch_m() * NM:.1f} ± {pitch_error * NM:.1f} nm, "
                    f"arms {track.arm_spacing_m() * NM:.0f} nm apart, turns {rate:+.3f} ± {error:.3f} rad/s"
                )
        return told

    def _facet(self) -> list[str]:
        sides = self._sides()
        if not sides:
            return ["no face beside the top was found"]
        families = [side.named.family for side in sides]
        family = max(set(families), key=families.count)
        expected = 180.0 - sides[-1].named.expected_deg
        external, sigma = self.external_deg()
        told = (
            f"facet {family} beside {{{TOP}}}: external angle {external:.2f} ± {sigma:.2f}° (crystal {expected:.2f}°)"
        )
        edge, edge_sigma = self.edge_deg()
        if not math.isnan(edge):
            told += f"; by tangents beside the edge {edge:.2f} ± {edge_sigma:.2f}°"
        return [told + f"; in {len(sides)} of {len(self.looks)} frames"]

    def _crossings(self) -> list[str]:
        told = []
        for what, (angle, sigma, places) in (("cross", self.crossing_deg()), ("turn", self.corner_deg())):
            if places:
                told.append(f"{what} at {angle:.2f} ± {sigma:.2f}° ({places} places)")
        return [f"steps {', '.join(told)}"] if told else ["no two straight steps cross"]


def read_out(run: RecordedRun, found: Tracked) -> Readout:
    """Raises `BadInput` for heights that cannot be read."""
    looks = [_look(frame_map(run, seen.sequence).map, seen.steps, seen.time_s) for seen in found.seen]
    seen = [replace(one, steps=look.steps) for one, look in zip(found.seen, looks, strict=True)]
    true = run.read_truth(found.seen[-1].sequence)
    truth = None
    if true is not None and found.last is not None:
        surface = replace(found.last.map, height_m=true.astype(np.float64))
        truth = _look(surface, find_steps(surface), found.seen[-1].time_s)
    return Readout(found, tuple(looks), step_velocity(seen, found.drifts), truth)


def _look(surface: HeightMap, steps: Steps, time_s: float) -> Look:
    side = _side(surface)
    if side is not None:
        near = binary_dilation(side.inside, iterations=BESIDE_FACET_PX)
        places = [np.rint(line.places_px).astype(np.intp) for line in steps.lines]
        steps = steps.only([float(near[tuple(place.T)].mean()) < 0.5 for place in places])
    return Look(time_s, steps, side, tuple(find_crossings(steps)))


def _side(surface: HeightMap) -> Side | None:
    found, crystal = find_facets(surface), load_crystal(CRYSTAL)
    try:
        names = name_facets(found.facets, top_facet(found.facets), crystal, TOP)
    except BadInput:
        return None
    of_top = crystal.family(TOP).told
    other = {one.number: one for one in names if one.family not in (of_top, "undetermined")}
    facet = next((one for one in found.facets if one.number in other), None)
    if facet is None:
        return None
    inside = found.labels == facet.number
    line_px = _across(surface, facet, inside)
    try:
        line = measure_line(surface, line_px, PROFILE_WIDTH_PX)
    except BadInput:
        line = None
    return Side(facet, other[facet.number], inside, line_px, line)


def _across(surface: HeightMap, facet: Facet, inside: NDArray[np.bool_]) -> tuple[Pair, Pair]:
    """From the terrace above to the one below, where the face is about as wide as usual."""
    turn = math.radians(facet.azimuth_deg)
    down = np.array([math.cos(turn), -math.sin(turn)])
    rows, columns = np.nonzero(inside)
    places = np.column_stack([columns, rows]).astype(np.float64)
    centre = places.mean(axis=0)
    aside = np.abs((places - centre) @ np.array([-down[1], down[0]])) < 0.5 * PROFILE_WIDTH_PX
    reach = (places[aside] - centre) @ down
    last = np.array(surface.height_m.shape[::-1]) - 1.0
    first, end = (
        np.clip(centre + at * down, 0.0, last)
        for at in (reach.min(initial=0.0) - BEYOND_FACET_PX, reach.max(initial=0.0) + BEYOND_FACET_PX)
    )
    return (float(first[0]), float(first[1])), (float(end[0]), float(end[1]))


def _most_frequent(crossings: Sequence[Crossing]) -> tuple[float, float, int]:
    if not crossings:
        return math.nan, math.nan, 0
    angles = np.array([one.angle_deg for one in crossings])
    near = np.abs(angles[:, None] - angles) < SAME_ANGLE_DEG
    best = near[int(near.sum(axis=1).argmax())]
    chosen = [one for one, like in zip(crossings, best, strict=True) if like]
    return *usual_angle(chosen), len(chosen)


def _over_frames(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    known = np.array([one for one in values if np.isfinite(one).all()]).reshape(-1, 2)
    if not len(known):
        return math.nan, math.nan
    middle = float(np.median(known[:, 0]))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(known[:, 0] - middle)))
    return middle, max(float(np.median(known[:, 1])), scatter)


def _in_short(look: Look) -> str:
    angle, _, places = _most_frequent(look.crossed)
    told = [f"facet {look.side.named.external_deg:.2f}°"] if look.side else ["no facet"]
    if look.side and look.side.edge:
        told.append(f"edge {look.side.edge.external_deg:.2f}°")
    return ", ".join([*told, f"crossed steps {angle:.2f}°" if places else "no crossed steps"])
