"""Live figures steer recipes: as old as their frames, of live frames only, and a hold lets go of one that grows old."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acquisition.clock import Clock, VirtualClock
from acquisition.errors import BadInput
from acquisition.frames import FrameHeader, ResultHeader
from acquisition.lab import Lab
from acquisition.live_figures import REMEMBERED_FRAMES, LiveFigures
from acquisition.recipes.checks import check_recipe
from acquisition.recipes.parsing import read_recipe
from acquisition.rehearsal import Rehearsal, rehearse
from inference.pipeline import Pipeline
from recordings import frame, result
from rehearsed import LIMITS, at_rest, lab, performed, recipe, texts
from service import wiring
from service.benchmarks import loop
from service.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
VELOCITY = "figures.step_velocity_m_per_s"
HOLD = {
    "do": "hold",
    "channel": VELOCITY,
    "by": "heater.current_a",
    "target": 8e-9,
    "gain": 8e6,
    "integral_s": 4.0,
    "high": 0.5,
    "stale_after_s": 5.0,
}
WAIT = {"do": "wait", "channel": VELOCITY, "above": 1e-9, "stale_after_s": 5.0, "timeout_s": 60.0}


def at(seconds: float, sequence: int, run_id: str = "run", flags: frozenset[str] = frozenset()) -> FrameHeader:
    ns = round(seconds * 1e9)
    return replace(frame(0).header, run_id=run_id, sequence=sequence, monotonic_ns=ns, utc_ns=ns, flags=flags)


def height(sequence: int, velocity: float, run_id: str = "run") -> ResultHeader:
    return replace(result(sequence).header, run_id=run_id, figures={"step_velocity_m_per_s": velocity})


def test_a_figure_is_as_old_as_its_frame_and_an_older_frame_never_replaces_it() -> None:
    figures = LiveFigures()
    for sequence in range(3):
        figures.exposed(at(10.0 * sequence, sequence))
    figures.take(height(1, 2e-9))
    figures.take(height(0, 1e-9))
    figures.take(height(2, math.nan))
    reading = figures.latest()[VELOCITY]
    assert (reading.value, reading.instant.monotonic_ns) == (2e-9, 10_000_000_000)


def test_replays_unknown_frames_and_another_run_tell_nothing() -> None:
    figures = LiveFigures()
    figures.exposed(at(1.0, 0, flags=frozenset({"replayed"})))
    figures.take(height(0, 1e-9))
    figures.take(height(7, 1e-9))
    assert figures.latest() == {}
    figures.exposed(at(1.0, 1))
    figures.take(height(1, 1e-9))
    assert VELOCITY in figures.latest()
    figures.begin()
    figures.take(height(1, 1e-9))
    assert figures.latest() == {}


def test_only_so_many_frames_are_remembered() -> None:
    figures = LiveFigures()
    for sequence in range(REMEMBERED_FRAMES + 1):
        figures.exposed(at(1.0, sequence))
    figures.take(height(0, 1e-9))
    assert figures.latest() == {}


def test_a_figure_may_be_named_before_it_was_read_and_a_wrong_one_is_told_with_the_nearest() -> None:
    here = wiring.lab(load_settings(), VirtualClock())
    check_recipe(recipe(WAIT), here, LIMITS, ())
    with pytest.raises(BadInput, match=r"no channel 'figures.step_velocity'; did you mean figures.step_velocity_m_per"):
        check_recipe(recipe({**WAIT, "channel": "figures.step_velocity"}), here, LIMITS, ())


def with_figures(values: Callable[[int], float], work: Callable[[Rehearsal], Awaitable[None]]) -> None:
    """`work` while a frame a second tells the velocity that `values` has for its number; none where that is NaN."""

    async def told(host: Rehearsal) -> None:
        async def tell() -> None:
            for number in range(1000):
                host.figures.put({"step_velocity_m_per_s": values(number)}, host.clock.now())
                await asyncio.sleep(1.0)

        telling = asyncio.create_task(tell())
        try:
            await work(host)
        finally:
            telling.cancel()

    performed(told)


def test_a_wait_for_frames_counts_frames_on_end_and_begins_again_at_one_that_fails() -> None:
    slow = {3, 8}

    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe({**WAIT, "for_frames": 6}, {"do": "mark", "text": "six"}))
        await host.runner.wait()
        assert host.runner.state == "finished"
        six = next(told.time_s for told in host.told if told.text == "six")
        assert 14.0 <= six < 16.0  # frames 9 to 14

    with_figures(lambda number: 0.5e-9 if number in slow else 2e-9, work)


def test_a_hold_lets_go_in_the_safe_state_when_its_figure_grows_old() -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe({"do": "arm"}, WAIT, HOLD, {"do": "wait", "seconds": 300.0}))
        await host.runner.wait()
        assert host.runner.state == "failed"
        assert f"the hold of {VELOCITY} by heater.current_a cannot go on" in host.runner.reason
        assert "s old, the limit is 5 s (stale_after_s)" in host.runner.reason
        assert 24.0 < host.elapsed_s < 27.0  # the last frame that told it came at 19 s or 20 s
        assert await at_rest(host)

    with_figures(lambda number: 2e-9 if number <= 20 else math.nan, work)


def test_a_figure_that_never_comes_right_drives_the_laser_to_the_holds_bound_and_no_further() -> None:
    async def work(host: Rehearsal) -> None:
        host.runner.start(recipe({"do": "arm"}, WAIT, HOLD, {"do": "wait", "seconds": 60.0}))
        await host.runner.wait()
        assert host.runner.state == "finished"
        currents = [value for value in host.traces["heater.current_a"][1] if value is not None]
        assert max(currents) == pytest.approx(0.5)
        assert any(VELOCITY in text and "heater.current_a at 0.5" in text for text in texts(host, "hold"))
        assert await at_rest(host)

    with_figures(lambda number: 2e-9, work)


@pytest.mark.parametrize("name", ["hold-velocity.toml", "quench-at-spiral.toml"])
def test_an_example_is_rehearsed_on_what_the_simulation_knows_and_says_so(name: str) -> None:
    timeline = rehearse(read_recipe(DEPLOY / name), lab, LIMITS)
    assert timeline.good, (timeline.reason, timeline.timeouts)
    assert any("a dry run takes no frames" in told.text for told in timeline.events if told.name == "figures")
    if name == "hold-velocity.toml":
        held = [value for value in timeline.channels[VELOCITY][1] if value is not None]
        assert held[-20] == pytest.approx(8e-9, rel=0.03)


def test_a_dry_run_without_figures_says_so_and_ends_where_they_are_needed() -> None:
    def unknowing(clock: Clock) -> Lab:
        return replace(lab(clock), truth=None)

    timeline = rehearse(recipe(WAIT), unknowing, LIMITS)
    assert timeline.state == "failed" and f"{VELOCITY} was never read" in timeline.reason
    assert any("there are no figures" in told.text and told.severity == "warning" for told in timeline.events)


def test_measured_velocities_close_the_loop_and_the_recipe_never_passes_its_limits() -> None:
    film = loop.hold_velocity(Pipeline("classical", "cpu", 1), frames=10)
    assert film.state == "finished", film.reason
    measured, current_a = film.series(VELOCITY)[film.began :], film.series(loop.CURRENT)[film.began :]
    assert measured[0] < 6e-9
    assert measured[6:] == pytest.approx(8e-9, rel=0.2)
    assert min(current_a) >= 0.9 and max(current_a) <= 1.25
    assert film.series(loop.OXYGEN)[-1] == pytest.approx(loop.LESS_OXYGEN_SCCM * loop.MOL_PER_S_PER_SCCM, rel=0.05)


def quenching(**changes: Any) -> dict[str, Any]:
    return {**WAIT, "channel": "figures.spirals", "above": 0.5, **changes}


def test_a_recipe_waits_for_a_spiral_and_takes_the_laser_off() -> None:
    async def work(host: Rehearsal) -> None:
        steps = (
            {"do": "arm"},
            {"do": "set", "device": "heater", "current_a": 0.5},
            quenching(for_frames=2),
            {"do": "off"},
        )
        host.runner.start(recipe(*steps, {"do": "wait", "seconds": 5.0}))
        assert host.lab.heater is not None
        for number in range(30):
            host.figures.put({"spirals": float(number >= 20)}, host.clock.now())
            await asyncio.sleep(1.0)
            emitting = (await host.lab.heater.status()).emission_on
            assert emitting == (number < 21), number
        await host.runner.wait()
        assert host.runner.state == "finished"

    performed(work)
