"""What the instrument in use will be able to show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from acquisition.errors import BadInput
from acquisition.frames import Frame
from acquisition.instrument import Instrument, parse_instrument
from inference.pipeline import with_optics
from inference.planner import Feature
from inference.planner import plan as plan_settings
from service.routes.shared import Services, Wired

router = APIRouter(tags=["plan"])

Side = Annotated[int | None, Query(ge=16, le=8192)]
LENGTHS_M = (1e-12, 0.1)
DOSES = (1e-3, 1e9)


@router.get("/plan")
def plan(
    wired: Wired,
    terrace_m: float | None = None,
    step_m: float | None = None,
    width_px: Side = None,
    height_px: Side = None,
    dose: float | None = None,
) -> dict[str, Any]:
    """Noise, time, tilt, saturation and advice for the newest frame's instrument, or for the settings' before one.

    `dose`: detected electrons per pixel, summed over the segments; needed where segments have no radii.
    """
    if (terrace_m is None) != (step_m is None):
        raise BadInput("terrace_m and step_m belong together: give both, or neither")
    for name, value, limits in (
        ("terrace_m", terrace_m, LENGTHS_M),
        ("step_m", step_m, LENGTHS_M),
        ("dose", dose, DOSES),
    ):
        _check(name, value, limits)
    feature = None if terrace_m is None or step_m is None else Feature(terrace_m, step_m)
    instrument, shape, simulated_dose = _in_use(wired)
    shape = (height_px or shape[0], width_px or shape[1])
    return asdict(plan_settings(instrument, feature, shape, simulated_dose if dose is None else dose))


@router.get("/calibration")
def calibration(wired: Wired) -> dict[str, Any]:
    """The instrument file in use, as a tree, with the hash that every frame carries: geometry, gains, beam, effects."""
    instrument, _, _ = _in_use(wired)
    return {"hash": instrument.calibration_hash, "instrument": instrument.model_dump(mode="json")}


def _check(name: str, value: float | None, limits: tuple[float, float]) -> None:
    """What is not above 0 the planner refuses itself; beyond these limits its sums would overflow."""
    low, high = limits
    if value is not None and value > 0 and not low <= value <= high:
        raise BadInput(f"{name} = {value:g} is outside {low:g} to {high:g}")


def _in_use(wired: Services) -> tuple[Instrument, tuple[int, int], float | None]:
    """Instrument, frame (rows, columns), and the dose where the simulated microscope has one of its own."""
    from service.wiring import instrument  # wiring builds the application, and with it this route

    settings, delivery = wired.settings, wired.hub.frame
    dose = settings.microscope.dose
    if delivery is None or not isinstance(delivery.message, Frame):
        return instrument(settings), (settings.scan.height_px, settings.scan.width_px), dose
    header = delivery.message.header
    used = with_optics(parse_instrument(dict(delivery.run.instrument), f"run {delivery.run.run_id}"), header.optics)
    return used, header.shape[1:], None if "replayed" in header.flags else dose
