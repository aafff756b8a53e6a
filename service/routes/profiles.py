"""What is measured on the heights of recorded runs: along a line, through time, and of facets, as the page shows it.

What measures is imported with the first measurement: no page waits for SciPy when the service starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response

from acquisition.errors import BadInput
from acquisition.recording import RecordedRun
from service.pictures import label_png, npy, tiff
from service.routes.runs import PICTURES, PIXEL_SIZE, Accept, path_of
from service.routes.shared import Wired

if TYPE_CHECKING:
    from inference.metrology.profiles import Points

router = APIRouter(prefix="/runs", tags=["runs"])

Pixel = Annotated[float, Query(ge=0, le=65536)]
Width = Annotated[int, Query(ge=1, le=256)]
Then = Annotated[str, Query(max_length=400, description="More corners of the line behind the second: x,y,x,y")]
Distance = Annotated[float | None, Query(ge=0, le=1)]
MOST_CORNERS = 32
MOST_AT_ONCE = 200


@router.get("/{run_id}/heights/{sequence}/profile")
def profile(
    wired: Wired,
    run_id: str,
    sequence: int,
    x0_px: Pixel,
    y0_px: Pixel,
    x1_px: Pixel,
    y1_px: Pixel,
    width_px: Width = 1,
    then_px: Then = "",
) -> dict[str, Any]:
    """Heights from one pixel to another, averaged over `width_px` pixels across, and the distances that belong to them.

    x counts to the right and y down, from the centre of the first pixel. 422 for a line that leaves the frame.
    `sigma_m` is the uncertainty of the mean (null below a width of 4), `step` the step height, from the images where
    its `method` says so, `step_on_map` that of the heights by ISO 5436-1, `facet` the angle at the sharpest of the
    `edges` of the profile, `fit` straight faces fitted to the images of the strip themselves, which knows a facet's
    angle best; where one is null, `reasons` says why. `budgets` are these figures with their combined standard
    uncertainties, all terms of these, and what makes the largest smaller.
    """
    from service.measurements import measure_recorded_line

    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    points = [(x0_px, y0_px), (x1_px, y1_px), *corners(then_px)]
    return measure_recorded_line(recorded, sequence, points, width_px).tree()


@router.get("/{run_id}/heights/{sequence}/facets")
def facets(
    wired: Wired,
    run_id: str,
    sequence: int,
    crystal: Annotated[str, Query(max_length=40)] = "cu2o",
    top_family: Annotated[str, Query(max_length=12)] = "100",
    top: Annotated[int | None, Query(ge=1, le=100000)] = None,
    smoothing_px: Annotated[float, Query(ge=0.3, le=20)] = 1.5,
) -> dict[str, Any]:
    """Facets with inclination, azimuth and area, what faces of the crystal they may be, and its orientation.

    `top`: number of the facet that is of `top_family`, by default the largest level one. `budgets`: uncertainties of
    the largest, by term. 422 for an unknown crystal.
    """
    from service.measurements import measure_recorded_facets

    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    return measure_recorded_facets(recorded, sequence, crystal, top_family, top, smoothing_px).tree()


@router.get("/{run_id}/heights/{sequence}/facets/labels", response_class=Response, responses=PICTURES)
def facet_labels(
    wired: Wired,
    run_id: str,
    sequence: int,
    smoothing_px: Annotated[float, Query(ge=0.3, le=20)] = 1.5,
    accept: Accept = "image/png",
) -> Response:
    """Which facet each pixel is of, by the numbers of `facets`, 0 for none: PNG (8 bits up to 255 facets, else 16),
    TIFF or NPY (uint16), by the Accept header."""
    from inference.metrology.facets import find_facets
    from inference.metrology.height_map import frame_map

    surface = frame_map(RecordedRun(path_of(wired.settings.runs_folder, run_id)), sequence).map
    labels = find_facets(surface, smoothing_px).labels.astype(np.uint16)
    headers = {PIXEL_SIZE: f"{surface.pixel_size_m!r}"}
    if "image/tiff" in accept:
        return Response(tiff(labels, surface.pixel_size_m), headers=headers, media_type="image/tiff")
    if "octet-stream" in accept or "npy" in accept:
        return Response(npy(labels), headers=headers, media_type="application/octet-stream")
    if "image/png" in accept or "*/*" in accept or "image/*" in accept:
        return Response(label_png(labels), headers=headers, media_type="image/png")
    raise BadInput(f"cannot answer with {accept!r}; ask for image/png, image/tiff or application/octet-stream")


@router.get("/{run_id}/kymograph", responses={202: {"description": "A task that makes it."}})
def through_time(
    wired: Wired,
    run_id: str,
    response: Response,
    x0_px: Pixel,
    y0_px: Pixel,
    x1_px: Pixel,
    y1_px: Pixel,
    width_px: Width = 1,
    then_px: Then = "",
    start_m: Distance = None,
    reach_m: Distance = None,
    every: Annotated[int, Query(ge=1, le=10000)] = 1,
    prefer: Annotated[str, Header()] = "",
) -> Any:
    """The same line through every frame (or each `every`th), and the velocity of the step nearest to `start_m`.

    422 above 200 frames, unless with `Prefer: respond-async`, which answers with a task whose file is the same JSON.
    """
    from inference.metrology.height_map import frame_maps
    from inference.metrology.kymograph import kymograph
    from service.measurements import kymograph_tree

    recorded = RecordedRun(path_of(wired.settings.runs_folder, run_id))
    points, sequences = [(x0_px, y0_px), (x1_px, y1_px), *corners(then_px)], sorted(recorded.heights)[::every]

    def made(report: Callable[[int, int], None]) -> dict[str, Any]:
        seen = kymograph(
            frame_maps(recorded, sequences), points, width_px, progress=lambda done: report(done, len(sequences))
        )
        return kymograph_tree(seen, start_m, reach_m)

    def work(report: Callable[[int, int], None], folder: Path) -> dict[str, Any]:
        (folder / "kymograph.json").write_bytes(bytes(JSONResponse(made(report)).body))
        return {"file": "kymograph.json"}

    if "respond-async" in prefer:
        task = wired.tasks.start("kymograph", run_id, work)
        response.status_code = 202
        response.headers["Location"] = f"/api/v1/tasks/{task.id}"
        return task.tree()
    if len(sequences) > MOST_AT_ONCE:
        raise BadInput(
            f"{len(sequences)} frames are above {MOST_AT_ONCE}: ask for each `every`th, or with Prefer: respond-async"
        )
    return made(lambda done, total: None)


def corners(text: str) -> Points:
    """Pixels (x, y) of `x,y,x,y`. Raises `BadInput` for anything else, or more than 32 of them."""
    try:
        numbers = [float(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        numbers = [0.0]
    if len(numbers) % 2 or len(numbers) > 2 * MOST_CORNERS:
        raise BadInput(f"{text[:80]!r} are no corners: up to {MOST_CORNERS} pairs x,y of numbers parted by commas")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
