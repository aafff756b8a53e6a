"""A comparison of two height maps as a picture: both, their difference, and profiles over each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import BadInput
from inference.metrology.comparison import Comparison
from inference.metrology.cross_section import CutComparison

COLOURS = ("tab:blue", "tab:orange")
SCALES = ((1e9, "nm", 1e-6), (1e6, "µm", 1e-3), (1e3, "mm", math.inf))

Floats = NDArray[np.float64]


def draw_comparison(
    found: Comparison, path: Path, names: tuple[str, str] = ("frame", "AFM"), peer: tuple[str, Comparison] | None = None
) -> None:
    """Write a PNG (or what else the name's ending asks for). `peer`: another reconstruction of the same frame, drawn
    beside it. Raises `BadInput` without matplotlib, or where the file cannot be written."""
    shown = [(names[0], found), *([] if peer is None else [peer])]
    figure = _figure(4.2 * (2 + len(shown)), 10.4, None)
    above = figure.add_gridspec(1, 2 + len(shown), left=0.05, right=0.95, bottom=0.65, top=0.93, wspace=0.42)
    below = figure.add_gridspec(2, 3, left=0.05, right=0.98, bottom=0.06, top=0.58, wspace=0.28, hspace=0.12)
    levels, differences = _ranges([one for _, one in shown])
    maps = [
        (names[1], found.afm.height_m, found, levels, "viridis"),
        (names[0], found.frame.height_m, found, levels, "viridis"),
    ]
    for name, one in shown:
        told = f"{name} − {names[1]}: {_length(one.rms_m)} rms,\n{100 * one.rms_m / one.relief_m:.1f} % of the relief"
        maps.append((told, one.difference_m, one, differences, "RdBu_r"))
    for number, (title, values, one, reach, colours) in enumerate(maps):
        axis = figure.add_subplot(above[0, number])
        _draw_map(axis, title, np.where(one.known, values, np.nan), one, reach, colours)
    _draw_profiles(figure.add_subplot(below[0, :2]), shown, names[1])
    _draw_rest(figure.add_subplot(below[1, :2]), shown, names[1])
    _draw_angles(figure.add_subplot(below[:, 2]), shown, names[1])
    _save(figure, path)


def draw_cut(found: CutComparison, path: Path) -> None:
    """A section and the cut over each other; raises as `draw_comparison`."""
    figure = _figure(8.0, 3.5)
    axis = figure.subplots()
    axis.plot(found.distance_m * 1e6, found.section_m * 1e9, label="section", color="tab:orange")
    axis.plot(found.distance_m * 1e6, found.cut_m * 1e9, label="cut through the frame", color="tab:blue")
    axis.set(xlabel="along the line in µm", ylabel="height in nm", title=f"{1e9 * found.rms_m:.3g} nm rms apart")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    _save(figure, path)


def _ranges(shown: list[Comparison]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of heights and of differences, so that all maps of a kind are coloured alike."""
    heights = np.concatenate([part.height_m[one.known] for one in shown for part in (one.frame, one.afm)])
    apart = np.concatenate([np.abs(one.difference_m[one.known]) for one in shown])
    low, high = np.percentile(heights, [0.5, 99.5])
    reach = max(float(np.percentile(apart, 99.0)), 1e-15)
    return (float(low), float(high)), (-reach, reach)


def _draw_map(
    axis: Any, title: str, height_m: Floats, found: Comparison, reach: tuple[float, float], colours: str
) -> None:
    rows, columns = (np.flatnonzero(found.known.any(axis=axis)) for axis in (1, 0))
    size_m = (found.afm.pixel_size_y_m, found.afm.pixel_size_m)
    wide_m, tall_m = found.known.shape[1] * size_m[1], found.known.shape[0] * size_m[0]
    across, across_unit = _scale(max(wide_m, tall_m))
    up, up_unit = _scale(max(map(abs, reach)))
    box = (0.0, across * wide_m, across * tall_m, 0.0)
    image = axis.imshow(up * height_m, cmap=colours, vmin=up * reach[0], vmax=up * reach[1], extent=box)
    axis.set_title(title, fontsize="medium", loc="left")
    (top, bottom), (left, right) = (
        (across * size * ends[0], across * size * (ends[-1] + 1))
        for size, ends in zip(size_m, (rows, columns), strict=True)
    )
    axis.set(xlabel=f"x in {across_unit}", ylabel=f"y in {across_unit}", xlim=(left, right), ylim=(bottom, top))
    line = (np.array(found.longest_line()).reshape(2, 2) + 0.5) * np.array(size_m[::-1]) * across
    axis.plot(line[:, 0], line[:, 1], color="black", linewidth=1.0, linestyle=":")
    axis.figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03, label=f"height in {up_unit}")


