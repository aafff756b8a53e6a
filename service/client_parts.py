"""What a lab has: devices and runs, as the client hands them out."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from acquisition.errors import BadInput, ComponentFailed, EclipsError
from service.client_line import Line
from service.client_types import DeviceState, FrameInfo, Picture, RunInfo, Verdict

POLL_S = 0.25
MOST_FRAMES = 1000
BUSY = ("armed", "acquiring", "finishing")
Told = TypeVar("Told")


class Device:
    """One device; `device["temperature_k"]` is a reading's value."""

    def __init__(self, line: Line, name: str, kind: str) -> None:
        self._line = line
        self._path = f"devices/{path_name(name)}"
        self.name = name
        self.kind = kind

    def __repr__(self) -> str:
        return f"Device({self.name!r}, {self.kind!r})"

    def __getitem__(self, quantity: str) -> float:
        """Raises `ComponentFailed` for a reading that is not valid, `KeyError` for one that there is not."""
        reading = self.state.readings[quantity]
        if reading.value is None:
            raise ComponentFailed(f"{self.name} {quantity} is not valid: {reading.reason}")
        return reading.value

    @property
    def state(self) -> DeviceState:
        return as_typed(DeviceState, self._line.get(self._path))

    def set(self, **values: float) -> Any:
        """`current_a`, `flow_mol_per_s`, `emissivity`, or any of `x_m`, `y_m`, `z_m`: returns where a stage has got to.

        Raises `LimitExceeded` with value, limit and setting; nothing was sent then."""
        return self._line.post(f"{self._path}/setpoints", values)["reached"]

    def arm(self) -> None:
        """Allow a laser to emit. Raises `RequestRefused` with each condition of the permit that does not hold."""
        self._line.post(f"{self._path}:arm")

    def off(self) -> None:
        """Laser off, or gas shut: always permitted."""
        self._line.post(f"{self._path}:off")

    def stop(self) -> None:
        """Hold a stage where it is: always permitted."""
        self._line.post(f"{self._path}:stop")


class Run:
    """A run, also while it is recorded."""

    def __init__(self, line: Line, run_id: str, *, recorded: bool = True) -> None:
        self._line = line
        self._path = f"runs/{path_name(run_id)}"
        self._recorded = recorded
        self.run_id = run_id

    def __repr__(self) -> str:
        return f"Run({self.run_id!r})"

    @property
    def info(self) -> RunInfo:
        return as_typed(RunInfo, self._line.get(self._path))

    def wait(self, timeout_s: float = 3600.0, progress: Callable[[RunInfo], object] = lambda _: None) -> RunInfo | None:
        """Until the run is over and has its heights; None for one that was not recorded. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while self._goes_on(progress):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.run_id} is not over within {timeout_s:g} s")
            time.sleep(POLL_S)
        return self.info if self._recorded else None

    def frames(self) -> list[FrameInfo]:
        """The frames recorded by now, in order."""
        found: list[FrameInfo] = []
        while part := self._line.get(
            f"{self._path}/frames", after=found[-1].sequence if found else -1, limit=MOST_FRAMES
        ):
            found += as_typed(list[FrameInfo], part)
            if len(part) < MOST_FRAMES:
                break
        return found

    def frame(self, sequence: int) -> Picture:
        """(S, H, W) uint16, one image per segment."""
        return self._picture("frames", sequence)

    def height(self, sequence: int) -> Picture:
        """(H, W) float32 metres. Raises `BadInput` where there is none (yet)."""
        return self._picture("heights", sequence)

    def heights(self) -> Iterator[Picture]:
        """Every height that is there by now, in order."""
        for frame in self.frames():
            if frame.has_height:
                yield self.height(frame.sequence)

    def profile(
        self, sequence: int, start_px: tuple[float, float], end_px: tuple[float, float], width_px: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances and heights in metres from one pixel (x, y) to another, averaged over `width_px` across."""
        ends = dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), (*start_px, *end_px), strict=True))
        told = self._line.get(f"{self._path}/heights/{sequence}/profile", **ends, width_px=width_px)
        return np.array(told["distances_m"]), np.array(told["heights_m"])

    def save_tiff(self, sequence: int, to: Path | str, what: Literal["heights", "frames"] = "heights") -> Path:
        """One height (float32 metres) or frame as a TIFF with its pixel size."""
        path = Path(to)
        path.write_bytes(self._line.fetch(f"{self._path}/{what}/{sequence}", "image/tiff").content)
        return path

    def verify(self) -> Verdict:
        """Have every checksum and count of the recording checked."""
        task = self._line.answer("POST", f"{self._path}/verify", headers={"Prefer": "respond-async"}).json()
        return as_typed(Verdict, self._done(task)["result"])

    def export(
        self,
        to: Path | str,
        format: Literal["zip", "npz", "tiff"] = "zip",
        progress: Callable[[int, int | None], object] = lambda done, total: None,
    ) -> Path:
        """One file of the whole run: the folder as it is, or its heights. Raises `ComponentFailed` when it fails."""
        task = self._line.post(f"{self._path}/export", {"format": format})
        self._done(task, progress)
        return self._line.save(f"tasks/{task['id']}/file", Path(to))

    def _done(
        self, task: dict[str, Any], progress: Callable[[int, int | None], object] = lambda done, total: None
    ) -> dict[str, Any]:
        """The task once it is; called off when the waiting is broken off."""
        place = f"tasks/{task['id']}"
        try:
            while task["state"] in ("waiting", "running"):
                progress(task["done"], task["total"])
                time.sleep(POLL_S)
                task = self._line.get(place)
        except BaseException:
            with contextlib.suppress(EclipsError):
                self._line.delete(place)
            raise
        progress(task["done"], task["total"])
        if task["state"] != "done":
            raise ComponentFailed(f"the {task['kind']} of {self.run_id} was {task['state']}: {task['reason']}")
        return task

    def _goes_on(self, progress: Callable[[RunInfo], object]) -> bool:
        if not self._recorded:
            status = self._line.get("status")
            return status["state"] in BUSY and (status["run"] or {}).get("run_id") == self.run_id
        info = self.info
        progress(info)
        return not info.over

    def _picture(self, what: str, sequence: int) -> Picture:
        path = f"{self._path}/{what}/{sequence}"
        answer = self._line.fetch(path, "application/octet-stream")
        values = np.load(io.BytesIO(answer.content), allow_pickle=False)
        pixel_size_m = float(answer.headers["Eclips-Pixel-Size-M"])
        return Picture(values, sequence, pixel_size_m, lambda: self._line.fetch(path, "image/png").content)


def as_typed(kind: type[Told], tree: Any) -> Told:
    return TypeAdapter(kind).validate_python(tree)


def path_name(name: str) -> str:
    """A name as one part of a path, whatever is in it. Raises `BadInput` for what would lead elsewhere."""
    if name in ("", ".", ".."):
        raise BadInput(f"{name!r} is no name")
    return quote(name, safe="")
