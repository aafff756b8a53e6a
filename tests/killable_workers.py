"""Real workers to kill: a program that forks one for every line it reads, so that imports are paid once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from inference import worker as worker_module
from inference.worker import Worker
from programs import start_host
from streams import PATIENCE_S, QuickPipeline

LONGEST_LEASE_S = 120.0
"""Longer than any test waits: a frame that comes back sooner does so because its worker was found to be dead."""


class WorkerProcess:
    """A real worker to kill; `held` are the sequence numbers of the frames that it began with, as it told them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.held: list[int] = []

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class WorkerHost:
    """Starts workers that take `seconds` for a frame."""

    def __init__(self) -> None:
        self._host = start_host(__file__)
        self._workers: dict[int, WorkerProcess] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, address: str, seconds: float) -> WorkerProcess:
        assert self._host.stdin is not None
        with self._news:
            known = len(self._workers)
            print(address, seconds, file=self._host.stdin, flush=True)
            assert self._news.wait_for(lambda: len(self._workers) > known, PATIENCE_S), "no worker was started"
            return list(self._workers.values())[-1]

    def close(self) -> None:
        for worker in self._workers.values():
            try:
                worker.kill()
            except ProcessLookupError:
                continue
        self._host.kill()
        self._host.communicate()

    def _read(self) -> None:
        assert self._host.stdout is not None
        for line in self._host.stdout:
            pid, _, what = line.rstrip("\n").partition(" ")
            with self._news:
                worker = self._workers.setdefault(int(pid), WorkerProcess(int(pid)))
                if what:
                    worker.held.append(int(what))
                self._news.notify_all()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    worker_module.LEASE_S = LONGEST_LEASE_S
    for line in iter(sys.stdin.readline, ""):
        address, seconds = line.split()
        pid = os.fork()
        if pid == 0:
            tell = lambda frame: os.write(1, f"{os.getpid()} {frame.header.sequence}\n".encode())  # noqa: E731
            pipeline: Any = QuickPipeline(float(seconds), tell)
            Worker(pipeline, address, None, threading.Event()).run(lambda _: None)
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
