"""A tracked run as one picture: step lines and spirals on the last frame, drift, velocities, and what drives them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.height_map import HeightMap
from inference.metrology.kinetics import TEMPERATURE
from inference.metrology.spirals import Track
from inference.metrology.steps import Steps
from inference.metrology.tracking import Tracked
from service.height_picture import levelled

STEP_COLOUR = "#ffd23f"
SENSE_COLOURS = {"counter-clockwise": "#ff5d5d", "clockwise": "#4cc9f0"}
INK, PALE = "#1d3557", "#a8b5c5"


def draw_track(run: RecordedRun, found: Tracked, path: Path) -> None:
    """Write a PNG (or what else the name's ending asks for). Raises `BadInput` without matplotlib, or where the file
    cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("pictures need matplotlib: pip install 'eclips-live[bench]'") from None
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.45, 1.0))
    assert found.last is not None
    seen = found.seen[-1]
    surface = figure.add_subplot(grid[:, 0])
    shift_px = found.drifts[-1].shift_px
    here = [track for track in found.tracks if track.seen[-1].sequence == seen.sequence]
    draw_surface(surface, found.last.map, seen.steps, here, (float(shift_px[0]), float(shift_px[1])))
    surface.set_title(f"frame {seen.sequence}, {seen.time_s:.1f} s after the first")
    draw_drift(figure.add_subplot(grid[0, 1]), found)
    _draw_velocity(figure.add_subplot(grid[1, 1]), found)
    last = figure.add_subplot(grid[2, 1])
    if found.law is not None:
        draw_arrhenius(last, found)
    else:
        draw_turns(last, found.tracks)
    figure.suptitle(f"{run.path.name}: {run.manifest.model or 'heights'}, levelled by {found.levelling.method}")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Raises `BadInput` where it cannot be written."""
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise BadInput(f"the picture cannot be written to {path}: {error}; name a .png in a folder that is") from None


def draw_surface(axis: Any, map: HeightMap, steps: Steps, tracks: list[Track], shift_px: tuple[float, float]) -> None:
    """The lit surface with its step lines; spirals as rings with an arrow the way the terrace climbs."""
    from matplotlib.colors import LightSource

    height_nm = levelled(map.height_m.astype(np.float32)) * 1e9
    pixel_um = (map.pixel_size_y_m * 1e6, map.pixel_size_m * 1e6)
    low, high = np.percentile(height_nm, (0.3, 99.7))
    lit = LightSource(azdeg=315, altdeg=50).hillshade(
        height_nm, vert_exag=1.0, dx=map.pixel_size_m * 1e9, dy=map.pixel_size_y_m * 1e9
    )
    rows, columns = height_nm.shape
    frame = (0.0, columns * pixel_um[1], rows * pixel_um[0], 0.0)
    shown = axis.imshow(height_nm, cmap="cividis", vmin=low, vmax=high, extent=frame, interpolation="bilinear")
    axis.imshow(lit, cmap="gray", alpha=0.35, extent=frame, interpolation="bilinear")
    for line in steps.lines:
        axis.plot(*(_middle(line.places_px, pixel_um)[:, ::-1].T), color=STEP_COLOUR, linewidth=1.1)
    reach = 0.32 * (steps.spacing_m * 1e6 if math.isfinite(steps.spacing_m) else 0.1 * frame[1])
    for track in tracks:
        row, column = np.add(track.place_px(), shift_px)
        _mark(axis, track, (column + 0.5) * pixel_um[1], (row + 0.5) * pixel_um[0], reach)
    axis.set(xlabel="x in µm", ylabel="y in µm (down)", xlim=frame[:2], ylim=frame[2:])
    axis.figure.colorbar(shown, ax=axis, label="height in nm", shrink=0.75, pad=0.01)


def draw_drift(axis: Any, found: Tracked) -> None:
    """The specimen's way in the view; hollow where it is interpolated."""
    places = np.array([drift.drift_px for drift in found.drifts]) * found.pixel_m * 1e9
    errors = np.array([drift.error_px for drift in found.drifts]) * found.pixel_m * 1e9
    errors = np.where(np.isfinite(errors), errors, 0.0)
    times_s = [drift.time_s for drift in found.drifts]
    axis.errorbar(places[:, 1], places[:, 0], errors[:, 0], errors[:, 1], fmt="none", ecolor=PALE, elinewidth=0.8)
    axis.plot(places[:, 1], places[:, 0], color=INK, linewidth=0.8)
    told = np.array([drift.source != "undetermined" for drift in found.drifts])
    dots = axis.scatter(places[told, 1], places[told, 0], c=np.array(times_s)[told], cmap="plasma", s=22, zorder=3)
    axis.scatter(places[~told, 1], places[~told, 0], facecolors="none", edgecolors=INK, s=26, zorder=3)
    axis.figure.colorbar(dots, ax=axis, label="time in s", pad=0.01)
    sources = [drift.source for drift in found.drifts[1:]]
    by = ", ".join(f"{sources.count(source)} by {source}" for source in dict.fromkeys(sources))
    axis.set(title=f"drift ({by})", xlabel="right in nm", ylabel="down in nm")
    axis.invert_yaxis()
    axis.set_aspect("equal", adjustable="datalim")
    axis.grid(alpha=0.3)


