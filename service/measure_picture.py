"""What `eclips measure` measured, as one picture: map with line and facets, profile, kymograph, crystal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.kymograph import Kymograph, StepMotion
from inference.metrology.wulff import wulff_picture
from service.height_picture import levelled
from service.measurements import FacetMeasures, LineMeasures

NM = 1e9


def draw_measures(
    path: Path,
    surface: HeightMap,
    line: LineMeasures | None,
    seen: Kymograph | None,
    motion: StepMotion | None,
    facets: FacetMeasures | None,
) -> None:
    """Write a PNG (or what else the name's ending asks for). Raises `BadInput` without matplotlib, or where the file
    cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("pictures need matplotlib: pip install 'eclips-live[bench]'") from None
    panels = [
        "map",
        *(name for name, part in (("line", line), ("time", seen), ("facets", facets), ("crystal", facets)) if part),
    ]
    figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained")
    axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    _draw_map(axes["map"], surface, line)
    if line is not None:
        _draw_line(axes["line"], line)
    if seen is not None:
        _draw_time(axes["time"], seen, motion)
    if facets is not None:
        _draw_facets(axes["facets"], surface, facets)
        _draw_crystal(axes["crystal"], facets)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise BadInput(f"the picture cannot be written to {path}: {error}; name a .png in a folder that is") from None


def _draw_map(axis: Any, surface: HeightMap, line: LineMeasures | None) -> None:
    height_nm = NM * levelled(surface.height_m.astype(np.float32))
    low, high = np.percentile(height_nm, [0.2, 99.8])
    shown = axis.imshow(height_nm, cmap="viridis", vmin=low, vmax=high, extent=_extent(surface))
    axis.figure.colorbar(shown, ax=axis, label="height in nm", shrink=0.75)
    axis.set(title="height", xlabel="x in nm", ylabel="y in nm")
    if line is not None:
        x, y = line.profile.x_px * surface.pixel_size_m, line.profile.y_px * surface.pixel_size_y_m
        axis.plot(NM * x, NM * y, color="white", linewidth=1.6)


def _draw_line(axis: Any, line: LineMeasures) -> None:
    x, z = NM * line.profile.distance_m, NM * line.profile.height_m
    sigma = np.nan_to_num(NM * line.profile.sigma_m)
    axis.fill_between(x, z - sigma, z + sigma, alpha=0.35, linewidth=0)
    axis.plot(x, z, linewidth=1.3)
    if line.step is not None:
        for part in (*line.step.outer_parts_m, *line.step.inner_parts_m):
            axis.axvspan(NM * part[0], NM * part[1], color="tab:orange", alpha=0.12, linewidth=0)
    for edge in line.edges:
        at = float(np.interp(NM * edge.edge_m, x, z))
        axis.annotate(
            f"{edge.external_deg:.1f}°", (NM * edge.edge_m, at), xytext=(4, 8), textcoords="offset points", fontsize=8
        )
    step = (
        ""
        if line.step is None
        else f"step {NM * line.step.height_m:.2f} ± {NM * line.step.sigma_m:.2f} nm ({line.step.method})"
    )
    axis.set(title=step or "profile", xlabel="distance in nm", ylabel="height in nm")
    axis.margins(y=0.15)


def _draw_time(axis: Any, seen: Kymograph, motion: StepMotion | None) -> None:
    ends = (0.0, NM * seen.distance_m[-1], seen.time_s[-1], seen.time_s[0])
    axis.imshow(NM * seen.height_m, aspect="auto", cmap="viridis", extent=ends, interpolation="nearest")
    axis.set(title="kymograph", xlabel="distance in nm", ylabel="time in s")
    if motion is not None:
        axis.plot(NM * motion.position_m, motion.time_s, ".", color="white", markersize=3)
        axis.set_title(f"{NM * motion.velocity_m_per_s:.3g} ± {NM * motion.sigma_m_per_s:.2g} nm/s")


def _draw_facets(axis: Any, surface: HeightMap, facets: FacetMeasures) -> None:
    """A colour is a direction: its hue is where a face looks, its strength the inclination."""
    from matplotlib.colors import hsv_to_rgb

    picture = np.full((len(facets.found.facets) + 1, 3), (0.0, 0.0, 0.13))
    for facet in facets.found.facets:
        picture[facet.number] = (facet.azimuth_deg / 360.0, min(1.0, facet.inclination_deg / 50.0), 0.9)
    axis.imshow(hsv_to_rgb(picture)[facets.found.labels], extent=_extent(surface), interpolation="nearest")
    names = {one.number: one.family for one in facets.names}
    for facet in facets.found.facets[:16]:
        x, y = facet.centre_px[0] * surface.pixel_size_m, facet.centre_px[1] * surface.pixel_size_y_m
        family = names.get(facet.number, "top")
        told = f"{facet.inclination_deg:.1f}°\n{'' if family == 'undetermined' else family}"
        axis.text(NM * x, NM * y, told, fontsize=7, ha="center", va="center", clip_on=True)
    axis.set(title=f"{len(facets.found.facets)} facets", xlabel="x in nm", yticks=[])


def _draw_crystal(axis: Any, facets: FacetMeasures) -> None:
    found = facets.orientation
    best = found.candidates[0] if found is not None and found.candidates else None
    axis.imshow(np.asarray(wulff_picture(facets.wulff, None if best is None else best.matrix)))
    sure = "orientation undetermined" if best is None or found is None or not found.determined else "as it lies"
    shares = ", ".join(f"{family} {100 * share:.0f} %" for family, share in facets.wulff.shares.items())
    axis.set(title=f"Wulff shape of {facets.crystal.name}, {sure}", xlabel=shares, xticks=[], yticks=[])


def _extent(surface: HeightMap) -> tuple[float, float, float, float]:
    rows, columns = surface.height_m.shape
    x, y = NM * surface.pixel_size_m, NM * surface.pixel_size_y_m
    return (-0.5 * x, (columns - 0.5) * x, (rows - 0.5) * y, -0.5 * y)
