"""Metadata that makers put into tags of the TIFF itself: Thermo/FEI, Zeiss and TESCAN."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from acquisition.errors import BadInput
from hardware_drivers.tiff.metadata import (
    CURRENTS_A,
    LENGTHS_M,
    TIMES_S,
    VOLTAGES_V,
    Fields,
    Told,
    key_values,
)

FEI_TAGS = (34682, 34680)
ZEISS_TAG = 34118
TESCAN_TAG = 50431
TESCAN_TEXTS = (2, 3)
ZEISS_QUADRANTS = range(1, 7)


def told_by_fei(path: Path, tag: object) -> Told:
    """Tag 34682, INI text in SI units. Image rows are `[Image] ResolutionY`: the data bar lies below whatever
    `DatabarHeight` says. With beam deceleration the landing energy is what counts."""
    sections = tag if isinstance(tag, dict) else {}
    values = {
        f"[{section}] {key}": str(value)
        for section, content in sections.items()
        if isinstance(content, Mapping)
        for key, value in content.items()
    }
    fields = Fields(path, "FEI", values)
    slowed = fields.text("[EBeamDeceleration] ModeOn") in ("On", "True")
    segment = fields.text("[Detectors] Mode")
    return Told(
        pixel_size_m=fields.number("[Scan] PixelWidth"),
        dwell_time_s=fields.number("[Scan] Dwelltime"),
        energy_ev=(fields.number("[EBeamDeceleration] LandingEnergy") if slowed else None)
        or fields.number("[EBeam] HV"),
        working_distance_m=fields.number("[EBeam] WD"),
        current_a=fields.number("[EBeam] BeamCurrent"),
        taken=fields.taken("[User] Date", "[User] Time"),
        rows=fields.count("[Image] ResolutionY"),
        channels=(segment,) if segment else (),
    )


def told_by_zeiss(path: Path, tag: object) -> Told:
    """Tag 34118 of SmartSEM, as tifffile gives it: key -> (name, value[, unit]). A data zone is drawn into the image's
    own rows, so none are cut. One quadrant of a 4QBSD that is on alone names the segment, `Q1` to `Q6`."""
    entries = tag if isinstance(tag, dict) else {}
    values = {
        str(key): " ".join(str(part) for part in entry[1:])
        for key, entry in entries.items()
        if key and isinstance(entry, tuple)
    }
    fields = Fields(path, "Zeiss", values)
    size_key = "ap_image_pixel_size" if fields.text("ap_image_pixel_size") else "ap_pixel_size"
    quadrants = [f"Q{n}" for n in ZEISS_QUADRANTS if fields.text(f"dp_4qbsd_q{n}") not in ("", "False", "Off", "0")]
    return Told(
        pixel_size_m=fields.quantity(size_key, LENGTHS_M, "m"),
        dwell_time_s=fields.quantity("dp_dwell_time", TIMES_S, "s"),
        energy_ev=fields.quantity("ap_actualkv", VOLTAGES_V, "kV"),
        working_distance_m=fields.quantity("ap_wd", LENGTHS_M, "m"),
        current_a=fields.quantity("ap_iprobe", CURRENTS_A, "A"),
        taken=fields.taken("ap_date", "ap_time"),
        channels=tuple(quadrants) if len(quadrants) == 1 else (),
    )


def told_by_tescan(path: Path, tag: object) -> Told:
    """Tag 50431: chunks of `u32 length (which counts the type) | u16 type | data`; types 2 and 3 are INI text."""
    if not isinstance(tag, bytes):
        raise BadInput(f"{path}: its TESCAN metadata cannot be read: tag {TESCAN_TAG} holds no bytes")
    text, at = "", 0
    while at < len(tag):
        if len(tag) - at < 6:
            break  # filled up to an even length
        length, kind = struct.unpack_from("<IH", tag, at)
        if length < 2 or at + 4 + length > len(tag):
            raise BadInput(
                f"{path}: its TESCAN metadata cannot be read: chunk length at byte {at} is {length}, "
                f"{len(tag) - at - 4} bytes are left"
            )
        if kind in TESCAN_TEXTS:
            text += tag[at + 6 : at + 4 + length].decode("utf-8", "replace") + "\n"
        at += 4 + length
    return told_by_tescan_text(path, text)


def told_by_tescan_text(path: Path, text: str) -> Told:
    """SI units. `rows` is negative: so many at the bottom are the data bar."""
    fields = Fields(path, "TESCAN", key_values(text))
    strip = 0 if fields.text("ImageStripSize") in ("", "0") else fields.count("ImageStripSize")
    return Told(
        pixel_size_m=fields.number("PixelSizeX"),
        dwell_time_s=fields.number("DwellTime"),
        energy_ev=fields.number("HV"),
        working_distance_m=fields.number("WD"),
        current_a=fields.number("BeamCurrent") or fields.number("PredictedBeamCurrent"),
        taken=fields.taken("Date", "Time"),
        rows=-strip if strip else None,
    )
