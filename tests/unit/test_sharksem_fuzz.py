"""SharkSEM bytes from anybody: what is no message is rejected, what is one survives, and no frame is made up."""

from __future__ import annotations

import asyncio
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.errors import MessageRejected
from hardware_drivers.sharksem.message import (
    HEADER_BYTES,
    MOST_REPLY_BYTES,
    Body,
    Chunk,
    Header,
    encode_body,
    encode_message,
)
from hardware_drivers.sharksem.scan import FrameLost, ScanAssembly
from hardware_drivers.sharksem.segments import parse_detectors

METHODS = ("integer", "unsigned", "number", "text", "bytes", "integers")
COMMANDS = st.text("ABCdef123", min_size=1, max_size=15)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.floats(-1e300, 1e300)
INTEGERS = st.integers(-(1 << 31), (1 << 31) - 1)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_header_or_rejected(data: bytes) -> None:
    try:
        header = Header.decode(data, MOST_REPLY_BYTES)
    except MessageRejected:
        return
    assert 0 <= header.body_bytes <= MOST_REPLY_BYTES
    assert header.encode()[:24] == data[:24]


@given(st.binary(max_size=200), st.lists(st.sampled_from(METHODS), max_size=8))
def test_any_body_gives_values_or_is_rejected(data: bytes, methods: list[str]) -> None:
    body = Body(data)
    try:
        values = [getattr(body, method)() for method in methods]
    except MessageRejected:
        return
    assert len(values) == len(methods)
    assert all(math.isfinite(value) for value in values if isinstance(value, float))


@given(COMMANDS, st.binary(max_size=40), st.integers(0, (1 << 32) - 1), st.integers(0, 0xFFFF))
def test_message_survives_the_wire(command: str, body: bytes, identifier: int, flags: int) -> None:
    message = encode_message(command, body, identifier, flags)
    assert Header.decode(message[:HEADER_BYTES], len(body)) == Header(command, len(body), identifier, flags)
    assert message[HEADER_BYTES:] == body


@given(INTEGERS, TEXTS, NUMBERS, st.lists(INTEGERS, max_size=5), TEXTS, st.booleans())
def test_values_survive_in_both_ways_of_counting(
    integer: int, text: str, number: float, integers: list[int], last: str, rounded: bool
) -> None:
    data = encode_body(integer, text, number, integers, last, rounded_counts=rounded)
    assert len(data) % 4 == 0
    body = Body(data)
    assert (body.integer(), body.text()) == (integer, text)
    assert body.number() == pytest.approx(number, rel=1e-11)
    assert (list(body.integers()), body.text()) == (integers, last)
    assert body.left == 0


@given(st.integers(MOST_REPLY_BYTES + 1, (1 << 32) - 1))
def test_announced_size_above_the_limit_is_rejected(size: int) -> None:
    with pytest.raises(MessageRejected, match="at most"):
        Header.decode(struct.pack("<16sIIHHI", b"GetWD", size, 1, 0, 0, 0), MOST_REPLY_BYTES)


@given(st.integers(1, (1 << 32) - 1), st.binary(max_size=20))
def test_count_above_what_is_there_is_rejected(missing: int, data: bytes) -> None:
    count = min(len(data) + missing, (1 << 32) - 1)
    for method in ("text", "bytes", "integers", "number"):
        with pytest.raises(MessageRejected, match="early"):
            getattr(Body(struct.pack("<I", count) + data), method)()


@pytest.mark.parametrize("text", ["", "nan", "inf", "-inf", "1e999", "1_0", "3,14", "0x10", "9" * 100, "one"])
def test_text_that_is_no_finite_number_is_rejected(text: str) -> None:
    with pytest.raises(MessageRejected, match="no finite number"):
        Body(encode_body(text)).number()


@given(st.binary(max_size=120))
def test_any_chunk_is_pixels_or_rejected(data: bytes) -> None:
    try:
        chunk = Chunk.decode(data)
    except MessageRejected:
        return
    assert chunk.pixels.dtype in (np.uint8, np.uint16)
    assert Chunk.decode(chunk.encode()).pixels.tobytes() == chunk.pixels.tobytes()


@given(st.text(max_size=300) | st.lists(st.sampled_from(["det.1.name=A", "det.1.detector=3", "x"])).map("\n".join))
def test_any_detector_list_is_read(listing: str) -> None:
    assert all(number >= 0 for number in parse_detectors(listing).values())


CHUNKS = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 2]), st.integers(0, 2), st.integers(0, 12), st.integers(0, 12)), max_size=12
)


@given(CHUNKS, st.booleans())
def test_frame_is_whole_only_if_every_pixel_came(parts: list[tuple[int, int, int, int]], completed: bool) -> None:
    """Pixel p of channel c is 100 c + p in frame 1, of which there are 2 channels of 3 x 4 pixels."""
    if completed:
        parts = [*parts, (1, 0, 0, 12), (1, 1, 0, 12)]
    assembly = ScanAssembly(1, channels=2, height_px=3, width_px=4)
    came: list[set[int]] = [set(), set()]
    gap = False
    for frame, channel, first, count in parts:
        ours = frame == 1 and channel < 2
        pixels = np.arange(first, first + count, dtype=np.uint16) + np.uint16(100 * channel)
        try:
            assembly.take(Chunk(frame, channel, first, pixels if ours else pixels + np.uint16(7)))
        except MessageRejected:
            assert ours and first + count > 12
            continue
        if ours:
            gap = gap or first > len(came[channel])
            came[channel] |= set(range(first, first + count)) if first <= len(came[channel]) else set()
    try:
        asyncio.run(assembly.finished(silence_s=0.0))
    except FrameLost:
        assert gap
    except TimeoutError:
        assert min(map(len, came)) < 12
    else:
        assert not gap
        assert assembly.images.reshape(2, 12).tolist() == [list(range(12)), list(range(100, 112))]
