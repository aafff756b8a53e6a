"""Recorded runs: check, mend, reconstruct and draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from acquisition.errors import BadInput
from acquisition.instrument import load_instrument
from acquisition.recording import RecordedRun
from acquisition.recording import repair as repair_run
from acquisition.recording import verify as verify_run
from acquisition.recording.verification import Verification, name_spans
from inference.fused_pipeline import FusedPipeline
from inference.pipeline import Pipeline
from inference.reprocess import Reconstruction, Reprocessed
from inference.reprocess import reprocess as reprocess_run
from service import wiring
from service.commands.new_recordings import InstrumentFile, import_images, simulate
from service.commands.shared import AsJson, Config, RunArgument, progress_bar, say, say_json
from service.height_picture import height_picture
from service.pictures import COLORMAPS
from service.settings import load_settings


class Method(StrEnum):
    """How `eclips reprocess` reconstructs."""

    network = "network"
    classical = "classical"
    map = "map"


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_images)
    for command in (simulate, verify, repair, reprocess, picture):
        app.command()(command)


def verify(run: RunArgument, as_json: AsJson = False) -> None:
    """Check every checksum and count of a run; ends with status 1 when something is wrong.

    Example: eclips verify ~/eclips-runs/2026-11-21T10-22-05-000_run
    """
    _tell(run, verify_run(run), as_json)


def repair(run: RunArgument, as_json: AsJson = False) -> None:
    """Cut torn tails, rebuild what can be rebuilt, say what is lost.

    Example: eclips repair ~/eclips-runs/2026-11-21T10-22-05-000_run
    """
    found = repair_run(run)
    if not as_json:
        say(f"{run}: {_holds(found)}; status {RecordedRun(run).manifest.status}")
        for mended in found.mended or ("nothing had to be mended",):
            say(f"  {mended}")
        for finding in found.findings:
            say(f"  still: {finding}")
    else:
        _tell(run, found, as_json)


def reprocess(
    run: RunArgument,
    config: Config = None,
    method: Annotated[
        Method, typer.Option("--method", help="network: the settings' model set; classical; map: slow, most exact.")
    ] = Method.network,
    model: Annotated[str | None, typer.Option("--model", help="Model set; see `eclips models`.")] = None,
    instrument: InstrumentFile = None,
    fuse: Annotated[
        int, typer.Option("--fuse", min=0, max=1024, help="Fuse so many frames, drift taken out; below 2 none.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Reconstruct a recording again; where truth is there, print the errors.

    `map` fits each height to the electrons through the forward model, from the model set's answer, and says why it
    stopped; it needs the extra `train` and some seconds to minutes a frame. With `--fuse 16` each height is made of
    up to sixteen frames that lie before it.

    Example: eclips reprocess spiral --method map
    """
    if method is Method.classical and model not in (None, "classical"):
        raise BadInput(f"--method classical is the model set classical, not {model!r}: leave one of the two out")
    if method is Method.map and fuse > 1:
        raise BadInput("--method map fits the electrons of one frame, not of several: leave out --fuse")
    pipeline = wiring.pipeline(load_settings(config), "classical" if method is Method.classical else model)
    chosen = None if instrument is None else load_instrument(instrument)
    with progress_bar("reconstructing") as progress:
        used = _reconstruction(method, pipeline, fuse, as_json)
        done = reprocess_run(run, used, progress, chosen)
    if as_json:
        say_json(_reprocessed_tree(done))
        return
    say(f"{run}: {done.frames} heights, {used.model} on {used.provider}, {done.seconds_per_frame:.3f} s each")
    for name, value in done.figures.items():
        say(f"  {name:24s} {value:.4g}")
    for told in done.estimated:
        say(f"  estimated from the frames: {told}")
    if done.accuracy:
        say("  against the truth, per frame and mean:")
        for sequence, accuracy in done.accuracy.items():
            say(f"  frame {sequence:5d}  {_errors_line(asdict(accuracy))}")
        say(f"  mean         {_errors_line(_mean_errors(done))}")


def picture(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.", dir_okay=False)],
    frame: Annotated[int, typer.Option("--frame", min=0, help="Sequence number of the frame.")] = 0,
    colours: Annotated[str, typer.Option("--colours", help=f"Colour map: {', '.join(COLORMAPS)}.")] = "viridis",
    size: Annotated[int, typer.Option(min=64, max=8192, help="Longest side in pixels at most.")] = 1024,
) -> None:
    """Draw a height map of a run, levelled on its surroundings, with scale bar and height range.

    Example: eclips picture spiral --frame 3 --out spiral.png
    """
    recorded = RecordedRun(run)
    header = recorded.heights[frame].header if frame in recorded.heights else None
    pixel_size_m = header.pixel_size_m if header else recorded.manifest.pixel_size_m
    out.write_bytes(height_picture(recorded.read_height(frame), pixel_size_m, colours, size))
    say(f"wrote {out}")


def _reconstruction(method: Method, pipeline: Pipeline, fuse: int, as_json: bool) -> Reconstruction:
    if method is Method.map:
        return _map(pipeline, as_json)
    return FusedPipeline(pipeline, fuse) if fuse > 1 else pipeline


def _map(pipeline: Pipeline, as_json: bool) -> Reconstruction:
    try:
        from inference.refinement.reconstruction import MapReconstruction
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `train`") from error
    return MapReconstruction(pipeline, tell=lambda line: None if as_json else say(line))


def _errors_line(errors: Mapping[str, float]) -> str:
    slope_deg, height_m, share = errors["slope_error_deg"], errors["height_error_m"], errors["height_error_over_std"]
    return f"slope {slope_deg:6.3f} deg   height {height_m:.3e} m   {100 * share:6.2f} % of std"


def _mean_errors(done: Reprocessed) -> dict[str, float]:
    errors = [asdict(accuracy) for accuracy in done.accuracy.values()]
    return {name: sum(error[name] for error in errors) / len(errors) for name in errors[0]}


def _reprocessed_tree(done: Reprocessed) -> dict[str, object]:
    tree: dict[str, object] = {
        "frames": done.frames,
        "seconds_per_frame": done.seconds_per_frame,
        "figures": done.figures,
        "estimated": list(done.estimated),
    }
    if done.accuracy:
        tree["mean_errors"] = _mean_errors(done)
    return tree


def _tell(run: Path, found: Verification, as_json: bool) -> None:
    if as_json:
        tree = {"ok": found.ok, "frames": found.frames, "heights": found.heights, "findings": list(found.findings)}
        tree["ended"] = found.ended
        say_json(tree | ({"mended": list(found.mended)} if found.mended else {}))
    else:
        say(f"{run}: {_holds(found)}, {'all sound' if found.ok else 'NOT sound'}")
        if found.ended:
            say(f"  ended: {found.ended}")
        for finding in found.findings:
            say(f"  {finding}")
    raise typer.Exit(0 if found.ok else 1)


def _holds(found: Verification) -> str:
    named = f" ({name_spans(found.sequences)})" if found.sequences else ""
    return f"{found.frames} frames{named}, {found.heights} heights"
