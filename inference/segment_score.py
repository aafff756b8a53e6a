"""A score without truth, for any frame and any calibration: each segment predicted from the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.calibration import Calibration, calibrate
from inference.forward_model import captured_fractions, linear_response
from inference.pipeline import with_optics
from inference.plain_inversion import electrons_of, facing, integrated, slopes_of

BORDER_PX = 3
AGREES = 1.3
TURNS, LONGEST_STEP, STEEPEST_SINE, TINY = 8, 0.1, 0.9, 1e-9
SEED = 7
SMALLEST_PX = 16

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """`reduced_chi2` by segment: the mean square of what its prediction misses, over what noise alone would leave in
    the same prediction; 1 means explained to the noise. `missed_share`: rms of that over the segment's mean signal."""

    names: tuple[str, ...]
    reduced_chi2: tuple[float, ...]
    missed_share: tuple[float, ...]

    @property
    def verdict(self) -> str:
        worst = max(range(len(self.names)), key=lambda one: self.reduced_chi2[one])
        if self.reduced_chi2[worst] <= AGREES:
            return "the instrument file explains this frame to its noise"
        share = 100.0 * self.missed_share[worst]
        return (
            f"the instrument file misses {share:.2g} % of segment {self.names[worst]}: calibrate with `eclips "
            "calibrate`, or expect occlusion and effects that the file does not have"
        )


def score_segments(frame: Frame, instrument: Instrument) -> SegmentScore:
    """Of one frame of 16 x 16 pixels or more.

    The others' slopes are integrated to a height map, which has no curl, and that is rendered into the segment left
    out, with occlusion where the radii are known; the brightness is the others' in each pixel. Where two others remain
    they cannot tell it, so one brightness is taken for all pixels. What noise leaves is found by predicting from a
    frame rendered without misfit, with noise of the expected size. Raises `BadInput` for small frames and as
    `inference.calibration.calibrate` does.
    """
    images = frame.images
    if min(images.shape[1:]) < SMALLEST_PX:
        raise BadInput(f"a frame of {images.shape[1:]} pixels is too small to score: {SMALLEST_PX} x {SMALLEST_PX}")
    used = with_optics(instrument, frame.header.optics)
    calibration = calibrate(used, images)
    electrons = electrons_of(images, calibration)
    explained = _explained(electrons, calibration, used)
    noise_of = np.sqrt(np.maximum(explained, 0.0) + (1.0 / 12.0) / _gains(calibration) ** 2)
    noisy = explained + noise_of * np.random.default_rng(SEED).standard_normal(explained.shape)
    chi2, missed = [], []
    for segment in range(len(electrons)):
        left = _missed(electrons, segment, calibration, used)
        by_noise = _missed(noisy, segment, calibration, used) - _missed(explained, segment, calibration, used)
        squares = float((left**2).mean())
        chi2.append(squares / max(float((by_noise**2).mean()), 1e-12))
        missed.append(np.sqrt(squares) / max(float(electrons[segment].mean()), 1e-12))
    names = tuple(segment.name for segment in used.detector.segments)
    return SegmentScore(names, tuple(chi2), tuple(map(float, missed)))


def _missed(electrons: Floats, segment: int, calibration: Calibration, instrument: Instrument) -> Floats:
    others = [n for n in range(len(electrons)) if n != segment]
    response = calibration.response.astype(np.float64)
    left_out = electrons[segment]
    if len(others) >= 3:
        moments = np.einsum("cs,syx->cyx", np.linalg.pinv(response[others]), electrons[others])
    else:
        moments = _at_one_brightness(electrons, others, calibration)
    shown = _rendered(moments, calibration, instrument)
    if len(others) >= 3:
        brightness = electrons[others].sum(axis=0) / np.maximum(shown[others].sum(axis=0), 1e-12)
    else:
        brightness = moments[2] / np.maximum(_third_share(moments, calibration), 1e-12)
    missed = left_out - brightness * shown[segment]
    return np.asarray(missed[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX])


