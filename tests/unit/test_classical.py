"""The classical graphs against an independent float64 implementation, and their honesty about noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from acquisition.errors import BadInput, ComponentFailed
from acquisition.frames import Frame, FrameHeader, checksum
from acquisition.instrument import Detector, Instrument, Segment, four_quadrant
from acquisition.stamping import optics_of
from inference.accuracy import compare, without_plane
from inference.calibration import Calibration, calibrate
from inference.forward_model import render
from inference.pipeline import Pipeline
from inference.registry import MODELS, SLOTS, find_model_set, list_model_sets, read_card, write_card
from inference.session import OnnxSession

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def slots() -> dict[str, OnnxSession]:
    card = find_model_set("classical")
    return {name: OnnxSession(card.graph(name), slot, "cpu") for name, slot in SLOTS.items()}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("classical", "cpu")


def ring(segments: int) -> Instrument:
    """An annulus cut into equal segments."""
    width = 360.0 / segments
    parts = [
        Segment(
            name=f"S{n}",
            inner_radius_m=1.5e-3,
            outer_radius_m=6e-3,
            azimuth_from_deg=10 + n * width,
            azimuth_to_deg=10 + (n + 1) * width,
            gap_m=0.2e-3,
            gain_counts_per_electron=8.0,
            dark_counts=200.0,
        )
        for n in range(segments)
    ]
    return Instrument(detector=Detector(segments=tuple(parts)))


def modulated() -> Instrument:
    parts = [
        Segment(name=name, azimuth_from_deg=centre - 60, azimuth_to_deg=centre + 60, modulation=1.4)
        for name, centre in (("A", 208.0), ("B", 89.4), ("C", 333.5))
    ]
    return Instrument(detector=Detector(segments=tuple(parts)))


def surface(shape: tuple[int, int], pixel_size_m: float = 5e-9) -> Floats:
    rng = np.random.default_rng(5)
    rough = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 4, mode="wrap")
    return rough / rough.std() * 2.0 * pixel_size_m


def feed(calibration: Calibration, images: NDArray[np.uint16]) -> dict[str, object]:
    names = ("response", "inversion", "gain_counts_per_electron", "dark_counts", "flat_share", "saturation_counts")
    values: dict[str, object] = {name: getattr(calibration, name) for name in names}
    return {
        **values,
        "images": images,
        "frames_held": np.ones(images.shape[1:], np.float32),
        "pixel_size_m": np.float32(5e-9),
        "pixel_size_y_m": np.float32(5e-9),
    }


def independent_slopes(calibration: Calibration, images: NDArray[np.uint16]) -> tuple[Floats, Floats]:
    """Difference over sum pixel by pixel in float64; n_z found by bisection where the signal has an offset share."""
    gain, dark = (
        np.asarray(v, float)[:, None, None] for v in (calibration.gain_counts_per_electron, calibration.dark_counts)
    )
    electrons = (images.astype(float) - dark) / gain
    solved, *_ = np.linalg.lstsq(
        np.asarray(calibration.response, float), electrons.reshape(len(images), -1), rcond=None
    )
    a, b = solved[0] / solved[2], solved[1] / solved[2]
    share = float(calibration.flat_share)
    low, high = np.full(a.shape, 0.05), np.ones(a.shape)
    for _ in range(60):
        middle = (low + high) / 2
        length = (a**2 + b**2) * (share * middle + 1 - share) ** 2 + middle**2
        low, high = np.where(length < 1, middle, low), np.where(length < 1, high, middle)
    nz = (low + high) / 2
    k = (share * nz + 1 - share) / nz
    p, q = (-a * k).reshape(images.shape[1:]), (-b * k).reshape(images.shape[1:])
    return (p[:, 1:] + p[:, :-1]) / 2, (q[1:] + q[:-1]) / 2


def independent_height(p: Floats, q: Floats, pixel_size_m: float) -> Floats:
    """Least squares on forward differences by SciPy's cosine transform in float64."""
    rows, columns = p.shape[0], q.shape[1]
    source = np.zeros((rows, columns))
    source[:, 1:] += p
    source[:, :-1] -= p
    source[1:] += q
    source[:-1] -= q
    over_x = 2 - 2 * np.cos(np.pi * np.arange(columns) / columns)
    over_y = 2 - 2 * np.cos(np.pi * np.arange(rows) / rows)
    eigen = over_y[:, None] + over_x[None, :]
    eigen[0, 0] = 1.0
    spectrum = scipy.fft.dctn(source, norm="ortho") / eigen
    spectrum[0, 0] = 0.0
    return scipy.fft.idctn(spectrum, norm="ortho") * pixel_size_m


