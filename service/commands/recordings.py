"""Recorded runs: make them from images or the simulated microscope, check, mend and reconstruct them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from acquisition.clock import SystemClock, VirtualClock
from acquisition.devices import Device, ScanRequest
from acquisition.errors import BadInput
from acquisition.frames import Exposure, JoinedValue
from acquisition.instrument import four_quadrant, load_instrument
from acquisition.lab import Lab
from acquisition.recording import RecordedRun
from acquisition.recording import repair as repair_run
from acquisition.recording import verify as verify_run
from acquisition.recording.offline import record_offline
from acquisition.recording.verification import Verification, name_spans
from acquisition.stamping import optics_of, start_run
from hardware_drivers.catalog import MOL_PER_S_PER_SCCM
from hardware_drivers.tiff.sets import ImageSet, read_image_sets
from inference.fused_pipeline import FusedPipeline
from inference.pipeline import Pipeline
from inference.reprocess import Reconstruction, Reprocessed
from inference.reprocess import reprocess as reprocess_run
from service import wiring
from service.commands.shared import AsJson, Config, RunArgument, progress_bar, say, say_json
from service.height_picture import height_picture
from service.pictures import COLORMAPS
from service.settings import load_settings

Out = Annotated[Path, typer.Option("--out", help="Folder of the new run; must not exist.")]
InstrumentFile = Annotated[
    Path | None, typer.Option("--instrument", help="Instrument file (TOML).", exists=True, dir_okay=False)
]
SIMULATED_HYDROGEN_SCCM = 100.0
SIMULATED_OXYGEN_SCCM = 20.0
SETTLING_S = 30.0


class Method(StrEnum):
    """How `eclips reprocess` reconstructs."""

    network = "network"
    classical = "classical"
    map = "map"


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_images)
    for command in (simulate, verify, repair, reprocess, picture):
        app.command()(command)


def import_images(
    files: Annotated[list[Path], typer.Argument(help="Image files: one per segment, or multi-page.")],
    out: Out,
    instrument: InstrumentFile = None,
    pattern: Annotated[
        str | None, typer.Option(help="Regular expression with a group 'channel' that tells segments apart.")
    ] = None,
) -> None:
    """Take image files of any microscope into a recording.

    Example: eclips import imprint_detector?.tif --instrument fei-nova-abs.toml --out imprint
    """
    base = four_quadrant() if instrument is None else load_instrument(instrument)
    sets = read_image_sets(files, base, pattern)
    shapes = {found.images.shape for found in sets}
    if len(shapes) > 1 or len({found.instrument for found in sets}) > 1:
        raise BadInput("the image sets differ in size or settings: import each of them as a run of its own")
    used = sets[0].instrument
    run = start_run(SystemClock().now(), out.name, "import", used, sets[0].images.shape[1:], len(sets), _told(sets))
    with progress_bar("importing") as progress:
        exposures = _exposures(sets)
        frames = asyncio.run(
            record_offline(out, run, used, exposures, lambda n: progress(n, len(sets)), simulated=False)
        )
    say(f"{out}: {frames} frames of {run.shape}, pixel size {used.scan.pixel_size_m:.4g} m")
    for told in dict.fromkeys(told for found in sets for told in found.assumed):
        say(f"note: {told}")
    say(f"next: eclips reprocess {out}")


def simulate(
    out: Out,
    frames: Annotated[int, typer.Option("--frames", min=1, help="How many frames.")] = 20,
    scene: Annotated[str, typer.Option("--scene", help="Scene, or a height map file.")] = "cu2o-spiral",
    instrument: InstrumentFile = None,
    dose: Annotated[float | None, typer.Option(help="Detected electrons per pixel, summed over segments.")] = None,
    size: Annotated[int, typer.Option(min=16, max=8192, help="Frame width and height in pixels.")] = 512,
    interval: Annotated[float, typer.Option(min=0, help="Seconds from frame to frame.")] = 5.0,
    current: Annotated[float, typer.Option(min=0, help="Laser current in ampere.")] = 1.2,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 1,
    config: Config = None,
) -> None:
    """Record a run of the simulated microscope with its truth, as fast as it computes.

    Example: eclips simulate --scene cu2o-spiral --frames 20 --out spiral
    """
    settings = load_settings(
        config,
        {
            "instrument": None if instrument is None else str(instrument.resolve()),
            "microscope": {"scene": scene, "seed": seed, "dose": dose},
            "scan": {"width_px": size, "height_px": size},
        },
    )
    with progress_bar("simulating") as progress:
        lab = wiring.lab(settings, clock := VirtualClock())
        asyncio.run(_simulate(lab, clock, out, frames, size, interval, current, scene, progress))
    say(f"{out}: {frames} frames of {size} x {size}, scene {scene}, with truth")
    say(f"next: eclips reprocess {out}")


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
        say_json(tree | ({"mended": list(found.mended)} if found.mended else {}))
    else:
        say(f"{run}: {_holds(found)}, {'all sound' if found.ok else 'NOT sound'}")
        for finding in found.findings:
            say(f"  {finding}")
    raise typer.Exit(0 if found.ok else 1)


def _holds(found: Verification) -> str:
    named = f" ({name_spans(found.sequences)})" if found.sequences else ""
    return f"{found.frames} frames{named}, {found.heights} heights"


def _told(sets: Sequence[ImageSet]) -> str:
    names = ", ".join(path.name for path in sets[0].files)
    return f"imported from {names}" + (f" and {len(sets) - 1} more sets" if len(sets) > 1 else "")


async def _exposures(sets: Sequence[ImageSet]) -> AsyncIterator[Exposure]:
    at = SystemClock().now()
    for found in sets:
        saturated = {"saturated"} if (found.images == 65535).any() else set()
        yield Exposure(found.images, at, at, optics_of(found.instrument), None, frozenset(saturated))


async def _simulate(
    lab: Lab,
    clock: VirtualClock,
    out: Path,
    frames: int,
    size: int,
    interval_s: float,
    current_a: float,
    scene: str,
    progress: Callable[[int, int], None],
) -> None:
    """Heat and feed the specimen until it grows steadily, then take frames."""
    assert lab.heater is not None
    flows_sccm = {"hydrogen": SIMULATED_HYDROGEN_SCCM, "oxygen": SIMULATED_OXYGEN_SCCM}
    state: dict[str, JoinedValue] = {}
    async with AsyncExitStack() as stack:
        for device in lab.devices.values():
            await stack.enter_async_context(device)
        for gas in lab.gases:
            await gas.set_flow(flows_sccm[gas.gas] * MOL_PER_S_PER_SCCM)
        await lab.heater.set_current(current_a)
        await lab.heater.arm()
        await clock.sleep(SETTLING_S)
        used = await lab.detector.configure(ScanRequest(size, size))
        run = start_run(clock.now(), out.name, "simulated microscope", used, (size, size), frames, f"scene {scene}")

        async def spaced() -> AsyncIterator[Exposure]:
            await lab.detector.arm()
            async for exposure in lab.detector.exposures(frames):
                state.update(await _state(lab.devices))
                yield exposure
                await clock.sleep(max(0.0, interval_s - exposure.end.seconds_since(exposure.start)))

        await record_offline(
            out, run, used, spaced(), lambda n: progress(n, frames), lambda: dict(state), simulated=True
        )


async def _state(devices: Mapping[str, Device]) -> dict[str, JoinedValue]:
    return {
        f"{name}.{quantity}": JoinedValue(reading.value if reading.valid else None, reading.valid, 0.0)
        for name, device in devices.items()
        for quantity, reading in (await device.read()).items()
    }
