"""Claims shared by the contracts of all device kinds."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from acquisition.devices import Device
from acquisition.errors import DeviceFailed


async def gives_valid_readings(device: Device, names: Iterable[str]) -> None:
    """Every promised quantity is there, finite, valid, and stamped no earlier than the one before."""
    first, second = await device.read(), await device.read()
    assert set(names) <= set(first)
    for name in names:
        assert first[name].valid and math.isfinite(first[name].value), (name, first[name])
        assert second[name].instant.monotonic_ns >= first[name].instant.monotonic_ns > 0
        assert first[name].instant.utc_ns > 0


async def fails_outside_its_context(device: Device) -> None:
    with pytest.raises(DeviceFailed, match=device.name):
        await device.read()
