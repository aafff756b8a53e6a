"""What tracking a run found, as one JSON document beside the run's files, with what it was computed from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from inference.metrology.kinetics import CONFIDENCE, TEMPERATURE, TOTAL_PRESSURE
from inference.metrology.spirals import Track
from inference.metrology.tracking import Seen, Tracked, track_run
from inference.metrology.volume import Levelling

FILE = "track.json"
FORMAT = 1


def track_and_store(
    path: Path, levelling: Levelling, progress: Callable[[int, int], None]
) -> tuple[Tracked, dict[str, Any]]:
    """Track the run at `path` and keep what was found in it. Raises `BadInput` where it cannot be tracked."""
    run = RecordedRun(path)
    found = track_run(run, levelling, progress)
    tree = track_tree(run, found)
    being_written = path / f".{FILE}.{os.getpid()}"
    being_written.write_text(json.dumps(tree, indent=1) + "\n", "utf-8")
    being_written.replace(path / FILE)
    return found, tree


def stored_track(path: Path) -> dict[str, Any]:
    """What was kept; `current` tells whether frames and heights are still those it was computed from. Raises `BadInput`
    where there is none, or where it cannot be read."""
    try:
        tree = json.loads((path / FILE).read_text("utf-8"))
        computed = tree["computed_from"]
    except FileNotFoundError:
        raise BadInput(
            f"run {path.name} has not been tracked: use `eclips track` or POST /runs/{path.name}:track"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{FILE} of run {path.name} cannot be read ({error}): track the run again") from None
    return dict(tree) | {"current": computed == computed_from(RecordedRun(path))}


def computed_from(run: RecordedRun) -> dict[str, Any]:
    """Hashes over the recorded checksums of all frames and heights, and the models that made the heights."""
    frames, heights = xxhash.xxh3_64(), xxhash.xxh3_64()
    for sequence, frame in run.frames.items():
        frames.update(f"{sequence}:{frame.header.xxh3}\n".encode())
    for sequence, height in sorted(run.heights.items()):
        heights.update(f"{sequence}:{height.xxh3}\n".encode())
    return {
        "frames_xxh3": frames.hexdigest(),
        "heights_xxh3": heights.hexdigest(),
        "models": sorted({height.header.model for height in run.heights.values()}),
    }


def track_tree(run: RecordedRun, found: Tracked) -> dict[str, Any]:
    """SI units throughout; what is not known is null."""
    law = found.law
    levelling = found.levelling
    tree = {
        "format": FORMAT,
        "run_id": run.path.name,
        "computed_from": computed_from(run),
        "pixel_size_m": found.pixel_m[1],
        "pixel_size_y_m": found.pixel_m[0],
        "levelling": {
            "method": levelling.method,
            "regions": [[region.x, region.y, region.width, region.height] for region in levelling.regions],
        },
        "frames": [_frame_tree(seen) | {"drift": _drift_tree(found, number)} for number, seen in enumerate(found.seen)],
        "step_velocity": {
            "time_s": found.velocity.time_s,
            "value_m_per_s": found.velocity.values,
            "error_m_per_s": found.velocity.errors,
            "temperature_k": found.velocity.against(TEMPERATURE),
            "pressure_pa": found.velocity.against(TOTAL_PRESSURE),
        },
        "spirals": [_spiral_tree(track) for track in found.tracks],
        "growth": {
            "refused": found.no_growth or None,
            "mean_m_per_s": [float(np.nanmean(one.rate_m_per_s)) for one in found.growth],
            "volume_m3": [one.volume_m3 for one in found.growth],
            "volume_error_m3": [one.volume_error_m3 for one in found.growth],
        },
        "kinetics": {"undetermined": found.no_law}
        if law is None
        else {
            "energy_ev": law.energy_ev,
            "energy_error_ev": law.energy_error_ev,
            "rate_m_per_s": law.rate,
            "at_k": law.usual_k,
            "gas": found.gas or None,
            "order": law.order if found.gas else None,
            "order_error": law.order_error if found.gas else None,
            "confidence_of_band": CONFIDENCE,
        },
        "resolution": {"undetermined": "no two neighbouring frames show the same surface at rest"}
        if found.still is None
        else {
            "half_bit_m": found.still.half_bit_m,
            "fixed_0.143_m": found.still.fixed_m,
            "two_pixels_m": found.still.nyquist_m,
        },
    }
    plain: dict[str, Any] = _plain(tree)
    return plain


def _frame_tree(seen: Seen) -> dict[str, Any]:
    kinds = [kind for kind, _ in seen.looks]
    return {
        "sequence": seen.sequence,
        "time_s": seen.time_s,
        "step_lines": len(seen.steps.lines),
        "looks": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "step_height_m": seen.step_height_m[0],
        "step_height_error_m": seen.step_height_m[1],
        "step_height_from": "height map" if seen.fitted is None else "images",
        "step_height_on_map_m": seen.steps.height_m,
        "step_spacing_m": seen.steps.spacing_m,
        "step_density_per_m": seen.steps.density_per_m,
        "temperature_k": seen.state.get(TEMPERATURE),
        "pressure_pa": seen.state.get(TOTAL_PRESSURE),
        "spiral_cores": len(seen.spirals),
    }


def _drift_tree(found: Tracked, number: int) -> dict[str, Any]:
    """Metres right and down."""
    drift = found.drifts[number]
    (down, right), (down_error, right_error) = (
        np.multiply(values, found.pixel_m) for values in (drift.drift_px, drift.error_px)
    )
    return {
        "x_m": right,
        "y_m": down,
        "x_error_m": right_error,
        "y_error_m": down_error,
        "told_by": drift.source,
        "reference": drift.reference,
        "images_and_heights_apart_px": drift.apart_px,
    }


def _spiral_tree(track: Track) -> dict[str, Any]:
    rate, error = track.rotation_rad_per_s()
    row, column = track.place_px()
    return {
        "id": track.id,
        "sense": track.sense,
        "row_px": row,
        "column_px": column,
        "pitch_m": track.pitch_m(),
        "pitch_error_m": track.pitch_error_m(),
        "pitch_from": track.pitch_from,
        "arm_spacing_m": track.arm_spacing_m(),
        "rotation_rad_per_s": rate,
        "rotation_error_rad_per_s": error,
        "frames": [one.sequence for one in track.seen],
        "turned_rad": [one.turned_rad for one in track.seen],
    }


def _plain(value: Any) -> Any:
    """For JSON, which knows neither arrays nor what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
