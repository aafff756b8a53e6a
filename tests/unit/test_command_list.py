"""The list of commands: told without importing any, true to each, and each importing only what it needs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import typer
from typer.main import get_group
from typer.testing import CliRunner

from service.cli import COMMANDS, app


def imported_by(*arguments: str) -> set[str]:
    """Every module that `eclips ARGUMENTS` has imported by its end."""
    code = (
        "import atexit, sys; atexit.register(lambda: print('imported', *sys.modules)); "
        f"sys.argv = {['eclips', *arguments]!r}; from service.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return set(done.stdout.rsplit("imported", 1)[1].split())


def test_the_list_tells_how_the_help_of_each_command_begins() -> None:
    registered = {}
    for module in {module for module, _ in COMMANDS.values()}:
        group = typer.Typer()
        import_module(f"service.commands.{module}").add_to(group)
        registered |= {
            name: (module, " ".join((one.help or "").split())) for name, one in get_group(group).commands.items()
        }
    assert registered.keys() == COMMANDS.keys()
    for name, (module, begins) in COMMANDS.items():
        assert registered[name][0] == module
        assert registered[name][1].startswith(begins)


def test_help_lists_every_command_and_imports_none() -> None:
    listed = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    assert all(f" {name} " in listed for name in COMMANDS)
    assert not any(name.startswith("service.commands.") for name in imported_by("--help"))


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    refused = CliRunner().invoke(app, ["verfy"])
    assert refused.exit_code == 2
    assert "verify" in refused.output
