"""Measured AFM maps as specimens: seen by the simulated microscope, reconstructed, and compared with the AFM again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from acquisition.errors import BadInput
from acquisition.instrument import four_quadrant
from inference.metrology.afm_files import read_map
from inference.metrology.comparison import Comparison, compare
from inference.metrology.height_map import HeightMap
from inference.pipeline import Pipeline
from inference.training.height_maps import fine_map, read_levelled_map
from inference.training.held_out import Scene, exposures
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, NotMeasured, Report, Request, tell_progress
from service.comparison_picture import draw_comparison

PEER, LEARNED = "classical", "unet"
DOSE = 10_000.0
MOST_PX = 384
QUICK_PX = 160
SCENE_NUMBER = 7


@dataclass(frozen=True, slots=True)
class Seen:
    """One map by one model set; `found` is None where the frame could not be placed on it, and `reason` says why."""

    name: str
    model: str
    frame: HeightMap
    found: Comparison | None
    reason: str = ""

    @property
    def angle_deg(self) -> float:
        """Deviation of the step angles; NaN where there are none."""
        return self.found.angles.deviation_deg if self.found and self.found.angles else float("nan")

    @property
    def turn_deg(self) -> float:
        return self.found.angles.turn_deg if self.found and self.found.angles else float("nan")

    @property
    def off_px(self) -> float:
        """How far the placement is from where the frame really lies: on the map's middle, not turned."""
        if self.found is None:
            return float("nan")
        half_m = 0.5 * np.array(self.frame.height_m.shape[::-1]) * self.frame.pixel_size_m
        corners = half_m[:, None] * np.array([[1, 1, -1, -1], [1, -1, 1, -1]])
        moved = (self.found.placement.matrix - np.eye(2)) @ corners + self.found.placement.shift_m[:, None]
        return float(np.sqrt(np.mean(np.sum(moved**2, axis=0))) / self.frame.pixel_size_m)


def measure(request: Request) -> Report:
    """Rows of [afm] for the first model set that is not the classical pipeline, else for unet, beside that one, over
    the maps in `data`/afm. Raises `BadInput` without maps."""
    model = next((name for name in request.models if name != PEER), LEARNED)
    files = [] if request.data is None else sorted((request.data / "afm").iterdir())
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if not files:
        where = "nowhere" if request.data is None else str(request.data / "afm")
        raise BadInput(f"no AFM maps in {where}: name the data folder with --data")
    seen = list(_seen(files[:2] if request.quick else files, model, request.quick))
    own = [one for one in seen if one.model == model]
    peer = [one for one in seen if one.model == PEER]
    return Report(
        {
            "afm_height_difference_vs_classical": _ratio(own, peer),
            "afm_placement_error_px": _placement(own),
        },
        table=_table(seen),
        draw=lambda folder: _draw(own, peer, folder),
    )


def _seen(files: list[Path], model: str, quick: bool) -> Iterator[Seen]:
    pipelines = {name: Pipeline(name) for name in (model, PEER)}
    for file in files:
        tell_progress(file.name)
        heights_m, pixel_m = read_levelled_map(file)
        surface = fine_map(heights_m, pixel_m, QUICK_PX if quick else MOST_PX)
        geometry = four_quadrant().with_scan(pixel_size_m=pixel_m[1])
        (case,) = exposures(Scene(f"afm {file.stem}", "afm", SCENE_NUMBER, surface, geometry, (DOSE,)))
        frame = frame_of(case.sample.images, case.sample.instrument, file.stem)
        raw = read_map(file)
        for name, pipeline in pipelines.items():
            result = pipeline.reconstruct(frame, case.sample.instrument)
            height = HeightMap(result.height_m.astype(np.float64), pixel_m[1], pixel_m[1])
            try:
                yield Seen(file.stem, name, height, compare(height, raw))
            except BadInput as error:
                yield Seen(file.stem, name, height, None, str(error))


def _ratio(own: list[Seen], peer: list[Seen]) -> Measured | NotMeasured:
    pairs = [(a.found.rms_m, b.found.rms_m) for a, b in zip(own, peer, strict=True) if a.found and b.found]
    if not pairs:
        return NotMeasured("no frame could be placed on its map")
    ratio = float(np.median([a / b for a, b in pairs]))
    return Measured(ratio, f"median over {len(pairs)} maps, N = {DOSE:g}; the AFM's lines taken out of both", PEER, 1.0)


def _placement(own: list[Seen]) -> Measured | NotMeasured:
    errors = [one.off_px for one in own if one.found]
    if not errors:
        return NotMeasured("no frame could be placed on its map")
    told = ", ".join(f"{one.name} {one.off_px:.2f}" if one.found else f"{one.name} not placed" for one in own)
    return Measured(float(np.median(errors)), f"median of the maps, rms over the corners: {told}")


def _table(seen: list[Seen]) -> Table:
    table = Table(title=f"AFM maps seen again, N = {DOSE:g} electrons per pixel")
    headings = ("map", "model set", "height difference", "of relief", "step-angle deviation", "of", "placed within")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for one in seen:
        found = one.found
        if found is None:
            table.add_row(one.name, one.model, "not placed", "", "", "", "")
            continue
        scatter = f" ± {found.angles.scatter_deg:.3f}" if found.angles else ""
        table.add_row(
            one.name,
            one.model,
            f"{1e9 * found.rms_m:.3g} nm",
            f"{100 * found.rms_m / found.relief_m:.1f} %",
            f"{one.angle_deg:+.3f}{scatter}°",
            f"{one.turn_deg:.2f}°",
            f"{one.off_px:.2f} px",
        )
    return table


def _draw(own: list[Seen], peer: list[Seen], folder: Path) -> list[Path]:
    files = []
    for one, other in zip(own, peer, strict=True):
        if one.found is not None:
            file = folder / f"afm-{one.name}.png"
            beside = None if other.found is None else (other.model, other.found)
            draw_comparison(one.found, file, (one.model, "AFM"), beside)
            files.append(file)
    return files
