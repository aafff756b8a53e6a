"""Which of our programs waits when processors are short: the laser, the recording and answers go before heights."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HEIGHTS = 2
"""The worker beside acquisition and service, which do little and must do it at once. More would not make these quicker,
and starve the worker on a machine that also does other things."""
AFTER_ALL_ELSE = 15


def at_niceness(command: Sequence[str], niceness: int) -> tuple[list[str], int]:
    """The command that runs at this niceness with all its threads, and the creation flags for it on Windows, which
    knows fewer steps. 0 leaves it as it is, also where there is no `nice`."""
    if not niceness:
        return list(command), 0
    nice = shutil.which("nice")
    prefix = [nice, "-n", str(niceness)] if nice else []
    return [*prefix, *command], getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)


def lower_session(process_id: int, niceness: int) -> None:
    """For a program that leads a session of its own: Linux may share processors between sessions, and niceness then
    counts inside one only. Harmless where it does not."""
    if niceness:
        with suppress(OSError):
            Path(f"/proc/{process_id}/autogroup").write_text(str(niceness), encoding="ascii")
