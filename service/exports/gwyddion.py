"""Heights for Gwyddion: .gwy with a channel per frame, and the simple field .gsf."""

from __future__ import annotations

from pathlib import Path

import gsffile
import gwyfile.objects as gwy_objects
import numpy as np

from acquisition.errors import BadInput
from service.exports.heights import Heights, check_room
from service.tasks import Progress

MOST_BYTES = 2**30
"""A .gwy is put together in memory."""


def gwy(heights: Heights, out: Path, report: Progress) -> None:
    """A channel per frame, titled by its number, in metres over metres. Raises `BadInput` for more than 1 GiB."""
    needed = 2 * heights.count_bytes
    if needed > MOST_BYTES:
        most = MOST_BYTES * len(heights.numbers) // needed
        raise BadInput(f"{len(heights.numbers)} heights are too many for one .gwy, {most} fit: export single frames")
    check_room(out, needed)
    rows, columns = heights.shape
    tree = gwy_objects.GwyContainer()
    for index, (number, pixel_m, height_m) in enumerate(zip(heights.numbers, heights.pixels_m, heights, strict=True)):
        tree[f"/{index}/data"] = gwy_objects.GwyDataField(
            height_m.astype(np.float64),
            columns * pixel_m,
            rows * heights.aspect * pixel_m,
            si_unit_xy=gwy_objects.GwySIUnit(unitstr="m"),
            si_unit_z=gwy_objects.GwySIUnit(unitstr="m"),
        )
        tree[f"/{index}/data/title"] = f"height, frame {number}"
        tree[f"/{index}/data/visible"] = index == 0
        report(index + 1, len(heights.numbers))
    tree.tofile(str(out))


def gsf(heights: Heights, out: Path, report: Progress) -> None:
    """One frame, float32 metres."""
    rows, columns = heights.shape
    header = {
        "XReal": repr(columns * heights.pixels_m[0]),
        "YReal": repr(rows * heights.aspect * heights.pixels_m[0]),
        "XYUnits": "m",
        "ZUnits": "m",
        "Title": f"height, frame {heights.numbers[0]}",
    }
    gsffile.write_gsf(str(out), next(iter(heights)), header)
    report(1, 1)
