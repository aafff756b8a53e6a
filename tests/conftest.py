"""The real programs as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from programs import Program, write_settings
from recordings import ROUNDS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: once begun, the browser's driver keeps an event loop of its own in this thread, where
    asynchronous tests could no longer run theirs."""
    items.sort(key=lambda item: "browser" in item.path.parts)


@pytest.fixture
def rounds() -> int:
    """How often a test injects its fault: a few times, a hundred in `make soak`."""
    return ROUNDS


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start `eclips COMMAND --config ...` with a 64 px microscope of its own; closed at the end of the test."""
    programs: list[Program] = []

    def starter(*arguments: str, size_px: int = 64, **tables: str) -> Program:
        config = write_settings(tmp_path, size_px, **tables)
        program = Program(*arguments, "--config", str(config), runs=tmp_path / "runs")
        programs.append(program)
        return program

    yield starter
    for program in programs:
        program.close()


@pytest.fixture(scope="session")
def live_microscope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One live microscope that all browser tests share; its settings lie beside the folder of its runs."""
    folder = tmp_path_factory.mktemp("page")
    # Six frames a second, of as many electrons as usual: as fast as it can, it would take a core from the browser.
    paced = write_settings(folder, 128, scan="dwell_time_s = 1e-5", microscope="dose = 608")
    program = Program("up", "--config", str(paced), runs=folder / "runs")
    try:
        yield program
    finally:
        program.close()


@pytest.fixture(scope="session")
def service_url(live_microscope: Program) -> str:
    """Its signed-in link."""
    return live_microscope.link
