"""What stands in a report, each part as HTML; one that has nothing to tell is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.report.facts import Facts
from service.report.looks import evolution, surface
from service.report.motion import motion
from service.report.numbers import NONE, digits, named, told
from service.report.plots import Curve, constant, plot
from service.report.section import Section

MOST_EVENTS = 150
MOST_PLOTS = 24
ON_OFF = ("scanning", "moving", "emission", "interlock")
AREAL = {
    "sa_m": ("Sa", "arithmetic mean height", "m", 1.0),
    "sq_m": ("Sq", "root mean square height", "m", 1.0),
    "ssk": ("Ssk", "skewness", "", 1.0),
    "sku": ("Sku", "kurtosis", "", 1.0),
    "sp_m": ("Sp", "highest peak", "m", 1.0),
    "sv_m": ("Sv", "deepest pit", "m", 1.0),
    "sz_m": ("Sz", "greatest height", "m", 1.0),
    "sdq": ("Sdq", "rms gradient", "", 1.0),
    "sdr": ("Sdr", "developed area over flat", "%", 100.0),
    "sal_m": ("Sal", "autocorrelation length", "m", 1.0),
    "str_": ("Str", "texture aspect ratio", "", 1.0),
}
FIGURES = {
    "consistency_residual": "rms of images against those re-rendered from the height, in expected noise: 1 where all "
    "is explained",
    "rejected_share": "share of pixels that were left out",
    "sigma_slope": "standard uncertainty of a slope from the dose, median",
    "slope_misfit": "rms of slopes that no height explains",
    "height_range_m": "0.5 to 99.5 % of the pixels",
}
TRENDS = ("sq_m", "sz_m", "sdq", "sal_m")


def texture(facts: Facts) -> Section:
    """Areal parameters with their scatter from frame to frame."""
    found = facts.texture
    seconds = np.array([facts.seconds(facts.recorded.frames[n].header.monotonic_ns) for n in found.sequences])
    rows = []
    for name, (symbol, words, unit, factor) in AREAL.items():
        if name not in found.values:
            continue
        values, scatter = factor * found.values[name], found.scatter[name]
        sigma = None if scatter is None else factor * scatter
        cells = (told(float(values[0]), unit, sigma), told(float(values[-1]), unit, sigma))
        mean = told(float(np.nanmean(values)), unit) if np.isfinite(values).any() else NONE
        rows.append(f"<tr><th>{symbol}</th><td>{words}</td><td>{cells[0]}</td><td>{cells[1]}</td><td>{mean}</td></tr>")
    heads = "", "", f"first (frame {found.sequences[0]})", f"last (frame {found.sequences[-1]})", "mean"
    heading = "".join(f"<th>{head}</th>" for head in heads)
    table = f"<table class='numbers'><thead><tr>{heading}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    plots, groups = "", neighbours(found.sequences)
    if len(groups) > 2:
        middles = np.array([seconds[group].mean() for group in groups])
        root = np.sqrt([len(group) for group in groups])
        for name in TRENDS:
            if name in found.values:
                symbol, words, unit, _ = AREAL[name]
                scatter = found.scatter[name]
                values = np.array([found.values[name][group].mean() for group in groups])
                band = None if scatter is None else scatter / root
                curve = Curve("", middles, values, band)
                plots += plot(f"{symbol}, {words}", unit, [curve], "time / s")
    about = (
        f"ISO 25178-2, of {len(found.sequences)} of {len(facts.recorded.heights)} heights less their mean plane, "
        "without a filter. ± and bands: scatter from frame to frame, from differences of neighbours, in which slow "
        "change does not count; curves are means of neighbours where not all were measured. Autocorrelation down to "
        "0.2; a dash where half the map is too short for it."
    )
    return Section("Areal texture", about, f'{table}<div class="plots">{plots}</div>')


def neighbours(sequences: Sequence[int]) -> list[NDArray[np.intp]]:
    """Places in `sequences` whose frames follow each other, where only some of a run's were measured; each frame of its
    own where all were."""
    parts = np.split(np.arange(len(sequences)), np.flatnonzero(np.diff(sequences) != 1) + 1)
    return parts if len(parts) > 1 else [np.array([place]) for place in range(len(sequences))]


def conditions(facts: Facts) -> Section | None:
    """State against time; what never changed as a line of words."""
    plots, still = [], []
    marks = [(facts.seconds(event.monotonic_ns), event.severity, event.text) for event in facts.recorded.events]
    for name, (seconds, values) in facts.sampled().items():
        words, unit = named(name)
        if name.rpartition(".")[2] in ON_OFF and constant(values):
            still.append(f"{escape(words)} <b>{'on' if values[0] else 'off'}</b>")
        elif constant(values):
            still.append(f"{escape(words)} <b>{told(float(values[np.isfinite(values)][0]), unit)}</b>")
        elif np.isfinite(values).any():
            plots.append(plot(words, unit, [Curve("", seconds, values)], "time / s", marks))
    if not plots and not still:
        return None
    unchanged = f'<p class="still">Unchanged: {" · ".join(still)}.</p>' if still else ""
    body = f'<div class="plots">{"".join(plots[:MOST_PLOTS])}</div>{unchanged}'
    return Section("Conditions", "Readings of the devices. Dashed lines: events.", body)


def quality(facts: Facts) -> Section:
    """Figures of every height; errors against the truth of a simulation."""
    figures = facts.figures()
    plots = "".join(
        plot(words, unit, [Curve("", numbers, values)], "frame")
        for name, (numbers, values) in figures.items()
        for words, unit in [named(name)]
        if len(numbers) > 1 and not constant(values)
    )
    rows = "".join(
        f"<tr><th>{escape(words)}</th><td>{FIGURES.get(name, '')}</td><td>{told(float(np.nanmean(values)), unit)}</td>"
        f"<td>{told(float(np.nanstd(values)), unit)}</td></tr>"
        for name, (_, values) in figures.items()
        for words, unit in [named(name)]
        if np.isfinite(values).any()
    )
    body = (
        "<table class='numbers'><thead><tr><th>figure</th><th>what it tells</th><th>mean</th>"
        "<th>standard deviation</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    if facts.accuracy:
        errors = "".join(
            f"<tr><th>frame {number}</th><td>{told(found.slope_error_deg, '°')}</td>"
            f"<td>{told(found.height_error_m, 'm')}</td><td>{digits(100 * found.height_error_over_std, 3)} %</td></tr>"
            for number, found in facts.accuracy.items()
        )
        body += (
            "<h3>Against the simulation's truth</h3><table class='numbers'><thead><tr><th></th><th>rms angle</th>"
            f"<th>rms height</th><th>of the relief's deviation</th></tr></thead><tbody>{errors}</tbody></table>"
        )
    about = "What each reconstruction tells of itself, over all heights."
    return Section("Quality of the heights", about, f'{body}<div class="plots">{plots}</div>')


def models(facts: Facts) -> Section:
    """Which networks made the heights."""
    seen: dict[tuple[str, str], tuple[int, Mapping[str, str], tuple[str, ...]]] = {}
    for height in facts.recorded.heights.values():
        header = height.header
        count, _, _ = seen.get((header.model, header.provider), (0, {}, ()))
        seen[header.model, header.provider] = (count + 1, header.model_hashes, header.estimated)
    rows = []
    for (model, provider), (count, hashes, estimated) in seen.items():
        parts = "".join(f"<div><b>{escape(part)}</b> <code>{escape(sha)}</code></div>" for part, sha in hashes.items())
        notes = "".join(f"<div>estimated from the frames: {escape(told_)}</div>" for told_ in estimated)
        rows.append(
            f"<tr><th>{escape(model)}</th><td>{count} heights on {escape(provider)}</td><td>{parts}{notes}</td></tr>"
        )
    about = "SHA-256 of each graph that ran."
    return Section("Models", about, f"<table>{''.join(rows)}</table>")


def settings(facts: Facts) -> Section:
    """The instrument file as it was."""
    tree: dict[str, Any] = facts.recorded.instrument.model_dump(mode="json")
    groups, tables = [], []
    for group, entries in tree.items():
        segments = entries.pop("segments", ()) if isinstance(entries, dict) else ()
        groups.append(f"<div><h3>{escape(group)}</h3><table>{_entries(entries)}</table></div>")
        if segments:
            names = list(segments[0])
            rows = "".join(
                f"<tr><th>{escape(' '.join(filter(None, named(name)[:1])))}</th>"
                f"{''.join(f'<td>{_value(name, one[name])}</td>' for one in segments)}</tr>"
                for name in names
            )
            tables.append(f"<div><h3>segments</h3><table class='numbers'>{rows}</table></div>")
    hashes = dict.fromkeys(frame.header.optics.calibration_hash for frame in facts.recorded.frames.values())
    about = f"The instrument file; its hash <code>{escape(', '.join(hashes))}</code> is in every frame."
    return Section("Instrument and calibration", about, f'<div class="groups">{"".join(groups)}</div>{"".join(tables)}')


def events(facts: Facts) -> Section | None:
    """What happened, in order."""
    found = facts.recorded.events
    if not found:
        return None
    rows = "".join(
        f"<tr><td>{time.strftime('%H:%M:%S', time.gmtime(event.utc_ns / 1e9))}</td>"
        f"<td>{facts.seconds(event.monotonic_ns):.2f} s</td>"
        f"<td><i class='{escape(event.severity)}'></i>{escape(event.name)}</td><td>{escape(event.text)}</td></tr>"
        for event in found[:MOST_EVENTS]
    )
    more = f"<p>and {len(found) - MOST_EVENTS} more in the journal</p>" if len(found) > MOST_EVENTS else ""
    return Section("Events", "Times in UTC, and since the first frame.", f"<table>{rows}</table>{more}")


def _entries(entries: Any) -> str:
    if not isinstance(entries, dict):
        return f"<tr><td>{escape(str(entries))}</td></tr>"
    return "".join(
        f"<tr><th>{escape(named(name)[0])}</th><td>{_value(name, value)}</td></tr>" for name, value in entries.items()
    )


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return told(float(value), named(name)[1])
    return NONE if value is None or value == [] else escape(str(value))


SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    surface,
    evolution,
    texture,
    conditions,
    motion,
    quality,
    models,
    settings,
    events,
)
