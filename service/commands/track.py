"""What moved in a recorded run: drift, steps, spirals, velocities and kinetics, as figures and as a picture."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.tracking import Tracked, track_run
from inference.metrology.volume import Levelling, parse_region
from service.commands import new_recordings, recordings
from service.commands.shared import RunArgument, progress_bar, say
from service.spiral_figure import draw_spiral
from service.spiral_readout import read_out
from service.track_picture import draw_track
from service.track_store import FILE, track_and_store

NM = 1e9
SPIRAL_SCENE, SPIRAL_FRAMES, SPIRAL_INTERVAL_S, SPIRAL_SETTLE_S = "cu2o-crystal", 8, 5.0, 120.0


class Figure(StrEnum):
    """What `eclips figure` draws."""

    spiral = "spiral"


def add_to(app: typer.Typer) -> None:
    app.command()(track)
    app.command()(figure)


def track(
    run: RunArgument,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="x,y,width,height in pixels of the first frame: a place that does not grow; repeatable."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures there.", dir_okay=False)] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a row per frame there.", dir_okay=False)] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG file to write.", dir_okay=False)] = None,
) -> None:
    """Measure drift, steps, spirals, step velocities and kinetics over all frames of a run.

    What is found is kept in the run as `track.json`. Growth in height and volume needs a `--reference`: slopes know no
    absolute height. Several are taken for parallel terraces, the first for the datum; drift is then told by the first.

    Example: eclips track spiral --picture spiral.png
    """
    levelling = Levelling(tuple(parse_region(text) for text in reference or ()))
    with progress_bar("tracking") as progress:
        found, tree = track_and_store(run, levelling, progress)
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(tree, indent=1) + "\n", "utf-8")
        if csv_file is not None:
            _write_csv(csv_file, found, tree)
    except OSError as error:
        raise BadInput(
            f"{error.filename} cannot be written: {error.strerror}; name a file in a folder that is"
        ) from None
    if picture is not None:
        draw_track(RecordedRun(run), found, picture)
    for line in summary(found):
        say(line)
    say(f"kept in {run / FILE}")


def figure(
    which: Annotated[Figure, typer.Argument(help="spiral: growth of a Cu2O crystal, eight frames 5 s apart.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.", dir_okay=False)],
    run: Annotated[
        Path | None, typer.Option("--run", help="A recorded run with heights, instead of a simulated one.", exists=True)
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model set for a simulated run.")] = None,
) -> None:
    """Simulate, reconstruct, measure and draw, all in one.

    `spiral`: a Cu2O crystal at 1100 K in 121 Pa of hydrogen and oxygen 5:1, with a growth spiral on its {100} top, a
    {110} facet beside that, and steps that cross at 135 degrees below.

    Example: eclips figure spiral --out spiral.png
    """
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            run = Path(folder) / f"cu2o-{which}"
            new_recordings.simulate(
                run, frames=SPIRAL_FRAMES, scene=SPIRAL_SCENE, interval=SPIRAL_INTERVAL_S, settle=SPIRAL_SETTLE_S
            )
            recordings.reprocess(run, model=model)
        recorded = RecordedRun(run)
        with progress_bar("tracking") as progress:
            found = track_run(recorded, progress=progress)
        read = read_out(recorded, found)
        draw_spiral(recorded, read, out)
        for line in read.lines():
            say(line)
    say(f"{out}: written")


def summary(found: Tracked) -> list[str]:
    """The run's motion in a few lines."""
    seconds = found.seen[-1].time_s - found.seen[0].time_s
    drift_m = np.multiply(found.drifts[-1].drift_px, found.pixel_m)
    sources = [drift.source for drift in found.drifts[1:]]
    told_by = ", ".join(f"{sources.count(source)} {source}" for source in dict.fromkeys(sources))
    heights = np.array([seen.step_height_m[0] for seen in found.seen])
    in_images = sum(seen.fitted is not None for seen in found.seen)
    spacings = np.array([seen.steps.spacing_m for seen in found.seen])
    velocity = found.velocity
    known = np.isfinite(velocity.values)
    lines = [
        f"{len(found.seen)} frames over {seconds:.1f} s, levelled by {found.levelling.method}",
        f"  drift      {drift_m[1] * NM:+.2f} nm right, {drift_m[0] * NM:+.2f} nm down at the end ({told_by})",
        f"  steps      {_median(heights) * NM:.2f} nm high, {_median(spacings) * NM:.1f} nm apart "
        f"(height from the images of {in_images} frames)",
    ]
    if known.any():
        spread = float(np.std(velocity.values[known])) * NM
        lines.append(f"  velocity   {_median(velocity.values) * NM:.3f} nm/s downhill, {spread:.3f} between frames")
    else:
        lines.append("  velocity   undetermined: no step was found again from one frame to the next")
    for track in found.tracks:
        if len(track.seen) * 2 < len(found.seen):
            continue
        rate, error = track.rotation_rad_per_s()
        lines.append(
            f"  spiral {track.id:<3d} {track.sense}, pitch {track.pitch_m() * NM:.2f} ± "
            f"{track.pitch_error_m() * NM:.1g} nm ({track.pitch_from}), arms "
            f"{track.arm_spacing_m() * NM:.1f} nm apart, {_rate(rate, error)}, in {len(track.seen)} frames"
        )
    if found.growth:
        volume = sum(one.volume_m3 for one in found.growth)
        error = math.sqrt(sum(one.volume_error_m3**2 for one in found.growth))
        lines.append(f"  growth     {volume * 1e18:.4f} ± {error * 1e18:.4f} µm³ against the reference region")
    else:
        lines.append(f"  growth     refused: {found.no_growth}")
    if found.law is None:
        lines.append(f"  kinetics   undetermined: {found.no_law}")
    else:
        law = found.law
        order = f", order {law.order:.2f} ± {law.order_error:.2f} in {found.gas}" if found.gas else ""
        lines.append(f"  kinetics   {law.energy_ev:.3f} ± {law.energy_error_ev:.3f} eV{order}")
    if found.still is not None:
        lines.append(
            f"  resolution {found.still.half_bit_m * NM:.1f} nm (1/2 bit), {found.still.fixed_m * NM:.1f} nm (0.143); "
            f"two pixels are {found.still.nyquist_m * NM:.1f} nm"
        )
    return lines


def _write_csv(path: Path, found: Tracked, tree: dict[str, Any]) -> None:
    """A row per frame; the velocity is the one that led there from the frame before."""
    velocity = tree["step_velocity"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for number, frame in enumerate(tree["frames"]):
            row = {name: value for name, value in frame.items() if name not in ("drift", "looks")}
            row |= {f"drift_{name}": value for name, value in frame["drift"].items()}
            for name in ("value_m_per_s", "error_m_per_s"):
                row[f"step_velocity_{name}"] = velocity[name][number - 1] if number else None
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)


def _median(values: Any) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _rate(rate: float, error: float) -> str:
    return "rotation undetermined" if math.isnan(rate) else f"turns {rate:+.4f} ± {error:.4f} rad/s"
