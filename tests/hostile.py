"""What a hostile or broken peer may send, and the bounds that must hold whatever it sends."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cbor2
import xxhash
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from acquisition import wire
from recordings import ROUNDS

MEMORY_BYTES = 16 * 2**20
"""A few hundred times a header of the largest size, a small part of what a declared length could ask for."""

usual = settings(max_examples=20 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(max_examples=6 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Change = Callable[[bytes], bytes]
positions = st.floats(0, 1, exclude_max=True)


@contextmanager
def bounded_memory(limit_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit_bytes, f"{peak} bytes were asked for"


def flip(at: float, bit: int) -> Change:
    def change(content: bytes) -> bytes:
        position = int(at * len(content))
        return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :] if content else b""

    return change


def overwrite(at: float, by: bytes) -> Change:
    return lambda content: content[: int(at * len(content))] + by + content[int(at * len(content)) + len(by) :]


def insert(at: float, what: bytes) -> Change:
    return lambda content: content[: int(at * len(content))] + what + content[int(at * len(content)) :]


def truncate(at: float) -> Change:
    return lambda content: content[: int(at * len(content))]


def remove(at: float, length: int) -> Change:
    return lambda content: content[: int(at * len(content))] + content[int(at * len(content)) + length :]


changes = st.one_of(
    st.builds(flip, positions, st.integers(0, 7)),
    st.builds(truncate, positions),
    st.builds(remove, positions, st.integers(1, 40)),
    st.builds(overwrite, positions, st.integers(0, 2**32 - 1).map(lambda value: struct.pack("<I", value))),
    st.builds(insert, positions, st.binary(max_size=40)),
    st.builds(overwrite, positions, st.binary(max_size=300)),
)


def changed(content: bytes, several: list[Change]) -> bytes:
    for change in several:
        content = change(content)
    return content


_numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans()
_oddities = st.sampled_from(
    [
        2**70,
        -(2**70),
        b"\xff\xfe",
        cbor2.undefined,
        cbor2.CBORSimpleValue(99),
        cbor2.CBORTag(35, "(a*)*"),
        cbor2.CBORTag(999, 1),
        "x" * 70_000,
        float("nan"),
        float("inf"),
        {1: 2},
        [[[[[]]]]],
        [1] * 5000,
        65536,
        2**63,
        "",
        "\x00",
        "é" * 300,
    ]
)
values = st.recursive(
    st.none() | _numbers | st.text(max_size=20) | st.binary(max_size=20) | _oddities,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Anything that CBOR can carry."""


def replace_somewhere(data: st.DataObject, tree: Any, by: Any) -> Any:
    """A copy of `tree` in which one value, however deep, is `by`, gone, or joined by another key."""
    if not isinstance(tree, dict | list) or not tree or data.draw(st.integers(0, 3)) == 0:
        return by
    if isinstance(tree, list):
        at = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], replace_somewhere(data, tree[at], by), *tree[at + 1 :]]
    key = data.draw(st.sampled_from(sorted(tree)))
    match data.draw(st.sampled_from(["change", "change", "change", "remove", "add"])):
        case "remove":
            return {name: value for name, value in tree.items() if name != key}
        case "add":
            return {**tree, data.draw(st.text(max_size=10)): by}
        case _:
            return {**tree, key: replace_somewhere(data, tree[key], by)}


def _nested(head: bytes, depth: int, end: bytes = b"\x00") -> bytes:
    return head * depth + end


def _declared(major: int, length: int) -> bytes:
    """A head that declares `length` items or bytes, of which hardly any follow."""
    return bytes([major << 5 | 27]) + struct.pack(">Q", length)


BOMBS: dict[str, bytes] = {
    "lists in lists": _nested(b"\x81", 65_000),
    "maps in maps": _nested(b"\xa1\x61a", 20_000),
    "tags on tags": _nested(b"\xc6", 65_000),
    "endless lists in endless lists": _nested(b"\x9f", 65_000, b""),
    "an endless map": b"\xbf" + b"\x61a\x00" * 20_000,
    "endless text": b"\xa1\x61a\x7f" + b"\x61a" * 20_000,
    **{
        f"major type {major} that declares {length} items": _declared(major, length) + b"\x00" * 20
        for major in (2, 3, 4, 5)
        for length in (2**20, 2**31, 2**40, 2**63, 2**64 - 1)
    },
    "lists that each declare a million": _declared(4, 10**6) * 7000,
    "a list that holds itself": bytes.fromhex("a16161d81c81d81d00"),
    "lists of lists of one list": bytes.fromhex("a16161")
    + b"".join(b"\xd8\x1c\x82" + (b"\xd8\x1d" + bytes([n]) if n < 24 else b"\x00") for n in range(20))
    + b"\x00" * 20,
    "a number of 60000 bytes": b"\xa1\x66schema\xc2\x59" + struct.pack(">H", 60_000) + b"\xff" * 60_000,
    "a bigfloat of a huge exponent": cbor2.dumps({"a": cbor2.CBORTag(5, [2**62, 3])}),
    "a decimal of a huge exponent": cbor2.dumps({"a": cbor2.CBORTag(4, [10**12, 3])}),
    "a regular expression of brackets": cbor2.dumps({"a": cbor2.CBORTag(35, "(" * 20_000)}),
    "keys that are lists": b"\xa1\x80\x00",
    "a key twice": b"\xa2\x61a\x00\x61a\x01",
    "a map and then more": cbor2.dumps({"a": 1}) + b"\x00",
    "text that is none": b"\xa1\x61a\x64\xff\xfe\xfd\xfc",
    "half a surrogate": b"\xa1\x61a\x63\xed\xa0\x80",
    "nothing": b"",
}
"""Few bytes that ask for much, by what they do."""


def header_of(value: Any) -> bytes:
    """What a peer would send that means `value` as a header, checksum and all."""
    return wire.dump_map(value) if isinstance(value, dict) else sealed(cbor2.dumps(value))


def sealed(encoded: bytes) -> bytes:
    """Bytes with the checksum that a peer would give them who means harm, not noise: in a small map its last entry."""
    small_map = bool(encoded) and 0xA0 <= encoded[0] < 0xB7
    grown = bytes([encoded[0] + 1]) + encoded[1:] if small_map else encoded
    ended = grown + cbor2.dumps(wire.CHECK) + b"\x48"
    return ended + xxhash.xxh3_64_digest(ended)
