"""What the four faces of an imprint show of their detector: brightness relative to the flat, and noise against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from service.benchmarks.imprint import FACE_DEPTHS, FACE_HALF_WIDTH_DEG, RING_M, commonest_modulo_90

PATCH_PX, APART_PX = 8, 3
SATURATED_COUNTS, FEW_SATURATED = 65535, 2e-3
TEXTURE_SHARE = 0.03
"""What scratches add to a patch's variance, as far as it differs from face to face."""
LEAST_PATCHES, LEAST_FIELDS = 4, 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FaceSignals:
    """By segment (S,), of levels relative to that of the flat around the imprint: `swing`, the amplitude of the first
    harmonic over the four faces, and `mean`, what they are brighter on average. In counts: the flat's `level` and noise
    `variance`, and `growth` of variance with level, with its standard error."""

    swing: Floats
    mean: Floats
    level: Floats
    variance: Floats
    growth: Floats
    growth_sigma: Floats

    @property
    def shot_limit(self) -> Floats:
        """(S,) signal over level if all noise was the electrons': more signal would be less noisy on dark faces."""
        return self.variance / (self.growth * self.level)


def face_signals(images: NDArray[np.uint16], height_px: Floats, binned: int, pixel_m: float) -> FaceSignals:
    """Of whole frames (S, H, W), with the height map of the same frame `binned` times coarser, whose pixels are
    `pixel_m`. Levels are medians, which saturation of less than half a face leaves alone; fields with saturated pixels
    tell nothing of the noise. Raises `BadInput` where fewer than three fields do."""
    fields = _fields(height_px, pixel_m)
    level, variance, sigma, kept = (np.zeros((len(images), len(fields))) for _ in range(4))
    for place, field in enumerate(fields):
        rows, columns = (PATCH_PX // binned * np.argwhere(_whole(field, PATCH_PX // binned))).T
        if len(rows) < LEAST_PATCHES:
            raise BadInput(f"a face has {len(rows)} patches of {PATCH_PX} pixels, {LEAST_PATCHES} are needed")
        for segment, image in enumerate(images.astype(np.float64)):
            starts = zip(binned * rows, binned * columns, strict=True)
            patches = np.stack([image[y : y + PATCH_PX, x : x + PATCH_PX] for y, x in starts])
            across = patches[:, :, APART_PX:] - patches[:, :, :-APART_PX]
            each = ((across[:, 1:] - across[:, :-1]) ** 2).mean(axis=(1, 2)) / 4.0
            level[segment, place], variance[segment, place] = np.median(patches), each.mean()
            sigma[segment, place] = np.hypot(each.std() / np.sqrt(len(each)), TEXTURE_SHARE * each.mean())
            kept[segment, place] = (patches >= SATURATED_COUNTS).mean() < FEW_SATURATED
    relative = level[:, :4] / level[:, 4:] - 1.0
    swing = np.hypot(relative[:, 0] - relative[:, 2], relative[:, 1] - relative[:, 3]) / 2.0
    lines = [_line(*one) for one in zip(level, variance, sigma, kept > 0, strict=True)]
    at_flat, growth, growth_sigma = np.array(lines).T
    return FaceSignals(swing, relative.mean(axis=1), level[:, 4], at_flat, growth, growth_sigma)


def _fields(height_px: Floats, pixel_m: float) -> list[NDArray[np.bool_]]:
    """The four faces in turn, and the flat on a ring around them."""
    level = height_px - np.median(height_px)
    row, column = np.unravel_index(int(np.argmin(level)), level.shape)
    y, x = np.mgrid[: level.shape[0], : level.shape[1]]
    radius_m = np.hypot(y - row, x - column) * pixel_m
    q, p = np.gradient(level)
    azimuth_deg = np.degrees(np.arctan2(-q, p)) % 360.0
    deep = (level < FACE_DEPTHS[0] * level.min()) & (level > FACE_DEPTHS[1] * level.min())
    on_faces = deep & (radius_m < 0.5 * RING_M[0])
    first_deg = commonest_modulo_90(azimuth_deg[on_faces])
    turned = [(azimuth_deg - first_deg - 90.0 * face + 180.0) % 360.0 - 180.0 for face in range(4)]
    return [
        *(on_faces & (np.abs(off) < FACE_HALF_WIDTH_DEG) for off in turned),
        (radius_m > RING_M[0]) & (radius_m < RING_M[1]),
    ]


def _whole(field: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Blocks of `side` x `side` pixels that lie in the field as a whole."""
    rows, columns = (size // side for size in field.shape)
    blocks = field[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(blocks.all(axis=(1, 3)))


def _line(level: Floats, variance: Floats, sigma: Floats, kept: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Variance at the flat's level, which is the last, its growth with the level, and the standard error of that."""
    if kept.sum() < LEAST_FIELDS:
        raise BadInput(f"only {kept.sum()} of {len(kept)} fields are unsaturated: noise against signal needs three")
    design = np.column_stack([np.ones(int(kept.sum())), (level - level[-1])[kept]])
    weight = sigma[kept, None] ** -2.0
    spread = np.linalg.inv(design.T @ (weight * design))
    found = spread @ (design.T @ (weight[:, 0] * variance[kept]))
    misfit = float((weight[:, 0] * (variance[kept] - design @ found) ** 2).sum()) / (int(kept.sum()) - 2)
    return float(found[0]), float(found[1]), float(np.sqrt(spread[1, 1] * max(misfit, 1.0)))
