"""Arrays as people and programs want them: PNG to look at, TIFF with its pixel size, NPY as it is."""

from __future__ import annotations

import io
from typing import Any

import cmap
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from acquisition.errors import BadInput

COLORMAPS = ("gray", "viridis", "inferno", "cividis", "batlow")


def colormap(name: str) -> NDArray[np.uint8]:
    """(256, 3) RGB. Raises `BadInput` for an unknown name."""
    if name not in COLORMAPS:
        raise BadInput(f"colour map {name!r} is unknown; known: {', '.join(COLORMAPS)}")
    table = cmap.Colormap(name)(np.linspace(0.0, 1.0, 256))
    return np.asarray(np.round(np.asarray(table)[:, :3] * 255), np.uint8)


def png(image: NDArray[Any], colours: str = "viridis") -> bytes:
    """An image (H, W), stretched between its 0.5 and 99.5 percentiles. NaN is drawn as the lowest value."""
    values = np.nan_to_num(np.asarray(image, np.float32), nan=float(np.nanmin(image)))
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    stream = io.BytesIO()
    Image.fromarray(colormap(colours)[(scaled * 255).astype(np.uint8)]).save(stream, "PNG")
    return stream.getvalue()


def label_png(labels: NDArray[Any]) -> bytes:
    """Whole numbers (H, W) as grey values, each as it is: of 8 bits, or of 16 where one is above 255."""
    stream = io.BytesIO()
    Image.fromarray(labels.astype(np.uint16 if labels.max(initial=0) > 255 else np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def side_by_side(images: NDArray[Any]) -> NDArray[Any]:
    """(S, H, W) segments as one picture, two rows where there are four."""
    if len(images) == 4:
        return np.vstack([np.hstack(list(images[:2])), np.hstack(list(images[2:]))])
    return np.hstack(list(images))


def tiff(images: NDArray[Any], pixel_size_m: float) -> bytes:
    """One page per image, with the pixel size in the resolution tags."""
    stream = io.BytesIO()
    pixels_per_cm = 0.01 / pixel_size_m
    tifffile.imwrite(
        stream,
        images,
        photometric="minisblack",
        resolution=(pixels_per_cm, pixels_per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def shrink(images: NDArray[Any], max_px: int) -> NDArray[Any]:
    """(..., H, W) reduced by an integer factor, by area averaging, until neither side is above `max_px`; of a side
    shorter than the factor one pixel remains."""
    height, width = images.shape[-2:]
    factor = max(1, -(-max(height, width) // max_px))
    if factor == 1:
        return images
    down, across = min(factor, height), min(factor, width)
    rows, columns = height // down, width // across
    # Adding up rows, then columns, is a dozen times quicker than a mean over two axes of blocks.
    summed = np.zeros((*images.shape[:-2], rows, width), np.float32)
    for row in range(down):
        summed += images[..., row : rows * down : down, :]
    total = np.zeros((*images.shape[:-2], rows, columns), np.float32)
    for column in range(across):
        total += summed[..., column : columns * across : across]
    shrunk: NDArray[Any] = (total / (down * across)).astype(images.dtype)
    return shrunk
