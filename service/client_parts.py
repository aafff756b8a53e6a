"""What a lab has: devices and runs, as the client hands them out."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from acquisition.errors import ComponentFailed
from service.client_line import Line
from service.client_types import DeviceState, ExportFormat, FrameInfo, Picture, RunInfo, Status, Verdict
from service.client_work import POLL_S, Progress, done, path_name, untold

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

    def set(self, *, only_if: str | None = None, **values: float) -> Any:
        """`current_a` or, of a heater whose `limits` list it, `power_w`; `flow_mol_per_s`; `emissivity`; or any of
        `x_m`, `y_m`, `z_m`: returns where a stage has got to.

        Raises `LimitExceeded` with value, limit and setting, and, where `only_if` is given, `ChangedMeanwhile` when it
        is no longer the `tag` of the device's state; nothing was sent then."""
        headers = None if only_if is None else {"If-Match": f'"{only_if}"'}
        return self._line.post(f"{self._path}/setpoints", values, headers)["reached"]

    def arm(self) -> None:
        """Allow a laser to emit. Raises `RequestRefused` with each condition of the permit that does not hold."""
        self._line.post(f"{self._path}:arm")

    def off(self) -> None:
        """Laser off, or gas shut: always permitted."""
        self._line.post(f"{self._path}:off")

    def stop(self) -> None:
        """Hold a stage where it is: always permitted."""
        self._line.post(f"{self._path}:stop")


