"""Fusion in time against what it stands for: as much dose at once, of scenes that rest, drift and grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acquisition.frames import Frame
from acquisition.instrument import Instrument, four_quadrant
from hardware_drivers.simulated.scenes import find_scene
from inference.accuracy import compare, without_plane
from inference.fused_pipeline import FusedPipeline
from inference.pipeline import Pipeline
from inference.training.frames import (
    MARGIN_PX,
    SUBPIXELS,
    calibrated,
    digitised,
    expected_frame,
    fine_surface,
    pixel_means,
)
from inference.training.surfaces import FAMILIES
from service.benchmarks.frames import frame_of
from service.benchmarks.measured import Measured, tell_progress

FRAMES = 16
SIZE_PX, QUICK_SIZE_PX = 192, 128
DOSES, QUICK_DOSES = (600.0, 2500.0), (600.0,)
PIXEL_M = 10.0e-9
BEAM_SIGMA_PX = 0.7
FLAT_COUNTS = 8000.0
DARK_COUNTS = 300.0
GROWN_M = 2.0e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulated scene between one frame and the next: `drift_px` rows and columns, steps advance by `growth_m`."""

    told: str
    scene: str
    drift_px: tuple[float, float] = (0.0, 0.0)
    growth_m: float = 0.0


SCENES = (
    Scene("16 still frames", "cu2o-spiral"),
    Scene("growing spiral, 1 pixel a frame", "cu2o-spiral", growth_m=1.0 * PIXEL_M),
    Scene("step flow, 1 pixel a frame", "step-bunches", growth_m=1.0 * PIXEL_M),
    Scene("drift of 3 pixels a frame", "oxide-islands", drift_px=(2.4, -1.8)),
)


def fusion_16_vs_16x_dose(model: str, quick: bool) -> Measured:
    """Slope error of the height of 16 fused still frames over that of one frame at 16 times the dose: the median over
    all families of training surfaces and doses, with a beam of 0.7 pixels."""
    pipeline = Pipeline(model)
    ratios, size_px = {}, QUICK_SIZE_PX if quick else SIZE_PX
    for number, family in enumerate(FAMILIES):
        tell_progress(f"fusion: {family}")
        surface = fine_surface(family, size_px, np.random.default_rng([20, number]))
        for dose in QUICK_DOSES if quick else DOSES:
            ratios[f"{family} at {dose:g}"] = _ratio(pipeline, surface, dose, np.random.default_rng([21, number]))
    worst = max(ratios, key=lambda name: ratios[name])
    listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return Measured(
        float(np.median(list(ratios.values()))),
        f"model set {model}, {size_px} x {size_px}, electrons a pixel of each frame as listed; worst {worst}: "
        f"{ratios[worst]:.2f} (a surface without texture above the noise is not fused). Each: {listed}",
    )


def draw(folder: Path, model: str) -> list[Path]:
    """Writes one picture for each of `SCENES`: the last frame's height alone, fused, its truth, and the frames that
    each pixel holds; 600 electrons a pixel."""
    import matplotlib.pyplot as plt

    pipeline, paths = Pipeline(model), []
    for scene in SCENES:
        tell_progress(f"fusion: {scene.told}")
        fused = FusedPipeline(pipeline, FRAMES)
        shots = list(film(scene, SIZE_PX, DOSES[0], FRAMES))
        result, truth_m = [
            (fused.reconstruct_both(frame, instrument), truth_m) for frame, instrument, truth_m in shots
        ][-1]
        heights = {"one frame": result.height_m, "fused": result.layers["fused_height"], "truth": truth_m}
        figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained")
        low_nm, high_nm = np.percentile(without_plane(truth_m), (0.5, 99.5)) * 1e9
        for place, (name, height_m) in zip(axes, heights.items(), strict=False):
            shown = place.imshow(without_plane(height_m) * 1e9, vmin=low_nm, vmax=high_nm, cmap="viridis")
            error = "" if name == "truth" else f", {compare(height_m, truth_m, PIXEL_M).slope_error_deg:.2f}°"
            place.set(title=name + error, xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes[:3], label="height, nm", shrink=0.8)
        held = axes[3].imshow(result.layers["frames_held"].astype(np.float32), vmin=1, vmax=FRAMES, cmap="inferno")
        axes[3].set(title="frames held", xticks=[], yticks=[])
        figure.colorbar(held, ax=axes[3], shrink=0.8)
        figures = result.header.figures
        drift = f"found {figures['drift_y_px']:.2f} rows and {figures['drift_x_px']:.2f} columns of drift"
        figure.suptitle(f"{scene.told}: {drift}; {DOSES[0]:g} electrons a pixel, model set {model}")
        paths.append(folder / f"fusion-{scene.told.split(',')[0].replace(' ', '-')}.png")
        figure.savefig(paths[-1], dpi=110)
        plt.close(figure)
    return paths


