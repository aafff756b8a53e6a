"""`eclips plan`: what an instrument's settings will be able to show, as a table for people or as numbers."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from acquisition.errors import BadInput
from inference.pixel_noise import length
from inference.planner import Feature, Plan
from inference.planner import plan as plan_settings
from service import wiring
from service.commands.shared import AsJson, Config, say, say_json
from service.settings import load_settings

PER_METRE = {"nm": 1e9, "um": 1e6, "µm": 1e6, "μm": 1e6, "mm": 1e3, "m": 1.0}
LENGTH = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([^\W\d]+)\s*", re.IGNORECASE)


def add_to(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    instrument: Annotated[
        Path | None, typer.Option("--instrument", help="Instrument file (TOML).", exists=True, dir_okay=False)
    ] = None,
    terrace: Annotated[str | None, typer.Option(help="Width of a terrace, such as 200nm.")] = None,
    step: Annotated[str | None, typer.Option(help="Height of the step beside it, such as 2nm.")] = None,
    size: Annotated[int | None, typer.Option(min=16, max=8192, help="Frame width and height in pixels.")] = None,
    dose: Annotated[float | None, typer.Option(help="Detected electrons per pixel, summed over segments.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What these settings will be able to show: noise, time, tilt, saturation, and what would be best to change.

    Example: eclips plan --instrument four-quadrant.toml --terrace 200nm --step 2nm
    """
    feature = wanted_feature(terrace, step)
    settings = load_settings(
        config,
        {
            "instrument": None if instrument is None else str(instrument.resolve()),
            "scan": {"width_px": size, "height_px": size},
            "microscope": {"dose": dose},
        },
    )
    shape = (settings.scan.height_px, settings.scan.width_px)
    made = plan_settings(wiring.instrument(settings), feature, shape, settings.microscope.dose)
    if as_json:
        say_json(asdict(made))
    else:
        _print(made)


def wanted_feature(terrace: str | None, step: str | None) -> Feature | None:
    """Raises `BadInput` for half of a feature, and as `metres` does."""
    if terrace is None and step is None:
        return None
    if terrace is None or step is None:
        raise BadInput("--terrace and --step belong together: give both, such as --terrace 200nm --step 2nm")
    return Feature(metres(terrace, "--terrace"), metres(step, "--step"))


def metres(text: str, name: str) -> float:
    """A length with its unit, such as `200nm` or `0.2 µm`. Raises `BadInput` for anything else."""
    found = LENGTH.fullmatch(text)
    per_metre = PER_METRE.get(found[2]) if found else None
    try:
        value = float(found[1]) / per_metre if found and per_metre else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadInput(f"{name} {text!r} is no length above 0 with a unit (nm, um, µm, mm or m): write it as 200nm")
    return value


def _print(made: Plan) -> None:
    console = Console()
    console.print(_figures(made))
    console.print(_advice(made))
    for name, lines in (("warning", made.warnings), ("not known", made.unknown)):
        for line in lines:
            say(f"{name}: {line}")
    if made.feature is not None:
        say(made.feature.in_words)
    best = made.advice[0]
    say(f"Best to change: {best.change}, for {best.gain:.2g} times less noise at equal time ({best.cost}).")


def _figures(made: Plan) -> Table:
    table = Table(title="eclips plan", show_header=False)
    rows, columns = made.shape
    frame = f"{made.frame_time_s:.3g} s for {columns} × {rows} pixels of {length(made.pixel_size_m)}"
    settings = (
        f"{1e9 * made.current_a:.3g} nA, {1e6 * made.dwell_time_s:.3g} µs, {1e3 * made.working_distance_m:.3g} mm"
    )
    emitted = "" if made.emitted is None else f" of {made.emitted:.0f} emitted"
    captured = ", ".join(
        f"{segment.name} {'?' if segment.captured_fraction is None else f'{100 * segment.captured_fraction:.1f} %'}"
        for segment in made.segments
    )
    table.add_row("current, dwell time, working distance", settings)
    table.add_row("frame", frame)
    table.add_row("landing dose", f"{made.primaries_per_nm2:.3g} electrons per nm²")
    table.add_row("electrons per pixel", f"{made.detected:.0f} detected{emitted}")
    table.add_row("captured", captured)
    table.add_row(
        "slope noise per pixel", f"{made.noise.slope_noise_deg:.3g}° (of the normal {made.noise.normal_noise_deg:.3g}°)"
    )
    by_tilt = ", ".join(f"{one.normal_noise_deg:.3g}° at {one.tilt_deg:.0f}°" for one in made.noise_by_tilt[1:])
    table.add_row("  its normal, tilted", by_tilt)
    if made.shadow_free_tilt_deg is not None and made.vision_field_per_relief is not None:
        table.add_row("shadow-free tilt", f"{made.shadow_free_tilt_deg:.1f}°")
        table.add_row("vision field", f"{made.vision_field_per_relief:.3g} µm per µm of relief")
    if made.saturating_dose is not None:
        counts = max(segment.counts or 0.0 for segment in made.segments)
        told = f"level pixel {counts:.0f} of 65535 counts; full from {made.saturating_dose:.0f} detected electrons on"
        table.add_row("saturation", told)
    if made.feature is not None:
        feature = made.feature
        table.add_row(f"tilt noise of a {length(feature.terrace_m)} terrace", f"{feature.tilt_noise_deg:.2g}°")
        noise = f"{length(feature.step_noise_m)}, signal to noise {feature.signal_to_noise:.2g}"
        table.add_row(f"noise of a {length(feature.step_m)} step", noise)
    return table


def _advice(made: Plan) -> Table:
    table = Table(title="one change at a time")
    for heading in ("change", "noise", "gain at equal time", "time", "dose", "costs"):
        table.add_column(heading)
    for one in made.advice:
        figures = (f"× {one.noise_ratio:.2f}", f"{one.gain:.2f} ×", f"{one.time_s:.3g} s", f"× {one.dose_ratio:.2g}")
        table.add_row(one.change, *figures, one.cost)
    return table
