"""Live metrology as a user reaches it: figures from a worker steer a recipe on the node, and all is in the journal."""

from __future__ import annotations

import json
from pathlib import Path

from programs import Laboratory, write_settings

DENSITY = "figures.step_density_per_m"


async def test_a_recipe_waits_for_a_figure_that_the_worker_measures(tmp_path: Path) -> None:
    config = write_settings(tmp_path, 96, inference="metrology = true")
    async with Laboratory(config, with_worker=True) as laboratory:
        wait = {"do": "wait", "channel": DENSITY, "above": 1.0, "for_frames": 2, "stale_after_s": 30.0}
        steps = [{"do": "start"}, {**wait, "timeout_s": 60.0}, {"do": "mark", "text": "steps seen"}, {"do": "stop"}]
        await laboratory.ask("recipe_start", recipe={"name": "seen", "steps": steps})
        recipes, node = laboratory.program.node.recipes, laboratory.program.node
        assert recipes is not None
        await laboratory.until(lambda: not recipes.active)
        assert recipes.state == "finished", recipes.reason
        assert DENSITY in node.figures.latest()
        await laboratory.until(lambda: any(" complete" in line for line in laboratory.said))
        (journal,) = (tmp_path / "runs").glob("*/journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert sum("step_density_per_m" in line.get("figures", {}) for line in lines) >= 2
    assert any("steps seen" in json.dumps(line) for line in lines)


async def test_without_the_setting_no_figure_of_steps_comes_and_the_wait_says_so(tmp_path: Path) -> None:
    async with Laboratory(write_settings(tmp_path, 64), with_worker=True) as laboratory:
        wait = {"do": "wait", "channel": DENSITY, "above": 1.0, "timeout_s": 2.0}
        await laboratory.ask("recipe_start", recipe={"name": "unseen", "steps": [{"do": "start"}, wait]})
        recipes = laboratory.program.node.recipes
        assert recipes is not None
        await laboratory.until(lambda: not recipes.active)
        assert recipes.state == "failed"
        assert f"{DENSITY} was never read" in recipes.reason and "inference.metrology" in recipes.reason
