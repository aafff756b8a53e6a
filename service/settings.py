"""The only reader of configuration: one strict tree from one TOML file, the environment and the command line."""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.errors import BadInput
from acquisition.heartbeat import LONGEST_PERIOD_S
from acquisition.interlocks import InterlockLimits
from acquisition.recording.disk import LOW_SPACE_BYTES
from hardware_drivers.instruments import Instruments
from inference.registry import MODELS

RUNS_VARIABLE = "ECLIPS_RUNS"
MAX_TOLD = 200
EVERYWHERE = ("0.0.0.0", "::")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Microscope(_Part):
    """`kind` names an entry of `hardware_drivers.catalog`: all simulated; the real drivers of `[instruments]`, with
    emulators of the instruments at the ends of their lines; or the instruments themselves. Scene, seed and dose are
    the simulation's; `dose`, detected electrons per pixel on a flat specimen, overrides the instrument's current and
    dwell time."""

    kind: Literal["simulated", "emulated", "real"] = "simulated"
    scene: str = "cu2o-spiral"
    seed: int = 1
    dose: Positive | None = None


class ScanSettings(_Part):
    """The raster when a run does not ask for another."""

    width_px: Annotated[int, Field(ge=16, le=8192)] = 512
    height_px: Annotated[int, Field(ge=16, le=8192)] = 512
    pixel_size_m: Positive | None = None
    dwell_time_s: Positive | None = None


class LimitSettings(_Part):
    """What no setpoint may pass. Flows, by gas, are in standard cubic centimetres per minute, as on the controllers.
    The power is for lasers that can hold one; the limit of the current holds for them too."""

    heater_current_a: Positive = 1.5
    heater_power_w: Positive = 26.0
    flow_sccm: dict[str, Positive] = {"hydrogen": 150.0, "oxygen": 30.0}
    stage_travel_m: Positive = 5.0e-3


class InterlockSettings(_Part):
    """See `acquisition.interlocks.InterlockLimits`."""

    stale_after_s: Positive = 3.0
    temperature_max_k: Positive = 1300.0
    pressure_max_pa: Positive = 1000.0
    pressure_min_pa: Positive = 1.0
    operator_timeout_s: Positive = 60.0

    def limits(self) -> InterlockLimits:
        return InterlockLimits(**self.model_dump())


class RelaySettings(_Part):
    """The heartbeat of a watchdog relay in the laser's interlock loop, an edge every half `period_s`: on a serial
    port's `signal` line (`byte` sends 1 and 0), or as 1 and 0 into the file at `path`, such as a GPIO's."""

    kind: Literal["none", "serial", "file"] = "none"
    port: str = ""
    signal: Literal["dtr", "rts", "byte"] = "dtr"
    path: Path | None = None
    period_s: Annotated[float, Field(ge=0.02, le=LONGEST_PERIOD_S)] = 0.5

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.kind == "serial" and not self.port:
            raise ValueError('kind = "serial" needs port, such as "/dev/ttyUSB0"')
        if self.kind == "file" and self.path is None:
            raise ValueError('kind = "file" needs path, such as "/sys/class/gpio/gpio17/value"')
        return self


class StreamSettings(_Part):
    """Where the acquisition node is. Any host but loopback needs both keys (`eclips keys`)."""

    host: str = "127.0.0.1"
    data_port: Port = 5601
    state_port: Port = 5602
    control_port: Port = 5603
    ring_bytes: Annotated[int, Field(ge=2**20)] = 256 * 2**20
    own_key: Path | None = None
    peer_keys: Path | None = None

    @property
    def endpoints(self) -> Endpoints:
        ports = (self.data_port, self.state_port, self.control_port)
        return Endpoints(*(f"tcp://{self.host}:{port}" for port in ports))

    @property
    def keys(self) -> CurveKeys | None:
        if (self.own_key is None) != (self.peer_keys is None):
            raise BadInput("stream.own_key and stream.peer_keys belong together: give both, or neither")
        if self.own_key is None or self.peer_keys is None:
            return None
        return CurveKeys(_expanded(self.own_key, "stream.own_key"), _expanded(self.peer_keys, "stream.peer_keys"))


class RecordingSettings(_Part):
    """A run is refused that would leave less than `low_space_bytes` of the disk, and ended in order below that."""

    low_space_bytes: Annotated[int, Field(ge=2**20)] = LOW_SPACE_BYTES


class InferenceSettings(_Part):
    """`threads` 0 lets the runtime choose; `fuse_frames` is what runs fuse that do not say, below 2 nothing. With
    `metrology` steps, spirals and drift are measured on the heights as they are made, for trends and recipes. `models`
    is where sets of one's own are kept; by default that beside the runs folder which has `-models` after its name."""

    model: str = "classical"
    models: Path | None = None
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    fuse_frames: Annotated[int, Field(ge=0, le=1024)] = 0
    metrology: bool = False


