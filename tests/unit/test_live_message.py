"""What the live socket answers: whatever size and layers a client wishes for, a message that it can take apart."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from acquisition.consumer import Delivery
from acquisition.frames import Frame, Result, checksum
from recordings import frame, result, run_started
from service.live_message import FULL_SCALE, Made, height_follows, live_message, unseen
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


def told(message: bytes) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Header and layers of a message."""
    (length,) = struct.unpack("<I", message[:4])
    header = json.loads(message[4 : 4 + length])
    arrays = {
        layer["name"]: np.frombuffer(
            message, layer["dtype"], int(np.prod(layer["shape"])), 4 + length + layer["offset"]
        ).reshape(layer["shape"])
        for layer in header["layers"]
    }
    return header, arrays


def framed(images: NDArray[np.uint16], number: int = 1) -> Delivery:
    header = replace(frame(number).header, shape=images.shape, xxh3=checksum(images))
    return Delivery(run_started(), Frame(header, images), 0)


def made_of(number: int, **layers: NDArray[Any]) -> Delivery:
    return Delivery(run_started(), Result(result(number).header, layers), 0)


def test_segments_have_a_size_of_their_own_and_halves_stay_halves() -> None:
    images = np.arange(4 * 64 * 64, dtype=np.uint16).reshape(4, 64, 64)
    residual = np.linspace(-3, 3, 64 * 64).astype(np.float16).reshape(64, 64)
    result_ = made_of(1, height=np.ones((64, 64), np.float32), residual=residual)
    header, arrays = told(live_message(framed(images), result_, ["segments", "height", "residual"], 64, 32))
    assert arrays["segments"].shape == (4, 32, 32)
    np.testing.assert_array_equal(arrays["segments"][0, 0, 0], images[0, :2, :2].mean().astype(np.uint16))
    assert arrays["residual"].dtype == np.float16
    np.testing.assert_array_equal(arrays["residual"], residual)
    assert arrays["height"].dtype == np.float32
    assert header["layers"][0]["pixel_size_m"] == 2 * header["frame"]["pixel_size_m"]


def test_histograms_count_every_sampled_pixel_up_to_the_brightest_that_matter() -> None:
    images = np.full((4, 64, 64), 1000, np.uint16)
    images[1] = 500
    images[2, ::2, ::2] = FULL_SCALE
    header, _ = told(live_message(framed(images), None, ["segments"], 64))
    assert [sum(one) for one in header["histograms"]] == [32 * 32] * 4
    assert header["saturated_share"] == [0.0, 0.0, 1.0, 0.0]
    dark, _ = told(live_message(framed(np.minimum(images, 1000)), None, ["segments"], 64))
    assert dark["histogram_max"] == 1050
    places = [int(np.argmax(one)) for one in dark["histograms"]]
    assert places[0] > places[1] > 0


def test_only_what_is_new_is_told_again_until_another_run_begins() -> None:
    wish, images = ["segments", "height"], np.ones((4, 8, 8), np.uint16)
    first, second = framed(images), framed(images, 2)
    height = made_of(1, height=np.ones((8, 8), np.float32))
    assert unseen(wish, first, None, (None, None)) == wish
    assert unseen(wish, second, height, (first, height)) == ["segments"]
    assert unseen(wish, second, height, (second, None)) == ["height"]
    assert unseen(wish, second, height, (second, height)) == []
    other = Delivery(replace(run_started(), run_id="another"), second.message, 0)
    assert unseen(wish, other, height, (second, height)) == wish


def test_a_frame_waits_only_for_heights_that_keep_pace() -> None:
    images, height = np.ones((4, 8, 8), np.uint16), np.ones((8, 8), np.float32)
    assert height_follows(framed(images, 3), made_of(2, height=height))
    assert not height_follows(framed(images, 3), made_of(3, height=height)), "it is there"
    assert not height_follows(framed(images, 9), made_of(2, height=height)), "heights are slower than frames"
    assert not height_follows(framed(images, 3), None)


def test_what_many_ask_for_is_made_once_and_the_old_is_forgotten() -> None:
    made, calls = Made(), list[int]()
    deliveries = [framed(np.ones((4, 8, 8), np.uint16), number) for number in range(8)]

    def make() -> int:
        calls.append(1)
        return len(calls)

    assert [made.once(deliveries[0], "a", make) for _ in range(20)] == [1] * 20
    assert made.once(deliveries[0], "b", make) == 2
    for delivery in deliveries[1:]:
        made.once(delivery, "a", make)
    assert made.once(deliveries[0], "a", make) == len(calls) > 2
