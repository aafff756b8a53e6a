"""How soon the service answers while frames go through it as fast as they can."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from acquisition.errors import ComponentFailed

TARGET_P99_S = 0.020
INTERVAL_S = 0.01
PATIENCE_S = 60.0
END_PATIENCE_S = 30.0


def status_times_s(
    arguments: list[str], address: str, key_file: Path, environment: Mapping[str, str], requests: int
) -> NDArray[np.float64]:
    """Seconds of each of so many `GET /status`, one after the other on one connection, from the first height of
    `eclips ARGUMENTS` on. Raises `ComponentFailed` when it does not get so far."""
    key_file.unlink(missing_ok=True)  # of an earlier start
    with _running(arguments, environment) as process:
        key = _first_key(process, key_file)
        with httpx.Client(base_url=f"{address}/api/v1", headers={"Authorization": f"Bearer {key}"}) as client:
            _wait_for_heights(process, client)
            times_s = np.empty(requests)
            for number in range(requests):
                began = time.perf_counter()
                client.get("/status").raise_for_status()
                times_s[number] = time.perf_counter() - began
                time.sleep(INTERVAL_S)
    return times_s


def answer_table(times_s: NDArray[np.float64], conditions: str) -> Table:
    """Beside the fixed rows: the middle, the slowest in a hundred, and the slowest."""
    table = Table(title=f"GET /status, {len(times_s)} requests, {conditions}")
    for heading in ("row", "value", "unit", "target", "holds"):
        table.add_column(heading, no_wrap=True)
    p99_s = float(np.percentile(times_s, 99))
    table.add_row("status_p50", f"{1e3 * float(np.median(times_s)):.3g}", "ms", "", "")
    holds = "yes" if p99_s < TARGET_P99_S else "no"
    table.add_row("status_p99", f"{1e3 * p99_s:.3g}", "ms", f"{1e3 * TARGET_P99_S:g}", holds)
    table.add_row("status_max", f"{1e3 * float(times_s.max()):.3g}", "ms", "", "")
    return table


@contextmanager
def _running(arguments: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_key(process: subprocess.Popen[bytes], key_file: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not (key_file.is_file() and (key := key_file.read_text(encoding="utf-8"))):
        _check_alive(process, deadline)
    return key


def _wait_for_heights(process: subprocess.Popen[bytes], client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if client.get("/status").json()["counters"]["heights"]["kept"]:
                return
        except (httpx.TransportError, KeyError):  # it does not listen yet, or its node does not answer yet
            pass
        _check_alive(process, deadline)


def _check_alive(process: subprocess.Popen[bytes], deadline: float) -> None:
    if process.poll() is not None:
        raise ComponentFailed(f"the programs under load ended with {process.returncode} before they gave a height")
    if time.monotonic() > deadline:
        raise ComponentFailed(f"the programs under load gave no height within {PATIENCE_S:g} s")
    time.sleep(0.1)
