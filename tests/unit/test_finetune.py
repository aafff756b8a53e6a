"""Finetune starts as nothing, can be what the simulator adds, sees no neighbours of slopes, and closes the gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from acquisition.errors import BadInput, ComponentFailed
from acquisition.instrument import Effects, four_quadrant
from inference.networks.finetune import FinetuneNet, load_finetune, save_finetune
from inference.registry import ModelCard, list_model_sets
from inference.training.batches import Batch, batch_of, turned
from inference.training.finetune import FinetuneLesson, given, shown_by, stated_numbers, views_of
from inference.training.frames import Conditions, make_sample
from inference.training.mismatched import GAIN_ERRORS, Mismatch, beside_faultless, mismatched
from inference.training.nets import train_and_install
from inference.training.run import Recipe, Run
from service.benchmarks.finetuned import Gaps, fitted

RESPONSE = torch.from_numpy(stated_numbers(mismatched()).response)[None]
FAR, KEPT = 0.3, 0.2


def hilly(size: int = 40) -> NDArray[np.float32]:
    row, column = np.indices((size, size))
    return np.asarray(3.0 * np.sin(column / 4.0) + 2.0 * np.cos(row / 6.0 + column / 9.0), np.float32)


def drawn(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(rows)
    shares = 0.25 + 0.1 * torch.randn(1, 4, rows, columns, generator=rng)
    p = 0.3 * torch.randn(1, rows, columns - 1, generator=rng)
    return shares, p, 0.3 * torch.randn(1, rows - 1, columns, generator=rng), RESPONSE


def changed_net() -> FinetuneNet:
    torch.manual_seed(1)
    net = FinetuneNet(4, 8).requires_grad_(False)
    for weights in (net.change.weight, net.parts, net.log_gain, net.offset):
        torch.nn.init.normal_(weights, std=0.1)
    net.kept.fill_(KEPT)
    return net


@pytest.fixture(scope="module")
def steep() -> Batch:
    rng, conditions = np.random.default_rng(2), Conditions(geometry=four_quadrant())
    return batch_of([make_sample(rng, 32, "grains", conditions) for _ in range(4)])


@pytest.mark.parametrize(("rows", "columns"), [(16, 31), (40, 24)])
def test_untrained_it_changes_nothing(rows: int, columns: int) -> None:
    shares, p, q, response = drawn(rows, columns)
    torch.testing.assert_close(FinetuneNet(4)(shares, p, q, response), shares, rtol=1e-5, atol=1e-6)


def test_its_blur_and_lag_can_be_those_of_the_simulator() -> None:
    stated = four_quadrant()
    beam = stated.beam.model_copy(update={"tail_fraction": FAR, "tail_sigma_m": 12.0 * stated.scan.pixel_size_m})
    effects = Effects(lag_s=-stated.beam.dwell_time_s / np.log(KEPT))
    real = stated.model_copy(update={"beam": beam, "effects": effects})
    views = views_of(hilly(), beside_faultless(real))
    net = FinetuneNet(4).requires_grad_(False)
    net.log_sigma_px[1], net.parts[1] = float(np.log(12.0)), FAR
    net.kept.fill_(KEPT)
    _, p, q, response = drawn(40, 40)
    found = net(torch.from_numpy(views.simulated)[None], p, q, response)[0].numpy()
    np.testing.assert_allclose(found, views.real, rtol=2e-4)
    assert np.abs(views.simulated - views.real).max() > 0.02


def test_without_faults_there_is_no_gap() -> None:
    views = views_of(hilly(), beside_faultless(four_quadrant()))
    np.testing.assert_allclose(views.real, views.simulated, rtol=1e-5)


def test_counts_of_the_real_instrument_are_read_with_stated_gains() -> None:
    real, stated = mismatched()
    amplifiers = Mismatch(stated.model_copy(update={"detector": real.detector}), stated)
    views, dark = views_of(hilly(), amplifiers), views_of(0.0 * hilly(), amplifiers)
    rise = (views.real - dark.real) / (views.simulated - dark.simulated)
    for segment, error in enumerate(GAIN_ERRORS):
        assert np.median(rise[segment]) == pytest.approx(error, rel=1e-3)


def test_without_blur_and_lag_a_slope_counts_for_its_two_pixels_only() -> None:
    """So it can't make up for errors of slopes around."""
    net = changed_net()
    net.parts.zero_()
    net.kept.zero_()
    shares, p, q, response = drawn(20, 30)
    before = net(shares, p, q, response)
    p[0, 8, 11] += 0.5
    different = ((net(shares, p, q, response) - before).abs() > 1e-5).any(dim=1)[0]
    assert different.nonzero().tolist() == [[8, 11], [8, 12]]


