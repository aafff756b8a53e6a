"""What a settings file may name for each role of a lab of real instruments: kind -> driver, each with its own keys.

A new driver gets a class here with a `kind` of its own, and a place in its role's union. Building touches no device,
and imports the drivers of this lab alone: every program starts with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from acquisition.clock import Clock
from acquisition.devices import (
    LaserHeater,
    Limits,
    MassFlowController,
    PressureGauge,
    Pyrometer,
    SegmentedDetector,
    Stage,
)
from acquisition.errors import BadInput
from acquisition.instrument import Instrument

if TYPE_CHECKING:
    from hardware_drivers.sharksem import SharkSemSession

Shared = TypeVar("Shared")
Address = Annotated[str, Field(min_length=1, max_length=200)]
"""`/dev/ttyUSB0`, `COM3`, or `socket://host:port` for a converter."""

SCAN_PX = Limits(16, 8192, "the detector's range")
EMISSIVITY = Limits(0.05, 1.0, "the pyrometer's range")  # that of bright copper; a head that ends at 0.1 says no


@dataclass(frozen=True, slots=True)
class Means:
    """What drivers are built with: limits in SI, and what several of one lab share, such as a bus, by its address."""

    instrument: Instrument
    clock: Clock
    heater_current: Limits
    flows: Mapping[str, Limits]
    stage_axis: Limits
    _shared: dict[tuple[type, str], object] = field(default_factory=dict)

    def shared(self, kind: type[Shared], address: str, build: Callable[[], Shared]) -> Shared:
        """The one of its kind at that address."""
        found = self._shared.setdefault((kind, address), build())
        assert isinstance(found, kind)
        return found

    def sharksem(self, address: str) -> SharkSemSession:
        from hardware_drivers.sharksem import SharkSemSession

        return self.shared(SharkSemSession, address, lambda: SharkSemSession(address))


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SharkSemDetectorEntry(_Entry):
    """A TESCAN microscope; `address` is host and control port, `byte_order` that of its pixels of 16 bits."""

    kind: Literal["sharksem"]
    address: Address = "127.0.0.1:8300"
    byte_order: Literal["little", "big"] = "little"

    def build(self, means: Means) -> SegmentedDetector:
        from hardware_drivers.sharksem import SharkSemDetector

        session = means.sharksem(self.address)
        return SharkSemDetector(
            "detector", session, means.instrument, SCAN_PX, clock=means.clock, byte_order=self.byte_order
        )


class TiffFolderEntry(_Entry):
    """Any microscope that writes images to a folder; see `hardware_drivers.tiff.folder.folder_detector`."""

    kind: Literal["tiff_folder"]
    folder: Path
    pattern: str | None = None
    existing: Literal["take", "leave"] = "leave"
    sidecar: str | None = None
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 1.0

    def build(self, means: Means) -> SegmentedDetector:
        from hardware_drivers.tiff.folder import folder_detector

        return folder_detector(
            self.folder.expanduser(),
            means.instrument,
            pattern=self.pattern,
            existing=self.existing,
            sidecar=self.sidecar,
            patience_s=self.patience_s,
            settle_s=self.settle_s,
            clock=means.clock,
        )


class PushEntry(_Entry):
    """Any program that posts its images (`deploy/push_sender.py`); `key_file` holds the key that they must carry."""

    kind: Literal["push"]
    key_file: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8620
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 30.0

    def build(self, means: Means) -> SegmentedDetector:
        from hardware_drivers.push import push_detector

        try:
            key = self.key_file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"the key of the push source cannot be read (instruments.detector.key_file): {error}; write one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
            ) from error
        return push_detector(
            means.instrument, key, host=self.host, port=self.port, patience_s=self.patience_s, clock=means.clock
        )


class SharkSemStageEntry(_Entry):
    """The microscope's own stage. `tolerance_m`: how far from its target a move may end."""

    kind: Literal["sharksem"]
    address: Address = "127.0.0.1:8300"
    tolerance_m: Annotated[float, Field(gt=0, le=1e-3)] = 2e-6

    def build(self, means: Means) -> Stage:
        from hardware_drivers.sharksem import SharkSemStage

        axis, session = means.stage_axis, means.sharksem(self.address)
        return SharkSemStage("stage", session, axis, axis, axis, self.tolerance_m, clock=means.clock)


