"""Messages survive the wire unchanged, and what is not a message is refused without harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition import wire
from acquisition.errors import MessageRejected
from acquisition.frames import (
    Event,
    Frame,
    FrameHeader,
    JoinedValue,
    Optics,
    Result,
    ResultHeader,
    RunFinished,
    StateSample,
    checksum,
)

OPTICS = Optics(5e-9, 8e-3, 1e4, 1e-6, 0.0, "calibration")
SHAPE = (3, 5, 7)


def frame() -> Frame:
    images = np.random.default_rng(3).integers(0, 65536, SHAPE, dtype=np.uint16)
    state = {"pyrometer.temperature_k": JoinedValue(900.5, True, 0.1), "gauge.pressure_pa": JoinedValue(None, False, 9)}
    flags = frozenset({"simulated", "saturated"})
    header = FrameHeader("run", "test", 7, 1, 2, 3, 4, None, SHAPE, "uint16", checksum(images), OPTICS, state, flags)
    return Frame(header, images)


def result() -> Result:
    header = ResultHeader("run", "test", 7, 1, 2, "m", {"slopes": "ab"}, "CPU", "c", 5e-9, {"x": 1.5}, {"slopes": 0.1})
    rng = np.random.default_rng(4)
    return Result(
        header,
        {"height": rng.random(SHAPE[1:], np.float32), "sigma": rng.random(SHAPE[1:]).astype(np.float16)},
    )


def changed(parts: list[wire.Part], **changes: object) -> list[wire.Part]:
    return [wire.dump_map({**wire.load_map(parts[0]), **changes}), *parts[1:]]


def test_frame_survives_the_wire_unchanged() -> None:
    sent = frame()
    received = wire.decode(wire.encode(sent))
    assert isinstance(received, Frame)
    assert received.header == sent.header
    np.testing.assert_array_equal(received.images, sent.images)
    assert not received.images.flags.writeable


def test_result_survives_the_wire_with_every_layer() -> None:
    sent = result()
    received = wire.decode(wire.encode(sent))
    assert isinstance(received, Result)
    assert received.header == sent.header
    assert list(received.layers) == ["height", "sigma"]
    for name, layer in sent.layers.items():
        np.testing.assert_array_equal(received.layers[name], layer)


@pytest.mark.parametrize(
    "message",
    [
        Event("run", "test", 1, 2, 3, "alarm", "alarm", "text", {"value": 3.5}),
        StateSample("run", "test", 1, 2, 3, "heater.current_a", None, False, "silent"),
        RunFinished("run", "test", 1, 2, 3, 5, 4, "asked", "digest"),
    ],
)
def test_small_messages_survive_the_wire(message: Event | StateSample | RunFinished) -> None:
    assert wire.decode(wire.encode(message)) == message


def test_arrays_are_sent_without_a_copy() -> None:
    sent = frame()
    payload = wire.encode(sent)[1]
    assert np.shares_memory(np.frombuffer(payload, np.uint16), sent.images)


def test_a_flipped_bit_is_rejected() -> None:
    header, payload = wire.encode(frame())
    flipped = bytearray(payload)
    flipped[11] ^= 1
    with pytest.raises(MessageRejected, match="checksum"):
        wire.decode([header, bytes(flipped)])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": 2}, "schema 2 is unknown"),
        ({"kind": "gossip"}, "kind 'gossip' is unknown"),
        ({"shape": [3, 5, 8]}, "do not fill shape"),
        ({"shape": [3, -5, 7]}, "shape"),
        ({"dtype": "float64"}, "not uint16"),
        ({"sequence": "seven"}, "sequence"),
        ({"optics": None}, "optics"),
        ({"notes": "x" * wire.MAX_HEADER_BYTES}, "above the limit"),
    ],
)
def test_what_does_not_match_is_rejected(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(MessageRejected, match=complaint):
        wire.decode(changed(wire.encode(frame()), **changes))


def test_a_result_without_height_is_rejected() -> None:
    sent = result()
    with pytest.raises(MessageRejected, match="first layer must be height"):
        wire.decode(wire.encode(Result(sent.header, {"sigma": sent.layers["sigma"]})))


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_are_rejected_and_nothing_worse(parts: list[bytes]) -> None:
    with pytest.raises(MessageRejected):
        wire.decode(parts)


@given(st.data())
def test_random_damage_to_a_header_never_gives_another_frame(data: st.DataObject) -> None:
    parts = wire.encode(frame())
    header = bytearray(parts[0])
    position = data.draw(st.integers(0, len(header) - 1))
    header[position] ^= data.draw(st.integers(1, 255))
    try:
        received = wire.decode([bytes(header), *parts[1:]])
    except MessageRejected:
        return
    assert isinstance(received, Frame)
    np.testing.assert_array_equal(received.images, frame().images)
