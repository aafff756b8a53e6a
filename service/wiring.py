"""The only place that chooses concrete classes: settings in, programs out.

What a program is made of is imported where it is put together, so that none waits for what the others are made of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from acquisition.clock import Clock, SystemClock
from acquisition.devices import Limits, ScanRequest
from acquisition.errors import BadInput
from acquisition.instrument import Instrument, four_quadrant, load_instrument
from acquisition.interlocks import make_safe
from hardware_drivers.catalog import LABS, MOL_PER_S_PER_SCCM, LabSpec
from inference.registry import find_model_set
from service.listening import check_nobody_listens
from service.process_end import restarts_before
from service.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from acquisition.heartbeat import HeartbeatLine
    from acquisition.lab import Lab
    from acquisition.program import AcquisitionProgram
    from acquisition.recipes.steps import Recipe
    from acquisition.rehearsal import Timeline
    from hardware_drivers.emulators.lab import EmulatedLab
    from inference.pipeline import Pipeline
    from inference.worker import Worker

MAX_SOCKET_MESSAGE_BYTES = 64 * 1024


def instrument(settings: Settings) -> Instrument:
    """The instrument of the settings' file, or the default four-quadrant one."""
    found = four_quadrant() if settings.instrument is None else load_instrument(settings.instrument)
    return found.with_scan(pixel_size_m=settings.scan.pixel_size_m, dwell_time_s=settings.scan.dwell_time_s)


def lab(settings: Settings, clock: Clock) -> Lab:
    """The instruments, not yet touched. Raises `BadInput` for an unknown scene or a bad instrument file."""
    return LABS[settings.microscope.kind](_lab_spec(settings, clock))


def emulated_instruments(settings: Settings, clock: Clock) -> EmulatedLab:
    """Emulators of what `[instruments]` names, all on one simulated world, not yet served."""
    from hardware_drivers.emulators.lab import EmulatedLab

    if settings.instruments is None:
        raise BadInput("the settings name no instruments to emulate: add [instruments.detector] and others")
    return EmulatedLab(_lab_spec(settings, clock).world(), settings.instruments)


def acquisition_program(settings: Settings, announce: Callable[[str], None]) -> AcquisitionProgram:
    from acquisition.node import NodeSettings
    from acquisition.program import AcquisitionProgram

    clock = SystemClock()
    node_settings = NodeSettings(
        endpoints=settings.stream.endpoints,
        runs_folder=settings.runs_folder,
        ring_bytes=settings.stream.ring_bytes,
        keys=settings.stream.keys,
        scan=ScanRequest(
            settings.scan.width_px, settings.scan.height_px, settings.scan.pixel_size_m, settings.scan.dwell_time_s
        ),
        interlocks=settings.interlocks.limits(),
        fuse_frames=settings.inference.fuse_frames,
        low_space_bytes=settings.recording.low_space_bytes,
        restarts=restarts_before(),
        relay=relay_line(settings),
        relay_period_s=settings.relay.period_s,
    )
    return AcquisitionProgram(lab(settings, clock), node_settings, clock, announce)


def relay_line(settings: Settings) -> HeartbeatLine | None:
    """Where the relay's heartbeat leaves this machine, not yet touched; None without a relay."""
    from hardware_drivers.relay import FileLine, SerialLine

    relay = settings.relay
    if relay.kind == "serial":
        return SerialLine(relay.port, relay.signal)
    return FileLine(relay.path) if relay.kind == "file" and relay.path is not None else None


def dry_run(settings: Settings, recipe: Recipe) -> Timeline:
    """A recipe on the simulated lab with these settings' limits and interlocks, in leaping time; touches no device.

    Blocks for a second or two; raises as `acquisition.rehearsal.rehearse` does.
    """
    from acquisition.rehearsal import rehearse

    simulated = settings.microscope.model_copy(update={"kind": "simulated"})
    stand_in = settings.model_copy(update={"microscope": simulated})
    return rehearse(recipe, lambda clock: lab(stand_in, clock), settings.interlocks.limits())


def pipeline(settings: Settings, model: str | None = None) -> Pipeline:
    from inference.pipeline import Pipeline

    used = settings.inference
    return Pipeline(model or used.model, used.provider, used.threads, settings.model_folders)


def worker(settings: Settings, stop: threading.Event) -> Worker:
    from inference.worker import Worker

    address, keys = settings.stream.endpoints.data, settings.stream.keys
    metrology = None
    if settings.inference.metrology:
        from inference.metrology.live import LiveMetrology

        metrology = LiveMetrology()
    return Worker(
        pipeline(settings),
        address,
        keys,
        stop,
        restarts_before(),
        lambda model: pipeline(settings, model),
        metrology,
    )


def server(settings: Settings, key: str) -> uvicorn.Server:
    """Page, REST and WebSockets, not yet listening. Compression of WebSocket messages is off: pictures do not shrink,
    and it costs half the frame rate. Requests are not logged, for the link of the first one holds the key; errors go to
    the logs of all programs."""
    import uvicorn

    from service.app import create_app

    certificate, private_key = settings.serve.tls or (None, None)
    config = uvicorn.Config(
        create_app(settings, key),
        host=settings.serve.host,
        port=settings.serve.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        ws_per_message_deflate=False,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        ws_max_size=MAX_SOCKET_MESSAGE_BYTES,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


async def make_lab_safe(settings: Settings) -> list[str]:
    """Connect to what can heat or flow, and to nothing else, and bring it to rest. Returns what was not verified."""
    found = lab(settings, SystemClock())
    unverified: list[str] = []
    for device in (found.heater, *found.gases):
        if device is None:
            continue
        try:
            async with device:
                heaters = [found.heater] if found.heater is device else []
                gases = [gas for gas in found.gases if gas is device]
                unverified += await make_safe(heaters, gases, None)
        except Exception as error:
            unverified.append(f"{device.name}: {error}")
    return unverified


def check(settings: Settings) -> None:
    """Raise now what would only come to light in a child process: a bad instrument, scene, model, key or address."""
    lab(settings, SystemClock())
    find_model_set(settings.inference.model, *settings.model_folders)
    _ = settings.stream.keys
    check_nobody_listens(settings.serve)


def _lab_spec(settings: Settings, clock: Clock) -> LabSpec:
    limits, travel_m = settings.limits, settings.limits.stage_travel_m
    return LabSpec(
        instrument=instrument(settings),
        clock=clock,
        scene=settings.microscope.scene,
        seed=settings.microscope.seed,
        dose=settings.microscope.dose,
        width_px=settings.scan.width_px,
        height_px=settings.scan.height_px,
        heater_current=Limits(0.0, limits.heater_current_a, "limits.heater_current_a"),
        heater_power=Limits(0.0, limits.heater_power_w, "limits.heater_power_w"),
        flows={
            gas: Limits(0.0, sccm * MOL_PER_S_PER_SCCM, f"limits.flow_sccm.{gas}")
            for gas, sccm in limits.flow_sccm.items()
        },
        stage_axis=Limits(-travel_m, travel_m, "limits.stage_travel_m"),
        instruments=settings.instruments,
    )
