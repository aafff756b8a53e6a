"""The benchmark on AFM maps places what it reconstructed where it lies, beside the classical pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from acquisition.errors import BadInput
from service.benchmarks.afm import measure
from service.benchmarks.measured import Measured, Request


def test_a_made_map_is_seen_reconstructed_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "afm").mkdir()
    rough = gaussian_filter(np.random.default_rng(3).normal(size=(120, 120)), 3.0)
    np.savez(tmp_path / "afm" / "made.npz", height_m=rough * 8e-9 / rough.std(), pixel_m=5e-9)
    told = measure(Request(True, tmp_path, ("classical",)))
    placed, ratio = told.rows["afm_placement_error_px"], told.rows["afm_height_difference_vs_classical"]
    assert isinstance(placed, Measured) and placed.value < 0.3
    assert isinstance(ratio, Measured) and 0.2 < ratio.value < 2.0
    assert told.table is not None and told.table.row_count == 2


def test_no_maps_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--data"):
        measure(Request(True, None, ("unet",)))
