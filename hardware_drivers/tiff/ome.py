"""OME-TIFF: pixel size and channel names from the OME-XML that stands in the first page's description."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from acquisition.errors import BadInput
from hardware_drivers.tiff.metadata import LENGTHS_M, Fields, Told

MOST_CHARACTERS = 4 * 2**20
HEAD_CHARACTERS = 2000


def is_ome(description: str) -> bool:
    return "<OME" in description[:HEAD_CHARACTERS] and description.rstrip().rstrip("\0").endswith("OME>")


def told_by_ome(path: Path, description: str, pages: int) -> Told:
    """Channels must be the pages: a series in depth or time is refused, as its pages are no segments of one scan.

    `PhysicalSizeX` is in micrometres unless `PhysicalSizeXUnit` says otherwise (OME schema 2016-06).
    """
    if len(description) > MOST_CHARACTERS or "<!DOCTYPE" in description or "<!ENTITY" in description:
        raise BadInput(
            f"{path}: its OME metadata cannot be read: it is no plain OME-XML of up to {MOST_CHARACTERS} bytes"
        )
    try:
        root = ElementTree.fromstring(description.rstrip("\0").encode())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput(f"{path}: its OME metadata cannot be read: {error}") from None
    pixels = next((element for element in root.iter() if _name(element) == "Pixels"), None)
    if pixels is None:
        return Told()
    fields = Fields(path, "OME", pixels.attrib)
    for axis, what in (("SizeZ", "depths"), ("SizeT", "times")):
        if (count := fields.count(axis) or 1) > 1:
            raise BadInput(f"{path} holds {count} {what}: give a file per scan, with the segments as its channels")
    unit = fields.text("PhysicalSizeXUnit") or "µm"
    size = fields.number("PhysicalSizeX")
    names = tuple(element.get("Name", "") for element in pixels if _name(element) == "Channel")
    return Told(
        pixel_size_m=size * LENGTHS_M[unit] if size and unit in LENGTHS_M else None,
        channels=names if len(names) == pages and all(names) else (),
    )


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
