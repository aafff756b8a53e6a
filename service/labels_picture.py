"""Labels of a frame as a picture: the frame's height, the map's on its pixels, and what is masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acquisition.errors import BadInput
from inference.metrology.height_map import HeightMap
from inference.metrology.labels import Labels


def draw_labels(labels: Labels, surface: HeightMap, path: Path) -> None:
    """Write a PNG (or what else the name's ending asks for). Raises `BadInput` without matplotlib, or where the file
    cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: install eclips-live with the extra `bench`") from error
    rows, columns = labels.mask.shape
    box_um = (0.0, columns * labels.pixel_size_m * 1e6, rows * labels.pixel_size_y_m * 1e6, 0.0)
    label_nm, frame_nm = (
        np.where(labels.mask, part - part[labels.mask].mean(), np.nan) * 1e9
        for part in (labels.height_m, surface.height_m)
    )
    low, high = np.nanpercentile(label_nm, [0.5, 99.5])
    apart_nm = frame_nm - label_nm
    reach = max(float(np.nanpercentile(np.abs(apart_nm), 99.0)), 1e-6)
    steepness_deg = np.full(labels.mask.shape, np.nan)
    steepness_deg[:-1, :-1] = np.degrees(np.arctan(np.hypot(labels.p[:-1], labels.q[:, :-1])))
    steepness_deg[~labels.mask] = np.nan
    shown = (
        ("frame in nm", frame_nm, "viridis", low, high),
        ("label in nm", label_nm, "viridis", low, high),
        (f"frame - label: {np.nanstd(apart_nm):.3g} nm rms", apart_nm, "RdBu_r", -reach, reach),
        ("slope of the label in °", steepness_deg, "magma", 0.0, None),
    )
    figure = Figure(figsize=(14.0, 3.8), layout="constrained")
    axes = figure.subplots(1, len(shown), sharex=True, sharey=True)
    for axis, (title, values, colours, least, most) in zip(axes, shown, strict=True):
        axis.set_facecolor("lightgray")
        image = axis.imshow(values, cmap=colours, vmin=least, vmax=most, extent=box_um)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("µm")
        figure.colorbar(image, ax=axis, shrink=0.8)
    figure.suptitle(f"{100 * labels.mask.mean():.0f} % labelled; gray is masked")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise BadInput(f"the picture {path} cannot be written: {error}") from error
