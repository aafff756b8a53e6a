"""A growing crystal as one figure: its frames, spiral, facet and crossed steps, and what was measured on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.crossings import Crossing
from inference.metrology.steps import Steps
from service.height_picture import common_range, shaded
from service.spiral_readout import PROFILE_WIDTH_PX, SAME_ANGLE_DEG, TOP, Look, Readout, Side
from service.track_picture import INK, PALE, draw_surface, draw_turns, save

SHOWN = 8
FRAME_PX = 512
ANGLED = "#e63946"
FACET = "#2a9d8f"
ARM_PX = 26.0
MARKED = 3
NM = 1e9


def draw_spiral(run: RecordedRun, read: Readout, path: Path) -> None:
    """Write the figure. Raises `BadInput` without matplotlib, or where it cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("figures need matplotlib: pip install 'eclips-live[bench]'") from None
    figure = Figure(figsize=(16, 11.6))
    chosen = read.found.seen[:SHOWN]
    frames = figure.add_gridspec(1, len(chosen), left=0.04, right=0.985, bottom=0.785, top=0.96, wspace=0.05)
    _draw_frames([figure.add_subplot(frames[0, n]) for n in range(len(chosen))], run, read)
    main = figure.add_gridspec(1, 1, left=0.045, right=0.55, bottom=0.19, top=0.735)
    _draw_crystal(figure.add_subplot(main[0]), read)
    panels = figure.add_gridspec(2, 2, left=0.6, right=0.985, bottom=0.215, top=0.72, wspace=0.25, hspace=0.42)
    _draw_profile(figure.add_subplot(panels[0, 0]), read.looks[-1].side)
    _draw_angles(figure.add_subplot(panels[0, 1]), read)
    _draw_directions(figure.add_subplot(panels[1, 0]), read.looks[-1])
    turns: Any = figure.add_subplot(panels[1, 1])
    draw_turns(turns, read.found.tracks)
    turns.set_title("")
    _title(turns, "f", "turns of the spiral's arm")
    if turns.get_legend():
        turns.get_legend().remove()
    figure.text(0.045, 0.14, "\n".join(read.lines()), va="top", fontsize=12, linespacing=1.55)
    save(figure, path)


def _draw_frames(axes: list[Any], run: RecordedRun, read: Readout) -> None:
    chosen = read.found.seen[: len(axes)]
    heights = [run.read_height(seen.sequence) for seen in chosen]
    shown, pixel_m = common_range(heights), read.found.pixel_m[1]
    for axis, seen, height_m in zip(axes, chosen, heights, strict=True):
        axis.imshow(np.asarray(shaded(height_m, pixel_m, "cividis", FRAME_PX, shown, marks=False)))
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{seen.time_s:.0f} s", fontsize=11)
    low, high = (NM * edge for edge in shown)
    axes[0].set_title("a", loc="left", fontsize=12, fontweight="bold")
    axes[0].set_xlabel(f"{1e6 * pixel_m * heights[0].shape[1]:.2f} µm wide, {low:.0f} to {high:.0f} nm", loc="left")


def _title(axis: Any, letter: str, told: str) -> None:
    axis.set_title(f"$\\bf{{{letter}}}$   {told}", loc="left", fontsize=11)


def _draw_crystal(axis: Any, read: Readout) -> None:
    found, look = read.found, read.looks[-1]
    assert found.last is not None
    shift_px = found.drifts[-1].shift_px
    here = [track for track in found.tracks if track.seen[-1].sequence == found.seen[-1].sequence]
    draw_surface(axis, found.last.map, look.steps, here, (float(shift_px[0]), float(shift_px[1])))
    pixel_um = (1e6 * found.pixel_m[0], 1e6 * found.pixel_m[1])
    if look.side is not None:
        rows, columns = look.side.inside.shape
        x, y = (np.arange(columns) + 0.5) * pixel_um[1], (np.arange(rows) + 0.5) * pixel_um[0]
        axis.contourf(x, y, look.side.inside, levels=[0.5, 1.5], colors=[FACET], alpha=0.45)
        (x0, y0), (x1, y1) = look.side.line_px
        ends = np.array([[x0, y0], [x1, y1]]) + 0.5
        axis.plot(ends[:, 0] * pixel_um[1], ends[:, 1] * pixel_um[0], color="white", linewidth=2.2)
        angle = _angle(look.side.named.external_deg, look.side.named.sigma_deg)
        told = f"{look.side.named.family} beside {{{TOP}}}:\nexternal angle {angle}"
        _tell(axis, told, (0.03 * columns * pixel_um[1], 0.93 * rows * pixel_um[0]), FACET)
    usual = read.crossing_deg()[0]
    near = [one for one in look.crossed if abs(one.angle_deg - usual) < SAME_ANGLE_DEG and _well_inside(one, look)]
    scatter = float(np.std([one.angle_deg for one in near])) if near else math.nan
    for crossing in _apart(sorted(near, key=lambda one: abs(one.angle_deg - usual)))[:MARKED]:
        _mark(axis, crossing, scatter, pixel_um)
    _title(axis, "b", f"{look.time_s:.0f} s: step lines, spiral, facet and crossed steps")


def _well_inside(crossing: Crossing, look: Look) -> bool:
    rows, columns = look.steps.shape
    row, column = crossing.place_px
    return 3 * ARM_PX < row < rows - 3 * ARM_PX and 3 * ARM_PX < column < columns - 3 * ARM_PX


def _apart(crossings: list[Crossing]) -> list[Crossing]:
    """Those whose marks do not cover each other, in their order."""
    chosen: list[Crossing] = []
    for one in crossings:
        if all(math.dist(one.place_px, other.place_px) > 4.0 * ARM_PX for other in chosen):
            chosen.append(one)
    return chosen