class Models:
    """The model sets that turn frames into heights."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def installed(self) -> list[dict[str, Any]]:
        """What their cards say, which is `in_use`, and which was `before`."""
        return list(self._line.get("models"))

    @property
    def in_use(self) -> str | None:
        return as_typed(Status, self._line.get("status")).models.active

    @property
    def before(self) -> str | None:
        return as_typed(Status, self._line.get("status")).models.before

    def use(self, name: str) -> None:
        """Have all workers go over to another set, once they have loaded and tried it; no frame is lost. Raises
        `BadInput` with the reason where one cannot; the set in use stays then."""
        self._line.post("models:use", {"name": name})

    def roll_back(self) -> None:
        """Back to the set before. Raises `RequestRefused` when there was none."""
        self._line.post("models:rollback")

    def compare(self, names: Sequence[str], run_id: str, sequence: int) -> dict[str, Any]:
        """One recorded frame through several sets: `sets` has figures, `chi2`, `seconds` and, against the truth where
        it was recorded, `accuracy` of each; `apart_m` how far their heights lie apart."""
        body = {"names": list(names), "run_id": run_id, "sequence": sequence}
        return dict(done(self._line, self._line.post("models:compare", body))["result"])


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
        told = self.measure(sequence, start_px, end_px, width_px)
        return np.array(told["distances_m"]), np.array(told["heights_m"])

    def measure(
        self,
        sequence: int,
        start_px: tuple[float, float],
        end_px: tuple[float, float],
        width_px: int = 1,
        then_px: str = "",
    ) -> dict[str, Any]:
        """All that such a line tells, each with its uncertainty: `step`, `facet`, `edges`, `fit`; `reasons` says why
        one is None. `then_px` are further corners, `x,y,x,y`."""
        ends = _line(start_px, end_px, width_px)
        return dict(self._line.get(f"{self._path}/heights/{sequence}/profile", **ends, then_px=then_px))

    def save_tiff(self, sequence: int, to: Path | str, what: Literal["heights", "frames"] = "heights") -> Path:
        """One height (float32 metres) or frame as a TIFF with its pixel size."""
        path = Path(to)
        path.write_bytes(self._line.fetch(f"{self._path}/{what}/{sequence}", "image/tiff").content)
        return path

    def verify(self) -> Verdict:
        """Have every checksum and count of the recording checked."""
        task = self._line.answer("POST", f"{self._path}/verify", headers={"Prefer": "respond-async"}).json()
        return as_typed(Verdict, done(self._line, task)["result"])

    def export(
        self,
        to: Path | str,
        format: ExportFormat = "zip",
        progress: Progress = untold,
        frame: int | None = None,
    ) -> Path:
        """One file of the whole run: the folder as it is, or its heights, or those of one frame. Raises
        `ComponentFailed` when it fails."""
        task = self._line.post(f"{self._path}/export", {"format": format, "frame": frame})
        done(self._line, task, progress)
        return self._line.save(f"tasks/{task['id']}/file", Path(to))

    def report(self, to: Path | str, progress: Progress = untold) -> Path:
        """One HTML page that needs nothing else."""
        task = done(self._line, self._line.post(f"{self._path}:report"), progress)
        return self._line.save(f"tasks/{task['id']}/file", Path(to))

    def track(self, reference: Sequence[str] = (), progress: Progress = untold) -> dict[str, Any]:
        """Measure drift, steps, spirals, velocities and kinetics over all frames, keep it with the run, and tell it.
        `reference`: places `x,y,width,height` in pixels that do not grow; without any, growth is refused."""
        done(self._line, self._line.post(f"{self._path}:track", {"reference": list(reference)}), progress)
        return self.tracked()

    def tracked(self) -> dict[str, Any]:
        """What tracking found, and whether it still holds for the run's files. Raises `BadInput` before `track`."""
        return dict(self._line.get(f"{self._path}/track"))

    def facets(self, sequence: int, **wanted: Any) -> dict[str, Any]:
        """Facets of a height with inclination, azimuth, area and the crystal's faces that they may be; takes `crystal`,
        `top_family`, `top`, `smoothing_px`."""
        return dict(self._line.get(f"{self._path}/heights/{sequence}/facets", **wanted))

    def facet_labels(self, sequence: int) -> Picture:
        """(H, W) uint16: which of `facets` each pixel is of, 0 for none."""
        return self._picture("heights", sequence, "/facets/labels")

    def kymograph(
        self, start_px: tuple[float, float], end_px: tuple[float, float], width_px: int = 1, **wanted: Any
    ) -> dict[str, Any]:
        """The same line through every frame, and the velocity of the step nearest to `start_m`; takes `start_m`,
        `reach_m`, `every`, `then_px`. Raises `BadInput` for more than 200 frames at once."""
        return dict(self._line.get(f"{self._path}/kymograph", **_line(start_px, end_px, width_px), **wanted))

    def files(self) -> dict[str, int]:
        """The run's own files, which Fiji and Python open as they are, and their bytes."""
        return {file["name"]: file["bytes"] for file in self._line.get(f"{self._path}/files")}

    def save_file(self, name: str, to: Path | str) -> Path:
        """One of its files, of any size."""
        return self._line.save(f"{self._path}/files/{path_name(name)}", Path(to))

    def _goes_on(self, progress: Callable[[RunInfo], object]) -> bool:
        if not self._recorded:
            status = self._line.get("status")
            return status["state"] in BUSY and (status["run"] or {}).get("run_id") == self.run_id
        info = self.info
        progress(info)
        return not info.over

    def _picture(self, what: str, sequence: int, of_it: str = "") -> Picture:
        path = f"{self._path}/{what}/{sequence}{of_it}"
        answer = self._line.fetch(path, "application/octet-stream")
        values = np.load(io.BytesIO(answer.content), allow_pickle=False)
        pixel_size_m = float(answer.headers["Eclips-Pixel-Size-M"])
        return Picture(values, sequence, pixel_size_m, lambda: self._line.fetch(path, "image/png").content)


def as_typed(kind: type[Told], tree: Any) -> Told:
    return TypeAdapter(kind).validate_python(tree)


def _line(start_px: tuple[float, float], end_px: tuple[float, float], width_px: int) -> dict[str, float]:
    return dict(zip(("x0_px", "y0_px", "x1_px", "y1_px", "width_px"), (*start_px, *end_px, width_px), strict=True))
