"""The guide's example works as it is printed: its code is taken from the page and held to the gauges' contract."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import test_gauge
from acquisition.clock import SystemClock
from acquisition.devices import Limits
from acquisition.instrument import four_quadrant
from hardware_drivers import instruments
from hardware_drivers.emulators.line import Fault, Line
from hardware_drivers.probing import probe
from hardware_drivers.simulated import World

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "hardware_drivers" / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"\*\*`(\S+)`\*\*\n\n```python\n(.*?)```", GUIDE, re.DOTALL))
CONTRACT = "tests/contracts/test_gauge.py"
CLAIMS = [name for name in vars(test_gauge) if name.startswith("test_")]
SCRIPTS = re.findall(r"^async def (test_\w+)", BLOCKS["tests/protocol/test_quiet_gauge_bytes.py"], re.MULTILINE)


@pytest.fixture(autouse=True)
def printed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the example's new files define, as if they lay where the guide says."""
    found: dict[str, Any] = {}
    for path in ("hardware_drivers/quiet_gauge.py", "hardware_drivers/emulators/quiet_gauge.py"):
        name = path.removesuffix(".py").replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        found |= carried_out(path, vars(module))
    return found


def carried_out(path: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(BLOCKS[path], f"hardware_drivers/README.md: {path}", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("claim", CLAIMS)
async def test_example_holds_the_contract_of_every_gauge(claim: str, world: World, printed: dict[str, Any]) -> None:
    names = carried_out(CONTRACT, {**printed, **vars(test_gauge), "RIGS": {}})
    async with names["RIGS"]["quiet"](world) as rig:
        await names[claim](rig)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_example_speaks_as_its_byte_script_says(script: str) -> None:
    test: Callable[[], Awaitable[None]] = carried_out("tests/protocol/test_quiet_gauge_bytes.py", {})[script]
    await test()


async def test_example_tells_its_faults_and_can_be_asked_only(world: World, printed: dict[str, Any]) -> None:
    async with Line(printed["EmulatedQuietGauge"](world)) as line:
        gauge = printed["QuietGauge"]("gauge", line.address, SystemClock())
        assert (await probe(gauge)).identification == "QUIET GAUGE 1.2"
        async with gauge:
            line.fault = Fault.SENSOR
            assert (await gauge.read())["pressure_pa"].reason == "sensor error"


def test_example_is_built_from_the_settings_that_are_shown(printed: dict[str, Any]) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    names = carried_out("hardware_drivers/instruments.py", {**vars(instruments), **printed})
    entry = names["QuietGaugeEntry"](**tomllib.loads(shown)["instruments"]["gauge"])
    any_limits = Limits(0, 1, "shown")
    means = instruments.Means(four_quadrant(), SystemClock(), any_limits, {}, any_limits)
    assert entry.build(means).name == "gauge"


def test_every_path_that_the_guide_names_is_there() -> None:
    example = set(BLOCKS)
    named = set(re.findall(r"`((?:hardware_drivers|acquisition|tests)/[\w/]+(?:\.py)?)`", GUIDE)) - example
    assert len(named) > 4
    assert not [path for path in named if not (ROOT / path).exists()]
