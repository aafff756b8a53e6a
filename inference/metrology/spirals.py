"""Growth spirals: cores by the winding of the terrace height around them, and what they do from frame to frame.

Round a screw dislocation the terrace climbs by one step and falls back at the riser: on a small circle, the height is a
ramp with one jump, a sawtooth. Around any other place what the steps go up they come down again. The sawtooth's share
of what is left of the height without tilt tells cores from everything else; its sign is the sense.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.feature import peak_local_max

from inference.metrology.height_map import HeightMap
from inference.metrology.steps import ALONG_PX, Steps

ANGLES = 64
RADII = (0.2, 0.3, 0.4, 0.5)
ARM_RADII = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DISC_RADII = (0.5, 0.4, 0.3)
ACROSS_DISC = 21
ACROSS = 10
LEAST_SCORE = 0.6
LEAST_FILLED = 0.3
NEAR_SPACINGS = 2.0
SAME_PLACE = 0.5
LOST_FRAMES = 3
SMOOTHED_SHARE = 0.02

Floats = NDArray[np.float64]
Sense = Literal["counter-clockwise", "clockwise"]


@dataclass(frozen=True, slots=True)
class Spiral:
    """One core. `place_px`: row and column, to about an eighth of the spacing in one frame, towards where the arm
    stands: the mean over a turn is better. `sense`: which way round the terrace climbs, as seen in the image.
    `pitch_m`: by how much in a turn, the height of the steps around it, as `pitch_from` tells it (`images` or `height
    map`); `arm_spacing_m`: of these steps, along their normals; `arm_rad`: where its arm stands, counter-clockwise as
    seen from the right, up to whole turns. `score`: the sawtooth's share, 0 to 1; `filled`: the share of the circles
    that could hold the core and do wind, about 0.5 for a spiral."""

    place_px: tuple[float, float]
    sense: Sense
    pitch_m: float
    pitch_error_m: float
    arm_spacing_m: float
    arm_rad: float
    score: float
    filled: float
    pitch_from: str = "height map"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A spiral in one frame: `place_px` in the run's coordinates, `turned_rad` with the whole turns since the first."""

    sequence: int
    time_s: float
    spiral: Spiral
    place_px: tuple[float, float]
    turned_rad: float


@dataclass(slots=True)
class Track:
    """One spiral through the run."""

    id: int
    sense: Sense
    seen: list[Sighting]

    def rotation_rad_per_s(self) -> tuple[float, float]:
        """The arm's rate, counter-clockwise positive as seen in the image, and its standard error; NaN for fewer than
        three frames. An arm that turns by half a turn or more between frames cannot be told from one that turns
        back."""
        if len(self.seen) < 3:
            return math.nan, math.nan
        times_s, turned_rad = [one.time_s for one in self.seen], [one.turned_rad for one in self.seen]
        line, covariance = np.polyfit(times_s, turned_rad, 1, cov=True)
        return float(line[0]), math.sqrt(covariance[0, 0])

    def place_px(self) -> tuple[float, float]:
        """A dislocation stays where it is: the mean over its frames, in the run's coordinates."""
        row, column = np.mean([one.place_px for one in self.seen], axis=0)
        return float(row), float(column)

    def pitch_m(self) -> float:
        """The median of what the images tell, where they do, else of what the heights do."""
        return float(np.median([spiral.pitch_m for spiral in self._told()]))

    def pitch_error_m(self) -> float:
        """Of the mean of as many frames, by what each of them tells of its own."""
        errors_m = [spiral.pitch_error_m for spiral in self._told()]
        return float(np.sqrt(np.mean(np.square(errors_m)) / len(errors_m)))

    @property
    def pitch_from(self) -> str:
        return self._told()[0].pitch_from

    def _told(self) -> list[Spiral]:
        spirals = [one.spiral for one in self.seen]
        return [spiral for spiral in spirals if spiral.pitch_from == "images"] or spirals

    def arm_spacing_m(self) -> float:
        return float(np.nanmedian([one.spiral.arm_spacing_m for one in self.seen]))