def film(
    scene: Scene, size_px: int, dose: float, frames: int, seed: int = 1, pixel_m: float = PIXEL_M
) -> Iterator[tuple[Frame, Instrument, Floats]]:
    """Frames of a scene in order, each with its instrument and its true height (H, W) in metres."""
    rng = np.random.default_rng(seed)
    surface, instrument = find_scene(scene.scene, seed), _instrument(dose, pixel_m)
    along = (np.arange(SUBPIXELS * (size_px + 2 * MARGIN_PX)) + 0.5) / SUBPIXELS - MARGIN_PX - 0.5 * size_px
    for number in range(frames):
        y_m, x_m = ((along - number * drift) * pixel_m for drift in scene.drift_px)
        fine_m = surface.heights_m(x_m, y_m, GROWN_M + number * scene.growth_m)
        frame = _exposed(expected_frame(fine_m / pixel_m, instrument, dose, BEAM_SIGMA_PX), instrument, rng, number)
        yield frame, instrument, pixel_means(fine_m.astype(np.float32)).astype(np.float64)


def _ratio(pipeline: Pipeline, surface: NDArray[np.float32], dose: float, rng: np.random.Generator) -> float:
    truth_m = pixel_means(surface).astype(np.float64) * PIXEL_M
    instrument = _instrument(dose)
    mean = expected_frame(surface, instrument, 1.0, BEAM_SIGMA_PX)
    fused = FusedPipeline(pipeline, FRAMES)
    for number in range(FRAMES):
        result = fused.reconstruct(_exposed(mean * np.float32(dose), instrument, rng, number), instrument)
    brighter = _instrument(FRAMES * dose)
    single = pipeline.reconstruct(_exposed(mean * np.float32(FRAMES * dose), brighter, rng, 0), brighter)
    errors = [compare(found.height_m, truth_m, PIXEL_M).slope_error_deg for found in (result, single)]
    return errors[0] / errors[1]


def _instrument(dose: float, pixel_m: float = PIXEL_M) -> Instrument:
    """Four quadrants, at whose gain any dose of a flat specimen gives the same counts."""
    geometry = four_quadrant().with_scan(pixel_size_m=pixel_m)
    segments = len(geometry.detector.segments)
    gains, darks = [FLAT_COUNTS * segments / dose] * segments, [DARK_COUNTS] * segments
    return calibrated(geometry, dose, BEAM_SIGMA_PX, gains, darks)


def _exposed(electrons: NDArray[np.float32], instrument: Instrument, rng: np.random.Generator, number: int) -> Frame:
    segments = instrument.detector.segments
    gains = [float(segment.gain_counts_per_electron or 1.0) for segment in segments]
    darks = [float(segment.dark_counts or 0.0) for segment in segments]
    frame = frame_of(digitised(electrons, gains, darks, rng), instrument, "film")
    return Frame(replace(frame.header, run_id="film", sequence=number), frame.images)