def draw_arrhenius(axis: Any, found: Tracked) -> None:
    """Velocities over 1000 / T, brought to one pressure where a gas varied, with the law and its band."""
    law, series = found.law, found.velocity
    assert law is not None
    kelvin = series.against(TEMPERATURE)
    supply = np.ones_like(kelvin)
    if found.gas:
        supply = (series.partial_pressure_pa(found.gas) / law.usual_pa) ** law.order
    values, errors = series.values / supply * 1e9, series.errors / supply * 1e9
    shown = found.steady & (values > 0)
    line = 1.0 / np.linspace(1.0 / kelvin.min(), 1.0 / kelvin.max(), 100)
    usual_pa = law.usual_pa if found.gas else math.nan
    low, high = law.band(line, usual_pa)
    axis.fill_between(1e3 / line, low * 1e9, high * 1e9, color=PALE, alpha=0.5, linewidth=0)
    axis.plot(1e3 / line, law.at(line, usual_pa) * 1e9, color=INK)
    axis.errorbar(1e3 / kelvin[shown], values[shown], errors[shown], fmt="o", color="#e76f51", markersize=4)
    axis.set_yscale("log")
    told = f", order {law.order:.2f} ± {law.order_error:.2f} in {found.gas}" if found.gas else ""
    axis.set(
        title=f"{law.energy_ev:.3f} ± {law.energy_error_ev:.3f} eV{told}",
        xlabel="1000 K / T",
        ylabel="step velocity in nm/s",
    )
    axis.grid(alpha=0.3, which="both")


def draw_turns(axis: Any, tracks: list[Track]) -> None:
    """How far each spiral's arm has turned."""
    for track in tracks:
        if len(track.seen) < 2:
            continue
        times_s = [one.time_s for one in track.seen]
        turns = [(one.turned_rad - track.seen[0].turned_rad) / (2 * math.pi) for one in track.seen]
        rate, error = track.rotation_rad_per_s()
        told = f"{track.id}, {track.sense}"
        told += "" if math.isnan(rate) else f": {rate:+.3f} ± {error:.3f} rad/s"
        axis.plot(times_s, turns, "o-", color=SENSE_COLOURS[track.sense], markersize=4, label=told)
    axis.set(title="spiral arms (counter-clockwise up)", xlabel="time in s", ylabel="turns")
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend(fontsize="small", loc="upper left")
    else:
        axis.text(0.5, 0.5, "no spiral was followed", ha="center", transform=axis.transAxes)


def _draw_velocity(axis: Any, found: Tracked) -> None:
    series = found.velocity
    axis.errorbar(series.time_s, series.values * 1e9, series.errors * 1e9, fmt="o-", color="#e76f51", markersize=4)
    axis.set(title="step velocity along the normals", xlabel="time in s", ylabel="nm/s")
    axis.grid(alpha=0.3)
    kelvin = series.against(TEMPERATURE)
    if np.isfinite(kelvin).any():
        beside = axis.twinx()
        beside.plot(series.time_s, kelvin, color=INK, linewidth=0.9, linestyle="--")
        beside.set_ylabel("temperature in K (dashed)")
        middle = float(np.nanmean(kelvin))
        reach = max(float(np.nanmax(np.abs(kelvin - middle))) * 1.2, 5.0)
        beside.set_ylim(middle - reach, middle + reach)


def _mark(axis: Any, track: Track, x: float, y: float, reach: float) -> None:
    colour = SENSE_COLOURS[track.sense]
    way = 1.0 if track.sense == "counter-clockwise" else -1.0
    angle = np.linspace(0.0, 1.6 * math.pi, 60)
    ring = np.column_stack([x + reach * np.cos(angle), y - way * reach * np.sin(angle)])
    axis.plot(*ring.T, color=colour, linewidth=2.2)
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "mutation_scale": 18}
    axis.annotate("", ring[-1], ring[-6], arrowprops=arrow)
    axis.plot(x, y, "+", color=colour, markersize=9, markeredgewidth=2)
    label = {"color": "white", "fontsize": 10, "fontweight": "bold"}
    axis.text(x + 1.1 * reach, y - 0.9 * reach, f"{track.id} {track.sense}", **label)


def _middle(places_px: Any, pixel_um: tuple[float, float]) -> Any:
    return (np.asarray(places_px) + 0.5) * pixel_um
