"""The surface as pictures: the last height large, and key frames side by side."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

from inference.metrology.height_map import frame_map
from service.height_picture import Range, common_range, levelled, shaded
from service.pictures import shrink, side_by_side
from service.report.facts import Facts
from service.report.numbers import duration, told
from service.report.plots import Curve, plot
from service.report.section import Section


def surface(facts: Facts) -> Section:
    """The last height, large, with what was recorded how."""
    recorded, last = facts.recorded, facts.keys[-1]
    found = frame_map(recorded, last)
    header, manifest = recorded.frames[last].header, recorded.manifest
    rows, columns = found.map.height_m.shape
    wide, tall = columns * found.map.pixel_size_m, rows * found.map.pixel_size_y_m
    taken_s = facts.seconds(max(frame.header.monotonic_ns for frame in recorded.frames.values()))
    tiles = (
        ("frames", f"{len(recorded.frames)}", f"{len(recorded.heights)} with heights"),
        ("duration", duration(taken_s), manifest.status),
        ("field of view", f"{told(wide, 'm')} × {told(tall, 'm')}", f"{columns} × {rows} pixels"),
        ("pixel", told(found.map.pixel_size_m, "m"), f"dwell time {told(header.optics.dwell_time_s, 's')}"),
        ("beam", told(header.optics.landing_energy_ev, "eV"), f"at {told(header.optics.working_distance_m, 'm')}"),
        ("relief", told(float(np.ptp(levelled(found.map.height_m.astype(np.float32)))), "m"), "lowest to highest"),
    )
    shown = "".join(f"<div><dt>{escape(a)}</dt><dd>{b}</dd><small>{escape(c)}</small></div>" for a, b, c in tiles)
    picture = _height(found.map.height_m.astype(np.float32), found.map.pixel_size_m, 860)
    x_m = np.arange(columns) * found.map.pixel_size_m
    curves = []
    for name, number in (("first", facts.keys[0]), ("last", last)):
        flat = levelled(recorded.read_height(number))
        curves.append(Curve(name, np.asarray(1e6 * x_m, np.float64), flat[rows // 2]))
    profile = plot("Profile along the middle row", "m", curves if len(facts.keys) > 1 else curves[1:], "µm")
    segments = recorded.read_frame(last).images
    gray = np.asarray(shrink(side_by_side(segments), 560), np.float32)
    low, high = np.percentile(gray, [0.5, 99.5])
    grays = np.clip((gray - low) / max(high - low, 1.0) * 255, 0, 255).astype(np.uint8)
    names = ", ".join(escape(name) for name in manifest.segment_names)
    body = (
        f'<dl class="tiles">{shown}</dl><div class="hero"><figure><img src="{picture}" alt="height map">'
        f"<figcaption>Height of frame {last}, levelled by its median slopes; lit from the upper left, colours from the "
        "0.2 to the 99.8 percentile.</figcaption></figure><div>"
        f'{profile}<figure><img src="{_jpeg(Image.fromarray(grays))}" alt="segment images"><figcaption>The segments it '
        f"was made from{', two in a row' if len(segments) == 4 else ''}: {names}.</figcaption></figure></div></div>"
    )
    return Section("Surface", "", body)


def evolution(facts: Facts) -> Section | None:
    """Key frames coloured alike."""
    if len(facts.keys) < 2:
        return None
    recorded = facts.recorded
    shown = common_range(recorded.read_height(number) for number in facts.keys)
    figures: list[str] = []
    for number in facts.keys:
        header = recorded.frames[number].header
        seconds = facts.seconds(header.monotonic_ns)
        picture = _height(recorded.read_height(number), header.optics.pixel_size_m, 560, shown, not figures)
        figures.append(
            f'<figure><img src="{picture}" alt="frame {number}">'
            f"<figcaption><b>{duration(seconds) if seconds else '0 s'}</b> · frame {number}</figcaption></figure>"
        )
    low, high = (told(edge, "m") for edge in shown)
    about = (
        f"Heights from {low} to {high} in all, each levelled alike; scale bar and colours in the first hold for all."
    )
    return Section("Evolution", about, f'<div class="strip">{"".join(figures)}</div>')


def _height(
    height_m: NDArray[np.float32], pixel_m: float, side_px: int, shown: Range | None = None, marks: bool = True
) -> str:
    """A small map is enlarged first, so that what is written on it stays as large as on others."""
    factor = max(1, side_px // max(height_m.shape))
    large = zoom(height_m, factor, order=1, mode="nearest", grid_mode=True) if factor > 1 else height_m
    return _jpeg(shaded(large, pixel_m / factor, "viridis", side_px, shown, marks=marks))


def _jpeg(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
