"""A dry run's timeline as a picture: temperature, pressure, and what was set, on one time axis with marks."""

from __future__ import annotations

from pathlib import Path

from acquisition.errors import BadInput
from acquisition.recipes.steps import MOL_PER_S_PER_SCCM
from acquisition.rehearsal import Timeline

UNITS = {
    "temperature_k": ("temperature in K", 1.0),
    "pressure_pa": ("pressure in Pa", 1.0),
    "current_target_a": ("laser current in A", 1.0),
    "flow_setpoint_mol_per_s": ("flow in sccm", 1.0 / MOL_PER_S_PER_SCCM),
}
COLOURS = {"mark": "tab:gray", "recipe_timeout": "tab:orange"}
"""Of the lines at events; alarms have one too."""


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Write a PNG (or what else the name's ending asks for). Raises `BadInput` without matplotlib, or where the file
    cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("pictures need matplotlib: pip install 'eclips-live[bench]'") from None
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(len(UNITS), 1, sharex=True)
    for axis, (quantity, (label, factor)) in zip(axes, UNITS.items(), strict=True):
        for channel, (times_s, values) in timeline.channels.items():
            name, _, its = channel.partition(".")
            if its == quantity:
                shown = [float("nan") if value is None else factor * value for value in values]
                axis.plot(times_s, shown, label=name)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(loc="upper right", fontsize="small")
        for told in timeline.events:
            if told.name in COLOURS or told.severity == "alarm":
                axis.axvline(told.time_s, color=COLOURS.get(told.name, "tab:red"), linewidth=0.8, linestyle="--")
    axes[0].margins(y=0.15)
    for told in timeline.events:
        if told.name == "mark":
            axes[0].annotate(told.text, (told.time_s, axes[0].get_ylim()[1]), fontsize="small", va="top")
    axes[-1].set_xlabel("time in s")
    how = f" at {timeline.reason}" if timeline.reason else ""
    figure.suptitle(f"dry run of {timeline.name}: {timeline.state}{how}", wrap=True)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"the picture cannot be written to {path}: {error}; name a .png in a folder that is") from None
