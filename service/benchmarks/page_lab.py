"""What the page's benchmark looks at: the programs on a push source, and a camera that sends at its pace."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from acquisition.errors import ComponentFailed
from acquisition.instrument import four_quadrant
from inference.forward_model import render
from service.settings import environment_with_runs

SIZE_PX, PACE_HZ = 512, 10.0
MOVIE = 6
"""So many different frames are sent in turn."""
KEY = "a-key-for-one-benchmark"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Programs:
    """`link` opens the page and holds its key; frames are sent to `pushing`; `process_id` of the supervisor."""

    link: str
    pushing: str
    process_id: int


@contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    """`eclips up` on a push source. Raises `ComponentFailed` when it does not come to serve."""
    data, state, control, web, push = _free_ports(5)
    (folder / "key").write_text(KEY, encoding="utf-8")
    tables = (
        '[microscope]\nkind = "real"\n'
        f'[instruments.detector]\nkind = "push"\nkey_file = "key"\nport = {push}\n'
        f"[stream]\ndata_port = {data}\nstate_port = {state}\ncontrol_port = {control}\n[serve]\nport = {web}\n"
        f"[scan]\nwidth_px = {SIZE_PX}\nheight_px = {SIZE_PX}\n"
    )
    config = folder / "bench.toml"
    config.write_text(tables, encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "up", "--config", str(config)]
    kept, pipe = environment_with_runs(folder / "runs"), subprocess.PIPE
    with subprocess.Popen(
        command, env=kept, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as program:
        assert program.stdout is not None
        said, link = iter(program.stdout), None
        try:
            link = next((line.split("open ")[1].split()[0] for line in said if "open http" in line), None)
            if link is None:
                raise ComponentFailed(f"eclips up ended with {program.wait()} before it served the page")
            hearing = threading.Thread(target=lambda: list(said), daemon=True)
            hearing.start()
            yield Programs(link, f"http://127.0.0.1:{push}/frames", program.pid)
        finally:
            program.terminate()
            if link is not None:
                hearing.join(PATIENCE_S)


def come_to_rest(api: httpx.Client) -> None:
    """End the run that goes on."""
    api.post("/run:stop").raise_for_status()
    deadline = time.monotonic() + PATIENCE_S
    while api.get("/status").raise_for_status().json()["state"] != "idle" and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def sending(address: str) -> Iterator[None]:
    """Frames at a camera's pace for as long as this is entered; one that is refused is lost, as a camera's would be."""
    over, bodies = threading.Event(), _movie()

    def send() -> None:
        due = time.monotonic()
        with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=10) as client:
            for number in range(sys.maxsize):
                head = {"segments": list("ABCD"), "width_px": SIZE_PX, "height_px": SIZE_PX, "dtype": "uint16"}
                client.post(
                    address, content=json.dumps(head | {"number": number}).encode() + b"\n" + bodies[number % MOVIE]
                )
                due += 1.0 / PACE_HZ
                if over.wait(max(0.0, due - time.monotonic())):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(PATIENCE_S)


def _movie() -> list[bytes]:
    """Terraces that move on from frame to frame, as pixels of four segments."""
    instrument, rng = four_quadrant(), np.random.default_rng(0)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    step_m = 4.0 * instrument.scan.pixel_size_m
    maps = (step_m * np.floor((np.hypot(x - 256, y - 200) + 12 * number) / 70.0) for number in range(MOVIE))
    return [render(height_m, instrument, rng).astype("<u2").tobytes() for height_m in maps]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
