"""The four-quadrant BSE detector of a TESCAN microscope: one scan per exposure, the column told in its readings."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import AsyncIterator, Sequence

import numpy as np

from acquisition.clock import Clock
from acquisition.devices import Limits, Readings, ScanRequest
from acquisition.errors import DeviceFailed, RequestRefused
from acquisition.frames import Exposure
from acquisition.instrument import Instrument
from acquisition.stamping import optics_of
from hardware_drivers.scanning import require_frames_possible, require_set_up_possible
from hardware_drivers.sharksem.client import SharkSemSession
from hardware_drivers.sharksem.column import (
    BEAM_OFF,
    BEAM_ON,
    Column,
    beam_trouble,
    is_infrared_protected,
    read_beam,
    read_chamber_pressure_pa,
    read_column,
    set_view_field,
)
from hardware_drivers.sharksem.device import SharkSemDevice
from hardware_drivers.sharksem.message import Body, ByteOrder
from hardware_drivers.sharksem.scan import FrameLost, ScanAssembly
from hardware_drivers.sharksem.segments import SEGMENT_PATTERN, ask_segments, select_segments

log = logging.getLogger(__name__)

FULL_SCALE = np.iinfo(np.uint16).max
SILENCE_S = 5.0
"""Chunks come every 50 ms while a scan runs."""
MOST_LOST_IN_A_ROW = 5
DWELL_TIME_S = Limits(10e-9, 1.0, "SharkSEM dwell time")
SAME = 1e-4
"""Relative difference below which a number read back is the one that was set: it travels as text."""


class SharkSemDetector(SharkSemDevice):
    """Segments are found by name: the microscope's `BSE Q1` is segment `Q1` (or `BSE Q1`) of the instrument file.

    `pattern` is a regular expression with a group `segment` that the whole name must match. `size_limits` bound width
    and height in pixels. Every exposure is a scan of its own with its own number, so that pixels of two frames are
    never mixed and a lost connection ends the scan. A frame with a gap is not given: it is counted in the reading
    `frames_lost`, told in the log, and scanned again; five in a row are a `DeviceFailed`. Pixel size is the view field
    over the width; voltage (less the specimen's bias), current and working distance are the column's. `byte_order` of
    the 16-bit pixels is stated nowhere: low byte first is assumed as in all else, and told at the start.
    Source: hardware.md, SharkSEM.
    """

    def __init__(
        self,
        name: str,
        session: SharkSemSession,
        instrument: Instrument,
        size_limits: Limits,
        pattern: str = SEGMENT_PATTERN,
        clock: Clock | None = None,
        byte_order: ByteOrder = "little",
    ) -> None:
        super().__init__(name, session, clock)
        self._byte_order = byte_order
        self._news: list[str] = []
        self._instrument = instrument
        self._size_limits = size_limits
        self._pattern = re.compile(pattern)
        self._width_px = self._height_px = 512
        self._view_field_m: float | None = None
        self._detectors: list[int] = []
        self._armed = self._scanning = False
        self._frame_numbers = itertools.count(1)
        self._assembly: ScanAssembly | None = None
        self._frames_lost = 0

    @property
    def frames_lost(self) -> int:
        """Frames that had a gap, since the start."""
        return self._frames_lost

    def told(self) -> Sequence[str]:
        """See `acquisition.devices.Telling`."""
        news, self._news = self._news, []
        return news

    async def configure(self, scan: ScanRequest) -> Instrument:
        """Set the view field, and read the column. A pixel size that the optics cannot give becomes the nearest.

        Raises `RequestRefused` while scanning or without a beam, `LimitExceeded` for size, pixel size and dwell
        time (nothing is sent then), and `DeviceFailed`.
        """
        self._require_entered()
        require_set_up_possible(self.name, scan, self._size_limits, scanning=self._scanning)
        dwell_time_s = self._instrument.beam.dwell_time_s if scan.dwell_time_s is None else scan.dwell_time_s
        DWELL_TIME_S.check(dwell_time_s, f"{self.name} dwell_time_s")
        whole_ns_s = round(1e9 * dwell_time_s) / 1e9
        asked = self._instrument.with_scan(pixel_size_m=scan.pixel_size_m, dwell_time_s=whole_ns_s)
        column = await read_column(self._session)
        self._require_usable(column)
        pixel_size_m = await self._settle_pixel_size(scan, column)
        self._instrument = asked.with_scan(
            pixel_size_m=pixel_size_m,
            energy_ev=column.high_voltage_v + asked.specimen.bias_v,
            current_a=column.beam_current_a,
            working_distance_m=column.working_distance_m,
        )
        self._width_px, self._height_px = scan.width_px, scan.height_px
        return self._instrument

    async def arm(self) -> None:
        """Take the scan from the microscope's own window and put the segments on channels 0, 1, ...

        Raises `RequestRefused` while scanning or without a beam, and `DeviceFailed`, also under infrared protection.
        """
        self._require_entered()
        if self._scanning:
            raise RequestRefused(f"{self.name} is scanning already", permitted=("stop",))
        if trouble := beam_trouble(await read_beam(self._session)):
            raise RequestRefused(f"{self.name}: {trouble}")
        await self._require_no_protection()
        await self._session.order("GUISetScanning", 0)
        await self._session.order("ScStopScan")
        await select_segments(self._session, self._detectors)
        self._armed = True

    async def exposures(self, count: int | None) -> AsyncIterator[Exposure]:
        """Raises `RequestRefused` unless armed, or while another iterator scans; `DeviceFailed` when the scan is
        refused, no data come, five frames in a row are lost, the beam goes, or infrared protection comes."""
        self._require_entered()
        require_frames_possible(self.name, armed=self._armed, scanning=self._scanning)
        self._scanning = True
        try:
            left, lost_in_a_row = count, 0
            while self._armed and left != 0:
                try:
                    exposure = await self._expose()
                except FrameLost as loss:
                    if not self._armed:
                        return
                    lost_in_a_row += 1
                    self._lose(loss, lost_in_a_row)
                    continue
                except TimeoutError as silence:
                    raise self._session.lose(f"sends no image data on the port after its own ({silence})") from None
                if not self._armed:
                    return
                lost_in_a_row = 0
                yield exposure
                left = None if left is None else left - 1
        finally:
            self._scanning = self._armed = False

    async def stop(self) -> None:
        """Raises `DeviceFailed` when the microscope cannot be told."""
        self._armed = False
        if self._assembly is not None:
            self._assembly.fail(FrameLost("the scan was stopped"))
        if self._entered:
            await self._session.order("ScStopScan")

    async def _look(self) -> Readings:
        column = await read_column(self._session)
        pressure_pa = await read_chamber_pressure_pa(self._session)
        return {
            "high_voltage_v": self._reading(column.high_voltage_v),
            "beam_current_a": self._reading(column.beam_current_a),
            "working_distance_m": self._reading(column.working_distance_m),
            "view_field_m": self._reading(column.view_field_m),
            "beam_on": self._reading(
                column.beam == BEAM_ON, "" if column.beam in (BEAM_ON, BEAM_OFF) else beam_trouble(column.beam)
            ),
            "chamber_pressure_pa": self._reading(pressure_pa),
            "infrared_protection": self._reading(await self._protected()),
            "scanning": self._reading(self._scanning),
            "frames_lost": self._reading(self._frames_lost),
        }

    async def _set_up(self) -> None:
        """Raises `DeviceFailed` also when a segment of the instrument file is not among the microscope's detectors."""
        await self._session.order("ScStopScan")
        await self._check()
        first, other = ("low", "big") if self._byte_order == "little" else ("high", "little")
        self._news = [
            f"pixels of 16 bits are read {first} byte first, which no manual states; should images look like noise, "
            f'try byte_order = "{other}" in [instruments.detector]'
        ]

    async def _check(self) -> None:
        names = [segment.name for segment in self._instrument.detector.segments]
        self._detectors = await ask_segments(self._session, names, self._pattern)

    async def _rest(self) -> None:
        self._armed = False
        if self._assembly is not None:
            self._assembly.fail(DeviceFailed(f"{self.name} was disconnected amid its scan"))
        await self._session.order("ScStopScan")

    async def _settle_pixel_size(self, scan: ScanRequest, column: Column) -> float:
        """A magnification that someone changed at the microscope stays, where the request leaves it open."""
        if scan.pixel_size_m is not None:
            wanted_m = scan.pixel_size_m
        elif self._view_field_m is not None and _same(column.view_field_m, self._view_field_m):
            wanted_m = self._instrument.scan.pixel_size_m
        else:
            return column.view_field_m / scan.width_px
        view_field_m = settled_m = wanted_m * scan.width_px
        if not _same(column.view_field_m, view_field_m):
            settled_m = await set_view_field(self._session, view_field_m)
        self._view_field_m = settled_m
        return wanted_m if _same(settled_m, view_field_m) else settled_m / scan.width_px

    async def _expose(self) -> Exposure:
        """One scan, stopped in any case. Raises `FrameLost` for a gap or a stop, `TimeoutError` for silence."""
        self._require_entered()
        frame = next(self._frame_numbers)
        self._assembly = assembly = ScanAssembly(
            frame, len(self._detectors), self._height_px, self._width_px, self._byte_order
        )
        start = self._clock.now()
        try:
            with self._session.listening(assembly):
                await self._start_scan(frame)
                await assembly.finished(SILENCE_S)
                end = self._clock.now()
        finally:
            self._assembly = None
            await self._end_scan()
        if trouble := beam_trouble(await read_beam(self._session)):
            raise DeviceFailed(f"{self.name}: amid the scan, {trouble}")
        await self._require_no_protection()
        saturated = bool(assembly.images.max() == FULL_SCALE)
        return Exposure(
            images=assembly.images,
            start=start,
            end=end,
            optics=optics_of(self._instrument),
            flags=frozenset({"saturated"} if saturated else ()),
        )

    async def _start_scan(self, frame: int) -> None:
        width_px, height_px = self._width_px, self._height_px
        whole = (width_px, height_px, 0, 0, width_px - 1, height_px - 1)
        dwell_ns = round(1e9 * self._instrument.beam.dwell_time_s)
        status = await self._session.ask("ScScanXY", frame, *whole, 1, dwell_ns, answer=Body.integer)
        if status < 0:
            raise DeviceFailed(
                f"{self.name}: the microscope refuses to scan {width_px} x {height_px} px at {dwell_ns} ns "
                f"(status {status}); try another size or dwell time, and look at the microscope for open dialogs"
            )

    async def _end_scan(self) -> None:
        """Never in the way of the error that ended the scan; a lost session cannot be told, and its scan ends alone."""
        try:
            await self._session.order("ScStopScan")
        except DeviceFailed as failure:
            log.warning("%s: its scan could not be stopped, and ends with the frame: %s", self.name, failure)

    def _lose(self, loss: FrameLost, in_a_row: int) -> None:
        self._frames_lost += 1
        log.warning("%s: a frame is lost (%d so far): %s", self.name, self._frames_lost, loss)
        if in_a_row >= MOST_LOST_IN_A_ROW:
            raise DeviceFailed(
                f"{self.name}: {in_a_row} frames in a row were lost ({loss}); is the network to "
                f"{self._session.address} too slow for this scan, or the microscope's computer too busy?"
            )

    def _require_usable(self, column: Column) -> None:
        if trouble := beam_trouble(column.beam):
            raise RequestRefused(f"{self.name}: {trouble}")
        for what in ("high_voltage_v", "beam_current_a", "working_distance_m", "view_field_m"):
            if (value := getattr(column, what)) <= 0:
                raise DeviceFailed(f"{self.name}: the microscope tells {what} {value:g}; set its column up first")

    async def _require_no_protection(self) -> None:
        if await self._protected():
            raise DeviceFailed(
                f"{self.name}: its infrared protection is active, the light on it is too strong; lower the laser or "
                "retract the detector, then reset the protection at the microscope"
            )

    async def _protected(self) -> bool:
        return any([await is_infrared_protected(self._session, detector) for detector in self._detectors])


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME)
