"""An experiment on the emulated lab: programs as a user starts them, real drivers, setpoints changed on the way."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from acquisition.control import ControlClient
from acquisition.errors import ComponentFailed, EclipsError, RequestRefused
from acquisition.instrument import Instrument, four_quadrant
from acquisition.recording import RecordedRun
from hardware_drivers.catalog import MOL_PER_S_PER_SCCM
from hardware_drivers.simulated.world import COPPER_EMISSIVITY
from service.settings import environment_with_runs, load_settings

SCENE = "step-bunches"
PIXEL_M = 15e-9
POLL_S = 0.1
PATIENCE_S = 60.0
END_WITHIN_S = 60.0
ANSWER_WITHIN_S = 5.0
HEARTBEAT_EVERY_S = 5.0
PORT_TRIES = 50
MOST_FRAMES_LATE = 10
FLOW, FLOW_SET = "flow_mol_per_s", "flow_setpoint_mol_per_s"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the operator sets once this share of the frames is taken; the laser is armed with its first current."""

    share: float
    device: str
    values: Mapping[str, float]


def current(share: float, current_a: float) -> Setting:
    return Setting(share, "heater", {"current_a": current_a})


def oxygen(share: float, sccm: float) -> Setting:
    return Setting(share, "oxygen", {FLOW: sccm * MOL_PER_S_PER_SCCM})


# Cold at first, for the drift; then up and down, so that the temperature goes neither with time nor with the place of
# the steps in view; a quarter of the oxygen from the middle of a level on. Oxygen alone: the gauge reads its pressure.
EXPERIMENT = (
    Setting(0.0, "pyrometer", {"emissivity": COPPER_EMISSIVITY}),
    oxygen(0.0, 24.0),
    current(0.10, 1.1),
    current(0.25, 1.25),
    current(0.38, 1.0),
    current(0.51, 1.2),
    oxygen(0.64, 6.0),
    current(0.84, 1.3),
)


