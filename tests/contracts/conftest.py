"""The devices that every contract is run on, each given outside its context with what the contract needs to know."""

from __future__ import annotations

import pytest

from acquisition.clock import Instant, VirtualClock
from acquisition.instrument import four_quadrant
from hardware_drivers.simulated import World


@pytest.fixture
def world() -> World:
    return World("cu2o-spiral", four_quadrant(), VirtualClock(Instant(1_000_000_000, 1_700_000_000_000_000_000)))
