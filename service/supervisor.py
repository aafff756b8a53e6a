"""Runs acquire, infer and serve as processes on one machine: restarts what dies, lets nothing outlive it.

A child holds the reading end of a pipe whose writing end only this process has: however this process dies, the
children see the end of the pipe, bring the lab to rest and leave. That works alike on Linux and Windows.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.priority import at_niceness, lower_session
from service.process_end import END, environment_with_restarts

log = logging.getLogger(__name__)

RESTART_AFTER_S = 0.5
QUICK_DEATH_S = 5.0
MAX_QUICK_DEATHS = 5
ORDERLY_END_S = 60.0
READY_WITHIN_S = 60.0

# A ctrl-C in the terminal reaches this process alone, which then ends the others in order.
_WINDOWS = sys.platform == "win32"
_OWN_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)

Announce = Callable[[str], None]


@dataclass(slots=True)
class Part:
    """One program. `first_line` is what it reads from its pipe at the start. One that has to say `ready` before others
    can use it is started before them. `niceness`: how far others go before it when processors are short."""

    name: str
    arguments: Sequence[str]
    first_line: str = ""
    ready: str = ""
    niceness: int = 0
    process: subprocess.Popen[str] | None = None
    started_s: float = 0.0
    quick_deaths: int = 0
    restarts: int = 0
    is_ready: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)


class Supervisor:
    """Keeps its parts alive until the first of them ends by itself with status 0, or until it is interrupted.

    `before_restart(name)` is called before a dead part is started again: for the acquisition program it brings the
    laser to rest.
    """

    def __init__(self, parts: Sequence[Part], announce: Announce, before_restart: Callable[[str], None]) -> None:
        self._parts = list(parts)
        self._announce = announce
        self._before_restart = before_restart
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """End in order, from any thread or signal handler; the second time without waiting for heights."""
        if self._interrupted.is_set():
            for part in self._parts:
                _close_pipe(part)
        self._interrupted.set()

    def run(self) -> int:
        """The exit status: that of the acquisition program when it ended by itself or was ended in order."""
        for part in sorted(self._parts, key=lambda part: not part.ready):
            self._start(part)
            if part.ready and not part.is_ready.wait(READY_WITHIN_S):
                self._tell(f"{part.name} is not ready after {READY_WITHIN_S:g} s: starting the others all the same")
        try:
            while not self._interrupted.wait(0.1):
                for part in self._parts:
                    status = part.process.poll() if part.process else None
                    if status is None:
                        continue
                    if status == 0 or not self._restart(part, status):
                        return status
            return 0
        finally:
            self._end_all()

    def _start(self, part: Part) -> None:
        part.started_s = time.monotonic()
        program = [sys.executable, "-m", "service.cli", *part.arguments, "--supervised"]
        command, flags = at_niceness(program, part.niceness)
        part.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment_with_restarts(part.restarts),
            creationflags=flags | _OWN_GROUP,
            start_new_session=not _WINDOWS,
        )
        lower_session(part.process.pid, part.niceness)
        assert part.process.stdin is not None
        part.process.stdin.write(part.first_line + "\n")
        part.process.stdin.flush()
        reader = threading.Thread(target=self._relay, args=(part, part.process), daemon=True)
        reader.start()
        part.threads = [reader]

    def _relay(self, part: Part, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if part.ready and line.startswith(part.ready):
                part.is_ready.set()
            self._announce(line.rstrip("\n"))
        part.is_ready.set()

    def _tell(self, text: str) -> None:
        self._announce(text)
        log.warning("%s", text, extra={"announced": True})

    def _restart(self, part: Part, status: int) -> bool:
        """False when a part dies again and again right after its start: then restarting helps nobody."""
        quick = time.monotonic() - part.started_s < QUICK_DEATH_S
        part.quick_deaths = part.quick_deaths + 1 if quick else 0
        if part.quick_deaths >= MAX_QUICK_DEATHS:
            self._tell(f"{part.name} ended with status {status} {MAX_QUICK_DEATHS} times in a row: giving up")
            return False
        part.restarts += 1
        self._tell(f"{part.name} ended with status {status}: starting it again")
        self._before_restart(part.name)
        time.sleep(RESTART_AFTER_S)
        self._start(part)
        return True

    def _end_all(self) -> None:
        """Acquisition first, so that its last frames still find workers; then all the others together."""
        for parts in (self._parts[:1], self._parts[1:]):
            for part in parts:
                _say_end(part)
            for part in parts:
                if part.process is not None:
                    self._wait_for(part, part.process)
                _close_pipe(part)
                for thread in part.threads:
                    thread.join(2)

    def _wait_for(self, part: Part, process: subprocess.Popen[str]) -> None:
        """As long as the acquisition program makes heights it may take its time; the others may not."""
        patience_s = None if part is self._parts[0] else ORDERLY_END_S
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._tell(f"{part.name} did not end within {ORDERLY_END_S:g} s and is killed")
            process.kill()
            process.wait()


def _say_end(part: Part) -> None:
    """Ask a part to end in order. A part that is already gone has closed its pipe."""
    with contextlib.suppress(OSError, ValueError):
        if part.process is not None and part.process.stdin is not None:
            part.process.stdin.write(END + "\n")
            part.process.stdin.flush()


def _close_pipe(part: Part) -> None:
    with contextlib.suppress(OSError, ValueError):
        if part.process is not None and part.process.stdin is not None:
            part.process.stdin.close()
