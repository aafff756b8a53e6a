"""What a supervisor and its programs tell each other: how often one was started again, and that it should end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

END = "end"
RESTARTS_VARIABLE = "ECLIPS_RESTARTS"


def call_at_end(end: Callable[[], None], hurry: Callable[[], None], *, supervised: bool) -> None:
    """Call `end` for a signal to terminate or a supervisor's word; `hurry`, then `end`, when the supervisor died."""
    signal.signal(signal.SIGTERM, lambda *_: end())
    # A supervised program must not end on the terminal's ctrl-C by itself: the supervisor ends all in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN if supervised else lambda *_: end())
    if supervised:
        threading.Thread(target=_listen, args=(end, hurry), daemon=True).start()


def first_line_of_pipe(*, supervised: bool) -> str:
    """What the supervisor passed on at the start; empty when there is none."""
    return sys.stdin.readline().strip() if supervised else ""


def environment_with_restarts(restarts: int) -> dict[str, str]:
    """This program's environment for a child that was started again so often."""
    return {**os.environ, RESTARTS_VARIABLE: str(restarts)}


def restarts_before() -> int:
    """How often its supervisor had to start this program again; 0 without a supervisor."""
    return int(os.environ.get(RESTARTS_VARIABLE, "0"))


def _listen(end: Callable[[], None], hurry: Callable[[], None]) -> None:
    for line in iter(sys.stdin.readline, ""):
        if line.strip() == END:
            end()
    hurry()
    end()
