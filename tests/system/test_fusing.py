"""Fusion in time as a user reaches it: reprocessed, and live beside the height of each frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from programs import Program, eclips, wait_until


def test_reprocessed_with_fusion_a_resting_run_comes_nearer_to_its_truth(tmp_path: Path) -> None:
    run = tmp_path / "resting"
    simulated = ("--frames", "4", "--size", "128", "--interval", "0", "--current", "0", "--dose", "600")
    assert eclips("simulate", *simulated, "--out", str(run)).returncode == 0
    alone, fused = (json.loads(eclips("reprocess", str(run), "--json", *how).stdout) for how in ((), ("--fuse", "16")))
    assert fused["mean_errors"]["slope_error_deg"] < 0.95 * alone["mean_errors"]["slope_error_deg"]
    assert fused["figures"]["frames_held"] > 2
    refused = eclips("reprocess", str(run), "--method", "map", "--fuse", "4")
    assert refused.returncode != 0 and "leave out --fuse" in refused.stderr


def test_a_run_fuses_when_it_or_the_settings_say_so(start: Callable[..., Program]) -> None:
    program = start("up", "--fuse", "8", size_px=64)
    with program.client() as client:
        wait_until(lambda: "frames_held" in client.get("/status").json()["figures"], lambda: "never fused")
        assert client.get("/status").json()["run"]["fuse_frames"] == 8
        client.post("/run:stop").raise_for_status()
        wait_until(lambda: client.get("/status").json()["state"] == "idle", lambda: "never idle")
        assert client.post("/run", json={"fuse_frames": 2000}).status_code == 422
        alone = {"record": False, "fuse_frames": 0}
        client.post("/run", json=alone).raise_for_status()
        wait_until(lambda: "frames_held" not in client.get("/status").json()["figures"], lambda: "still fused")
