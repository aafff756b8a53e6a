"""Who is on the line, and what does it read? Asked without entering the device, so that nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from acquisition.devices import Device, Reading
from acquisition.errors import DeviceFailed, RequestRefused

PROBE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What a device told. `identification` is empty where it has none."""

    identification: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)


@runtime_checkable
class Probed(Protocol):
    """A driver that can ask only. Entering a device brings it to rest, which is an order; this is none."""

    async def probe(self) -> Probe:
        """On a connection of its own, which is closed again: nothing but questions is sent.

        Raises `RequestRefused` while the device is entered, and `DeviceFailed` when it does not answer as it should.
        """
        ...


async def probe(device: Device) -> Probe:
    """Within 15 s. Raises as `Probed.probe` does, and `RequestRefused` for a device that cannot be asked alone."""
    if not isinstance(device, Probed):
        raise RequestRefused(f"{device.name} cannot be asked without being used")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await device.probe()
    except TimeoutError:
        raise DeviceFailed(f"{device.name} did not answer within {PROBE_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise DeviceFailed(f"{device.name}: {error}") from error


def refuse_entered(name: str, *, entered: bool) -> None:
    if entered:
        raise RequestRefused(f"{name} is in use, and is asked by whoever uses it: look at its readings")
