"""An AFM's map as labels of a frame: heights and slopes on the frame's pixels, and where they can be trusted."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, correlate1d, gaussian_filter, median_filter

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from inference.metrology.alignment import BLUR_PX
from inference.metrology.comparison import Comparison, compare, without_lines
from inference.metrology.height_map import HeightMap
from inference.metrology.place_fit import fit_place
from inference.metrology.placement import Placement, resampled, steps
from inference.metrology.probe import touched
from inference.metrology.scatter import MAD_TO_SIGMA
from inference.pipeline import calibrated
from inference.registry import CALIBRATION

KIND = "eclips labels 1"
QUIET_PX = 0.7
BORDER_PX = 4
STEEPEST = 1.7
"""As a slope, 60 degrees: flanks of common tips are not much steeper, and no paraboloid."""
SECOND = (1.0, -2.0, 1.0)
CLOSED_SHARE = 0.3
RESIDUAL_DEVIATIONS = 5.0
RESIDUAL_PX = 5
MOST_MISPLACED_SHARE, MOST_MISPLACED_PX = 0.25, 0.3
TURNS = 2
LEAST_LABELLED = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labels:
    """Truth for one frame of (H, W) pixels, SI units.

    `height_m` (H, W), `p` (H, W - 1) and `q` (H - 1, W) on the staggered grid (models.md, "Slopes on the grid"), zero
    where `mask` (H, W) is False: there nothing is known. `images` (S, H, W) are the frame's working segments and
    `numbers` what a calibration says of them, so that a file of labels is all that training needs. `placement` is of
    the frame on the map, and `hashes` those of frame and map.
    """

    images: NDArray[np.uint16]
    numbers: dict[str, NDArray[np.float32]]
    height_m: Floats
    mask: NDArray[np.bool_]
    pixel_size_m: float
    pixel_size_y_m: float
    tip_radius_m: float
    tip_stated: bool
    placement: Placement
    hashes: dict[str, str]

    @property
    def p(self) -> Floats:
        known = self.mask[:, 1:] & self.mask[:, :-1]
        return np.where(known, np.diff(self.height_m, axis=1) / self.pixel_size_m, 0.0)

    @property
    def q(self) -> Floats:
        known = self.mask[1:] & self.mask[:-1]
        return np.where(known, np.diff(self.height_m, axis=0) / self.pixel_size_y_m, 0.0)


@dataclass(frozen=True, slots=True)
class Corrected:
    """The map on the frame's pixels: (H, W) metres, tip and lines taken out and the frame's plane given; `mask` where
    that can be trusted."""

    height_m: Floats
    mask: NDArray[np.bool_]
    placement: Placement
    tip_radius_m: float
    tip_stated: bool


def label(
    frame: Frame,
    surface: HeightMap,
    afm: HeightMap,
    instrument: Instrument,
    map_sha256: str,
    tip_radius_m: float | None = None,
) -> Labels:
    """Of `frame`, whose reconstructed `surface` finds its place on `afm`. Raises `BadInput` as `correct` does."""
    found = correct(surface, afm, tip_radius_m)
    images, calibration = calibrated(frame, instrument)
    return Labels(
        images=images,
        numbers={name: np.asarray(getattr(calibration, name), np.float32) for name in CALIBRATION},
        height_m=np.where(found.mask, found.height_m, 0.0),
        mask=found.mask,
        pixel_size_m=surface.pixel_size_m,
        pixel_size_y_m=surface.pixel_size_y_m,
        tip_radius_m=found.tip_radius_m,
        tip_stated=found.tip_stated,
        placement=found.placement,
        hashes={"frame_xxh3": frame.header.xxh3, "map_sha256": map_sha256},
    )


def correct(surface: HeightMap, afm: HeightMap, tip_radius_m: float | None = None) -> Corrected:
    """The map on the pixels of `surface`, which lies on it.

    The tip goes by erosion (Villarrubia, J. Res. NIST 102, 425, 1997), of a map whose noise is smoothed first: erosion
    would take the lowest of noise. The place is found anew on what is left. An AFM doesn't know how the specimen stands
    before the detector, so the mean plane is the frame's. Raises `BadInput` where the two do not fit each other, where
    the place is not known to 0.3 pixels, and where fewer than a tenth of the pixels can be trusted.
    """
    found = compare(surface, afm, tip_radius_m)
    radius_m = found.probe.tip_radius_m
    true_m, reached, placement = _without_tip(surface, found)
    off_px = placement.sigma_m(surface) / surface.pixel_size_m
    if not off_px <= MOST_MISPLACED_PX:
        raise BadInput(
            f"the frame's place on the map is known to {off_px:.2f} pixels only, the limit for labels is "
            f"{MOST_MISPLACED_PX:g}: {_way_out(found)}fuse more frames, or take a rougher or larger place"
        )
    places = placement.places(surface, afm)
    spacing_m = max(*steps(surface), *steps(afm))
    height_m, inside = resampled(HeightMap(true_m, afm.pixel_size_m, afm.pixel_size_y_m), places, spacing_m)
    doubtful, _ = resampled(HeightMap((~reached).astype(float), afm.pixel_size_m, afm.pixel_size_y_m), places, 0.0)
    mask = inside & (doubtful < 0.5)
    steep = np.hypot(*np.gradient(height_m, surface.pixel_size_y_m, surface.pixel_size_m))
    mask &= (steep < STEEPEST) & _within(mask.shape)
    height_m = _with_plane_of(height_m, surface.height_m, mask)
    mask &= ~_misplaced(height_m, surface, mask, placement)
    share = float(mask.mean())
    if share < LEAST_LABELLED:
        raise BadInput(
            f"only {100 * share:.0f} % of the frame can be labelled: "
            f"{_way_out(found)}give a map of more of it, or a finer one"
        )
    return Corrected(height_m, mask, placement, radius_m, found.probe.tip_stated)


def save_labels(labels: Labels, path: Path) -> None:
    """Write one .npz. `about` in it is JSON: pixel sizes, tip, registration with its standard errors, hashes."""
    placement = labels.placement
    about = {
        "kind": KIND,
        "pixel_size_m": labels.pixel_size_m,
        "pixel_size_y_m": labels.pixel_size_y_m,
        "tip_radius_m": labels.tip_radius_m,
        "tip_stated": labels.tip_stated,
        "hashes": labels.hashes,
        "placement": {name: np.asarray(getattr(placement, name)).tolist() for name in Placement.__dataclass_fields__},
    }
    maps: dict[str, Any] = {name: getattr(labels, name) for name in ("height_m", "mask", "p", "q", "images")}
    numbers: dict[str, Any] = {f"number_{name}": value for name, value in labels.numbers.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **maps, **numbers)


def load_labels(path: Path) -> Labels:
    """Raises `BadInput` for a file that isn't one of `save_labels`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            if about["kind"] != KIND:
                raise ValueError(f"it is {about['kind']!r}, expected {KIND!r}")
            placement: dict[str, Any] = {name: np.asarray(value) for name, value in about["placement"].items()}
            placement |= {name: float(about["placement"][name]) for name in ("height_ratio", "correlation")}
            return Labels(
                images=archive["images"],
                numbers={name: archive[f"number_{name}"] for name in CALIBRATION},
                height_m=archive["height_m"],
                mask=archive["mask"],
                placement=Placement(**placement),
                **{name: about[name] for name in ("pixel_size_m", "pixel_size_y_m", "tip_radius_m", "tip_stated")},
                hashes=about["hashes"],
            )
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} holds no labels ({error}): make them with `eclips label`") from error


