"""The lab from Python: `with connect(link) as lab: ...` reads, drives, waits, and hands out arrays with scales."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from acquisition.errors import EclipsError, RequestRefused
from service.client_line import TIMEOUT_S, AccessDenied, Line
from service.client_parts import Device, Models, Run, as_typed
from service.client_types import Alarm, Event, Interlocks, KeyInfo, RunInfo, Status, Trend
from service.client_work import POLL_S, Candidates, Tasks, Workplace, path_name

__all__ = ["AccessDenied", "Candidates", "Device", "Lab", "Models", "Run", "Tasks", "connect"]

HEARTBEAT_INTERVAL_S = 5.0


def connect(
    address: str, key: str | None = None, *, timeout_s: float = TIMEOUT_S, verify: bool | str | Path = True
) -> Lab:
    """The lab behind the link that `eclips up` prints, or behind an address and a key. `verify` is the file of a
    certificate to trust, such as one that the lab has made itself.

    Raises `BadInput` for an address that is none, `AccessDenied` for a wrong key, `ComponentFailed` when nobody
    answers, or somebody who is not trusted.
    """
    line = Line(address, key, timeout_s, verify)
    try:
        line.get("ready")
    except EclipsError:
        line.close()
        raise
    return Lab(line)


class Lab(Workplace):
    """Every method raises as `service.client_line.Line` says: a refusal tells value, limit and setting."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def __repr__(self) -> str:
        return f"Lab({self._line.address!r})"

    # How it stands

    def status(self) -> Status:
        return as_typed(Status, self._line.get("status"))

    @property
    def ready(self) -> bool:
        """Whether frames can be turned into heights."""
        return bool(self._line.get("ready")["ready"])

    def interlocks(self) -> Interlocks:
        return as_typed(Interlocks, self._line.get("interlocks"))

    def alarms(self) -> list[Alarm]:
        return as_typed(list[Alarm], self._line.get("alarms"))

    def acknowledge(self, alarm: Alarm | str) -> None:
        """The alarm goes once its cause is gone too."""
        self._line.post(f"alarms/{path_name(alarm if isinstance(alarm, str) else alarm.id)}:acknowledge")

    def events(self, seconds: float = 900.0) -> list[Event]:
        """What happened over the last `seconds` (at most 3600), the oldest first."""
        return as_typed(list[Event], self._line.get("events", seconds=seconds))

    def trends(self, seconds: float = 900.0) -> dict[str, Trend]:
        """Device readings (`pyrometer.temperature_k`) and figures of the heights (`figures....`) over time."""
        channels = self._line.get("trends", seconds=seconds)["channels"]
        return {
            name: Trend(np.array(one["utc_ns"], float) / 1e9, np.array(one["values"], float))
            for name, one in channels.items()
        }

    def metrics(self) -> dict[str, float]:
        """Every figure that Prometheus would read, by name, with its labels as Prometheus writes them."""
        text = self._line.fetch("metrics", "text/plain").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = float(sample.value)
        return found

    def calibration(self) -> dict[str, Any]:
        """The instrument file in use as a tree, with the hash that every frame carries."""
        return dict(self._line.get("calibration"))

    @property
    def models(self) -> Models:
        """The model sets: which there are, which is in use, and another one while frames go on."""
        return Models(self._line)

    def plan(self, **wanted: float) -> dict[str, Any]:
        """What the instrument will be able to show: `terrace_m` with `step_m`, `width_px`, `height_px`, `dose`."""
        return dict(self._line.get("plan", **wanted))

    # Keys

    def made_keys(self) -> list[KeyInfo]:
        """The keys that were made, without their texts."""
        return as_typed(list[KeyInfo], self._line.get("keys"))

    def make_key(self, name: str, scope: str = "read", life_s: float = 30 * 86_400.0) -> str:
        """A new key's text, told only now. `scope`: read, operate, hardware or admin, each with all before it."""
        return str(self._line.post("keys", {"name": name, "scope": scope, "life_s": life_s})["key"])

    def revoke_key(self, name: str) -> None:
        """It opens nothing from now on, and what it had opened is closed."""
        self._line.delete(f"keys/{path_name(name)}")

    # Driving

    def driver(self) -> str | None:
        """Who has control; None while everybody may drive."""
        holder: str | None = self._line.get("control")["holder"]
        return holder

    @contextmanager
    def control(self, name: str = "Python", *, take_over: bool = False) -> Iterator[Lab]:
        """Drive: nobody else can while the block lasts, and a sign of life in the background keeps the laser's permit.

        When the block ends by an error, each laser heater is switched off, unless somebody took over. After the block
        a laser that is still on goes off when no operator is heard of (`interlocks.operator_timeout_s`).
        Raises `RequestRefused` while somebody else has control, unless `take_over`.
        """
        self._line.post("control", {"name": name, "take_over": take_over})
        over, lost = threading.Event(), threading.Event()
        beating = threading.Thread(target=self._beat, args=(name, over, lost), daemon=True)
        beating.start()
        try:
            yield self
        except BaseException:
            if not lost.is_set():
                self._lasers_off()
            raise
        finally:
            over.set()
            beating.join()
            with contextlib.suppress(EclipsError):
                self._line.delete("control")

    def sign_of_life(self) -> None:
        """Somebody is watching: without it the laser goes off after a while. `control` sends it by itself."""
        self._line.post("operator:heartbeat")

    def start(self, **wanted: Any) -> Run:
        """Start a run: `frames`, `name`, `notes`, `record`, `width_px`, `height_px`, `pixel_size_m`, `keep_truth`,
        `hold_after`, `fuse_frames`; what is left out is as the settings say. Raises `LimitExceeded` for a pixel size
        beyond the detector's (`device("detector").state.limits`)."""
        run_id = self._line.post("run", wanted)["run_id"]
        return Run(self._line, run_id, recorded=bool(wanted.get("record", True)))

    def stop(self) -> None:
        """End the run or replay in order, after the frame at hand."""
        self._line.post("run:stop")

    def abort(self) -> None:
        """End the run now; what was recorded stays, marked incomplete."""
        self._line.post("run:abort")

    def reset(self) -> None:
        """Leave the fault state."""
        self._line.post("run:reset")

    def safe_state(self) -> list[str]:
        """STOP ALL: laser, gas and scan to rest. Returns what could not be verified; empty is good."""
        return list(self._line.post("safe-state")["unverified"])

    def recipe(self) -> dict[str, Any]:
        """The present or last recipe: `state`, `step` of `steps`, `doing`, `left_s`, `holds`, what is `permitted`."""
        return dict(self._line.get("recipe"))

    def start_recipe(self, recipe: Path | dict[str, Any]) -> dict[str, Any]:
        """Check a recipe (its file, or as a tree) whole against every limit, then begin. It is no sign of life: stay in
        `control` while it heats. Raises `LimitExceeded` or `BadInput` with the step; nothing was begun then."""
        return dict(self._line.post("recipe", _told(recipe)))

    def rehearse(self, recipe: Path | dict[str, Any]) -> dict[str, Any]:
        """The same on the simulated lab, which touches no device: `good`, `events`, and `channels` over time."""
        return dict(self._line.post("recipe/dry-run", _told(recipe)))

    def pause_recipe(self) -> None:
        """Ramps and waits stand still, holds go on."""
        self._line.post("recipe/pause")

    def resume_recipe(self) -> None:
        """Ramps and waits go on where they stood still."""
        self._line.post("recipe/resume")

    def abort_recipe(self) -> list[str]:
        """To the safe state at once: always permitted. Returns what could not be verified; empty is good."""
        return list(self._line.post("recipe/abort")["unverified"])

    def wait_until(self, holds: Callable[[Status], object], timeout_s: float) -> Status:
        """The first status that `holds`. Raises `TimeoutError` with how it stands instead."""
        deadline = time.monotonic() + timeout_s
        while not holds(status := self.status()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s:g} s; the lab is {status.state}, run {status.run}")
            time.sleep(POLL_S)
        return status

    @property
    def devices(self) -> dict[str, Device]:
        return {name: Device(self._line, name, tree["kind"]) for name, tree in self._line.get("devices").items()}

    def device(self, kind_or_name: str) -> Device:
        """The device of that name, or the first of that kind, such as `laser_heater`. Raises `RequestRefused`."""
        found = self.devices
        for device in found.values():
            if kind_or_name in (device.name, device.kind):
                return device
        raise RequestRefused(f"there is no device {kind_or_name!r}", permitted=tuple(found))

    @property
    def heater(self) -> Device:
        return self.device("laser_heater")

    @property
    def stage(self) -> Device:
        return self.device("stage")

    @property
    def pyrometer(self) -> Device:
        return self.device("pyrometer")

    def gas(self, name: str) -> Device:
        """The flow controller of a gas, such as `oxygen`."""
        return self.device(name)

    # Recorded runs

    def runs(self) -> list[RunInfo]:
        """Every recorded run, the newest first."""
        return as_typed(list[RunInfo], self._line.get("runs"))

    def run(self, run: str | RunInfo) -> Run:
        """A recorded run by its name. Raises `BadInput` for an unknown one."""
        found = Run(self._line, run if isinstance(run, str) else run.run_id)
        _ = found.info
        return found

    def replay(self, run: str | RunInfo | Run, **wanted: Any) -> Run:
        """Play a run again: `speed` ("1", "4", "max", "step"), `loop`, `first`, `last`, `record`, `fuse_frames`."""
        run_id = run if isinstance(run, str) else run.run_id
        started = self._line.post("replay", {"run": run_id, **wanted})["run_id"]
        return Run(self._line, started, recorded=bool(wanted.get("record", False)))

    def seek(self, position: int) -> None:
        """Play frame `position` of the replay, counted from 0, and go on from there."""
        self._line.post("replay:seek", {"position": position})

    def step(self) -> None:
        """One more frame of a replay at speed `step`."""
        self._line.post("replay:step")

    def _beat(self, name: str, over: threading.Event, lost: threading.Event) -> None:
        """A break of the line is lived with, a loss of control is final."""
        while not over.wait(HEARTBEAT_INTERVAL_S):
            try:
                self._line.post("control", {"name": name})
                self.sign_of_life()
            except RequestRefused:
                lost.set()
                return
            except EclipsError:
                continue

    def _lasers_off(self) -> None:
        for device in self.devices.values():
            if device.kind == "laser_heater":
                device.off()


def _told(recipe: Path | dict[str, Any]) -> dict[str, Any]:
    return {"recipe": recipe} if isinstance(recipe, dict) else {"text": recipe.read_text(encoding="utf-8")}