def carry_out(
    folder: Path, frames: int, size_px: int, dwell_time_s: float, model: str, settings: Sequence[Setting] = EXPERIMENT
) -> RecordedRun:
    """The run that `eclips up` records into `folder` while the settings are made. Raises `ComponentFailed` when a
    program ends early or the run does not go on, with the alarms that sounded (which name the device), or else with the
    last that the programs said."""
    config, log, runs = folder / "lab.toml", folder / "log.txt", folder / "runs"
    config.write_text(lab_settings(folder, size_px, dwell_time_s, model), encoding="utf-8")
    alarms: dict[str, str] = {}
    command = [sys.executable, "-m", "service.cli", "up", "--frames", str(frames), "--config", str(config)]
    with log.open("w") as said:
        program = subprocess.Popen(
            command, env=environment_with_runs(runs), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            with _client(config) as client:
                run = _follow(program, client, frames, settings, alarms)
            if program.returncode:
                raise ComponentFailed(f"it ended with {program.returncode}")
        except EclipsError as error:
            last = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            cause = " | ".join(alarms.values()) or f"the programs said last: {last}"
            raise ComponentFailed(f"the experiment failed: {error}; {cause}") from None
        finally:
            _end(program)
    return RecordedRun(Path(run))


def lab_settings(folder: Path, size_px: int, dwell_time_s: float, model: str = "classical") -> str:
    """A settings file on free ports: the drivers of real instruments, an emulator at the end of each line. The
    instrument that it names is written into `folder`."""
    (folder / "instrument.toml").write_text(_instrument().to_toml(), encoding="utf-8")
    heater, pyrometer, gauge, gas, data, state, control, page = free_ports(8)
    microscope = _two_free_ports()
    return f"""
runs_folder = "runs"
instrument = "instrument.toml"
[microscope]
kind = "emulated"
scene = "{SCENE}"
[scan]
width_px = {size_px}
height_px = {size_px}
pixel_size_m = {PIXEL_M}
dwell_time_s = {dwell_time_s}
[stream]
data_port = {data}
state_port = {state}
control_port = {control}
[serve]
port = {page}
[inference]
model = "{model}"
threads = 1
[instruments]
detector = {{ kind = "sharksem", address = "127.0.0.1:{microscope}" }}
stage = {{ kind = "sharksem", address = "127.0.0.1:{microscope}" }}
heater = {{ kind = "ostech", address = "socket://127.0.0.1:{heater}" }}
pyrometer = {{ kind = "upp", address = "socket://127.0.0.1:{pyrometer}" }}
gauge = {{ kind = "mnemonic", address = "socket://127.0.0.1:{gauge}", technology = "capacitance" }}
gases = [{{ kind = "bronkhorst", gas = "oxygen", address = "socket://127.0.0.1:{gas}", node = 4 }}]
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _two_free_ports() -> int:
    """The first of two in a row, as SharkSEM has them."""
    for _ in range(PORT_TRIES):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise ComponentFailed(f"no two ports in a row are free on 127.0.0.1 ({PORT_TRIES} were tried)")


def _instrument() -> Instrument:
    """Its segments called as the emulated microscope calls its detectors."""
    found = four_quadrant()
    segments = tuple(
        segment.model_copy(update={"name": f"Q{number}"}) for number, segment in enumerate(found.detector.segments, 1)
    )
    return found.model_copy(update={"detector": found.detector.model_copy(update={"segments": segments})})


@contextmanager
def _client(config: Path) -> Iterator[ControlClient]:
    stream = load_settings(config).stream
    with zmq.Context() as context:
        client = ControlClient(context, stream.endpoints.control, stream.keys)
        try:
            yield client
        finally:
            client.close()


def _follow(
    program: subprocess.Popen[bytes],
    client: ControlClient,
    frames: int,
    settings: Sequence[Setting],
    alarms: dict[str, str],
) -> str:
    """Make each setting when its time has come, until the program ends; returns the run's folder. Puts every alarm
    that sounds after the first frame into `alarms`, by id."""
    operator, taken, folder = _Operator(client, frames, settings), -1, ""
    heard_s = beaten_s = time.monotonic()
    while program.poll() is None:
        now_s = time.monotonic()
        if now_s - heard_s > PATIENCE_S:
            raise ComponentFailed(f"no frame came for {PATIENCE_S:g} s after {taken} of {frames}")
        try:
            status = _ask(client, "status")
            if now_s - beaten_s > HEARTBEAT_EVERY_S:
                _ask(client, "heartbeat")
                beaten_s = now_s
        except ComponentFailed:
            # It may be about to leave, or not there yet.
            continue
        run = status["run"]
        if taken >= 0:
            alarms.update({alarm["id"]: alarm["text"] for alarm in status["alarms"]})
        if run is not None and run["frames"] > taken:
            taken, folder, heard_s = run["frames"], run["path"], now_s
        if run is not None and status["state"] == "acquiring":
            operator.act(taken, status["devices"])
        time.sleep(POLL_S)
    if operator.waiting:
        raise ComponentFailed(f"it ended with {program.returncode} when {taken} of {frames} frames were taken")
    return folder


class _Operator:
    """Whoever makes the settings. What a device refuses is asked again for a while: it may not be there yet, and on a
    busy machine it may be lost for a second. A gas controller that comes back is at rest and is set again; a laser that
    went off stays off, and ends the run."""

    def __init__(self, client: ControlClient, frames: int, settings: Sequence[Setting]) -> None:
        self.waiting = list(settings)
        self._client = client
        self._frames = frames
        self._armed = False
        self._flows: dict[str, Setting] = {}

    def act(self, taken: int, devices: Mapping[str, Any]) -> None:
        """Raises `ComponentFailed` for a setting that is refused for too long."""
        for gas, setting in self._flows.items():
            told = devices[gas]["readings"].get(FLOW_SET, {"valid": False})
            if told["valid"] and told["value"] < 0.5 * setting.values[FLOW]:
                with suppress(RequestRefused):
                    self._make(setting)
        if self.waiting and taken >= self.waiting[0].share * self._frames:
            setting = self.waiting[0]
            try:
                self._make(setting)
                self.waiting.pop(0)
            except RequestRefused as refusal:
                if taken > setting.share * self._frames + MOST_FRAMES_LATE:
                    raise ComponentFailed(f"{setting.device} takes no {dict(setting.values)}: {refusal}") from None

    def _make(self, setting: Setting) -> None:
        _ask(self._client, "set", device=setting.device, values=dict(setting.values))
        if FLOW in setting.values:
            self._flows[setting.device] = setting
        if setting.device == "heater" and not self._armed:
            _ask(self._client, "arm", device="heater")
            self._armed = True


def _ask(operator: ControlClient, name: str, **arguments: Any) -> Any:
    return operator.call(name, arguments, deadline_s=ANSWER_WITHIN_S)


def _end(program: subprocess.Popen[bytes]) -> None:
    """In order, so that laser and gas are brought to rest; by force only if that does not help."""
    if program.poll() is None:
        program.terminate()
        try:
            program.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
