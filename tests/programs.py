"""The programs for tests: `eclips` commands, and a microscope with ports and folders of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import wiring
from service.settings import load_settings

ECLIPS = [sys.executable, "-m", "service.cli"]
PATIENCE_S = 60.0


_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """None of them was given before in this process, where many microscopes may start side by side."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports += {one.getsockname()[1]} - _given
            _given.update(ports)
    return ports


def write_settings(folder: Path, size_px: int = 64, **tables: str) -> Path:
    """A settings file with free ports; `tables` are added to the table of that name."""
    data, state, control, page = free_ports(4)
    wanted = {
        "stream": f"data_port = {data}\nstate_port = {state}\ncontrol_port = {control}",
        "serve": f"port = {page}",
        "scan": f"width_px = {size_px}\nheight_px = {size_px}",
    }
    for name, text in tables.items():
        wanted[name] = wanted.get(name, "") + "\n" + text
    body = "\n".join(f"[{name}]\n{text}" for name, text in wanted.items())
    path = folder / "settings.toml"
    path.write_text(f'runs_folder = "{(folder / "runs").as_posix()}"\n{body}\n', encoding="utf-8")
    return path


class Program:
    """A running `eclips` command, its lines, and the service that it may serve."""

    def __init__(self, *arguments: str, runs: Path) -> None:
        self.runs = runs
        self.lines: list[str] = []
        environment = {key: value for key, value in os.environ.items() if key != "ECLIPS_RUNS"}
        self.process = subprocess.Popen(
            [*ECLIPS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first line from number `after` on that matches; fails with what was printed instead."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines[after:] if (match := re.search(pattern, line))), None)

        wait_until(found, lambda: f"no line matched {pattern!r}:\n" + "\n".join(self.lines[-40:]))
        match = found()
        assert match is not None
        return match

    @property
    def link(self) -> str:
        """The signed-in link, once the service answers."""
        link = self.wait_for(r"open (http://\S+)")[1]

        def answers() -> bool:
            try:
                return httpx.get(link.split("?")[0] + "api/v1/health").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, lambda: "the service does not answer:\n" + "\n".join(self.lines[-40:]))
        return link

    def client(self) -> httpx.Client:
        base, key = self.link.split("/?key=")
        return httpx.Client(base_url=base + "/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=20)

    def children(self) -> dict[str, int]:
        """Process ids of the supervised parts by name."""
        listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        found = {}
        for line in listing.splitlines()[1:]:
            pid, parent, arguments = line.split(None, 2)
            match = re.search(r"service\.cli (acquire|infer|serve|emulate)\b", arguments)
            if match and int(parent) == self.process.pid:
                found[match[1]] = int(pid)
        return found

    def run_folder(self) -> Path:
        return Path(self.wait_for(r"^recording (.+)$")[1])

    def interrupt(self) -> int:
        """Ctrl-C, then the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reader.join(5)


class Laboratory:
    """The acquisition program with a simulated lab, and a worker if asked for, in this process: quick to start."""

    def __init__(self, config: Path, *, with_worker: bool = False) -> None:
        self.config = config
        self.settings = load_settings(config)
        self.said: list[str] = []
        self.program = wiring.acquisition_program(self.settings, self.said.append)
        self._stop = threading.Event()
        self._worker = wiring.worker(self.settings, self._stop) if with_worker else None

    async def __aenter__(self) -> Laboratory:
        await self.program.__aenter__()
        if self._worker is not None:
            self._working = threading.Thread(target=self._worker.run, args=(self.said.append,), daemon=True)
            self._working.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.program.node.recordings.hurry()
        await self.program.__aexit__()
        if self._worker is not None:
            self._stop.set()
            self._working.join(PATIENCE_S)

    async def ask(self, name: str, **arguments: Any) -> Any:
        return await self.program.carry_out(name, arguments)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def recorded(self, name: str, **arguments: Any) -> Path:
        """The folder of the run that `start` or `replay` records, once it is complete with its heights."""
        started = await self.ask(name, **arguments)
        folder = self.settings.runs_folder / str(started["run_id"])
        await self.until(lambda: any(line.startswith(f"run {folder} complete") for line in self.said))
        return folder


def wait_until(condition: Callable[[], Any], complaint: Callable[[], str], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(complaint())
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eclips(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*ECLIPS, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=180
    )


def start_host(path: str) -> subprocess.Popen[str]:
    """The test program at `path`, that is told a line for each thing to start and tells lines of what it does."""
    folders = os.pathsep.join([str(Path(path).parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
