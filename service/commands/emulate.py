"""`eclips emulate`: instruments that speak real bytes and look at one simulated specimen, without a laboratory."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acquisition.clock import SystemClock
from acquisition.errors import BadInput
from service import wiring
from service.commands.shared import Config, Scene, Size, Supervised, live_settings, say, start_logs
from service.process_end import call_at_end, first_line_of_pipe
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from hardware_drivers.emulators.lab import EmulatedLab

LEAVE_WITHIN_S = 30.0
POLL_S = 0.1
ALONE: dict[str, tuple[str, int, dict[str, Any]]] = {
    "sharksem": ("detector", 8300, {}),
    "gcs2": ("stage", 50000, {}),
    "ostech": ("heater", 8401, {}),
    "upp": ("pyrometer", 8402, {}),
    "mnemonic": ("gauge", 8000, {"technology": "capacitance"}),
}
"""What can be emulated alone: its role, its usual port, and what its settings need besides."""


def add_to(app: typer.Typer) -> None:
    app.command()(emulate)


def emulate(
    what: Annotated[str | None, typer.Argument(help=f"One instrument: {', '.join(ALONE)}.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65534, help="TCP port of the one instrument.")] = None,
    config: Config = None,
    scene: Scene = None,
    size: Size = None,
    supervised: Supervised = False,
) -> None:
    """Serve an emulator of one instrument, or of all that the table instruments of the settings names, until ctrl-C.

    A line such as `heater silence` or `gauge none`, typed while it runs, lets an instrument misbehave, or ends that.

    Example: eclips emulate --config deploy/emulated-lab.toml
    """
    first_line_of_pipe(supervised=supervised)
    settings = live_settings(config, scene, size)
    if what is not None:
        settings = _alone(settings, what, port)
    start_logs("emulate", settings)
    asyncio.run(_serve(wiring.emulated_instruments(settings, SystemClock()), supervised=supervised))


async def _serve(lab: EmulatedLab, *, supervised: bool) -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()

    def end_soon() -> None:
        loop.call_soon_threadsafe(end.set)

    call_at_end(end_soon, lambda: None, supervised=supervised)
    async with lab:
        for role, address in lab.addresses.items():
            say(f"emulating {role:10s} {address}")
        if not supervised:
            threading.Thread(target=_obey, args=(loop, lab), daemon=True).start()
        await end.wait()
        # Whoever brings the lab to rest at the same end needs somebody to talk to.
        left_s = LEAVE_WITHIN_S if supervised else 0.0
        while lab.in_use and left_s > 0:
            await asyncio.sleep(POLL_S)
            left_s -= POLL_S


def _obey(loop: asyncio.AbstractEventLoop, lab: EmulatedLab) -> None:
    """Faults as they are typed."""

    def misbehave(line: str) -> None:
        role, _, fault = line.strip().partition(" ")
        try:
            lab.misbehave(role, fault.strip())
            say(f"{role}: {fault.strip()}")
        except BadInput as error:
            say(str(error))

    for line in sys.stdin:
        if line.strip():
            loop.call_soon_threadsafe(misbehave, line)


def _alone(settings: Settings, what: str, port: int | None) -> Settings:
    if what not in ALONE:
        raise BadInput(f"{what!r} is no instrument that can be emulated alone; known: {', '.join(ALONE)}")
    role, usual_port, others = ALONE[what]
    where = f"127.0.0.1:{port or usual_port}"
    address = where if what == "sharksem" else f"socket://{where}"
    tree = settings.model_dump(exclude={"instruments"})
    return load_settings(None, tree | {"instruments": {role: {"kind": what, "address": address, **others}}})
