"""What was measured elsewhere beside a frame: an AFM's map, a cross-section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.afm_files import read_map
from inference.metrology.comparison import Comparison
from inference.metrology.comparison import compare as compare_maps
from inference.metrology.cross_section import CutComparison, compare_cut, read_section
from inference.metrology.height_map import frame_map
from inference.pixel_noise import length
from service.commands.shared import RunArgument, say
from service.comparison_picture import draw_comparison, draw_cut

Tree = dict[str, Any]


def add_to(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    run: RunArgument,
    afm: Annotated[
        Path | None, typer.Option("--afm", help="Height map: .gwy, .gsf, .npz, .tif, makers' AFM files.")
    ] = None,
    section: Annotated[
        Path | None, typer.Option("--section", help="Cross-section: CSV of two columns, headed as x_um,z_nm.")
    ] = None,
    frame: Annotated[int | None, typer.Option("--frame", min=0, help="Sequence number; else the last height.")] = None,
    line: Annotated[
        str | None, typer.Option("--line", help="Where the cross-section lies in the frame: x0,y0,x1,y1 in pixels.")
    ] = None,
    tip_radius: Annotated[
        float | None, typer.Option("--tip-radius", help="Radius of the AFM's tip in metres, where it is known.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw it into this PNG.", dir_okay=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.", dir_okay=False)] = None,
) -> None:
    """Lay a frame over an AFM's map of the same place, found by their heights, and tell what differs; or a
    cross-section (FIB-TEM) over the cut through the frame.

    Example: eclips compare spiral --afm growth.gwy --picture compared.png
    """
    if (afm is None) == (section is None):
        raise BadInput("give one of --afm FILE and --section FILE")
    recorded = RecordedRun(run)
    if not recorded.heights:
        raise BadInput(f"{run} has no heights yet; make them with `eclips reprocess {run}`")
    surface = frame_map(recorded, max(recorded.heights) if frame is None else frame).map
    if afm is not None:
        found = compare_maps(surface, read_map(afm), tip_radius)
        tree, lines = tree_of(found), told(found)
        if picture is not None:
            draw_comparison(found, picture)
    elif section is not None:
        cut = compare_cut(surface.level(), _line(line), *read_section(section))
        tree, lines = _cut_tree(cut), [_cut_told(cut)]
        if picture is not None:
            draw_cut(cut, picture)
    for one in lines:
        say(one)
    if json_file is not None:
        json_file.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    for written in (picture, json_file):
        if written is not None:
            say(f"wrote {written}")


def told(found: Comparison) -> list[str]:
    """The comparison in lines for people."""
    placement, angles = found.placement, found.angles
    x, y = (
        f"{'-' if shift < 0 else ''}{length(abs(shift))} ± {length(sigma)}"
        for shift, sigma in zip(placement.shift_m, placement.shift_sigma_m, strict=True)
    )
    along, across = placement.scale
    lines = [
        f"placed: shift {x} right, {y} down, rotation "
        f"{placement.rotation_deg:.2f}°, scale {along:.4f} x {across:.4f}, shear {placement.shear_deg:.2f}°, "
        f"correlation {placement.correlation:.3f}",
        f"heights: {length(found.rms_m)} rms apart ({100 * found.rms_m / found.relief_m:.1f} % of the relief), "
        f"the frame's are {placement.height_ratio:.3f} of the AFM's; shared: {100 * found.known.mean():.0f} % of the "
        "map",
    ]
    if angles is None:
        lines.append("step angles: fewer than five bends to measure on")
    else:
        lines.append(
            f"step angles: the frame turns by {angles.deviation_deg:+.2f}° more than the AFM's {angles.turn_deg:.1f}° "
            f"(median of {len(angles.afm_deg)} bends, scatter {angles.scatter_deg:.2f}°)"
        )
    return [*lines, found.probe.statement()]


def tree_of(found: Comparison) -> Tree:
    """The comparison's figures, SI units and degrees, for programs."""
    placement, angles, probe = found.placement, found.angles, found.probe
    return {
        "shift_m": placement.shift_m.tolist(),
        "shift_sigma_m": placement.shift_sigma_m.tolist(),
        "rotation_deg": placement.rotation_deg,
        "scale": list(placement.scale),
        "shear_deg": placement.shear_deg,
        "correlation": placement.correlation,
        "height_ratio": placement.height_ratio,
        "difference_rms_m": found.rms_m,
        "relief_m": found.relief_m,
        "shared": float(found.known.mean()),
        "step_angle_deviation_deg": None if angles is None else angles.deviation_deg,
        "step_angle_scatter_deg": None if angles is None else angles.scatter_deg,
        "bends": 0 if angles is None else len(angles.afm_deg),
        "afm_line_offset_m": probe.line_offset_m,
        "afm_noise_m": probe.noise_m,
        "tip_radius_m": probe.tip_radius_m,
        "tip_stated": probe.tip_stated,
        "tip_effect_m": probe.tip_effect_m,
    }


def _line(text: str | None) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(part) for part in (text or "").split(","))
    except ValueError:
        raise BadInput(f"--line {text!r}: name the cut's two ends in the frame, as --line 20,256,490,256") from None
    return x0, y0, x1, y1


def _cut_told(cut: CutComparison) -> str:
    return (
        f"section: {length(cut.rms_m)} rms from the cut over {1e6 * (cut.distance_m[-1] - cut.distance_m[0]):.3g} "
        f"µm, {1e9 * cut.shift_m:+.1f} nm along the line, both levelled alike"
    )


def _cut_tree(cut: CutComparison) -> Tree:
    return {"difference_rms_m": cut.rms_m, "shift_m": cut.shift_m, "points": len(cut.distance_m)}
