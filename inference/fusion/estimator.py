"""The recursive estimate that goes from frame to frame: what the run has seen of the place that the frame shows now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Optics
from inference.calibration import Calibration
from inference.fusion.merging import block_sums, brighten, counts_of, excess_of, merge, unlikeness
from inference.fusion.registration import Shift, find_shift, look_at, overlap
from inference.fusion.resampling import reach_of, resample

LEAST_FRAMES, MOST_FRAMES = 2, 1024
CLEAR_ERRORS = 3.0
BLOCK_PX = 16
MOST_BRIGHTENING = 1.25
MOST_MOVED = 0.5
PATIENCE = 4

Floats = NDArray[np.float32]
Counts = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Fused:
    """`images` (S, H, W) uint16: the weighted mean of the frames so far in counts, on the pixels of the estimate;
    `frames_held` (H, W) float32: the number of frames whose mean would be as little noisy.

    `drift_px`: rows and columns by which the surface moved on down and right since the frame before, `drift_error_px`
    its standard deviations. `offset_px`: pixel (row, column) of the frame lies at (row, column) - offset in `images`,
    within half a pixel. `joined`: whether the frame was added to others; where its place could not be told it stands
    alone. `moved_share`: share of the pixels that forgot most of what they held.
    """

    images: Counts
    frames_held: Floats
    drift_px: tuple[float, float]
    drift_error_px: tuple[float, float]
    offset_px: tuple[float, float]
    joined: bool
    moved_share: float


class Fusion:
    """Fuses frames in the order in which they were taken; `most_frames` bounds what a pixel holds, and with it how
    long a change too small to be seen stays in it (models.md, "Fusion in time").

    Raises `BadInput` for `most_frames` outside 2 to 1024. Holds one frame in float32; frames that were left out in
    between only make it forget more where the surface moved.
    """

    def __init__(self, most_frames: int) -> None:
        if not LEAST_FRAMES <= most_frames <= MOST_FRAMES:
            raise BadInput(
                f"{most_frames} frames cannot be fused: ask for {LEAST_FRAMES} to {MOST_FRAMES}, or 0 for no fusion"
            )
        self._most_frames = most_frames
        self._setting: tuple[object, ...] = ()
        self._mean = np.empty((0, 0, 0), np.float32)
        self._held = np.empty((0, 0), np.float32)
        self._offset = np.zeros(2)
        self._drift = np.zeros(2)
        self._lost = 0

    def add(self, images: Counts, calibration: Calibration, optics: Optics) -> Fused:
        """Take in one frame, `images` (S, H, W) counts. Another shape, instrument or magnification, or segments that
        are brighter or darker by a quarter, begin anew."""
        setting = (images.shape, optics, calibration.calibration_hash)
        if setting != self._setting:
            self._setting = setting
            return self._begin(images, calibration)
        predicted = np.rint(self._offset + self._drift)
        found = self._find(images, calibration, (int(predicted[0]), int(predicted[1])))
        if not found.trusted:
            return self._wait(images, calibration)
        # Less than three standard deviations from no shift, or from a whole pixel, is not worth an interpolation.
        shift = np.where(np.abs(found.shift_px) < CLEAR_ERRORS * found.error_px, 0.0, found.shift_px)
        whole = np.rint(shift)
        offset = shift - whole
        offset[np.abs(offset) < CLEAR_ERRORS * found.error_px] = 0.0
        self._move((int(whole[0]), int(whole[1])))
        new, noise = self._resampled(images, calibration, (float(offset[0]), float(offset[1])))
        if not self._follow_brightness(new, calibration):
            return self._begin(images, calibration)
        ceiling, gain, dark = _numbers(calibration)
        compared = int(np.count_nonzero(self._held))
        unlike = unlikeness(self._mean, self._held, new, noise, gain, dark, ceiling)
        excess = excess_of(unlike, len(images))
        forgotten = merge(self._mean, self._held, new, noise, excess, np.float32(self._most_frames), ceiling)
        if forgotten > MOST_MOVED * compared:
            return self._begin(images, calibration)
        self._drift = whole + offset - self._offset
        self._lost = 0
        self._offset = offset
        return self._told(calibration, found.error_px, True, forgotten / max(compared, 1))

    def _wait(self, images: Counts, calibration: Calibration) -> Fused:
        """A frame whose place is not told stands alone; after some in a row, the estimate is one of another place."""
        self._lost += 1
        if self._lost >= PATIENCE or self._held.max() <= 1.0:
            return self._begin(images, calibration)
        here = np.ones(images.shape[1:], np.float32)
        nowhere = (float("inf"), float("inf"))
        return Fused(images, here, (0.0, 0.0), nowhere, (0.0, 0.0), joined=False, moved_share=0.0)

    def _begin(self, images: Counts, calibration: Calibration) -> Fused:
        self._mean = images.astype(np.float32)
        self._held = np.ones(images.shape[1:], np.float32)
        self._offset, self._drift, self._lost = np.zeros(2), np.zeros(2), 0
        return self._told(calibration, np.full(2, np.inf), False, 0.0)

    def _told(self, calibration: Calibration, error_px: NDArray[np.float64], joined: bool, moved: float) -> Fused:
        images: Counts = counts_of(self._mean, calibration.saturation_counts)
        drift, error, offset = ((float(row), float(column)) for row, column in (self._drift, error_px, self._offset))
        return Fused(images, self._held.copy(), drift, error, offset, joined, moved)

    def _find(self, images: Counts, calibration: Calibration, guess_px: tuple[int, int]) -> Shift:
        held = float(np.mean(1.0 / self._held[self._held > 0]))
        return find_shift(self._mean, held, images, 1.0, look_at(images, calibration), guess_px)

    def _move(self, whole_px: tuple[int, int]) -> None:
        """Let the estimate show what the frame shows; what comes in from outside holds nothing yet."""
        if whole_px == (0, 0):
            return
        before, now = overlap(self._held.shape, whole_px)
        mean, held = np.zeros_like(self._mean), np.zeros_like(self._held)
        mean[:, now[0], now[1]] = self._mean[:, before[0], before[1]]
        held[now] = self._held[before]
        self._mean, self._held = mean, held

    def _resampled(
        self, images: Counts, calibration: Calibration, offset_px: tuple[float, float]
    ) -> tuple[Floats, Floats]:
        """The frame on the pixels of the estimate, and its noise (H, W) against an untouched one's. Next to saturated
        pixels, of which the true value is not known, it is the nearest pixel's."""
        new, left = resample(images, offset_px)
        noise = np.full(images.shape[1:], left, np.float32)
        saturated: NDArray[np.bool_] = images.max(axis=0) >= calibration.saturation_counts
        if offset_px != (0.0, 0.0):
            # Overshoot beside bright pixels is no saturation.
            np.minimum(new, calibration.saturation_counts - np.float32(1.0), out=new)
            if saturated.any():
                near = reach_of(saturated)
                new[:, near] = images[:, near]
                noise[near] = 1.0
        return new, noise

    def _follow_brightness(self, new: Floats, calibration: Calibration) -> bool:
        """Scale the estimate to the new frame's beam current, segment by segment: the median over blocks, so that a
        part that changed does not count. False where that is no mere flicker."""
        ceiling, _, dark = _numbers(calibration)
        seen = (self._held > 0) & (new.max(axis=0) < ceiling) & (self._mean.max(axis=0) < ceiling)
        used = seen.astype(np.float32)
        size = min(BLOCK_PX, *used.shape)
        pixels = block_sums(used[np.newaxis], used, size)
        before, after = (block_sums(images, used, size) - pixels * dark[:, None, None] for images in (self._mean, new))
        ratios = np.ones(len(new), np.float32)
        for segment, (old, now) in enumerate(zip(before, after, strict=True)):
            lit = old > 0
            if lit.any():
                ratios[segment] = np.median(now[lit] / old[lit])
        if np.abs(np.log(np.maximum(ratios, 1e-3))).max() > np.log(MOST_BRIGHTENING):
            return False
        brighten(self._mean, ratios, dark, ceiling)
        return True


def _numbers(calibration: Calibration) -> tuple[np.float32, Floats, Floats]:
    return calibration.saturation_counts, calibration.gain_counts_per_electron, calibration.dark_counts
