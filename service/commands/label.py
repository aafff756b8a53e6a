"""`eclips label`: an AFM's map of the same place as truth for one recorded frame, to train on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.afm_files import read_map
from inference.metrology.height_map import HeightMap, frame_map
from inference.metrology.labels import MOST_MISPLACED_PX, Labels, save_labels
from inference.metrology.labels import label as make_labels
from service.commands.shared import RunArgument, say


def add_to(app: typer.Typer) -> None:
    app.command()(label)


def label(
    run: RunArgument,
    afm: Annotated[Path, typer.Option("--afm", help="Height map: .gwy, .gsf, .npz, .tif, makers' AFM files.")],
    out: Annotated[Path, typer.Option("--out", help="File of labels to write (.npz).", dir_okay=False)],
    frame: Annotated[int | None, typer.Option("--frame", min=0, help="Sequence number; else the last height.")] = None,
    tip_radius: Annotated[
        float | None, typer.Option("--tip-radius", help="Radius of the AFM's tip in metres, else a blind estimate.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw it into this PNG.", dir_okay=False)] = None,
) -> None:
    """Lay an AFM's map over a frame, take out its scan lines and its tip, and write heights and slopes to train on.

    What can't be trusted is masked: walls that no tip reaches, places that the two don't agree on, borders.

    Example: eclips label spiral --afm growth.gwy --tip-radius 10e-9 --out spiral-labels.npz
    """
    recorded = RecordedRun(run)
    if not recorded.heights:
        raise BadInput(f"{run} has no heights yet; make them with `eclips reprocess {run}`")
    sequence = max(recorded.heights) if frame is None else frame
    surface = frame_map(recorded, sequence).map
    digest = hashlib.sha256(afm.read_bytes()).hexdigest() if afm.is_file() else ""
    seen = recorded.read_frame(sequence)
    labels = make_labels(seen, surface, read_map(afm), recorded.instrument, digest, tip_radius)
    save_labels(labels, out)
    for line in told(labels):
        say(line)
    if picture is not None:
        from service.labels_picture import draw_labels  # matplotlib is an extra

        draw_labels(labels, surface, picture)
        say(f"wrote {picture}")
    say(f"wrote {out}; train on it with `eclips train slopes --labels {out}`")


def told(labels: Labels) -> list[str]:
    """The labels in lines for people."""
    placement = labels.placement
    x_nm, y_nm = placement.shift_m * 1e9
    sigma_nm = placement.shift_sigma_m * 1e9
    frame = HeightMap(labels.height_m, labels.pixel_size_m, labels.pixel_size_y_m)
    off_px = placement.sigma_m(frame) / labels.pixel_size_m
    turn_deg = float(np.degrees(0.5 * np.hypot(*(placement.matrix_sigma[place] for place in ((0, 1), (1, 0))))))
    return [
        f"frame on map: shift {x_nm:.1f} ± {sigma_nm[0]:.1f} nm right, {y_nm:.1f} ± {sigma_nm[1]:.1f} nm down, "
        f"rotation {placement.rotation_deg:.2f} ± {turn_deg:.2f}°, shear {placement.shear_deg:.2f}°, "
        f"correlation of slopes {placement.correlation:.3f}",
        f"pixels misplaced by {off_px:.2f} pixels rms (limit {MOST_MISPLACED_PX:g})",
        f"tip radius {1e9 * labels.tip_radius_m:.3g} nm ({'stated' if labels.tip_stated else 'blind estimate'}); "
        f"{100 * labels.mask.mean():.0f} % of the frame labelled",
    ]