def _profiles(shown: list[tuple[str, Comparison]]) -> list[tuple[Floats, Floats, Floats]]:
    """All along the same line, the first one's: each covers the AFM's map in its own way."""
    ends = shown[0][1].longest_line()
    return [one.profiles(ends) for _, one in shown]


def _draw_profiles(axis: Any, shown: list[tuple[str, Comparison]], afm: str) -> None:
    profiles = _profiles(shown)
    across, _ = _scale(float(profiles[0][0][-1]))
    up, up_unit = _scale(max(float(np.nanmax(np.abs(heights))) for profile in profiles for heights in profile[1:]))
    axis.plot(across * profiles[0][0], up * profiles[0][2], label=afm, color="black", linewidth=2.2, alpha=0.45)
    for (name, _), (distance_m, frame_m, _), colour in zip(shown, profiles, COLOURS, strict=False):
        axis.plot(across * distance_m, up * frame_m, label=name, color=colour, linewidth=1.1)
    axis.set(ylabel=f"height in {up_unit}")
    axis.set_title("along the dotted line", fontsize="medium", loc="left")
    axis.tick_params(labelbottom=False)
    axis.set_xlim(0.0, across * profiles[0][0][-1])
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", ncols=len(shown) + 1)


def _draw_rest(axis: Any, shown: list[tuple[str, Comparison]], afm: str) -> None:
    """What is left between the profiles."""
    profiles = _profiles(shown)
    across, across_unit = _scale(float(profiles[0][0][-1]))
    up, up_unit = _scale(max(float(np.nanmax(np.abs(frame_m - afm_m))) for _, frame_m, afm_m in profiles))
    for (name, _), (distance_m, frame_m, afm_m), colour in zip(shown, profiles, COLOURS, strict=False):
        told = f"{name}: {_length(float(np.nanstd(frame_m - afm_m)))} rms"
        axis.plot(across * distance_m, up * (frame_m - afm_m), label=told, color=colour, linewidth=1.0)
    axis.axhline(0.0, color="black", linewidth=0.8, alpha=0.45)
    axis.set(xlabel=f"distance in {across_unit}", ylabel=f"less {afm}, in {up_unit}")
    axis.set_xlim(0.0, across * profiles[0][0][-1])
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", ncols=len(shown))


def _draw_angles(axis: Any, shown: list[tuple[str, Comparison]], afm: str) -> None:
    """By how much each turns more than the AFM, over how much the AFM turns; 0 is agreement."""
    for (name, one), colour in zip(shown, COLOURS, strict=False):
        if one.angles is None:
            continue
        told = f"{name}: {one.angles.deviation_deg:+.2f}°, scatter {one.angles.scatter_deg:.2f}°"
        axis.plot(one.angles.afm_deg - 180.0, one.angles.frame_deg - one.angles.afm_deg, ".", color=colour, label=told)
        axis.axhline(0.0, color="black", linewidth=0.8, alpha=0.45)
    axis.set_title("step angles at the same bends (median)", fontsize="medium", loc="left")
    axis.set(xlabel=f"turn of the {afm} (edge above 0, foot below), °", ylabel=f"external angle less the {afm}'s, °")
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small")
    else:
        axis.text(0.5, 0.5, "fewer than five bends", ha="center", transform=axis.transAxes)


def _scale(largest_m: float) -> tuple[float, str]:
    """Factor and unit in which lengths up to that one have one to three digits."""
    return next(((factor, unit) for factor, unit, most in SCALES if largest_m < most), (1e3, "mm"))


def _length(value_m: float) -> str:
    factor, unit = _scale(value_m)
    return f"{factor * value_m:.3g} {unit}"


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("pictures need matplotlib: pip install 'eclips-live[bench]'") from None
    return Figure(figsize=(width, height), layout=layout)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"the picture cannot be written to {path}: {error}; name a .png in a folder that is") from None
