"""What the live socket answers: whatever size and layers a client wishes for, a message that it can take apart."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.consumer import Delivery
from acquisition.frames import Frame, Result, checksum
from recordings import frame, result, run_started
from service.live_message import live_message
from service.pictures import shrink

sides = st.integers(1, 600)


@settings(deadline=None)
@given(sides, sides, st.integers(16, 4096))
def test_a_picture_is_never_larger_than_asked_for_and_never_empty(height: int, width: int, max_px: int) -> None:
    shrunk = shrink(np.full((2, height, width), 7, np.uint16), max_px)
    assert shrunk.dtype == np.uint16
    assert all(1 <= side <= max(max_px, 1) for side in shrunk.shape[1:])
    assert (shrunk == 7).all()
    if max(height, width) <= max_px:
        assert shrunk.shape == (2, height, width)


@settings(deadline=None, max_examples=15)
@given(
    sides.filter(lambda side: side > 1),
    sides.filter(lambda side: side > 1),
    st.lists(st.text(max_size=5) | st.sampled_from(["segments", "height"]), max_size=8),
    st.integers(16, 4096),
)
def test_any_wish_gives_a_message_whose_layers_lie_where_it_says(
    height: int, width: int, layers: list[str], max_px: int
) -> None:
    shape = (4, height, width)
    images = np.full(shape, 9, np.uint16)
    header = replace(frame(1).header, shape=shape, xxh3=checksum(images))
    height_m = np.full(shape[1:], 2e-9, np.float32)
    run = run_started()
    message = live_message(
        Delivery(run, Frame(header, images), 0),
        Delivery(run, Result(result(1).header, {"height": height_m}), 0),
        layers,
        max_px,
    )
    (length,) = struct.unpack("<I", message[:4])
    told = json.loads(message[4 : 4 + length])
    assert {layer["name"] for layer in told["layers"]} == set(layers) & {"segments", "height"}
    assert told["result"]["figures"] == {}, "what is not finite is left out"
    for layer in told["layers"]:
        count = int(np.prod(layer["shape"]))
        array = np.frombuffer(message, layer["dtype"], count, 4 + length + layer["offset"])
        np.testing.assert_allclose(array, 9 if layer["name"] == "segments" else 2e-9, rtol=1e-5)
        assert layer["pixel_size_m"] >= header.optics.pixel_size_m