class PiStageEntry(_Entry):
    """A PI controller that speaks GCS 2.0. `axes`: PI's name of each axis that there is, by coordinate."""

    kind: Literal["gcs2"]
    address: Address
    baud: int = 38400
    axes: dict[Literal["x", "y", "z"], str] = {"x": "1", "y": "2"}
    units_per_m: Annotated[float, Field(gt=0)] = 1000.0
    tolerance_m: Annotated[float, Field(gt=0, le=1e-3)] = 1e-6

    def build(self, means: Means) -> Stage:
        from hardware_drivers.gcs2 import Gcs2Stage, PiAxis

        axes = {name: PiAxis(axis, means.stage_axis, self.units_per_m) for name, axis in self.axes.items()}
        return Gcs2Stage("stage", self.address, means.clock, axes, tolerance_m=self.tolerance_m, baud=self.baud)


class OsTechEntry(_Entry):
    """An OsTech laser diode driver on its serial port."""

    kind: Literal["ostech"]
    address: Address

    def build(self, means: Means) -> LaserHeater:
        from hardware_drivers.ostech import OsTechLaserHeater

        return OsTechLaserHeater("heater", self.address, means.clock, means.heater_current)


class UppEntry(_Entry):
    """An IMPAC pyrometer that speaks UPP."""

    kind: Literal["upp"]
    address: Address
    baud: int = 19200
    station: Annotated[int, Field(ge=0, le=97)] = 0

    def build(self, means: Means) -> Pyrometer:
        from hardware_drivers.upp import UppPyrometer

        return UppPyrometer("pyrometer", self.address, means.clock, EMISSIVITY, baud=self.baud, station=self.station)


class MnemonicGaugeEntry(_Entry):
    """An INFICON or Pfeiffer gauge controller. Only a capacitance gauge may guard the laser."""

    kind: Literal["mnemonic"]
    address: Address
    technology: Literal["capacitance", "pirani"]
    channel: Annotated[int, Field(ge=1, le=6)] = 1

    def build(self, means: Means) -> PressureGauge:
        from hardware_drivers.mnemonic_gauge import MnemonicGauge

        return MnemonicGauge("gauge", self.address, means.clock, self.technology, channel=self.channel)


class BronkhorstEntry(_Entry):
    """One controller of a bus; `gas` is what it lets in, and what `limits.flow_sccm` calls it."""

    kind: Literal["bronkhorst"]
    gas: Annotated[str, Field(min_length=1, max_length=40)]
    address: Address
    node: Annotated[int, Field(ge=1, le=128)] = 128

    def build(self, means: Means) -> MassFlowController:
        from hardware_drivers.bronkhorst import BronkhorstFlowController
        from hardware_drivers.propar import BronkhorstBus

        if self.gas not in means.flows:
            raise BadInput(f"no flow limit is given for {self.gas}: add limits.flow_sccm.{self.gas}")
        bus = means.shared(BronkhorstBus, self.address, lambda: BronkhorstBus(self.address))
        return BronkhorstFlowController(self.gas, bus, means.clock, self.gas, means.flows[self.gas], node=self.node)


Detectors = Annotated[SharkSemDetectorEntry | TiffFolderEntry | PushEntry, Field(discriminator="kind")]
Stages = Annotated[SharkSemStageEntry | PiStageEntry, Field(discriminator="kind")]


class Instruments(_Entry):
    """What there is, by role. A lab needs a detector, all else may be missing."""

    detector: Detectors | None = None
    stage: Stages | None = None
    heater: OsTechEntry | None = None
    pyrometer: UppEntry | None = None
    gauge: MnemonicGaugeEntry | None = None
    gases: tuple[BronkhorstEntry, ...] = ()
