"""Whatever arrives, a message is read right or rejected: nothing else is raised, nothing hangs, memory is bounded."""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition import wire
from acquisition.errors import MessageRejected
from acquisition.frames import (
    Event,
    Frame,
    Heartbeat,
    Message,
    Result,
    ResultHeader,
    RunFinished,
    StateSample,
    checksum,
)
from hostile import (
    BOMBS,
    Change,
    bounded_memory,
    changed,
    changes,
    few,
    header_of,
    replace_somewhere,
    sealed,
    usual,
    values,
)
from recordings import SHAPE, frame, run_started

TREE = {"schema": 1, "kind": "event", "details": {}}


def _result() -> Result:
    header = ResultHeader("run", "test", 3, 1, 2, "m", {"slopes": "ab"}, "CPU", "c", 5e-9, {"x": 1.5}, {"slopes": 0.1})
    rng = np.random.default_rng(4)
    layers = {"height": rng.random(SHAPE[1:], np.float32), "sigma": rng.random((2, 5, 7)).astype(np.float16)}
    return Result(header, layers)


MESSAGES: tuple[Message, ...] = (
    frame(7),
    _result(),
    run_started(),
    RunFinished("run", "test", 1, 2, 3, 5, 4, "asked", "digest"),
    StateSample("run", "test", 1, 2, 3, "heater.current_a", 1.5, True, ""),
    Event("run", "test", 1, 2, 3, "alarm", "alarm", "text", {"value": 3.5}),
    Heartbeat("", "test", 1, 2, 3, {"state": "idle", "permitted": ["start"]}),
)
messages = st.sampled_from(MESSAGES)


def sent(message: Message) -> list[bytes]:
    return [bytes(part) for part in wire.encode(message)]


def assert_read_right_or_rejected(parts: list[bytes]) -> None:
    """What is read has arrays of the size and content that its header says, and can be sent on."""
    with bounded_memory():
        try:
            received = wire.decode(parts)
        except MessageRejected as error:
            assert len(str(error)) < 1000
            return
        if isinstance(received, Frame):
            assert received.images.shape == received.header.shape
            assert checksum(received.images) == received.header.xxh3
        if isinstance(received, Result):
            assert received.height_m.ndim == 2
        again = wire.decode(wire.encode(received))
        assert type(again) is type(received)


@pytest.mark.parametrize("bomb", list(BOMBS.values()), ids=list(BOMBS))
def test_few_bytes_that_ask_for_much_are_rejected(bomb: bytes) -> None:
    for header in (bomb, sealed(bomb)):
        assert_read_right_or_rejected([header])
        with bounded_memory(), pytest.raises(MessageRejected):
            wire.load_map(header)


@pytest.mark.parametrize("kind", ["frame", "result"])
def test_a_header_above_the_limit_is_rejected_before_it_is_read(kind: str) -> None:
    parts = sent(frame(1) if kind == "frame" else _result())
    full = header_of({**wire.load_map(parts[0]), "padding": "x" * wire.MAX_HEADER_BYTES})
    with pytest.raises(MessageRejected, match=f"above the limit of {wire.MAX_HEADER_BYTES}"):
        wire.decode([full, *parts[1:]])
    spare = wire.MAX_HEADER_BYTES - len(header_of({**wire.load_map(parts[0]), "padding": "x" * 60_000}))
    fitting = header_of({**wire.load_map(parts[0]), "padding": "x" * (60_000 + spare)})
    assert len(fitting) == wire.MAX_HEADER_BYTES
    assert type(wire.decode([fitting, *parts[1:]])).__name__.lower() == kind


@pytest.mark.soak
@usual
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_random_bytes_are_rejected(parts: list[bytes]) -> None:
    with bounded_memory(), pytest.raises(MessageRejected):
        wire.decode(parts)


@pytest.mark.soak
@usual
@given(values)
def test_anything_that_is_cbor_is_a_plain_map_or_rejected(value: Any) -> None:
    with bounded_memory():
        try:
            tree = wire.load_map(header_of(value))
        except MessageRejected:
            return
        # As numbers that are not finite never equal themselves.
        assert cbor2.dumps(tree) == cbor2.dumps(value)


@pytest.mark.soak
@usual
@given(messages, st.lists(changes, min_size=1, max_size=3))
def test_a_header_with_changed_bytes_is_read_right_or_rejected(message: Message, several: list[Change]) -> None:
    header, *payloads = sent(message)
    assert_read_right_or_rejected([changed(header, several), *payloads])


@pytest.mark.soak
@usual
@given(st.data(), messages, values)
def test_a_header_with_a_changed_value_is_read_right_or_rejected(
    data: st.DataObject, message: Message, value: Any
) -> None:
    header, *payloads = sent(message)
    tree = replace_somewhere(data, wire.load_map(header), value)
    assert_read_right_or_rejected([header_of(tree), *payloads])


@pytest.mark.soak
@few
@given(messages, st.lists(changes, max_size=2), st.permutations(range(4)), st.integers(0, 5))
def test_parts_that_are_changed_swapped_missing_or_too_many_are_rejected(
    message: Message, several: list[Change], order: list[int], count: int
) -> None:
    header, *payloads = sent(message)
    parts = [header, *(changed(payload, several) for payload in payloads), b""]
    shuffled = [parts[at] for at in order if at < len(parts)][:count]
    if shuffled != [header, *payloads]:
        with bounded_memory(), pytest.raises(MessageRejected):
            wire.decode(shuffled)


@pytest.mark.parametrize(
    "layers",
    [
        [{"name": "height", "dtype": ["float32"], "shape": [24, 32]}],
        [{"name": "height", "dtype": "float32", "shape": [65536] * 20_000}],
        [{"name": "height", "dtype": "float32", "shape": [1] * 100}],
        [{"name": "height", "dtype": "float32", "shape": []}],
        [{"name": "height", "dtype": "float32", "shape": [True, True]}],
        [{"name": "height", "dtype": "object", "shape": [24, 32]}],
        [["height", "float32", [24, 32]]],
        {"height": "float32"},
        [],
        None,
    ],
)
def test_layers_that_cannot_be_are_rejected(layers: Any) -> None:
    sound = Result(_result().header, {"height": _result().height_m})
    header, *payloads = sent(sound)
    for payload in (payloads, [b"\x00" * 4]):
        with bounded_memory(), pytest.raises(MessageRejected):
            wire.decode([header_of({**wire.load_map(header), "layers": layers}), *payload])


@pytest.mark.parametrize("field", ["pixel_size_m", "timing_s"])
def test_a_result_whose_numbers_no_journal_could_hold_is_rejected(field: str) -> None:
    header, *payloads = sent(_result())
    wrong = float("nan") if field == "pixel_size_m" else {"slopes": float("inf")}
    with pytest.raises(MessageRejected, match="no finite number"):
        wire.decode([header_of({**wire.load_map(header), field: wrong}), *payloads])


def test_a_schema_that_is_a_number_too_long_to_print_is_rejected() -> None:
    with pytest.raises(MessageRejected, match=r"schema .* is unknown"):
        wire.from_tree({**TREE, "schema": 10**4000})