@pytest.mark.parametrize("shape", [(2, 2), (17, 40), (128, 96), (255, 256), (512, 512)])
def test_integration_agrees_with_scipy(slots: dict[str, OnnxSession], shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(shape[0], shape[1] - 1)), rng.normal(size=(shape[0] - 1, shape[1]))
    values = {"p": p.astype(np.float32), "q": q.astype(np.float32), "sigma_p": p.astype(np.float32)}
    values |= {"sigma_q": q.astype(np.float32), "residual": np.zeros(shape, np.float32)}
    found = slots["integrate"].run({**values, "pixel_size_m": np.float32(5e-9), "pixel_size_y_m": np.float32(5e-9)})
    expected = independent_height(p, q, 5e-9)
    assert np.abs(found["height"] - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("shape", [(33, 64), (200, 181)])
def test_integrating_the_differences_of_a_height_gives_it_back(
    slots: dict[str, OnnxSession], shape: tuple[int, int]
) -> None:
    height = surface(shape) + 3e-10 * np.arange(shape[1])
    p, q = (np.diff(height, axis=axis).astype(np.float32) / np.float32(5e-9) for axis in (1, 0))
    zero = np.zeros(shape, np.float32)
    values = {"p": p, "q": q, "sigma_p": p, "sigma_q": q, "residual": zero}
    found = slots["integrate"].run({**values, "pixel_size_m": np.float32(5e-9), "pixel_size_y_m": np.float32(5e-9)})
    assert np.abs(found["height"] - (height - height.mean())).max() <= 1e-5 * np.ptp(height)
    assert found["misfit"] < 1e-5


@pytest.mark.parametrize("instrument", [ring(3), four_quadrant(), ring(5), ring(8), modulated()])
def test_slopes_agree_with_an_independent_inversion(slots: dict[str, OnnxSession], instrument: Instrument) -> None:
    segments = instrument.detector.segments
    if segments[0].modulation is None:
        images = render(surface((64, 80)), instrument, np.random.default_rng(2), dose=20_000)
    else:
        images = np.random.default_rng(2).integers(30_000, 50_000, (3, 64, 80), dtype=np.uint16)
    calibration = calibrate(instrument, images)
    found = slots["slopes"].run(feed(calibration, images))
    p, q = independent_slopes(calibration, images)
    scale = max(np.ptp(p), np.ptp(q))
    assert np.abs(found["p"] - p).max() <= 1e-5 * scale
    assert np.abs(found["q"] - q).max() <= 1e-5 * scale


def test_predicted_sigma_is_the_scatter_of_repeated_frames(slots: dict[str, OnnxSession]) -> None:
    instrument, height = four_quadrant(), surface((48, 48))
    rng = np.random.default_rng(3)
    frames = [render(height, instrument, rng, dose=3000) for _ in range(60)]
    runs = [slots["slopes"].run(feed(calibrate(instrument, images), images)) for images in frames]
    for slope, sigma in (("p", "sigma_p"), ("q", "sigma_q")):
        scatter = np.std([run[slope] for run in runs], axis=0, ddof=1)
        predicted = np.mean([run[sigma] for run in runs], axis=0)
        assert np.median(scatter / predicted) == pytest.approx(1.0, abs=0.03)


def test_rerendering_the_true_slopes_explains_the_frame_to_its_noise(slots: dict[str, OnnxSession]) -> None:
    instrument, height = four_quadrant(), surface((96, 96))
    images = render(height, instrument, np.random.default_rng(4), dose=5000)
    values = feed(calibrate(instrument, images), images)
    values["p"], values["q"] = (np.diff(height, axis=axis).astype(np.float32) / 5e-9 for axis in (1, 0))
    chi = slots["rerender"].run(values)["residual"][2:-2, 2:-2]
    assert np.mean(chi**2) == pytest.approx(0.75, abs=0.05)  # one of four degrees of freedom went into the brightness


@pytest.mark.parametrize("level", [0, 200, 65535])
def test_frames_without_information_give_finite_answers_that_say_so(pipeline: Pipeline, level: int) -> None:
    images = np.full((4, 32, 40), level, np.uint16)
    result = pipeline.reconstruct(frame_of(images, four_quadrant()), four_quadrant())
    for layer in result.layers.values():
        assert np.isfinite(layer).all()
    assert result.header.figures["rejected_share"] == 1.0
    assert np.median(result.layers["sigma"]) > 1


def frame_of(images: NDArray[np.uint16], instrument: Instrument) -> Frame:
    shape = (images.shape[0], images.shape[1], images.shape[2])
    header = FrameHeader("run", "test", 0, 1, 2, 3, 4, None, shape, "uint16", checksum(images), optics_of(instrument))
    return Frame(header, images)


@pytest.mark.parametrize("instrument", [ring(3), four_quadrant(), ring(6)])
def test_a_bright_frame_gives_the_surface_back(pipeline: Pipeline, instrument: Instrument) -> None:
    height = surface((160, 128))
    images = render(height, instrument, np.random.default_rng(6), dose=15_000)
    accuracy = compare(pipeline.reconstruct(frame_of(images, instrument), instrument).height_m, height, 5e-9)
    assert accuracy.height_error_over_std < 0.03


def test_the_same_frame_gives_the_same_height_bit_for_bit(pipeline: Pipeline) -> None:
    frame = frame_of(render(surface((64, 64)), four_quadrant(), np.random.default_rng(7)), four_quadrant())
    first, second = (pipeline.reconstruct(frame, four_quadrant()).height_m for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_pit_on_a_flat_is_found_from_modulations_alone(pipeline: Pipeline) -> None:
    """A square pyramid of 22 degrees, three segments of unknown dark level."""
    x = np.arange(-100, 100)
    depth = np.clip(60 - np.abs(x)[:, None] - np.abs(x)[None, :], 0, None) * np.tan(np.radians(22)) / np.sqrt(2)
    height = -depth * 65e-9
    instrument = modulated().with_scan(pixel_size_m=65e-9)
    q, p = np.gradient(height, 65e-9)
    length = np.sqrt(1 + p**2 + q**2)
    azimuths = np.radians([segment.centre_azimuth_deg for segment in instrument.detector.segments])
    toward = [(-p / length) * np.cos(a) - (-q / length) * np.sin(a) for a in azimuths]
    images = np.stack([np.round(30_000 * (1 + 1.4 * t)) for t in toward]).clip(0, 65535).astype(np.uint16)
    result = pipeline.reconstruct(frame_of(images, instrument), instrument)
    found = without_plane(result.height_m)
    assert found[:20].mean() - found.min() == pytest.approx(-height.min(), rel=0.05)
    assert any("flat" in told for told in result.header.estimated)


def test_a_frame_that_does_not_fit_the_instrument_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(BadInput, match="4 segments"):
        pipeline.reconstruct(frame_of(np.zeros((3, 8, 8), np.uint16), four_quadrant()), four_quadrant())


def test_shipped_hashes_match_their_cards() -> None:
    for card in list_model_sets():
        assert find_model_set(card.name).sha256 == card.sha256


def test_rebuilding_gives_the_shipped_graphs(tmp_path: Path) -> None:
    from inference.training.classical import export_classical

    export_classical(tmp_path / "classical")
    height = surface((40, 40)).astype(np.float32)
    p, q = np.diff(height, axis=1), np.diff(height, axis=0)
    values = {"p": p, "q": q, "sigma_p": p, "sigma_q": q, "residual": height}
    values |= {"pixel_size_m": np.float32(1), "pixel_size_y_m": np.float32(1)}
    rebuilt, shipped = (
        OnnxSession(folder / "classical" / "integrate.onnx", SLOTS["integrate"], "cpu").run(values)["height"]
        for folder in (tmp_path, MODELS)
    )
    np.testing.assert_array_equal(rebuilt, shipped)


def test_a_changed_graph_is_refused_with_the_way_out(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(MODELS / "classical", tmp_path / "classical")
    with (tmp_path / "classical" / "slopes.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ComponentFailed, match="eclips train classical"):
        find_model_set("classical", tmp_path)
    write_card(read_card(tmp_path / "classical"))
    find_model_set("classical", tmp_path)


def test_an_unknown_model_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="installed: classical"):
        Pipeline("clasical")
