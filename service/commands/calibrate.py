"""What the instrument is really like: its numbers from frames, and whether frames agree with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from acquisition.errors import BadInput
from acquisition.instrument import load_instrument
from acquisition.recording import RecordedRun
from inference.refinement.identifiability import in_words
from inference.registry import DEFAULT_MODEL
from inference.rotated_pair import compare_rotated
from inference.segment_score import score_segments
from service import wiring
from service.calibrating import Asked, Made, calibrate_runs
from service.calibration_book import CalibrationBook, write_whole
from service.checking import consistency_of
from service.commands.new_recordings import InstrumentFile
from service.commands.shared import AsJson, Config, say, say_json
from service.settings import load_settings

if TYPE_CHECKING:
    from inference.refinement.calibrated import Iteration

HISTORY = "calibrations"


def add_to(app: typer.Typer) -> None:
    app.command()(calibrate)
    app.command()(check)


def calibrate(
    out: Annotated[Path, typer.Option("--out", help="Instrument file to write; its history lies beside it.")],
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of recorded runs of still scenes.")] = None,
    instrument: InstrumentFile = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            help="What a run shows: flat:tilt_x=10deg, grating:pitch=2um,depth=200nm, vickers:, map:FILE; "
            "with several runs NAME=flat:... ."
        ),
    ] = None,
    dark: Annotated[Path | None, typer.Option(help="Run of beam-blanked frames.", exists=True, file_okay=False)] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Run of two or more frames of a still scene.", exists=True, file_okay=False)
    ] = None,
    prior: Annotated[
        list[str] | None, typer.Option(help="NAME=SIGMA, of the value for gains and distances; 0 holds a number.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames averaged of each run.")] = 8,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG of how it converged.", dir_okay=False)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document per line: each step, then the result.")
    ] = False,
) -> None:
    """Find gains, dark levels, rotation, offset, working distance and effects from frames, with standard errors.

    Ordinary frames pin rotation and relative gains, a known sample the scale, beam-blanked frames the dark levels, and
    frames of a still scene the counts per electron; what these cannot tell is said. Needs the extra `train`.

    Example: eclips calibrate grating rough --sample grating=grating:pitch=2um,depth=200nm --dark dark --out mine.toml
    """
    paths = tuple(runs or ())
    asked = Asked(paths, _samples(sample or [], paths), dark, pairs, _sigmas(prior or []), frames)
    base = None if instrument is None else load_instrument(instrument)
    if as_json:
        made = calibrate_runs(asked, base, lambda one: say(json.dumps(_step(one))))
    else:
        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            made = calibrate_runs(asked, base, lambda one: live.update(_table(one), refresh=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = CalibrationBook(out.parent / HISTORY).add(made.instrument)
    write_whole(out, made.instrument.to_toml())
    if picture is not None and made.fit is not None:
        from service.calibration_picture import draw_calibration  # matplotlib is an extra

        draw_calibration(made.fit, picture)
    if as_json:
        say(json.dumps({"result": kept.tree()}))
        return
    _say_made(made)
    say(f"wrote {out}, calibration {kept.id}; kept in {kept.path.parent}")
    if picture is not None:
        say(f"wrote {picture}" if made.fit is not None else "no picture: nothing was fitted")


def check(
    run: Annotated[Path, typer.Argument(help="Folder of a recorded run.", exists=True, file_okay=False)],
    turned: Annotated[
        Path | None, typer.Argument(help="The same place with the specimen turned by 180 degrees.", file_okay=False)
    ] = None,
    instrument: InstrumentFile = None,
    frame: Annotated[
        int | None, typer.Option("--frame", min=0, help="Sequence number; the first if not given.")
    ] = None,
    config: Config = None,
    model: Annotated[str, typer.Option("--model", help="Model set for heights; see `eclips models`.")] = DEFAULT_MODEL,
    as_json: AsJson = False,
) -> None:
    """Whether frames agree with the instrument file, without any truth: each segment predicted from the others.

    Also told: the residual against the band that noise and calibration leave it, and the cycle: the height, its image
    by BSESM, and the height seen in that. A smooth answer would pass the cycle alone: judge it by all three. With a
    second run of the specimen turned by 180 degrees, what turns with it is surface and what doesn't is the
    instrument's error: the two are told apart.

    Example: eclips check run0 run180 --instrument mine.toml
    """
    first = RecordedRun(run)
    base = None if instrument is None else load_instrument(instrument)
    number = frame if frame is not None else next(iter(first.sequences), 0)
    seen, used = first.read_frame(number), base or first.instrument
    score = score_segments(seen, used)
    consistency = consistency_of(seen, used, wiring.pipeline(load_settings(config), model))
    tree: dict[str, Any] = {
        "frame": number,
        "reduced_chi2": dict(zip(score.names, score.reduced_chi2, strict=True)),
        "consistency": consistency.tree(),
    }
    if turned is not None:
        second = RecordedRun(turned)
        other = second.read_frame(next(iter(second.sequences), 0))
        pair = compare_rotated(seen, other, used)
        tree["rotated"] = pair.tree()
    if as_json:
        say_json(tree)
        return
    say(f"{run}, frame {number}: each segment predicted from the others, reduced chi² (1: to the noise)")
    for name, value in zip(score.names, score.reduced_chi2, strict=True):
        say(f"  {name:10s} {value:.3g}")
    say(f"  {score.verdict}")
    for line in consistency.in_words():
        say(line)
    if turned is not None:
        say(f"against {turned}, turned by 180 degrees:")
        for line in pair.in_words():
            say(f"  {line}")


def _samples(texts: list[str], runs: tuple[Path, ...]) -> dict[str, str]:
    names = {path.name for path in runs}
    found: dict[str, str] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        if name in names:
            found[name] = rest
        elif len(runs) == 1:
            found[runs[0].name] = text
        else:
            raise BadInput(
                f"--sample {text!r} does not say which run shows it: write NAME={text}, NAME of {sorted(names)}"
            )
    return found


def _sigmas(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value.removesuffix("%")) * (0.01 if value.endswith("%") else 1.0)
        except ValueError:
            raise BadInput(f"--prior {text!r} must be NAME=SIGMA, such as working_distance_m=2%") from None
        if not 0 <= found[name] < float("inf"):
            raise BadInput(f"--prior {text!r}: a standard deviation must be 0 or above")
    return found


def _step(one: Iteration) -> dict[str, Any]:
    return {"step": one.number, "values": one.values, "sigmas": one.sigmas, "reduced_chi2": one.reduced_chi2}


def _table(one: Iteration) -> Table:
    told = ", ".join(f"{name} {value:.3g}" for name, value in one.reduced_chi2.items())
    table = Table(title=f"step {one.number}, reduced chi²: {told}")
    for heading in ("parameter", "value", "standard error"):
        table.add_column(heading)
    for label, value in one.values.items():
        table.add_row(label, f"{value:.6g}", f"{one.sigmas[label]:.2g}")
    return table


def _say_made(made: Made) -> None:
    record = made.instrument.calibration
    assert record is not None
    if made.fit is None:
        for label, number in record.parameters.items():
            say(f"{label:28s} {number.value:.6g} ± {number.sigma:.2g}")
        return
    for finding in made.fit.findings:
        pinned = record.parameters[finding.label].identifiable and not finding.identifiable
        say(f"{finding.label:28s} {finding.value:.6g} ± {finding.sigma:.2g}" if pinned else in_words(finding))
    for name, value in record.reduced_chi2.items():
        say(f"{name}: reduced chi² {value:.3g}")
    if record.residual_band is not None:
        low, high = record.residual_band
        say(f"residuals of its frames: {low:.3g} to {high:.3g} of what noise alone leaves; live, beyond is an alarm")
    for note in record.notes:
        say(f"note: {note}")
