"""One answer of the live socket: the newest frame and result, reduced to what the page shows."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acquisition.consumer import Delivery
from acquisition.frames import Frame, Result
from service.pictures import shrink

HISTOGRAM_BINS = 64
HISTOGRAM_TAIL = 0.0002
FULL_SCALE = 65535
ALIGNMENT = 8
REMEMBERED = 4
SEGMENTS = "segments"
FLOATS = (np.float16, np.float32)


class Made:
    """What was made of the newest frames and results, once for all who watch; usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: deque[tuple[Delivery, dict[Hashable, Any]]] = deque(maxlen=REMEMBERED)

    def once(self, delivery: Delivery, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gave the first time for this delivery. Who asks meanwhile waits: the work is done once."""
        with self._lock:
            of_this = next((made for one, made in self._of if one is delivery), None)
            if of_this is None:
                self._of.append((delivery, of_this := {}))
            if key not in of_this:
                of_this[key] = make()
            return of_this[key]


Seen = tuple[Delivery | None, Delivery | None]
"""Frame and result that somebody was sent before."""


def unseen(layers: Sequence[str], frame: Delivery, result: Delivery | None, seen: Seen) -> list[str]:
    """Those of `layers` that tell something new; all of them where another run has begun."""
    frame_before, result_before = seen
    if frame_before is None or frame_before.run.run_id != frame.run.run_id:
        return list(layers)
    new = {SEGMENTS: frame is not frame_before}
    return [name for name in layers if new.get(name, result is not result_before)]


def height_follows(frame: Delivery, result: Delivery | None) -> bool:
    """Whether heights keep pace with frames: that of the frame before is there, and that of this one is not."""
    if result is None or result.run.run_id != frame.run.run_id:
        return False
    assert isinstance(frame.message, Frame) and isinstance(result.message, Result)
    return result.message.header.sequence == frame.message.header.sequence - 1


def live_message(
    frame: Delivery,
    result: Delivery | None,
    layers: Sequence[str],
    max_px: int,
    segments_px: int | None = None,
    made: Made | None = None,
) -> bytes:
    """`uint32 header length | JSON header | arrays`; offsets count from the end of the header, all 8-aligned.

    No side of a layer is above `max_px`, nor of a segment above `segments_px`. Layers keep the type in which they were
    sent to the service (float32, or float16 where that is precise enough)."""
    assert isinstance(frame.message, Frame)
    made = made or Made()
    reconstructed = result.message if result is not None else None
    if not isinstance(reconstructed, Result) or reconstructed.header.run_id != frame.run.run_id:
        reconstructed = None
    available: dict[str, tuple[Delivery, NDArray[Any], int]] = {}
    if result is not None and reconstructed is not None:
        available = {name: (result, array, max_px) for name, array in reconstructed.layers.items()}
    available[SEGMENTS] = frame, frame.message.images, min(max_px, segments_px or max_px)
    arrays = {name: _shown(made, name, *available[name]) for name in layers if name in available}
    header = {
        "run_id": frame.run.run_id,
        "replayed": "replayed" in frame.message.header.flags,
        "frame": _frame_tree(frame),
        "result": None if reconstructed is None else _result_tree(reconstructed),
        **made.once(frame, "statistics", lambda: _statistics(frame)),
    }
    return _pack(header, arrays, frame.message.header.optics.pixel_size_m, frame.message.images.shape[2])


def _shown(made: Made, name: str, delivery: Delivery, array: NDArray[Any], max_px: int) -> NDArray[Any]:
    def make() -> NDArray[Any]:
        kept = array if name == SEGMENTS or array.dtype in FLOATS else np.asarray(array, np.float32)
        return np.ascontiguousarray(shrink(kept, max_px))

    shown: NDArray[Any] = made.once(delivery, (name, max_px), make)
    return shown


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
    """What one sets four amplifiers with, from the counts as they came. A quarter of the pixels is enough."""
    assert isinstance(delivery.message, Frame)
    sparse = delivery.message.images[:, ::2, ::2]
    often = np.stack([np.bincount(image.ravel(), minlength=FULL_SCALE + 1) for image in sparse])
    highest = np.searchsorted(np.cumsum(often.sum(axis=0)), (1.0 - HISTOGRAM_TAIL) * sparse.size)
    end = min(FULL_SCALE + 1, max(HISTOGRAM_BINS, int(1.05 * highest)))
    segments = delivery.run.instrument["detector"]["segments"]
    return {
        "histograms": np.add.reduceat(often, np.arange(HISTOGRAM_BINS) * end // HISTOGRAM_BINS, axis=1).tolist(),
        "histogram_max": end,
        "saturated_share": (often[:, FULL_SCALE] / sparse[0].size).tolist(),
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
