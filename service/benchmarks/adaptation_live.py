"""How evenly a replay is recorded while a model set is adapted beside it: the times at which frames are on the disk."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from acquisition.clock import NANOSECONDS_PER_SECOND, SystemClock
from acquisition.errors import ComponentFailed
from acquisition.frames import Exposure, Frame, RunFinished
from acquisition.instrument import Instrument
from acquisition.recording import Recorder
from acquisition.stamping import optics_of, stamp, start_run
from inference.forward_model import render
from service.benchmarks.measured import Measured, tell_progress
from service.benchmarks.page_lab import PATIENCE_S, come_to_rest, programs
from service.benchmarks.surfaces import made_surface

SURFACE = "roughness, 20 deg"
SIZE_PX, RATE_HZ, DOSE, EXPOSURES = 256, 10.0, 3_000.0, 8
FRAMES = 600
"""Of the replay, which starts anew where it is over: once in so many intervals the next frame is the first one."""
ALONE_S, QUICK_ALONE_S = 30.0, 10.0
"""How long the replay is watched without adaptation, and how long the adaptation then fits."""
SETTLED_S = 5.0
TASK_S = 600.0
POLL_S = 0.002
CONNECTS = 6
FRAME = b'"kind":"frame"'

Floats = NDArray[np.float64]


def recording_row(quick: bool) -> Measured:
    """The slowest hundredth of the intervals between recorded frames over their median while a set is adapted; the peer
    is the same replay before. Raises `ComponentFailed` when the programs do not start or the adaptation fails."""
    alone_s = QUICK_ALONE_S if quick else ALONE_S
    with tempfile.TemporaryDirectory(prefix="eclips-bench-") as name:
        runs = Path(name) / "runs"
        _record(runs / "few", EXPOSURES)
        _record(runs / "long", FRAMES)
        with programs(Path(name)) as running:
            base, key = running.link.split("/?key=")
            head, patient = {"Authorization": f"Bearer {key}"}, httpx.HTTPTransport(retries=CONNECTS)
            with httpx.Client(base_url=f"{base}/api/v1", headers=head, timeout=PATIENCE_S, transport=patient) as api:
                come_to_rest(api)
                wanted = {"run": "long", "loop": True, "record": True}
                recorded = runs / api.post("/replay", json=wanted).raise_for_status().json()["run_id"]
                with _written_s(recorded / "journal.jsonl") as written_s:
                    tell_progress(f"{alone_s:g} s of {RATE_HZ:g} frames/s, {SIZE_PX} x {SIZE_PX}, recorded")
                    time.sleep(SETTLED_S + alone_s)
                    began_s = time.monotonic()
                    tell_progress("the same while a set is adapted")
                    seconds = _adapt(api, alone_s)
                    ended_s = time.monotonic()
                lost = api.get("/status").raise_for_status().json()["drops"]["refused"]
    times_s = np.array(written_s)
    before, beside = (
        np.diff(times_s[(times_s > since_s) & (times_s < until_s)])
        for since_s, until_s in ((began_s - alone_s, began_s), (began_s, ended_s))
    )
    told = (
        f"{SIZE_PX} x {SIZE_PX} at {RATE_HZ:g} frames/s, recorded again, unet fitted for {seconds:.0f} s beside it; "
        f"intervals in ms, median, p99, worst: {_told(beside)}, before it {_told(before)}; {len(beside) + 1} frames "
        f"beside it, {lost} refused"
    )
    return Measured(_stretched(beside), told, "the same replay without adaptation", _stretched(before))


def _record(folder: Path, count: int) -> None:
    """A run of `count` frames at the pace, some exposures of one surface again and again."""
    surface = made_surface(SURFACE, SIZE_PX)
    instrument: Instrument = surface.instrument
    rng = np.random.default_rng(29)
    images = [render(surface.heights_m, instrument, rng, dose=DOSE) for _ in range(EXPOSURES)]
    at = SystemClock().now()
    run = start_run(at, folder.name, "bench", instrument, (SIZE_PX, SIZE_PX), count, "")
    run = replace(run, run_id=folder.name)
    recorder = Recorder(folder, run, instrument, lambda _: None, simulated=True)
    for number in range(count):
        frame = stamp(run, number, Exposure(images[number % EXPOSURES], at, at, optics_of(instrument)), {})
        later_ns = round(number / RATE_HZ * NANOSECONDS_PER_SECOND)
        header = replace(
            frame.header,
            monotonic_ns=frame.header.monotonic_ns + later_ns,
            utc_ns=frame.header.utc_ns + later_ns,
            exposure_start_ns=frame.header.exposure_start_ns + later_ns,
            exposure_end_ns=frame.header.exposure_end_ns + later_ns,
        )
        recorder.write_frame(Frame(header, frame.images), None)
    recorder.finish_frames(RunFinished(folder.name, "bench", 0, 0, 0, count, count - 1, "bench", recorder.digest))
    recorder.close("complete")


@contextmanager
def _written_s(journal: Path) -> Iterator[list[float]]:
    """When each frame's line, which follows its pages, came to stand in the journal, for as long as this is entered."""
    over, found = threading.Event(), list[float]()

    def watch() -> None:
        rest = b""
        with journal.open("rb") as lines:
            while not over.wait(POLL_S):
                *whole, rest = (rest + lines.read()).split(b"\n")
                now_s = time.monotonic()
                found.extend(now_s for line in whole if FRAME in line)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield found
    over.set()
    thread.join(PATIENCE_S)


def _adapt(api: httpx.Client, seconds: float) -> float:
    """Adapt to the short run, whatever the verdict; how long it fitted."""
    wanted = {"run_id": "few", "model": "unet", "minutes": seconds / 60.0, "name": "bench"}
    task = api.post("/adaptations", json=wanted).raise_for_status().json()["id"]
    deadline_s = time.monotonic() + TASK_S
    while time.monotonic() < deadline_s:
        told = api.get(f"/tasks/{task}").raise_for_status().json()
        if told["state"] == "done":
            return float(told["result"]["scores"]["seconds"])
        if told["state"] in ("failed", "cancelled"):
            raise ComponentFailed(f"the adaptation is {told['state']}: {told['reason']}")
        time.sleep(0.5)
    raise ComponentFailed(f"the adaptation was not done within {TASK_S:g} s")


def _stretched(intervals_s: Floats) -> float:
    return float(np.percentile(intervals_s, 99) / np.median(intervals_s))


def _told(intervals_s: Floats) -> str:
    figures = (np.median(intervals_s), np.percentile(intervals_s, 99), intervals_s.max())
    return ", ".join(f"{1e3 * figure:.1f}" for figure in figures)