def _way_out(found: Comparison) -> str:
    return "" if found.probe.tip_stated else "state the tip's radius, "


def _without_tip(surface: HeightMap, found: Comparison) -> tuple[Floats, NDArray[np.bool_], Placement]:
    """The map without tip and lines, where the tip reached, and the frame's place on it. A tip moves walls outwards,
    and the place with them, and lifts one line more than another; so the lines are those against the frame as the tip
    would touch it, and lines, tip and place are found in turns."""
    map_m, placement, afm = found.afm.height_m, found.placement, found.afm
    pixels_m, radius_m = steps(afm), found.probe.tip_radius_m
    for _ in range(TURNS):
        frame_m, known = resampled(surface, placement.inverse().places(afm, surface), max(*steps(surface), *pixels_m))
        blunt_m = touched(np.where(known, frame_m, frame_m[known].min()), pixels_m, radius_m)
        map_m, _ = without_lines(map_m, blunt_m, known)
        quiet_m = gaussian_filter(map_m, QUIET_PX, mode="nearest")
        true_m = -touched(-quiet_m, pixels_m, radius_m)
        reached = ~_closed(true_m, pixels_m, radius_m) & known
        true = HeightMap(true_m, afm.pixel_size_m, afm.pixel_size_y_m)
        placement = fit_place(surface, true, placement, BLUR_PX, reached) or placement
    return map_m - quiet_m + true_m, reached, placement


def _closed(true_m: Floats, pixels_m: tuple[float, float], radius_m: float) -> NDArray[np.bool_]:
    """Where the tip stood on both sides of what it did not reach: an eroded map bends upwards as sharply as the tip
    there, and nowhere more."""
    bends = (correlate1d(true_m, SECOND, axis, mode="nearest") / pixel_m**2 for axis, pixel_m in enumerate(pixels_m))
    return np.asarray(binary_dilation(np.maximum(*bends) > CLOSED_SHARE / radius_m, iterations=2))


def _within(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    inside[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    return inside


def _with_plane_of(height_m: Floats, surface_m: Floats, mask: NDArray[np.bool_]) -> Floats:
    rows, columns = np.indices(height_m.shape) / max(height_m.shape) - 0.5
    basis = np.stack([np.ones_like(height_m), rows, columns], axis=-1)
    if np.count_nonzero(mask) < 3:
        return height_m
    plane, *_ = np.linalg.lstsq(basis[mask], (surface_m - height_m)[mask], rcond=None)
    return np.asarray(height_m + basis @ plane, np.float64)


def _misplaced(
    height_m: Floats, surface: HeightMap, mask: NDArray[np.bool_], placement: Placement
) -> NDArray[np.bool_]:
    """Where both surfaces lie apart far beyond what is usual, over some pixels, or the place is known too badly for a
    slope there: by more than a quarter of a pixel."""
    apart_m = median_filter(np.where(mask, surface.height_m - height_m, 0.0), RESIDUAL_PX)
    usual_m = MAD_TO_SIGMA * float(np.median(np.abs(apart_m[mask]))) if mask.any() else 0.0
    far = np.abs(apart_m) > RESIDUAL_DEVIATIONS * usual_m
    rows, columns = height_m.shape
    x_m = np.abs(np.arange(columns) - 0.5 * (columns - 1)) * surface.pixel_size_m
    y_m = np.abs(np.arange(rows) - 0.5 * (rows - 1))[:, None] * surface.pixel_size_y_m
    turned = [
        np.sqrt(
            placement.shift_sigma_m[i] ** 2
            + (placement.matrix_sigma[i, 0] * x_m) ** 2
            + (placement.matrix_sigma[i, 1] * y_m) ** 2
        )
        for i in (0, 1)
    ]
    off = np.hypot(*turned) > MOST_MISPLACED_SHARE * surface.pixel_size_m
    return np.asarray(far | off | ~binary_erosion(mask, border_value=1), bool)