def find_spirals(map: HeightMap, steps: Steps) -> list[Spiral]:
    """The spiral cores of a map, highest score first, looked for on circles of up to half the spacing of `steps`;
    none where the steps have no spacing."""
    if not math.isfinite(steps.spacing_m):
        return []
    pixel_m = steps.pixel_m
    spacing_px = steps.spacing_m / min(pixel_m)
    height_m = gaussian_filter(map.level().height_m, max(SMOOTHED_SHARE * spacing_px, 0.5))
    margin = max(round(RADII[-1] * spacing_px), 1)
    every = max(round(spacing_px / ACROSS), 1)
    if min(height_m.shape) < 2 * margin + 4 * every:
        return []
    rows, columns = (np.arange(margin, size - margin, every, dtype=np.float64) for size in height_m.shape)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    coarse = _winding(height_m, places, steps.spacing_m, pixel_m)[0].reshape(len(rows), len(columns))
    peaks = peak_local_max(np.abs(coarse), min_distance=ACROSS // 2, threshold_abs=LEAST_SCORE, exclude_border=False)
    found = [_measured(height_m, places.reshape(*coarse.shape, 2)[row, column], every, steps) for row, column in peaks]
    cores = [spiral for spiral in found if spiral.filled >= LEAST_FILLED]
    return _apart(sorted(cores, key=lambda spiral: -spiral.score), SAME_PLACE * spacing_px)


def join(
    tracks: list[Track],
    sequence: int,
    time_s: float,
    spirals: Sequence[Spiral],
    shift_px: Sequence[float] | Floats,
    reach_px: float,
) -> None:
    """Take the spirals of one frame, which shows the specimen `shift_px` further down and right, into `tracks`: each
    to the nearest track of its sense within `reach_px` that was seen lately, or as a new one."""
    free = [track for track in tracks if sequence - track.seen[-1].sequence <= LOST_FRAMES]
    placed = [(spiral, (spiral.place_px[0] - shift_px[0], spiral.place_px[1] - shift_px[1])) for spiral in spirals]
    pairs = sorted(
        (math.dist(place, track.place_px()), index, number)
        for index, (spiral, place) in enumerate(placed)
        for number, track in enumerate(free)
        if track.sense == spiral.sense
    )
    taken: dict[int, Track] = {}
    for distance, index, number in pairs:
        if distance <= reach_px and index not in taken and free[number] not in taken.values():
            taken[index] = free[number]
    for index, (spiral, place) in enumerate(placed):
        track = taken.get(index)
        before = spiral.arm_rad if track is None else track.seen[-1].turned_rad
        turned = before + math.remainder(spiral.arm_rad - before, 2 * math.pi)
        sighting = Sighting(sequence, time_s, spiral, place, turned)
        if track is None:
            tracks.append(Track(max((one.id for one in tracks), default=0) + 1, spiral.sense, [sighting]))
        else:
            track.seen.append(sighting)


def _winding(
    height_m: Floats, places: Floats, spacing_m: float, pixel_m: tuple[float, float], radii: Sequence[float] = RADII
) -> tuple[Floats, Floats]:
    """For each place (n,): the signed score, counter-clockwise positive; and the arm's angle by radius (n, R).

    Harmonics from the second on are compared with those of a ramp that climbs counter-clockwise by 1 in a turn and
    falls at the arm, and with its mirror image; tilt and offset lie in those below. At the best angle of each."""
    angle = 2 * math.pi * np.arange(ANGLES) / ANGLES
    circle = np.array([-np.sin(angle) / pixel_m[0], np.cos(angle) / pixel_m[1]])
    harmonics = np.arange(2, ANGLES // 4)
    ramp = 1j / (2 * math.pi * harmonics)
    arms = []
    score, total = np.zeros(len(places)), np.zeros(len(places))
    for radius in radii:
        at = places.T[:, :, None] + radius * spacing_m * circle[:, None, :]
        seen = map_coordinates(height_m, at, order=1, mode="nearest")
        spectrum = np.fft.rfft(seen, axis=1)[:, harmonics] / ANGLES
        best = []
        for template in (ramp, -ramp):
            # Correlation with the template turned to every angle, four to each sample.
            padded = np.zeros((len(places), 2 * ANGLES + 1), complex)
            padded[:, harmonics] = spectrum * np.conj(template)
            match = np.fft.irfft(padded, n=4 * ANGLES, axis=1) * 4 * ANGLES
            energy = 2.0 * float(np.sum(np.abs(template) ** 2))
            turn = np.argmax(match, axis=1)
            height = match[np.arange(len(places)), turn] / energy
            best.append((height**2 * energy, turn * 2 * math.pi / (4 * ANGLES)))
        up, down = best
        climbs = up[0] >= down[0]
        arms.append(np.where(climbs, up[1], down[1]))
        score += up[0] - down[0]
        total += 2.0 * np.sum(np.abs(spectrum) ** 2, axis=1)
    return score / np.maximum(total, 1e-30), np.stack(arms, axis=1)


def _measured(height_m: Floats, place: Floats, every: int, steps: Steps) -> Spiral:
    """Around a coarse place: the core, and what the spiral is there.

    A circle winds wherever it holds the core, so that the places whose circles do are a disc around it: its centre is
    the core, and its area tells a core from what only looks like one."""
    pixel_m, spacing_m = steps.pixel_m, steps.spacing_m
    across = np.linspace(-1.0, 1.0, ACROSS_DISC) * 1.6
    grid = np.stack(np.meshgrid(across, across, indexing="ij"), axis=-1).reshape(-1, 2)
    way = 1.0 if _winding(height_m, place[None], spacing_m, pixel_m)[0][0] > 0 else -1.0
    filled = []
    for radius in DISC_RADII:
        places = place + grid * radius * spacing_m / np.array(pixel_m)
        within = way * _winding(height_m, places, spacing_m, pixel_m, (radius,))[0] > LEAST_SCORE
        filled.append(float(within.mean()) * 3.2**2 / math.pi)
        if within.any():
            place = places[within].mean(axis=0)
    arms = _winding(height_m, place[None], spacing_m, pixel_m, ARM_RADII)[1]
    score = float(way * _winding(height_m, place[None], spacing_m, pixel_m)[0][0])
    # An arm that climbs counter-clockwise trails clockwise further out, one turn a spacing: all radii tell one angle.
    inner = np.exp(1j * (arms[0] + way * 2 * math.pi * np.array(ARM_RADII)))
    near = np.hypot(*(steps.places_m() - place * pixel_m).T) < NEAR_SPACINGS * spacing_m
    heights, between = (
        np.concatenate([getattr(line, name) for line in steps.lines])[near] for name in ("height_m", "spacing_m")
    )
    heights = heights[np.isfinite(heights)]
    step_m = float(np.median(heights)) if len(heights) else math.nan
    return Spiral(
        place_px=(float(place[0]), float(place[1])),
        sense="counter-clockwise" if way > 0 else "clockwise",
        pitch_m=step_m,
        pitch_error_m=1.25 * float(np.std(heights)) / math.sqrt(max(len(heights) / ALONG_PX, 1.0)),
        arm_spacing_m=float(np.nanmedian(between)) if np.isfinite(between).any() else math.nan,
        arm_rad=float(np.angle(inner.sum())),
        score=score,
        filled=float(np.mean(filled)),
    )


def _apart(spirals: list[Spiral], distance_px: float) -> list[Spiral]:
    kept: list[Spiral] = []
    for spiral in spirals:
        if all(math.dist(spiral.place_px, other.place_px) > distance_px for other in kept):
            kept.append(spiral)
    return kept
