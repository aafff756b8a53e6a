"""Frames as electrons, and surfaces as the shares of each segment that an instrument would show of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.calibration import calibrate
from inference.faulty_segments import without_faulty
from inference.networks.dsm import linear_shares
from inference.networks.finetune import FinetuneNet
from inference.networks.moments import moments
from inference.networks.poisson import integrate
from inference.networks.slopes import SlopeNet
from inference.networks.twin import Twin
from inference.pipeline import with_optics
from inference.training.mismatched import beside_faultless

LEAST_SHARE = 1e-6
MOST_REJECTED = 0.2
NUMBERS = (
    "response",
    "inversion",
    "gain_counts_per_electron",
    "dark_counts",
    "flat_share",
    "saturation_counts",
    "beam_sigma_px",
)


@dataclass(frozen=True, slots=True)
class View:
    """One frame. `images` (S, H, W) float32 counts, `electrons` (S, H, W), `numbers` those of its calibration by name,
    `rejected` (H, W) where pixels mean nothing; `aspect`: the pixel's width over its height."""

    images: Tensor
    electrons: Tensor
    numbers: dict[str, Tensor]
    rejected: Tensor
    aspect: float

    def cut(self, top: int, left: int, side: int) -> View:
        place = (..., slice(top, top + side), slice(left, left + side))
        return View(self.images[place], self.electrons[place], self.numbers, self.rejected[place], self.aspect)

    def of(self, segments: list[int]) -> View:
        """As if the detector had these alone."""
        response = self.numbers["response"][segments]
        response = response / response[:, 2].sum()
        own = {"response": response, "inversion": torch.linalg.pinv(response)}
        own |= {name: self.numbers[name][segments] for name in ("gain_counts_per_electron", "dark_counts")}
        return View(
            self.images[segments], self.electrons[segments], {**self.numbers, **own}, self.rejected, self.aspect
        )

    def with_electrons(self, electrons: Tensor) -> View:
        gain, dark = (self.numbers[name][:, None, None] for name in ("gain_counts_per_electron", "dark_counts"))
        return View(electrons * gain + dark, electrons, self.numbers, self.rejected, self.aspect)


def view_of(frame: Frame, instrument: Instrument) -> View:
    """Raises `BadInput` for a frame that nothing can be learned from: a segment that shows nothing or is at full scale,
    more than a fifth of its pixels saturated, dark or steeper than can be told; and as `calibrate` does."""
    used = with_optics(instrument, frame.header.optics)
    names = tuple(segment.name for segment in used.detector.segments)
    calibration = calibrate(used, frame.images)
    images, left = without_faulty(frame.images, calibration, names)
    if len(images) < len(frame.images):
        raise BadInput(
            f"frame {frame.header.sequence} has {len(images)} of {len(names)} segments, the others show nothing"
        )
    numbers = {name: torch.from_numpy(np.asarray(getattr(left, name), np.float32)) for name in NUMBERS}
    counts = torch.from_numpy(images.astype(np.float32))
    gain, dark = (numbers[name][:, None, None] for name in ("gain_counts_per_electron", "dark_counts"))
    held = torch.ones(1, *counts.shape[1:])
    with torch.no_grad():
        found = moments(counts[None], **{name: values[None] for name, values in numbers.items()}, frames_held=held)
    rejected = found.rejected[0]
    share = float(rejected.float().mean())
    if share > MOST_REJECTED:
        raise BadInput(
            f"{100 * share:.0f} % of frame {frame.header.sequence} are saturated, dark or too steep, the limit is "
            f"{100 * MOST_REJECTED:.0f} %"
        )
    scan = used.scan
    return View(
        counts,
        (counts - dark) / gain,
        numbers,
        rejected,
        scan.pixel_size_m / (scan.pixel_size_y_m or scan.pixel_size_m),
    )


def slopes_of(net: SlopeNet, view: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, q and their sigmas, each with a leading 1."""
    held = torch.ones(1, *view.images.shape[1:])
    batched = {name: values[None] for name, values in view.numbers.items()}
    with torch.no_grad():
        found = moments(view.images[None], **batched, frames_held=held)
    return net.correct(found.features, found.slopes, found.variances, view.aspect)


class Explainer:
    """From slopes to shares, (S, H, W): the exact twin of the forward model, without effects, on the integrated
    surface, and then what `finetune` knows of this instrument, frozen. Where radii are not known shares are linear in
    the normal. Shares need no brightness: that stays each pixel's own, so oxide doesn't pass for a slope (models.md,
    "Self-supervised loop")."""

    def __init__(self, instrument: Instrument, finetune: FinetuneNet | None = None) -> None:
        level = beside_faultless(instrument).stated
        level = level.model_copy(
            update={"specimen": level.specimen.model_copy(update={"tilt_x_deg": 0.0, "tilt_y_deg": 0.0})}
        )
        self.pixel_size_m = instrument.scan.pixel_size_m
        self.finetune = None if finetune is None else finetune.requires_grad_(False)
        self.twin: Twin | None = None
        if all(segment.outer_radius_m is not None for segment in instrument.detector.segments):
            self.twin = Twin(level, dose=1.0).requires_grad_(False)
            with torch.no_grad():
                self.tables = self.twin.geometry.tables()
        count = len(instrument.detector.segments)
        if finetune is not None and len(finetune.offset) != count:
            raise BadInput(f"finetune was trained for {len(finetune.offset)} segments, this instrument has {count}")

    def shares(self, p: Tensor, q: Tensor, view: View) -> Tensor:
        """Of p (1, H, W - 1) and q (1, H - 1, W); above 0. `view` says which detector."""
        response = view.numbers["response"]
        if self.twin is not None:
            height_m = integrate(p, q, view.aspect)[0].double() * self.pixel_size_m
            shown = self.twin.electrons(height_m, self.tables).float()
        else:
            share, beam = view.numbers["flat_share"][None], view.numbers["beam_sigma_px"][None]
            shown = linear_shares(p, q, response[None], share, beam)[0]
        if self.finetune is not None:
            shown = self.finetune(shown[None], p, q, response[None])[0]
        return shown.clamp_min(LEAST_SHARE)
