"""What a program loads when it starts: a workstation without torch runs, drivers load no runtime of networks."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import hardware_drivers.catalog", {"onnxruntime", "torch", "onnx", "zmq", "fastapi"}),
        ("import service.cli", {"torch", "onnx", "onnxscript"}),
        ("import inference.worker", {"torch", "onnx", "onnxscript", "fastapi"}),
        ("import acquisition.node", {"onnxruntime", "torch", "fastapi", "numba"}),
    ],
)
def test_importing_loads_no_more_than_it_should(statement: str, never: set[str]) -> None:
    assert loaded_by(statement) & never == set()
