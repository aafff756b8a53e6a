"""An installed model set as its judges run it: every graph by itself, full precision, heights in pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.calibration import Calibration
from inference.registry import CALIBRATION, SLOTS, find_model_set
from inference.session import OnnxSession

Floats = NDArray[np.float64]
Images = NDArray[np.uint16]


class Slopes(NamedTuple):
    """What goes into an integrator: `p` (H, W-1) and `q` (H-1, W), forward differences per pixel, with their standard
    deviations; `rejected` (H, W) uint8 as in the slots."""

    p: Floats
    q: Floats
    sigma_p: Floats
    sigma_q: Floats
    rejected: NDArray[np.uint8]


class ModelSet:
    """The three graphs of the set `name`. Frames have square pixels, as all of the fixed test set has.

    Raises `BadInput` when it is not installed, `ComponentFailed` when its files are not what its card says.
    """

    def __init__(self, name: str) -> None:
        card = find_model_set(name)
        self.name = name
        self._graphs = {slot: OnnxSession(card.graph(slot), SLOTS[slot]) for slot in SLOTS}

    def slopes(self, images: Images, calibration: Calibration) -> Slopes:
        """Of a frame (S, H, W)."""
        found = self._graphs["slopes"].run(_inputs(images, calibration))
        p, q, sigma_p, sigma_q = (np.asarray(found[name], np.float64) for name in ("p", "q", "sigma_p", "sigma_q"))
        return Slopes(p, q, sigma_p, sigma_q, found["rejected"])

    def height_px(self, slopes: Slopes, images: Images, calibration: Calibration) -> Floats:
        """(H, W) of the set's own integrator for any slopes of that frame, its own or another set's."""
        known = _inputs(images, calibration) | _single(slopes)
        known |= self._graphs["rerender"].run(known)
        height_m = self._graphs["integrate"].run(known)["height"]
        return np.asarray(height_m, np.float64) / float(calibration.pixel_size_m)

    def answer(self, images: Images, calibration: Calibration) -> tuple[Slopes, Floats]:
        """Slopes and height as the live chain gives them."""
        slopes = self.slopes(images, calibration)
        return slopes, self.height_px(slopes, images, calibration)


def _inputs(images: Images, calibration: Calibration) -> dict[str, Any]:
    single = np.ones(images.shape[1:], np.float32)
    return {"images": images, "frames_held": single, **{name: getattr(calibration, name) for name in CALIBRATION}}


def _single(slopes: Slopes) -> dict[str, Any]:
    singles: dict[str, Any] = {name: np.asarray(getattr(slopes, name), np.float32) for name in Slopes._fields[:4]}
    return {**singles, "rejected": slopes.rejected}
