"""Metadata that makers put beside the image: Hitachi's and JEOL's `.txt`, TESCAN's `.hdr`."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from acquisition.errors import BadInput
from hardware_drivers.tiff.metadata import LENGTHS_M, VOLTAGES_V, Fields, Told, key_values
from hardware_drivers.tiff.tags import told_by_tescan_text

MOST_BYTES = 2**20
HITACHI_HEAD = "[SemImageFile]"
JEOL_LINE = re.compile(r"^\s*(\${1,2}[A-Z]\w*)[ \t]+(.*?)\s*$", re.MULTILINE)
TESCAN_HEAD = "[MAIN]"


def told_beside(image: Path) -> Told | None:
    """What the text beside `image` says, if there is one that a microscope wrote."""
    for sidecar in sidecar_paths(image):
        text = _text_of(sidecar)
        if text is None:
            continue
        if HITACHI_HEAD in text:
            return _told_by_hitachi(sidecar, text)
        if "$CM_" in text or "$$SM_" in text:
            return _told_by_jeol(sidecar, text)
        if TESCAN_HEAD in text:
            return told_by_tescan_text(sidecar, text)
    return None


def sidecar_paths(image: Path) -> list[Path]:
    """Where makers put them: `x.txt`, and TESCAN `x-tif.hdr`, in the image's own capitals or small letters."""
    kind = image.suffix.lstrip(".")
    return [
        *(image.with_suffix(ending) for ending in (".txt", ".TXT", ".Txt")),
        image.with_name(f"{image.stem}-{kind}.hdr"),
    ]


def _text_of(path: Path) -> str | None:
    """None for no file, or one too large to be a sidecar. Some of Hitachi's are UTF-16, with a mark or without."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} beside the image cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        return None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    if content[1:2] == b"\0":
        return content.decode("utf-16-le", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _told_by_hitachi(path: Path, text: str) -> Told:
    """`PixelSize` in nm, `DataSize=1280x960`, volts and micrometres with their units written behind."""
    fields = Fields(path, "Hitachi", key_values(text))
    size = fields.text("DataSize")
    sides = re.fullmatch(r"(\d+)\s*[x*X]\s*(\d+)", size)
    if size and sides is None:
        raise fields.refusal("DataSize", size, "expected width x height")
    return Told(
        pixel_size_m=fields.number("PixelSize", LENGTHS_M["nm"]),
        energy_ev=fields.quantity("AcceleratingVoltage", VOLTAGES_V, "V"),
        working_distance_m=fields.quantity("WorkingDistance", LENGTHS_M, "um"),
        taken=fields.taken("Date", "Time"),
        rows=fields.whole("DataSize", sides[2]) if sides else None,
    )


def _told_by_jeol(path: Path, text: str) -> Told:
    """`$CM_FULL_SIZE width height`; a bar of `$$SM_MICRON_BAR` pixels is `$$SM_MICRON_MARKER` long, e.g. `1um`; kV,
    mm. A bar is a whole number of pixels, so the pixel size is good to half a pixel in it."""
    fields = Fields(path, "JEOL", dict(JEOL_LINE.findall(text)))
    bar_px = fields.number("$$SM_MICRON_BAR")
    bar_m = fields.quantity("$$SM_MICRON_MARKER", LENGTHS_M, "um")
    size = fields.text("$CM_FULL_SIZE").split()
    if size and len(size) != 2:
        raise fields.refusal("$CM_FULL_SIZE", fields.text("$CM_FULL_SIZE"), "expected width and height")
    return Told(
        pixel_size_m=bar_m / bar_px if bar_m and bar_px else None,
        energy_ev=fields.number("$CM_ACCEL_VOLT", VOLTAGES_V["kV"]),
        working_distance_m=fields.number("$$SM_WD", LENGTHS_M["mm"]),
        taken=fields.taken("$CM_DATE", "$CM_TIME"),
        rows=fields.whole("$CM_FULL_SIZE", size[1]) if size else None,
    )
