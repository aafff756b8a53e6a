"""Height maps from files: .npz, .gsf, .gwy, .tif, and what makers of scanning probe microscopes write."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gsffile
import gwyfile
import numpy as np
import tifffile

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap

HEIGHT_WORDS = ("height", "topo", "z-axis", "zsensor")
"""What a channel of heights is called by most makers; the first such channel is taken, else the first in metres."""
GWYDDION_PATIENCE_S = 60.0
MOST_TOLD = 200
WAY_OUT = "open it in Gwyddion, save it as .gwy or .gsf and give that"


def read_map(path: Path) -> HeightMap:
    """The heights in a file, in metres, as they are: `levelling.levelled` takes scan lines and spikes out.

    .npz holds `height_m` and `pixel_m` (one number, or dy and dx); .tif holds metres as floating point and its
    resolution tags; .gsf and .gwy are Gwyddion's. What else there is (Igor .ibw, Nanoscope, Nanosurf, Park, JPK, SDF,
    X3P and many more) is read by the library SurfaceTopography, the extra `afm`, or by Gwyddion where that is
    installed. Raises `BadInput` naming the file and what is missing or wrong.
    """
    if not path.is_file():
        raise BadInput(f"height map {path} does not exist")
    reader = READERS.get(path.suffix.lower(), _read_by_others)
    try:
        return reader(path)
    except BadInput as error:
        raise BadInput(f"height map {path}: {error}") from error
    except (OSError, KeyError, ValueError, TypeError, AssertionError, zipfile.BadZipFile) as error:
        raise BadInput(f"height map {path} cannot be read: {error or type(error).__name__}; {WAY_OUT}") from error


def _read_npz(path: Path) -> HeightMap:
    with np.load(path, allow_pickle=False) as archive:
        dy_m, dx_m = np.broadcast_to(np.asarray(archive["pixel_m"], np.float64), (2,)).tolist()
        return HeightMap(np.asarray(archive["height_m"], np.float64), dx_m, dy_m)


def _read_gsf(path: Path) -> HeightMap:
    heights, header = gsffile.read_gsf(str(path))
    if header.get("ZUnits", "m") != "m" or header.get("XYUnits", "m") != "m":
        raise ValueError(f"it is {header.get('ZUnits')!r} over {header.get('XYUnits')!r}, expected m over m")
    rows, columns = heights.shape
    across_m, down_m = float(header.get("XReal", columns)), float(header.get("YReal", rows))
    return HeightMap(heights.astype(np.float64), across_m / columns, down_m / rows)


def _read_gwy(path: Path) -> HeightMap:
    tree = gwyfile.load(str(path))
    channels = gwyfile.util.get_datafields(tree)
    metres = {title: field for title, field in channels.items() if _unit(field, "si_unit_z") == "m"}
    if not metres:
        raise ValueError(f"none of its channels is in metres: {', '.join(channels) or 'it has none'}")
    chosen = next(
        (title for title in metres if any(word in title.lower() for word in HEIGHT_WORDS)), next(iter(metres))
    )
    field = metres[chosen]
    if _unit(field, "si_unit_xy") != "m":
        raise ValueError(f"channel {chosen!r} is not in metres across: set its dimensions in Gwyddion")
    heights = np.asarray(field.data, np.float64)
    return HeightMap(heights, field.xreal / heights.shape[1], field.yreal / heights.shape[0])


def _unit(field: Any, which: str) -> str:
    unit = field.get(which)
    return str(unit.get("unitstr", "")) if unit is not None else ""


def _read_tiff(path: Path) -> HeightMap:
    """Metres as floating point; integers are a maker's own TIFF (Park), left to others."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if page.dtype is None or page.dtype.kind != "f":
            return _read_by_others(path)
        unit_m = {2: 0.0254, 3: 0.01, 4: 1e-3, 5: 1e-6}.get(int(page.tags["ResolutionUnit"].value))
        if unit_m is None:
            raise ValueError("its resolution has no unit, so the pixel size is unknown")
        across, down = (page.tags[tag].value for tag in ("XResolution", "YResolution"))
        heights = np.asarray(page.asarray(), np.float64)
        return HeightMap(heights, unit_m * across[1] / across[0], unit_m * down[1] / down[0])


def _read_by_others(path: Path) -> HeightMap:
    """By the library where it is installed and knows the file, else by Gwyddion."""
    reasons = []
    for reader in (_read_by_library, _read_by_gwyddion):
        try:
            return reader(path)
        except (ModuleNotFoundError, FileNotFoundError):
            continue
        except Exception as error:  # The readers of fifty formats raise whatever they meet in a file that is broken.
            logging.getLogger(__name__).info("%s by %s: %r", path, reader.__name__, error)
            reasons.append(_in_a_line(error))
    if not reasons:
        raise ValueError("its kind needs the extra `afm` (pip install 'eclips-live[afm]') or an installed Gwyddion")
    raise ValueError(", ".join(reasons))


def _in_a_line(error: Exception) -> str:
    """The library tells what each of its readers met where none knows a file: pages of it, which the log keeps."""
    text = str(error).strip()
    return "no reader knows this kind of file" if "\n" in text or not text else text[:MOST_TOLD]


def _read_by_library(path: Path) -> HeightMap:
    from SurfaceTopography.IO import open_topography

    with open_topography(str(path)) as file:
        named = [c.name.lower() for c in file.channels]
        heights = [index for index, name in enumerate(named) if any(word in name for word in HEIGHT_WORDS)]
        chosen = heights[0] if heights else file.default_channel.index
        topography = file.topography(channel_index=chosen)
    if topography.dim != 2:
        raise ValueError(f"channel {named[chosen]!r} is a line, not a map")
    if topography.unit is None:
        raise ValueError(f"channel {named[chosen]!r} tells no unit")
    metres = topography.to_unit("m")
    # The library counts along x first.
    height_m = np.ma.filled(metres.heights().astype(np.float64), np.nan).T
    across_m, down_m = (float(side) for side in metres.physical_sizes)
    return HeightMap(np.ascontiguousarray(height_m), across_m / height_m.shape[1], down_m / height_m.shape[0])


def _read_by_gwyddion(path: Path) -> HeightMap:
    program = shutil.which("gwyddion")
    if program is None:
        raise FileNotFoundError("gwyddion")
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "converted.gwy"
        command = [program, f"--convert-to-gwy={converted}", str(path.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GWYDDION_PATIENCE_S, check=False)
        if done.returncode != 0 or not converted.is_file():
            raise ValueError("neither does Gwyddion")
        return _read_gwy(converted)


READERS: dict[str, Callable[[Path], HeightMap]] = {
    ".npz": _read_npz,
    ".gsf": _read_gsf,
    ".gwy": _read_gwy,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
}
