"""Work of `eclips` in a program of its own, beside the live ones: what it tells, line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from acquisition.errors import BadInput
from service.priority import AFTER_ALL_ELSE, at_niceness

END_WITHIN_S = 10.0


def told_by(arguments: list[str], *, after_all_else: bool = False) -> Generator[dict[str, Any], None, None]:
    """The JSON lines that `eclips ARGUMENTS` prints, as they come, from one thread, for the other cores are the run's;
    `after_all_else` gives it the processor only when nobody else wants it. Ended when it is closed.

    Raises `BadInput` with the last thing it said when it fails.
    """
    command = [sys.executable, "-m", "service.cli", *arguments]
    command, flags = at_niceness(command, AFTER_ALL_ELSE if after_all_else else 0)
    lean = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, env=lean,
            creationflags=flags,
        )  # fmt: skip
        try:
            for line in program.stdout or ():
                yield json.loads(line)
            if program.wait(END_WITHIN_S):
                said.seek(0)
                last = said.read().strip().rsplit("\n", 1)[-1]
                raise BadInput(last.removeprefix("eclips: ") or f"it ended with {program.returncode}")
        finally:
            with suppress(ProcessLookupError):
                program.kill()
            program.wait(END_WITHIN_S)
            if program.stdout is not None:
                program.stdout.close()