def _mark(axis: Any, crossing: Crossing, scatter_deg: float, pixel_um: tuple[float, float]) -> None:
    """Both steps through the place, and the angle between them as an arc; its uncertainty is at least the scatter of
    its kind, for a step is not quite straight."""
    centre = (np.array(crossing.place_px) + 0.5) * pixel_um
    first, second = (math.radians(azimuth) for azimuth in crossing.azimuths_deg)
    reach = ARM_PX * pixel_um[1]
    # A step runs at right angles to where it falls; the wide angle lies between the one's left and the other's right.
    ways = (first - 0.5 * math.pi, second + 0.5 * math.pi)
    for way in ways:
        axis.plot(
            centre[1] + reach * np.array([0.0, math.cos(way)]),
            centre[0] - reach * np.array([0.0, math.sin(way)]),
            color=ANGLED,
            linewidth=2.4,
        )
    turn = (ways[1] - ways[0]) % (2 * math.pi)
    start, wide = (ways[0], turn) if turn <= math.pi else (ways[1], 2 * math.pi - turn)
    arc = start + np.linspace(0.0, wide, 40)
    axis.plot(centre[1] + 0.6 * reach * np.cos(arc), centre[0] - 0.6 * reach * np.sin(arc), color=ANGLED, linewidth=1.6)
    middle = start + 0.5 * wide
    place = (centre[1] + 2.0 * reach * math.cos(middle), centre[0] - 2.0 * reach * math.sin(middle))
    _tell(axis, _angle(crossing.angle_deg, max(crossing.sigma_deg, scatter_deg)), place, ANGLED, "center")


def _tell(axis: Any, text: str, place: tuple[float, float], colour: str, across: str = "left") -> None:
    box = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.3", "alpha": 0.92}
    axis.text(*place, text, color="#111111", fontsize=10, ha=across, va="center", bbox=box, clip_on=True)


def _draw_profile(axis: Any, side: Side | None) -> None:
    _title(axis, "c", "height across the facet (white line)")
    if side is None or side.line is None:
        axis.text(0.5, 0.5, "no facet beside the top", ha="center", transform=axis.transAxes)
        return
    profile = side.line.profile
    x, z = NM * profile.distance_m, NM * (profile.height_m - profile.height_m.max())
    sigma = np.nan_to_num(NM * profile.sigma_m)
    axis.fill_between(x, z - sigma, z + sigma, color=PALE, linewidth=0)
    axis.plot(x, z, color=INK, linewidth=1.4)
    edge = side.edge
    if edge is not None:
        for part in (edge.before, edge.behind):
            middle, half = 0.5 * NM * (part.from_m + part.to_m), 0.65 * NM * (part.to_m - part.from_m)
            reach = np.array([-half, half])
            rise = float(np.interp(middle, x, z)) + reach * math.tan(math.radians(part.inclination_deg))
            axis.plot(middle + reach, rise, "--", color=ANGLED, linewidth=1.2)
        told = f"tangents meet at {_angle(edge.external_deg, edge.sigma_deg)}"
        axis.text(0.97, 0.93, told, color=ANGLED, ha="right", va="top", transform=axis.transAxes)
    axis.set(xlabel=f"distance in nm, mean over {PROFILE_WIDTH_PX} pixels across", ylabel="height in nm")
    axis.set_aspect("equal", adjustable="datalim")
    axis.margins(y=0.15)
    axis.grid(alpha=0.3)


def _draw_angles(axis: Any, read: Readout) -> None:
    """Frame by frame, beside what the crystal's faces make."""
    facets = [
        (look.time_s, look.side.named.external_deg, look.side.named.sigma_deg) for look in read.looks if look.side
    ]
    usual = read.crossing_deg()[0]
    crossed = [
        (look.time_s, one.angle_deg, one.sigma_deg)
        for look in read.looks
        for one in look.crossed
        if abs(one.angle_deg - usual) < SAME_ANGLE_DEG
    ]
    for values, colour, mark, told in (
        (crossed, ANGLED, ".", "crossed steps"),
        (facets, FACET, "s", "facet beside top"),
    ):
        if values:
            times_s, angles, sigmas = np.array(values).T
            axis.errorbar(times_s, angles, sigmas, fmt=mark, color=colour, markersize=5, elinewidth=1.0, label=told)
    if facets:
        expected = 180.0 - next(look.side.named.expected_deg for look in read.looks if look.side)
        axis.axhline(expected, color=INK, linewidth=0.9, label=f"crystal, {expected:.1f}°")
    _title(axis, "d", "angles, frame by frame")
    axis.set(xlabel="time in s", ylabel="degrees")
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small", loc="best")


def _draw_directions(axis: Any, look: Look) -> None:
    """How much length of steps falls to each side."""
    middles, share = _directions(look.steps)
    axis.bar(middles, 100.0 * share, width=2.0, color=INK)
    _title(axis, "e", "where steps fall to")
    axis.set(xlabel="degrees, 0 right, 90 up in the image", ylabel="% of length", xlim=(0, 360))
    axis.set_xticks(range(0, 361, 45))
    axis.grid(alpha=0.3)


def _directions(steps: Steps) -> tuple[Any, Any]:
    normal = steps.downhill()
    azimuth = np.degrees(np.arctan2(-normal[:, 0], normal[:, 1])) % 360.0
    counts, edges = np.histogram(azimuth, 180, (0.0, 360.0))
    return 0.5 * (edges[1:] + edges[:-1]), counts / max(int(counts.sum()), 1)


def _angle(value: float, sigma: float) -> str:
    return f"{value:.1f} ± {sigma:.1f}°" if sigma >= 0.095 else f"{value:.2f} ± {sigma:.2f}°"
