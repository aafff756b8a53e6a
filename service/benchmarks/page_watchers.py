"""Whether the recorder notices that many watch: the same run with nobody and with twenty clients in turns.

Also the program of those clients: they ask as the page does, and throw away what comes."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import connect

from service.benchmarks.measured import Measured, NotMeasured, tell_progress
from service.benchmarks.page_lab import PACE_HZ, SIZE_PX, Programs
from service.benchmarks.programs import Program, answer_jobs

CLIENTS = 20
ROUNDS, ROUND_S, SETTLE_S = 4, 20.0, 2.0
WISH = {
    "layers": ["segments", "height", "residual", "sigma"],
    "max_px": 512,
    "segments_px": 256,
    "only_new": True,
}
"""What the page asks for at 1280 x 800."""
PROC = Path("/proc")


def watched_rows(running: Programs, api: httpx.Client) -> dict[str, Measured | NotMeasured]:
    """The share of the recorder's frames that twenty clients cost, and what they add to its CPU time a frame."""
    tell_progress(f"{2 * ROUNDS} x {ROUND_S:g} s of recording, with nobody and with {CLIENTS} clients in turns")
    base, key = running.link.split("/?key=")
    job = {"url": f"ws{base.removeprefix('http')}/api/v1/live", "key": key, "clients": CLIENTS, "seconds": ROUND_S}
    alone, watched, sent = list[tuple[float, float]](), list[tuple[float, float]](), 0
    with Program("service.benchmarks.page_watchers") as clients:
        for _ in range(ROUNDS):
            alone.append(_recorded(running, api))
            clients.tell(job)
            watched.append(_recorded(running, api))
            sent += clients.hear()["messages"]
    (rate_alone, cpu_alone), (rate_watched, cpu_watched) = (np.median(one, axis=0).tolist() for one in (alone, watched))
    conditions = (
        f"median of {ROUNDS} rounds of {ROUND_S:g} s, recorded {rate_alone:.2f} frames/s with nobody, "
        f"{rate_watched:.2f} with {CLIENTS} clients on these cores that got {sent / ROUNDS / ROUND_S:.0f} "
        f"messages/s, {SIZE_PX} x {SIZE_PX} at {PACE_HZ:g} frames/s, load {os.getloadavg()[0]:.1f}"
    )
    cpu = f"{1e3 * cpu_alone:.1f} ms a frame with nobody, {1e3 * cpu_watched:.1f} with {CLIENTS}, all threads"
    return {
        "watched_recorder_slower": Measured(1.0 - rate_watched / rate_alone, conditions),
        "watched_recorder_cpu": Measured(cpu_watched / cpu_alone - 1.0, cpu)
        if PROC.exists()
        else NotMeasured("CPU times are read where there is /proc"),
    }


def _recorded(running: Programs, api: httpx.Client) -> tuple[float, float]:
    """Frames a second that came to the recorder, and CPU seconds that its program spent on each."""
    time.sleep(SETTLE_S)
    (frames, at_s), cpu_s = _frames(api), _cpu_s(running.process_id)
    time.sleep(ROUND_S - 2 * SETTLE_S)
    (frames_later, later_s), cpu_later_s = _frames(api), _cpu_s(running.process_id)
    time.sleep(SETTLE_S)
    recorded = frames_later - frames
    return recorded / (later_s - at_s), (cpu_later_s - cpu_s) / max(1, recorded)


def _frames(api: httpx.Client) -> tuple[int, float]:
    """Recorded frames, and when it was that there were so many."""
    status = api.get("/status").raise_for_status().json()
    return int(status["counters"]["frames"]["recorded"]), status["utc_ns"] / 1e9


def _cpu_s(supervisor_id: int) -> float:
    """Of the acquisition program, a child of the supervisor."""
    for status in PROC.glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == supervisor_id and b"acquire" in status.with_name("cmdline").read_bytes():
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return 0.0


def _watch(job: dict[str, Any]) -> dict[str, int]:
    return {"messages": asyncio.run(_all(job))}


async def _all(job: dict[str, Any]) -> int:
    return sum(await asyncio.gather(*(_one(job) for _ in range(job["clients"]))))


async def _one(job: dict[str, Any]) -> int:
    messages, head = 0, {"Authorization": f"Bearer {job['key']}"}
    async with connect(job["url"], additional_headers=head, max_size=None, compression=None) as socket:
        try:
            async with asyncio.timeout(job["seconds"]):
                while True:
                    await socket.send(json.dumps(WISH))
                    await socket.recv()
                    messages += 1
        except TimeoutError:
            return messages


if __name__ == "__main__":
    answer_jobs(_watch)