def test_turned_scenes_are_turned_back_because_lines_have_one_direction(steep: Batch) -> None:
    lesson = FinetuneLesson(mismatched())
    before, after = lesson.examples(steep), lesson.examples(turned(steep, 5))
    torch.testing.assert_close(after["true"], before["true"])
    torch.testing.assert_close(after["p"], before["p"])


def test_steps_close_the_gap_that_it_starts_with(steep: Batch) -> None:
    lesson = FinetuneLesson(mismatched())
    recipe = Recipe(samples=100_000, batch=4, width=8, muon=False, adam_rate=2e-2, hard_every=0)
    run, seen = Run(lesson, recipe), lesson.examples(steep)
    before = lesson.figures(run.average, [seen])
    run.samples = 2_000
    for _ in range(80):
        run.learn(seen)
    after = lesson.figures(run.average, [seen])
    assert before["gap_pct"] > 1.0 and before["gap_removed"] == pytest.approx(0.0, abs=1e-3)
    assert after["gap_removed"] > 0.5 and after["left_pct"] < 0.5 * before["gap_pct"]


def test_weights_come_back_whatever_their_size(tmp_path: Path) -> None:
    net = changed_net()
    save_finetune(net, tmp_path / "finetune.pt")
    views = views_of(hilly(24), mismatched())
    found = shown_by(tmp_path / "finetune.pt", views.simulated, hilly(24), mismatched())
    p, q = np.diff(hilly(24), axis=1), np.diff(hilly(24), axis=0)
    examples = {"shares": views.simulated, "p": p, "q": q, "response": RESPONSE[0].numpy()}
    named = {name: torch.from_numpy(values)[None] for name, values in examples.items()}
    np.testing.assert_allclose(found, net(**given(named))[0].numpy(), rtol=1e-6)
    with pytest.raises(ComponentFailed, match="eclips train finetune"):
        load_finetune(tmp_path / "missing.pt")


def trained(folder: Path, name: str = "finetune") -> ModelCard:
    """On an instrument file, as `eclips train NAME --instrument` does."""
    file = folder / "mine.toml"
    file.write_text(mismatched().real.to_toml(), encoding="utf-8")
    recipe = Recipe(samples=64, size_px=16, batch=16, width=4, muon=False, adam_rate=0.1, validation_batches=1)
    until_s = float("inf")
    return train_and_install(
        name, folder / "run", recipe, folder / "models", "unet", 0, lambda done, most: None, until_s, file
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    return trained(tmp_path_factory.mktemp("own"))


def test_an_instrument_of_ones_own_is_learned_and_installed_with_its_card(own: ModelCard) -> None:
    assert "mine.toml" in own.parts["finetune"].command
    assert {path.name for path in own.folder.iterdir()} == {"finetune.onnx", "finetune.pt", "finetune.toml"}
    assert list_model_sets(own.folder.parent) == []
    assert own.parts["finetune"].figures["gap_pct"] > 1.0


def test_the_graph_is_the_network_at_any_frame_size(own: ModelCard) -> None:
    path, net = own.folder / "finetune.onnx", load_finetune(own.folder / "finetune.pt")
    assert onnx.load(path).opset_import[0].version == 20
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows, columns in ((16, 33), (70, 41)):
        values = drawn(rows, columns)
        named = {name: value[0].numpy() for name, value in zip(("shares", "p", "q", "response"), values, strict=True)}
        with torch.no_grad():
            expected = net(*values)[0].numpy()
        np.testing.assert_allclose(session.run(None, named)[0], expected, rtol=1e-4, atol=1e-5)
        assert np.abs(expected - named["shares"]).max() > 0.02


def test_the_graph_holds_no_folder_of_the_machine_it_was_made_on(own: ModelCard) -> None:
    assert str(Path(__file__).parents[2]).encode() not in (own.folder / "finetune.onnx").read_bytes()


def test_a_network_that_is_the_same_for_all_takes_no_instrument(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="train finetune"):
        trained(tmp_path, "vft")


def test_the_peer_finds_gains_and_offsets_and_what_is_left_is_counted() -> None:
    rng = np.random.default_rng(1)
    images = [rng.random((3, 8, 9)) for _ in range(2)]
    gain, offset = np.array([1.1, 0.9, 1.0])[:, None, None], np.array([0.02, 0.0, -0.01])[:, None, None]
    real = [gain * image + offset for image in images]
    for found, true in zip(fitted(images, real), real, strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-9)
    simulated = {"a": 4e-4, "b": 1e-4, "bare": 1e-9}
    gaps = Gaps(simulated, simulated, {"a": 2.5e-5, "b": 2.5e-5, "bare": 1e-9})
    worst, removed = gaps.worst()
    assert worst == "b" and removed == pytest.approx(0.5)
    assert gaps.removed_by_peer() == pytest.approx(0.0) and gaps.removed() == pytest.approx(1.0 - 0.1**0.5, abs=1e-3)
