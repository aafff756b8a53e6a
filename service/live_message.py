"""One answer of the live socket: the newest frame and result, reduced to what the page shows."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.consumer import Delivery
from acquisition.frames import Frame, Result
from service.pictures import shrink

HISTOGRAM_BINS = 64
FULL_SCALE = 65535
ALIGNMENT = 8


def live_message(frame: Delivery, result: Delivery | None, layers: list[str], max_px: int) -> bytes:
    """`uint32 header length | JSON header | arrays`; offsets count from the end of the header, all 8-aligned."""
    assert isinstance(frame.message, Frame)
    reconstructed = result.message if result is not None else None
    if not isinstance(reconstructed, Result) or reconstructed.header.run_id != frame.run.run_id:
        reconstructed = None
    arrays = _wanted(frame.message, reconstructed, layers, max_px)
    header = {
        "run_id": frame.run.run_id,
        "replayed": "replayed" in frame.message.header.flags,
        "frame": _frame_tree(frame),
        "result": None if reconstructed is None else _result_tree(reconstructed),
        **_statistics(frame),
    }
    return _pack(header, arrays, frame.message.header.optics.pixel_size_m, frame.message.images.shape[2])


def _wanted(frame: Frame, result: Result | None, layers: list[str], max_px: int) -> dict[str, NDArray[Any]]:
    available: dict[str, NDArray[Any]] = {"segments": frame.images}
    if result is not None:
        available |= {name: np.asarray(array, np.float32) for name, array in result.layers.items()}
    return {name: np.ascontiguousarray(shrink(available[name], max_px)) for name in layers if name in available}


def _frame_tree(delivery: Delivery) -> dict[str, Any]:
    assert isinstance(delivery.message, Frame)
    header = delivery.message.header
    return {
        "sequence": header.sequence,
        "utc_ns": header.utc_ns,
        "age_s": max(0.0, (time.monotonic_ns() - header.monotonic_ns) / 1e9),
        "shape": list(header.shape),
        "pixel_size_m": header.optics.pixel_size_m,
        "flags": sorted(header.flags),
        "segment_names": [segment["name"] for segment in delivery.run.instrument["detector"]["segments"]],
    }


def _result_tree(result: Result) -> dict[str, Any]:
    header = result.header
    return {
        "sequence": header.sequence,
        "model": header.model,
        "provider": header.provider,
        "figures": {name: value for name, value in header.figures.items() if np.isfinite(value)},
        "timing_s": dict(header.timing_s),
        "estimated": list(header.estimated),
    }


def _statistics(delivery: Delivery) -> dict[str, Any]:
    """What one sets four amplifiers with. A quarter of the pixels is enough for a histogram."""
    assert isinstance(delivery.message, Frame)
    images = delivery.message.images
    sparse = images[:, ::2, ::2]
    bins = FULL_SCALE // HISTOGRAM_BINS + 1
    histograms = [np.bincount(image.ravel() // bins, minlength=HISTOGRAM_BINS).tolist() for image in sparse]
    segments = delivery.run.instrument["detector"]["segments"]
    return {
        "histograms": histograms,
        "histogram_max": FULL_SCALE,
        "saturated_share": [float((image == FULL_SCALE).mean()) for image in sparse],
        "mean_electrons": [_mean_electrons(image, segment) for image, segment in zip(sparse, segments, strict=True)],
    }


def _mean_electrons(image: NDArray[np.uint16], segment: Mapping[str, Any]) -> float | None:
    """None where the instrument file does not know gain or dark level."""
    gain, dark = segment.get("gain_counts_per_electron"), segment.get("dark_counts")
    if gain is None or dark is None:
        return None
    return float((image.mean() - dark) / gain)


def _pack(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]], pixel_size_m: float, width_px: int) -> bytes:
    layers, offset = [], 0
    for name, array in arrays.items():
        layers.append(
            {
                "name": name,
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "offset": offset,
                "pixel_size_m": pixel_size_m * (width_px // array.shape[-1]),
            }
        )
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    head = json.dumps({**header, "layers": layers}, allow_nan=False).encode()
    head += b" " * (-(len(head) + 4) % ALIGNMENT)
    parts: list[bytes | memoryview] = [struct.pack("<I", len(head)), head]
    for array in arrays.values():
        parts += [array.reshape(-1).view(np.uint8).data, bytes(-array.nbytes % ALIGNMENT)]
    return b"".join(parts)
