"""The figure of a growing crystal, from a simulated run to numbers and picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from acquisition.recording import RecordedRun
from inference.metrology.tracking import track_run
from service.commands import new_recordings, recordings
from service.spiral_figure import draw_spiral
from service.spiral_readout import read_out


def test_a_simulated_crystal_is_read_out_as_it_was_made(tmp_path: Path) -> None:
    run = tmp_path / "crystal"
    new_recordings.simulate(run, frames=2, scene="cu2o-crystal", dose=5000.0, size=448, interval=5.0, settle=120.0)
    recordings.reprocess(run, model="classical")
    recorded = RecordedRun(run)
    read = read_out(recorded, track_run(recorded))
    assert [look.side.named.family for look in read.looks if look.side] == ["{110}", "{110}"]
    assert read.external_deg()[0] == pytest.approx(135.0, abs=1.0)
    angle, sigma, places = read.crossing_deg()
    assert places >= 4
    assert angle == pytest.approx(135.0, abs=0.5)
    assert sigma < 0.5
    assert read.velocity.values[0] == pytest.approx(12e-9, rel=0.06)
    assert read.truth is not None
    assert any("121 Pa of hydrogen and oxygen 5:1" in line for line in read.lines())
    draw_spiral(recorded, read, picture := tmp_path / "crystal.png")
    with Image.open(picture) as image:
        assert image.width > 1500
