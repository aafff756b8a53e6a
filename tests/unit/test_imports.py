"""What a program loads when it starts: a workstation without torch runs, drivers load no runtime of networks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.cli import COMMANDS

EVERY_COMMAND = ", ".join(sorted({module for module, _ in COMMANDS.values()}))


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import hardware_drivers.catalog", {"onnxruntime", "torch", "onnx", "zmq", "fastapi"}),
        (f"from service.commands import {EVERY_COMMAND}", {"torch", "onnx", "onnxscript"}),
        ("import service.commands.live", {"numba", "scipy", "skimage", "onnxruntime", "fastapi", "uvicorn", "rich"}),
        ("import inference.worker", {"torch", "onnx", "onnxscript", "fastapi", "numba", "scipy", "skimage"}),
        (
            "import acquisition.program, hardware_drivers.simulated",
            {"onnxruntime", "torch", "fastapi", "numba", "scipy"},
        ),
        ("import service.app", {"torch", "onnx", "numba", "scipy", "skimage"}),
        ("from inference.forward_model import linear_response", {"numba", "scipy"}),
    ],
)
def test_importing_loads_no_more_than_it_should(statement: str, never: set[str]) -> None:
    assert loaded_by(statement) & never == set()
