"""A height map to look at: levelled, coloured, lit from the upper left, with scale bar and range."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.pictures import colormap, shrink

LIGHT = np.array([-1.0, -1.0, 1.4]) / math.sqrt(1.0 + 1.0 + 1.4**2)
STEEPEST_DRAWN = 1.5
MARGIN_PX = 14

Range = tuple[float, float]


def levelled(height_m: NDArray[np.float32]) -> NDArray[np.float64]:
    """Less the plane of its median slopes and its median height: a pit or a particle does not tilt what surrounds
    it."""
    height = np.asarray(height_m, np.float64)
    slope_x, slope_y = (np.median(np.diff(height, axis=axis)) for axis in (1, 0))
    rows, columns = height.shape
    flat = height - slope_x * np.arange(columns) - slope_y * np.arange(rows)[:, np.newaxis]
    return np.asarray(flat - np.median(flat), np.float64)


def height_picture(height_m: NDArray[np.float32], pixel_size_m: float, colours: str, max_px: int) -> bytes:
    """PNG bytes. Colours span the 0.2 to 99.8 percentiles, which are written beside the bar."""
    stream = io.BytesIO()
    shaded(height_m, pixel_size_m, colours, max_px).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def shaded(
    height_m: NDArray[np.float32],
    pixel_size_m: float,
    colours: str,
    max_px: int,
    shown: Range | None = None,
    text: str = "",
    marks: bool = True,
) -> Image.Image:
    """Colours span `shown`, lowest to highest metres, or what `common_range` tells of this map; `text` stands at the
    upper left, and `marks` are the scale bar and the range."""
    height = shrink(levelled(height_m).astype(np.float32), max_px)
    pixel_m = pixel_size_m * (height_m.shape[1] // height.shape[1])
    low, high = shown or _range_of([height])
    span = max(high - low, float(np.finfo(np.float32).tiny))
    indices = np.clip((height - low) / span * 255, 0, 255).astype(np.uint8)
    lit = _light(height, pixel_m)
    pixels = np.clip(colormap(colours)[indices] * lit[..., np.newaxis], 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if marks:
        _scale_bar(image, pixel_m)
        _range(image, colours, low, high)
    if text:
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
        right, bottom = draw.textbbox((MARGIN_PX, MARGIN_PX), text, font=font)[2:]
        draw.rectangle((MARGIN_PX - 6, MARGIN_PX - 6, right + 6, bottom + 6), fill=(16, 18, 22))
        draw.text((MARGIN_PX, MARGIN_PX), text, fill=(255, 255, 255), font=font)
    return image


def common_range(heights_m: Iterable[NDArray[np.float32]]) -> Range:
    """One range of levelled heights, in metres, for several maps to be coloured alike."""
    return _range_of([levelled(height_m)[::2, ::2] for height_m in heights_m])


def _range_of(heights: Sequence[NDArray[np.floating]]) -> Range:
    low, high = np.percentile(np.concatenate([height.ravel() for height in heights]), [0.2, 99.8])
    return float(low), float(high)


def _light(height: NDArray[np.float32], pixel_m: float) -> NDArray[np.float64]:
    """Brightness of a matt surface, slopes steeper than can be told apart cut off."""
    q, p = np.gradient(height.astype(np.float64), pixel_m)
    steepest = max(1e-12, float(np.percentile(np.hypot(p, q), 99)))
    p, q = (slope / steepest * min(steepest, STEEPEST_DRAWN) * 1.5 for slope in (p, q))
    normal_dot_light = (-p * LIGHT[0] - q * LIGHT[1] + LIGHT[2]) / np.sqrt(1.0 + p**2 + q**2)
    return np.asarray(0.35 + 0.8 * np.clip(normal_dot_light, 0, None), np.float64)


def _scale_bar(image: Image.Image, pixel_m: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten, about a quarter of the picture wide."""
    wanted_m = 0.25 * image.width * pixel_m
    power = 10.0 ** math.floor(math.log10(wanted_m))
    length_m = max(step * power for step in (1, 2, 5) if step * power <= wanted_m)
    width, base = round(length_m / pixel_m), image.height - MARGIN_PX
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.rectangle((MARGIN_PX - 6, base - 30, MARGIN_PX + width + 6, base + 6), fill=(16, 18, 22))
    draw.rectangle((MARGIN_PX, base - 4, MARGIN_PX + width, base), fill=(255, 255, 255))
    draw.text((MARGIN_PX, base - 26), _metres(length_m), fill=(255, 255, 255), font=font)


def _range(image: Image.Image, colours: str, low_m: float, high_m: float) -> None:
    """A colour bar with its two ends, at the right."""
    tall, right = image.height // 3, image.width - MARGIN_PX
    top = image.height - MARGIN_PX - tall
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.rectangle((right - 98, top - 8, right + 6, top + tall + 6), fill=(16, 18, 22))
    bar = np.repeat(colormap(colours)[::-1][np.linspace(0, 255, tall).astype(int)][:, np.newaxis], 14, axis=1)
    image.paste(Image.fromarray(bar), (right - 14, top))
    draw.text((right - 92, top - 4), _metres(high_m), fill=(255, 255, 255), font=font)
    draw.text((right - 92, top + tall - 16), _metres(low_m), fill=(255, 255, 255), font=font)


def _metres(value_m: float) -> str:
    size = abs(value_m)
    unit, factor = ("nm", 1e9) if size < 1e-6 else ("um", 1e6) if size < 1e-3 else ("mm", 1e3)
    return f"{value_m * factor:.3g} {unit}"