class ServeSettings(_Part):
    """Where page and REST are served: over TLS with `certificate` and `private_key` (PEM files), which any host but
    loopback needs, unless it is a `trusted_network`, where keys may travel unencrypted.

    The key, which is new at each start, is also put into `key_file` for programs such as Prometheus; a file that is
    there keeps its permissions, a new one is its owner's alone."""

    host: str = "127.0.0.1"
    port: Port = 8080
    key_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    trusted_network: bool = False

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate and private key; None without. Raises `BadInput` for half a pair."""
        if (self.certificate is None) != (self.private_key is None):
            raise BadInput("serve.certificate and serve.private_key belong together: give both, or neither")
        if self.certificate is None or self.private_key is None:
            return None
        names = ((self.certificate, "serve.certificate"), (self.private_key, "serve.private_key"))
        certificate, private_key = (_expanded(path, name) for path, name in names)
        return certificate, private_key

    @property
    def address(self) -> str:
        """As a browser on another machine has it, where it can be reached from there."""
        scheme = "http" if self.tls is None else "https"
        host = socket.gethostname() if self.host in EVERYWHERE else self.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


class LogSettings(_Part):
    """Where programs keep their logs, `level` and worse; by default in a folder beside the runs folder that has `-logs`
    after its name. A program keeps at most five files of `max_bytes`, `PROGRAM.jsonl` being the newest."""

    folder: Path | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: Annotated[int, Field(ge=64 * 1024)] = 8 * 2**20


class Settings(_Part):
    """Everything that can be configured. Relative paths are taken from the file's folder."""

    runs_folder: Path = Path("~/eclips-runs")
    instrument: Path | None = None
    microscope: Microscope = Microscope()
    instruments: Instruments | None = None
    scan: ScanSettings = ScanSettings()
    limits: LimitSettings = LimitSettings()
    interlocks: InterlockSettings = InterlockSettings()
    relay: RelaySettings = RelaySettings()
    stream: StreamSettings = StreamSettings()
    recording: RecordingSettings = RecordingSettings()
    inference: InferenceSettings = InferenceSettings()
    serve: ServeSettings = ServeSettings()
    logs: LogSettings = LogSettings()

    @property
    def logs_folder(self) -> Path:
        folder = self.logs.folder
        return folder.expanduser() if folder else self.runs_folder.with_name(f"{self.runs_folder.name}-logs")

    @property
    def own_models_folder(self) -> Path:
        folder = self.inference.models
        return folder.expanduser() if folder else self.runs_folder.with_name(f"{self.runs_folder.name}-models")

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Where model sets are looked for: those that came with the program, then one's own."""
        return MODELS, self.own_models_folder


def load_settings(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings from `path` (defaults without one), then `overrides` (a tree), then the environment's runs folder.

    Raises `BadInput` for a file that cannot be read, an unknown key (with the nearest known one) or a bad value.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"settings file {path} cannot be read: {error}") from error
        _anchor_paths(tree, path.parent)
    _merge(tree, overrides or {})
    if os.environ.get(RUNS_VARIABLE):
        tree["runs_folder"] = os.environ[RUNS_VARIABLE]
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise BadInput(f"{path or 'settings'}: {problems}") from None
    paths = {"runs_folder": settings.runs_folder, "instrument": settings.instrument}
    return settings.model_copy(update={name: path and _expanded(path, name) for name, path in paths.items()})


def environment_with_runs(folder: Path) -> dict[str, str]:
    """This program's environment for a child that must keep its runs in `folder`."""
    return {**os.environ, RUNS_VARIABLE: str(folder)}


def _explain(problem: Any) -> str:
    location = ".".join(str(key) for key in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{location}: {problem['msg']} (got {repr(problem['input'])[:MAX_TOLD]})"
    model: type[BaseModel] = Settings
    for key in problem["loc"][:-1]:
        inner = model.model_fields[str(key)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        model = inner
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"{location} is unknown; {hint}"


def _anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    """Make the paths of a file relative to it."""
    instruments = tree.get("instruments")
    detector = instruments.get("detector") if isinstance(instruments, dict) else None
    for part, key in (
        (detector, "folder"),
        (detector, "key_file"),
        (tree, "runs_folder"),
        (tree, "instrument"),
        (tree.get("stream"), "own_key"),
        (tree.get("stream"), "peer_keys"),
        (tree.get("logs"), "folder"),
        (tree.get("inference"), "models"),
        (tree.get("serve"), "key_file"),
        (tree.get("serve"), "certificate"),
        (tree.get("serve"), "private_key"),
        (tree.get("relay"), "path"),
    ):
        if isinstance(part, dict) and isinstance(part.get(key), str) and not part[key].startswith("~"):
            part[key] = str(folder / part[key])


def _expanded(path: Path, name: str) -> Path:
    """With `~` as the home folder. Raises `BadInput` for a user who has none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BadInput(f"{name} = {str(path)!r}: {error}; write the folder out") from None


def _merge(tree: dict[str, Any], overrides: dict[str, Any]) -> None:
    """A table that the file gives as something else is left for the check to complain about."""
    for key, value in overrides.items():
        if isinstance(value, dict):
            inner = tree.setdefault(key, {})
            if isinstance(inner, dict):
                _merge(inner, value)
        elif value is not None:
            tree[key] = value
