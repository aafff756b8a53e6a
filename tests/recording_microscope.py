"""The acquisition program in this process, recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from acquisition.program import AcquisitionProgram
from programs import free_ports
from service import wiring
from service.settings import load_settings

MEGABYTE = 2**20


class Microscope:
    """The acquisition program with a simulated lab, recording 64 px frames to `runs`."""

    def __init__(self, runs: Path, low_space_bytes: int) -> None:
        data, state, control = free_ports(3)
        self.said: list[str] = []
        settings = load_settings(
            None,
            {
                "runs_folder": str(runs),
                "scan": {"width_px": 64, "height_px": 64},
                "stream": {"data_port": data, "state_port": state, "control_port": control},
                "recording": {"low_space_bytes": low_space_bytes},
            },
        )
        self.program: AcquisitionProgram = wiring.acquisition_program(settings, self.said.append)

    async def __aenter__(self) -> Microscope:
        await self.program.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.program.node.recordings.hurry()
        await self.program.__aexit__()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def acknowledged(self, frames: int) -> None:
        await self.until(lambda: sum(line.startswith("acknowledged") for line in self.said) >= frames)
