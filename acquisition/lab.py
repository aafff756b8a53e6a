"""The instruments of one lab, by role, and what each setpoint may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from acquisition.devices import (
    Device,
    LaserHeater,
    Limits,
    MassFlowController,
    PressureGauge,
    Pyrometer,
    SegmentedDetector,
    Stage,
)
from acquisition.interlocks import Watched


@dataclass(frozen=True, slots=True)
class Lab:
    """`limits` by device name and setpoint; the devices enforce them, here they are told to people. `truth`: figures of
    the surface as a simulation knows them without a frame, see `acquisition.live_figures`."""

    detector: SegmentedDetector
    stage: Stage | None = None
    heater: LaserHeater | None = None
    pyrometer: Pyrometer | None = None
    gauge: PressureGauge | None = None
    gases: tuple[MassFlowController, ...] = ()
    limits: Mapping[str, Mapping[str, Limits]] = field(default_factory=dict)
    simulated: bool = False
    truth: Callable[[], Mapping[str, float]] | None = None

    def kinds(self) -> Iterator[tuple[str, Device]]:
        """Every device with its kind's name."""
        roles: tuple[tuple[str, Device | None], ...] = (
            ("segmented_detector", self.detector),
            ("stage", self.stage),
            ("laser_heater", self.heater),
            ("pyrometer", self.pyrometer),
            ("pressure_gauge", self.gauge),
            *(("mass_flow_controller", gas) for gas in self.gases),
        )
        for kind, device in roles:
            if device is not None:
                yield kind, device

    @property
    def devices(self) -> dict[str, Device]:
        return {device.name: device for _, device in self.kinds()}

    @property
    def watched(self) -> Watched | None:
        """What the laser's permit looks at; None without a laser."""
        if self.heater is None:
            return None
        return Watched(
            heater=self.heater.name,
            pyrometer=self.pyrometer.name if self.pyrometer else None,
            gauge=self.gauge.name if self.gauge else None,
            gauge_technology=self.gauge.technology if self.gauge else "",
            gases=tuple(gas.name for gas in self.gases),
        )
