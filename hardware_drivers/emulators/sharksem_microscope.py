"""What a TESCAN microscope does when told by SharkSEM: scan, move, answer; on a `World`, and without any socket."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from acquisition.devices import StagePosition
from hardware_drivers.sharksem.message import Argument, Body, Chunk
from hardware_drivers.simulated.detector import frame_time_s, scanned
from hardware_drivers.simulated.world import World

CHUNK_S = 0.05
STAGE_SPEED_M_PER_S = 1e-3
STAGE_STEP_S = 0.02
STAGE_RANGE_M = 10e-3
MOST_PIXELS = 1 << 26
FIRST_DETECTOR = 4
"""Detectors are numbered apart from their place in the list and from channels, so that no mix-up goes unseen."""
INVALID = -1

Answer = tuple[Argument, ...]
Pixels = NDArray[np.uint16]


class SharkSemFault(StrEnum):
    """How the emulator misbehaves: its connections up to `UNPLUGGED`, its data line up to `NO_DATA`, then itself."""

    NONE = "none"
    SILENCE = "silence"
    GARBAGE = "garbage"
    HALF = "half"
    SLOW = "slow"
    UNPLUGGED = "unplugged"
    CHUNK_GAP = "chunk_gap"
    REPEATED_CHUNK = "repeated_chunk"
    NO_DATA = "no_data"
    IGNORED_MOVE = "ignored_move"
    CLAMPED_MOVE = "clamped_move"
    SCAN_REFUSED = "scan_refused"
    INFRARED_PROTECTION = "infrared_protection"
    BEAM_IN_TRANSITION = "beam_in_transition"


@dataclass(slots=True)
class Channel:
    detector: int = 0
    enabled: bool = False


class Microscope:
    """`send` is given every chunk of a running scan; `fault` may be set at any time. Frames and moves take their real
    time, whatever the world's clock says.

    Detectors are `SE`, then `BSE Q1`, `BSE Q2`, ... for the segments of the world's instrument. Protocol 2 clamps moves
    out of the stage's range of 10 mm each way, protocol 3 ignores them.
    """

    def __init__(self, world: World, version: str, send: Callable[[Chunk], Awaitable[None]]) -> None:
        self.fault = SharkSemFault.NONE
        self.calibrated = True
        self.beam = 1
        self.beam_current_a = world.instrument.beam.current_a
        self.view_field_m = 512 * world.instrument.scan.pixel_size_m
        self._world = world
        self._version = version
        self._send = send
        self._segments = len(world.instrument.detector.segments)
        self._channels = [Channel() for _ in range(max(self._segments, 4))]
        self._frames = 0
        self._scan: asyncio.Task[None] | None = None
        self._move: asyncio.Task[None] | None = None
        self._watchdog_s = math.inf
        self._polled_s = 0.0
        self.commands: Mapping[str, Callable[[Body], Answer]] = {
            "TcpGetVersion": lambda _: (version,),
            "HVGetVoltage": lambda _: (float(world.instrument.beam.energy_ev - world.instrument.specimen.bias_v),),
            "HVGetBeam": lambda _: (1000 if self.fault is SharkSemFault.BEAM_IN_TRANSITION else self.beam,),
            "GetBeamCurrent": lambda _: (1e12 * self.beam_current_a,),
            "GetWD": lambda _: (1e3 * world.instrument.detector.working_distance_m,),
            "GetViewField": lambda _: (1e3 * self.view_field_m,),
            "SetViewField": self._set_view_field,
            "VacGetPressure": lambda _: (world.pressure_pa,),
            "DtGetChannels": lambda _: (len(self._channels),),
            "DtEnumDetectors": lambda _: (self._detector_list(),),
            "DtSelect": self._select,
            "DtGetSelected": lambda body: (self._channel(body).detector,),
            "DtEnable": self._enable,
            "DtStateGet": lambda _: (4 if self.fault is SharkSemFault.INFRARED_PROTECTION else 0,),
            "GUISetScanning": lambda _: (),
            "ScScanXY": self._start_scan,
            "ScStopScan": self._stop_scan,
            "StgIsCalibrated": lambda _: (int(self.calibrated),),
            "StgIsBusy": self._is_busy,
            "StgGetPosition": lambda _: (*self._stands_mm(), 0.0, 0.0),
            "StgMoveTo": self._move_to,
            "StgStop": self._stop_stage,
            "StgWatchdog": self._set_watchdog,
        }

    @property
    def scanning(self) -> bool:
        return self._scan is not None and not self._scan.done()

    @property
    def moving(self) -> bool:
        return self._move is not None and not self._move.done()

    async def warm_up(self) -> None:
        """Render once unseen: where the rendering is compiled first, a program would take that time for silence."""
        await scanned(self._world, self._world.instrument, (8, 8), 0, self._world.clock.now())

    async def rest(self) -> None:
        """Stop scan and stage, and wait until they are."""
        tasks = [task for task in (self._scan, self._move) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Detectors

    def _detector_list(self) -> str:
        names = ["SE", *(f"BSE Q{n + 1}" for n in range(self._segments))]
        numbered = enumerate(zip(names, (0, *self._bse()), strict=True))
        return "".join(f"det.{n}.name={name}\ndet.{n}.detector={number}\n" for n, (name, number) in numbered)

    def _bse(self) -> range:
        return range(FIRST_DETECTOR, FIRST_DETECTOR + self._segments)

    def _channel(self, body: Body) -> Channel:
        number = body.unsigned()
        return self._channels[number] if number < len(self._channels) else Channel()

    def _select(self, body: Body) -> Answer:
        channel = self._channel(body)
        channel.detector = body.integer()
        return ()

    def _enable(self, body: Body) -> Answer:
        """Only for 16 bits a pixel: an eight-bit channel sends nothing here."""
        channel = self._channel(body)
        enabled, bits = body.integer(), body.integer()
        channel.enabled = bool(enabled) and bits == 16
        return ()

    def _set_view_field(self, body: Body) -> Answer:
        self.view_field_m = 1e-3 * min(max(body.number(), 1e-5), 10.0)
        return ()

    # Scan

    def _start_scan(self, body: Body) -> Answer:
        frame, width_px, height_px, left, top, right, bottom = (body.unsigned() for _ in range(7))
        count, dwell_ns = body.integer(), body.unsigned() if body.left else 1000
        whole = (left, top, right, bottom) == (0, 0, width_px - 1, height_px - 1)
        possible = whole and 0 < width_px * height_px <= MOST_PIXELS and count >= 0 and dwell_ns > 0
        if not possible or self.scanning or self.fault is SharkSemFault.SCAN_REFUSED:
            return (INVALID,)
        self._scan = asyncio.create_task(self._run_scan(frame, (width_px, height_px), count, dwell_ns), name="scan")
        return (0,)

    def _stop_scan(self, _: Body) -> Answer:
        if self._scan is not None:
            self._scan.cancel()
            self._scan = None
        return ()

    async def _run_scan(self, frame: int, size_px: tuple[int, int], count: int, dwell_ns: int) -> None:
        """`count` frames, or without end for 0, all under the one number that the scan was asked with."""
        pixel_size_m = self.view_field_m / size_px[0]
        instrument = self._world.instrument.with_scan(pixel_size_m=pixel_size_m, dwell_time_s=dwell_ns / 1e9)
        duration_s = frame_time_s(instrument, size_px)
        left = count or math.inf
        while left > 0:
            # The beam starts now, not once its picture is rendered: else the frame would show an earlier surface.
            began_s = asyncio.get_running_loop().time()
            middle = self._world.clock.now().later(0.5 * duration_s)
            images, _ = await scanned(self._world, instrument, size_px, self._frames, middle)
            self._frames += 1
            await self._send_frame(frame, images.reshape(self._segments, -1), began_s, duration_s)
            left -= 1

    async def _send_frame(self, frame: int, images: Pixels, began_s: float, duration_s: float) -> None:
        """`images`: (S, pixels). What the beam has passed goes out every 50 ms, channel by channel."""
        loop = asyncio.get_running_loop()
        sent, pixels = 0, images.shape[1]
        while sent < pixels:
            await asyncio.sleep(min(CHUNK_S, max(began_s + duration_s - loop.time(), 0.0)))
            share = (loop.time() - began_s) / duration_s
            scanned_px = min(max(int(share * pixels), sent), pixels)
            for number, channel in enumerate(self._channels):
                if channel.enabled and channel.detector in self._bse() and scanned_px > sent:
                    part = images[channel.detector - FIRST_DETECTOR, sent:scanned_px]
                    await self._send_chunk(Chunk(frame, number, sent, part))
            sent = scanned_px

    async def _send_chunk(self, chunk: Chunk) -> None:
        if self.fault is SharkSemFault.NO_DATA:
            return
        if self.fault is SharkSemFault.CHUNK_GAP and chunk.channel == 1:
            half = (len(chunk.pixels) + 1) // 2
            chunk = Chunk(chunk.frame, chunk.channel, chunk.first_pixel + half, chunk.pixels[half:])
        if self.fault is SharkSemFault.REPEATED_CHUNK:
            early = np.zeros(len(chunk.pixels) // 2, np.uint16)
            await self._send(Chunk(chunk.frame, chunk.channel, chunk.first_pixel, early))
        await self._send(chunk)

    # Stage

    def _stands_mm(self) -> tuple[float, float, float]:
        stage = self._world.stage
        return 1e3 * stage.x_m, 1e3 * stage.y_m, 1e3 * stage.z_m

    def _is_busy(self, _: Body) -> Answer:
        self._polled_s = asyncio.get_running_loop().time()
        return (int(self.moving),)

    def _set_watchdog(self, body: Body) -> Answer:
        self._watchdog_s = body.integer() or math.inf
        return ()

    def _move_to(self, body: Body) -> Answer:
        asked = np.array([1e-3 * body.number() for _ in range(3)])
        goal = asked.clip(-STAGE_RANGE_M, STAGE_RANGE_M)
        ignored = not self._version.startswith("2.") and bool((asked != goal).any())
        if ignored or self.moving or not self.calibrated or self.fault is SharkSemFault.IGNORED_MOVE:
            return ()
        if self.fault is SharkSemFault.CLAMPED_MOVE:
            goal *= 0.5
        self._polled_s = asyncio.get_running_loop().time()
        self._move = asyncio.create_task(self._travel(goal), name="stage")
        return ()

    def _stop_stage(self, _: Body) -> Answer:
        if self._move is not None:
            self._move.cancel()
            self._move = None
        return ()

    async def _travel(self, goal: NDArray[np.float64]) -> None:
        loop, stage = asyncio.get_running_loop(), self._world.stage
        start = np.array([stage.x_m, stage.y_m, stage.z_m])
        duration_s = float(np.linalg.norm(goal - start)) / STAGE_SPEED_M_PER_S
        began_s, share = loop.time(), 0.0
        while share < 1.0 and loop.time() - self._polled_s <= self._watchdog_s:
            await asyncio.sleep(STAGE_STEP_S)
            share = min((loop.time() - began_s) / duration_s, 1.0) if duration_s else 1.0
            self._world.stage = StagePosition(*(float(axis) for axis in start + share * (goal - start)))
