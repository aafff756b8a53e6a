"""Live work: `up` for one machine; `acquire`, `infer` and `serve` for several; `replay` for a recording."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acquisition.clock import SystemClock
from acquisition.errors import BadInput, EclipsError
from acquisition.replay import ReplaySource
from service import wiring
from service.commands.shared import Config, Scene, Size, Supervised, TakeOver, driving, live_settings, say, start_logs
from service.keys import new_key
from service.priority import HEIGHTS
from service.process_end import call_at_end, first_line_of_pipe
from service.settings import Settings
from service.supervisor import Part, Supervisor

if TYPE_CHECKING:
    from acquisition.node import AcquisitionNode

Frames = Annotated[int | None, typer.Option("--frames", min=1, help="End after so many frames.")]
Fuse = Annotated[
    int | None, typer.Option("--fuse", min=0, max=1024, help="Also show heights of so many frames fused; 0 for none.")
]
STATUS_LINE_INTERVAL_S = 1.0
DETECTOR_POLL_S = 0.1


def add_to(app: typer.Typer) -> None:
    for command in (up, acquire, infer, serve, replay, step, seek):
        app.command()(command)


def up(config: Config = None, scene: Scene = None, frames: Frames = None, size: Size = None, fuse: Fuse = None) -> None:
    """Acquire, infer and serve on this machine, supervised; acquiring and recording start at once.

    Example: eclips up --scene cu2o-spiral --frames 8
    """
    settings = live_settings(config, scene, size)
    wiring.check(settings)
    options = _options(config, scene=scene, size=size)
    _supervise("up", settings, ["acquire", *options, *_option("frames", frames), *_option("fuse", fuse)], options)


def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a recorded run.", exists=True, file_okay=False)],
    config: Config = None,
    speed: Annotated[str, typer.Option(help="1, 4, ... times the recorded pace, max, or step.")] = "1",
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    first: Annotated[int, typer.Option("--from", min=0, help="Number of the first frame to play.")] = 0,
    last: Annotated[int | None, typer.Option("--to", min=0, help="Number of the last frame to play.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Record the replay, with its heights, as a new run.")
    ] = False,
    fuse: Fuse = None,
) -> None:
    """Play a recording through the live stream, page included; ends with the recording.

    At speed `step` each frame waits for the page, for `eclips step` or for `eclips seek`.

    Example: eclips replay ~/eclips-runs/2026-11-21T10-22-05-000_run --speed 4 --from 120 --to 300
    """
    settings = live_settings(config)
    # Refused here and at once rather than by the part that will play it.
    ReplaySource(run, SystemClock(), speed=speed, loop=loop, first=first, last=last)
    options = _options(config)
    arguments = [
        "acquire",
        *options,
        "--replay",
        str(run.resolve()),
        "--replay-speed",
        speed,
        "--replay-from",
        str(first),
    ]
    arguments += _option("replay-to", last) + _option("fuse", fuse)
    arguments += ["--replay-loop"] if loop else []
    arguments += ["--replay-record"] if record else []
    _supervise("replay", settings, arguments, options)


def step(config: Config = None, take_over: TakeOver = False) -> None:
    """Let the replay that runs at speed `step` play one more frame.

    Example: eclips step
    """
    with driving(live_settings(config), "step", take_over=take_over) as node:
        node.call("step")


def seek(
    position: Annotated[int, typer.Argument(min=0, help="Which frame of the replay to play next, counted from 0.")],
    config: Config = None,
    take_over: TakeOver = False,
) -> None:
    """Let a replay go on at another frame, which is played at once.

    Example: eclips seek 120
    """
    with driving(live_settings(config), "seek", take_over=take_over) as node:
        node.call("seek", {"position": position})


def acquire(
    config: Config = None,
    scene: Scene = None,
    frames: Frames = None,
    size: Size = None,
    fuse: Fuse = None,
    idle: Annotated[bool, typer.Option("--idle", help="Wait for a command instead of starting a run.")] = False,
    replay: Annotated[Path | None, typer.Option(hidden=True)] = None,
    replay_speed: Annotated[str, typer.Option(hidden=True)] = "1",
    replay_from: Annotated[int, typer.Option(hidden=True)] = 0,
    replay_to: Annotated[int | None, typer.Option(hidden=True)] = None,
    replay_loop: Annotated[bool, typer.Option("--replay-loop", hidden=True)] = False,
    replay_record: Annotated[bool, typer.Option("--replay-record", hidden=True)] = False,
    supervised: Supervised = False,
) -> None:
    """The part beside the instruments: devices, run, recording, interlocks, stream.

    Example: eclips acquire --config lab.toml --idle
    """
    first_line_of_pipe(supervised=supervised)
    settings = live_settings(config, scene, size, fuse)
    first: tuple[str, dict[str, Any]] | None = ("start", {"frames": frames, "name": settings.microscope.scene})
    if replay is not None:
        arguments = {"run": str(replay), "speed": replay_speed, "loop": replay_loop, "record": replay_record}
        first = ("replay", arguments | {"first": replay_from, "last": replay_to})
    if idle:
        first = None
    ends_by_itself = frames is not None or (replay is not None and not replay_loop)
    asyncio.run(_acquire(settings, first, ends_by_itself=ends_by_itself, supervised=supervised))


def infer(config: Config = None, scene: Scene = None, size: Size = None, supervised: Supervised = False) -> None:
    """The part beside the GPU: asks the node for frames, hands heights back.

    Example: eclips infer --config lab.toml
    """
    first_line_of_pipe(supervised=supervised)
    settings = live_settings(config, scene, size)
    stop = threading.Event()
    call_at_end(stop.set, lambda: None, supervised=supervised)
    logs = start_logs("infer", settings)
    worker = wiring.worker(settings, stop)
    logs.run_id = lambda: worker.run_id
    worker.run(say)


def serve(config: Config = None, scene: Scene = None, size: Size = None, supervised: Supervised = False) -> None:
    """The part beside the people: page, REST and WebSockets.

    Example: eclips serve --config lab.toml
    """
    key = first_line_of_pipe(supervised=supervised) or new_key()
    settings = live_settings(config, scene, size)
    start_logs("serve", settings, key)
    if settings.serve.key_file is not None:
        _keep_key(settings.serve.key_file.expanduser(), key)
    server = wiring.server(settings, key)
    call_at_end(lambda: setattr(server, "should_exit", True), lambda: None, supervised=supervised)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    if settings.serve.tls is None and settings.serve.trusted_network:
        say("serve.trusted_network: keys travel unencrypted, whoever can listen on this network can use them")
    say(f"open {settings.serve.address}/?key={key}")
    asyncio.run(server.serve())


def _keep_key(path: Path, key: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key)
    except OSError as error:
        raise BadInput(f"the key cannot be written to {path} (serve.key_file): {error}") from error


def _supervise(program: str, settings: Settings, acquire_arguments: list[str], options: list[str]) -> None:
    key = new_key()
    start_logs(program, settings, key)
    parts = [
        Part("acquire", acquire_arguments),
        Part("infer", ["infer", *options], niceness=HEIGHTS),
        Part("serve", ["serve", *options], first_line=key),
    ]
    if settings.microscope.kind == "emulated":
        parts.append(Part("emulate", ["emulate", *options], ready="emulating"))

    def before_restart(name: str) -> None:
        if name == "acquire":
            complaints = asyncio.run(wiring.make_lab_safe(settings))
            for complaint in complaints:
                say(f"NOT SAFE: {complaint}")
            if not complaints:
                say("laser and gas were brought to rest and read back")

    supervisor = Supervisor(parts, say, before_restart)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.interrupt())
    raise typer.Exit(supervisor.run())


async def _acquire(
    settings: Settings, first: tuple[str, dict[str, Any]] | None, *, ends_by_itself: bool, supervised: bool
) -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    logs = start_logs("acquire", settings)
    program = wiring.acquisition_program(settings, say)
    node = program.node
    logs.run_id = lambda: node.run_id

    def end_soon() -> None:
        loop.call_soon_threadsafe(end.set)

    call_at_end(end_soon, node.recordings.hurry, supervised=supervised)
    async with program:
        lines = asyncio.create_task(_status_lines(node))
        if first is not None:
            await _wait_for_detector(node, end)
        if first is not None and not end.is_set():
            await program.carry_out(*first)
        if ends_by_itself:
            over = asyncio.create_task(_run_over(node))
            await asyncio.wait([over, asyncio.create_task(end.wait())], return_when=asyncio.FIRST_COMPLETED)
        else:
            await end.wait()
        lines.cancel()
    if node.machine.fault:
        raise EclipsError(node.machine.fault)


async def _wait_for_detector(node: AcquisitionNode, end: asyncio.Event) -> None:
    """A microscope may be switched on after its workstation; why it is not there yet sounds an alarm meanwhile."""
    connection = node.state.connections[node.lab.detector.name]
    if not connection.connected:
        say(f"waiting for the detector: {connection.reason}")
    while not connection.connected:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), DETECTOR_POLL_S)
            return


async def _run_over(node: AcquisitionNode) -> None:
    await node.machine.wait()
    await node.recordings.heights_made()


async def _status_lines(node: AcquisitionNode) -> None:
    """One line a second for whoever looks at the terminal."""
    before = 0
    while True:
        await asyncio.sleep(STATUS_LINE_INTERVAL_S)
        progress = node.machine.progress
        frames = progress.frames if progress else 0
        recorder = progress.recorder if progress else None
        heights = f", {recorder.manifest.heights} heights" if recorder else ""
        alarms = len(node.guard.alarms.tree())
        say(f"{node.machine.state}: {frames} frames ({max(0, frames - before)}/s){heights}, {alarms} alarms")
        before = frames


def _options(config: Path | None, **others: object) -> list[str]:
    options = _option("config", config)
    for name, value in others.items():
        options += _option(name, value)
    return options


def _option(name: str, value: object | None) -> list[str]:
    return [] if value is None else [f"--{name}", str(value)]
