"""The whole chain as users run it: real programs, a recorded run replayed as fast as it goes, heights recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.errors import ComponentFailed
from acquisition.instrument import four_quadrant
from acquisition.recording import RecordedRun
from inference.forward_model import render
from inference.pipeline import Pipeline
from inference.registry import find_model_set
from inference.worker import FRAMES_IN_HAND
from service.benchmarks.answers import answer_table, status_times_s
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, Report, Request, tell_progress
from service.settings import environment_with_runs

PORTS = {"data_port": 5691, "state_port": 5692, "control_port": 5693}
SERVE_PORT = 8091
KEY_FILE = "key"
FRAMES = {512: (24, 48), 1024: (10, 24)}
STATUS_PX = 512
STATUS_REQUESTS = (200, 500)


def measure(request: Request) -> Report:
    """Rows of [live] for the first of the request's sets. Frames a second count from the first to the last recorded
    height of a replay at full speed. Beside the rows: how soon `GET /status` is answered during one. Raises `BadInput`
    for a set that is not installed."""
    model = find_model_set(request.models[0]).name
    rows: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="eclips-bench-") as folder:
        for size, counts in FRAMES.items():
            frames = counts[0] if request.quick else counts[1]
            tell_progress(f"replay of {frames} frames of {size} x {size}")
            fps, start_s = _replay(Path(folder), size, frames, model)
            rows[f"fps_{size}"] = Measured(
                fps,
                f"set {model}, {frames} frames of 4 x {size} x {size}, {os.cpu_count()} cores, replay at full speed, "
                "recorded",
            )
            if size == 512:
                rows["start_to_first_height_s"] = Measured(
                    start_s, f"set {model}, eclips replay, {size} x {size}, process start included"
                )
            if size == 1024 and not request.quick:
                bare, loading_s = _bare(size, model)
                rows["service_overhead_pct"] = Measured(
                    100.0 * (1.0 - fps / bare),
                    f"{fps:.2f} frames/s of the whole chain against {bare:.2f} of the peer, {size} x {size}; the peer "
                    f"loads the set in {loading_s:.2f} s",
                    peer="the graphs alone in one process",
                    peer_value=0.0,
                )
        tell_progress(f"GET /status during a replay of {STATUS_PX} x {STATUS_PX}")
        times_s = _status_times_s(Path(folder), STATUS_REQUESTS[0] if request.quick else STATUS_REQUESTS[1])
    conditions = f"replay of 4 x {STATUS_PX} x {STATUS_PX} at full speed, set {model}, {os.cpu_count()} cores"
    return Report(rows, table=answer_table(times_s, conditions))


def _replay(folder: Path, size: int, frames: int, model: str) -> tuple[float, float]:
    """Frames a second to recorded height, and seconds from the command to the first height."""
    config, runs, source = folder / "bench.toml", folder / f"runs-{size}", folder / f"source-{size}"
    ports = "\n".join(f"{name} = {port}" for name, port in PORTS.items())
    tables = (
        f'[stream]\n{ports}\n[serve]\nport = {SERVE_PORT}\nkey_file = "{KEY_FILE}"\n[inference]\nmodel = "{model}"\n'
    )
    config.write_text(tables, encoding="utf-8")
    environment = environment_with_runs(runs)
    eclips = [sys.executable, "-m", "service.cli"]
    make = [*eclips, "simulate", "--frames", str(frames), "--size", str(size), "--out", str(source)]
    _run(make, environment)
    began_ns = time.time_ns()
    _run([*eclips, "replay", str(source), "--speed", "max", "--record", "--config", str(config)], environment)
    recorded = RecordedRun(next(runs.iterdir()))
    times_ns = sorted(height.header.utc_ns for height in recorded.heights.values())
    if len(times_ns) != frames:
        raise ComponentFailed(f"{len(times_ns)} of {frames} heights were recorded")
    return (frames - 1) / ((times_ns[-1] - times_ns[0]) / 1e9), (times_ns[0] - began_ns) / 1e9


def _status_times_s(folder: Path, requests: int) -> NDArray[np.float64]:
    """The recording of `_replay` again and again, unrecorded, and the service asked how it stands."""
    replayed = ["replay", str(folder / f"source-{STATUS_PX}"), "--speed", "max", "--loop"]
    arguments = [*replayed, "--config", str(folder / "bench.toml")]
    environment = environment_with_runs(folder / "runs-asked")
    return status_times_s(arguments, f"http://127.0.0.1:{SERVE_PORT}", folder / KEY_FILE, environment, requests)


def _bare(size: int, model: str) -> tuple[float, float]:
    """Frames a second of the same work without stream, recording and service, with as many frames in hand as a worker
    has, and seconds to load the graphs."""
    loading = time.perf_counter()
    pipeline = Pipeline(model)
    loading_s = time.perf_counter() - loading
    instrument = four_quadrant()
    images = render(np.zeros((size, size)), instrument, np.random.default_rng(0))
    frame = frame_of(images, instrument, "bare")
    with ThreadPoolExecutor(FRAMES_IN_HAND) as pool:
        for frames in (FRAMES_IN_HAND, 8):
            began = time.perf_counter()
            list(pool.map(lambda _: pipeline.reconstruct(frame, instrument), range(frames)))
    return 8 / (time.perf_counter() - began), loading_s


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise ComponentFailed(f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
