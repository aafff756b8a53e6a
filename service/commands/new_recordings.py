"""New recordings: from images of any microscope, or of the simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from acquisition.clock import SystemClock, VirtualClock
from acquisition.devices import Device, ScanRequest
from acquisition.errors import BadInput
from acquisition.frames import Exposure, JoinedValue
from acquisition.instrument import four_quadrant, load_instrument
from acquisition.lab import Lab
from acquisition.recording.offline import record_offline
from acquisition.stamping import optics_of, start_run
from hardware_drivers.catalog import MOL_PER_S_PER_SCCM
from hardware_drivers.tiff.sets import ImageSet, read_image_sets
from service import wiring
from service.commands.shared import Config, progress_bar, say
from service.settings import load_settings

Out = Annotated[Path, typer.Option("--out", help="Folder of the new run; must not exist.")]
InstrumentFile = Annotated[
    Path | None, typer.Option("--instrument", help="Instrument file (TOML).", exists=True, dir_okay=False)
]
SIMULATED_HYDROGEN_SCCM = 100.0
SIMULATED_OXYGEN_SCCM = 20.0
SETTLING_S = 30.0


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
    settle: Annotated[float, typer.Option(min=0, help="Seconds of heat and gas before the first frame.")] = SETTLING_S,
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
        asyncio.run(_simulate(lab, clock, out, frames, size, interval, current, settle, scene, progress))
    say(f"{out}: {frames} frames of {size} x {size}, scene {scene}, with truth")
    say(f"next: eclips reprocess {out}")


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
    settling_s: float,
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
        await clock.sleep(settling_s)
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
