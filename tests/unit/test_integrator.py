"""The PINN integrator starts as the exact solver, learns on the slopes of any set, and its physics is in its losses."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.networks.export import export_integrator
from inference.networks.integrator import IntegratorNet
from inference.networks.poisson import integrate
from inference.registry import MODELS, SLOTS
from inference.session import OnnxSession
from inference.training.batches import Examples, batch_of
from inference.training.frames import Conditions, sample_stream
from inference.training.integrator import TAKEN, IntegratorLesson
from inference.training.run import Recipe, Run

TINY = Recipe(samples=100_000, size_px=32, batch=4, width=8, depth=2, blocks=1, hard_every=0)


@pytest.fixture(scope="module")
def seen() -> Examples:
    """What a trained set's slopes leave to the integrator, on four frames."""
    lesson = IntegratorLesson(MODELS / "unet")
    batch = batch_of(list(islice(sample_stream(5, 32, Conditions(doses=(2e3, 5e4))), 4)))
    found = [lesson.examples(batch) for _ in range(2)]
    assert not torch.equal(found[0]["p"], found[1]["p"]), "each set in its turn"
    return found[0]


def test_untrained_it_is_the_exact_solver(seen: Examples) -> None:
    found = IntegratorNet(8, 2, 1)(*(seen[name] for name in TAKEN))
    torch.testing.assert_close(found.height, integrate(seen["p"], seen["q"]), atol=1e-4, rtol=1e-4)


def test_steps_lower_height_and_normals_and_the_physics_is_told(seen: Examples) -> None:
    run = Run(IntegratorLesson(MODELS / "classical"), replace(TINY))
    run.samples = 10_000
    told = []
    for _ in range(25):
        run.learn(seen)
        told.append(run.mean_losses())
    assert {"height", "normals", "curl", "neumann"} <= told[0].keys()
    assert min(one["height"] + one["normals"] for one in told[-5:]) < told[0]["height"] + told[0]["normals"] - 0.02


def test_the_graph_gives_what_the_network_gives(seen: Examples, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = IntegratorNet(8, 2, 1)
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    export_integrator(net, path := tmp_path / "integrate.onnx")
    values = {name: seen[name][0].numpy() for name in TAKEN}
    values["rejected"] = values["rejected"].astype(np.uint8)
    values |= {"pixel_size_m": np.float32(2e-9), "pixel_size_y_m": np.float32(2e-9)}
    height_m = OnnxSession(path, SLOTS["integrate"], "cpu", 1).run(values)["height"]
    expected = net(*(seen[name][:1] for name in TAKEN)).height[0].detach().numpy() * 2e-9
    np.testing.assert_allclose(height_m, expected, atol=2e-3 * float(np.ptp(expected)))
