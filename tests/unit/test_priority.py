"""The worker waits for the other programs when processors are short."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.priority import HEIGHTS, at_niceness

TELL_NICENESS = [sys.executable, "-S", "-c", "import os; print(os.nice(0))"]


@pytest.mark.skipif(sys.platform == "win32", reason="niceness is of POSIX")
def test_a_program_runs_at_the_niceness_that_it_was_given() -> None:
    command, _ = at_niceness(TELL_NICENESS, HEIGHTS)
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(told) == min(os.nice(0) + HEIGHTS, 19)


def test_a_program_of_no_niceness_is_started_as_it_is() -> None:
    assert at_niceness(TELL_NICENESS, 0) == (TELL_NICENESS, 0)