def _third_share(moments: Floats, calibration: Calibration) -> Floats:
    """(H, W): the third moment per brightness."""
    slopes = slopes_of(moments, float(calibration.flat_share))
    upright = 1.0 / np.sqrt(1.0 + (slopes**2).sum(axis=0))
    return np.asarray(calibration.flat_share * upright + 1.0 - calibration.flat_share)


def _at_one_brightness(electrons: Floats, others: list[int], calibration: Calibration) -> Floats:
    """Newton's method in each pixel for the normal that two segments show, from what all of them show."""
    response, share = calibration.response.astype(np.float64), float(calibration.flat_share)
    moments = np.einsum("cs,syx->cyx", np.linalg.pinv(response), electrons)
    slopes = slopes_of(moments, share)
    upright = 1.0 / np.sqrt(1.0 + (slopes**2).sum(axis=0))
    brightness = float(np.median(moments[2] / (share * upright + 1.0 - share)))
    sideways = -slopes * upright
    along, level = response[others][:, :2], response[others][:, 2]
    for _ in range(TURNS):
        upright = np.sqrt(1.0 - (sideways**2).sum(axis=0))
        third = share * upright + 1.0 - share
        missed = electrons[others] / brightness - np.einsum("sc,cyx->syx", along, sideways)
        missed -= level[:, None, None] * third
        jacobian = along - share * level[:, None] * (sideways / upright).transpose(1, 2, 0)[..., None, :]
        step = np.linalg.solve(jacobian + TINY * np.eye(2), missed.transpose(1, 2, 0)[..., None])[..., 0]
        sideways = sideways + np.clip(step, -LONGEST_STEP, LONGEST_STEP).transpose(2, 0, 1)
        length = np.sqrt((sideways**2).sum(axis=0))
        sideways *= np.minimum(1.0, STEEPEST_SINE / np.maximum(length, STEEPEST_SINE))
    upright = np.sqrt(1.0 - (sideways**2).sum(axis=0))
    return np.asarray(brightness * np.stack([*sideways, share * upright + 1.0 - share]))


def _rendered(moments: Floats, calibration: Calibration, instrument: Instrument) -> Floats:
    """(S, H, W) per brightness, of the height map that the slopes of `moments` integrate to."""
    return shown_per_brightness(integrated(slopes_of(moments, float(calibration.flat_share))), calibration, instrument)


def shown_per_brightness(height_px: Floats, calibration: Calibration, instrument: Instrument) -> Floats:
    """(S, H, W) of a height map in pixels: by BSESM where the radii are known, else linear in its normals."""
    share = float(calibration.flat_share)
    if share == 1.0:
        level = instrument.model_copy(
            update={"specimen": instrument.specimen.model_copy(update={"tilt_x_deg": 0.0, "tilt_y_deg": 0.0})}
        )
        fractions = captured_fractions(height_px * instrument.scan.pixel_size_m, level)
        return np.asarray(fractions, np.float64) / float(linear_response(level)[:, 2].sum())
    return np.asarray(np.einsum("sc,cyx->syx", calibration.response.astype(np.float64), facing(height_px, share)))


def _explained(electrons: Floats, calibration: Calibration, instrument: Instrument) -> Floats:
    """(S, H, W): the whole frame as the height map of all its segments shows it."""
    response = calibration.response.astype(np.float64)
    moments = np.einsum("cs,syx->cyx", np.linalg.pinv(response), electrons)
    shown = _rendered(moments, calibration, instrument)
    if len(electrons) > 3:
        return np.asarray(shown * (electrons.sum(axis=0) / np.maximum(shown.sum(axis=0), 1e-12)))
    return np.asarray(shown * (electrons.sum() / max(float(shown.sum()), 1e-12)))


def _gains(calibration: Calibration) -> Floats:
    return calibration.gain_counts_per_electron.astype(np.float64)[:, None, None]
