"""Message <-> bytes. A message is `[header]` or `[header, payload]`: CBOR, then the arrays' bytes. Knows no sockets.

Every CBOR map ends in the entry `check`: the xxh3 of all its bytes before the eight of the sum itself, so that a
flipped bit in a header is found as surely as one in a payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from io import BytesIO
from math import isfinite
from operator import mul
from typing import Any

import cbor2
import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from acquisition.errors import BadInput, MessageRejected
from acquisition.frames import (
    Event,
    Frame,
    FrameHeader,
    Heartbeat,
    Message,
    Result,
    ResultHeader,
    RunFinished,
    RunStarted,
    StateSample,
    checksum,
)

SCHEMA = 1
MAX_HEADER_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_DIMENSIONS = 3
MAX_SIDE = 65536
MAX_TOLD = 80
MAX_LAYERS = 16
MAX_FIGURES = 64
MAX_FIGURE_NAME = 64
Part = bytes | memoryview

CHECK = "check"
_CHECK_BYTES = 8
_CHECK_MARK = cbor2.dumps(CHECK) + cbor2.dumps(bytes(_CHECK_BYTES))[:-_CHECK_BYTES]

_HEADERS: dict[str, TypeAdapter[Any]] = {
    "frame": TypeAdapter(FrameHeader),
    "result": TypeAdapter(ResultHeader),
    "run_started": TypeAdapter(RunStarted),
    "run_finished": TypeAdapter(RunFinished),
    "state": TypeAdapter(StateSample),
    "event": TypeAdapter(Event),
    "heartbeat": TypeAdapter(Heartbeat),
}
_KINDS = {
    FrameHeader: "frame",
    ResultHeader: "result",
    RunStarted: "run_started",
    RunFinished: "run_finished",
    StateSample: "state",
    Event: "event",
    Heartbeat: "heartbeat",
}
_LAYER_DTYPES = frozenset({"float32", "float16", "uint8"})


def to_tree(header: Any) -> dict[str, Any]:
    """A header as a plain tree with `schema` and `kind`, for CBOR and for the journal alike."""
    kind = kind_of(header)
    return {"schema": SCHEMA, "kind": kind, **_HEADERS[kind].dump_python(header, mode="json")}


def kind_of(header: Any) -> str:
    """The name under which a header or small message travels."""
    return _KINDS[type(header)]


def from_tree(tree: Mapping[str, Any]) -> Any:
    """The header a tree stands for. Raises `MessageRejected` on an unknown schema or kind, or a wrong field."""
    schema, kind = tree.get("schema"), tree.get("kind")
    if schema != SCHEMA:
        raise MessageRejected(f"schema {_told(schema)} is unknown; this version reads schema {SCHEMA}")
    if not isinstance(kind, str) or kind not in _HEADERS:
        raise MessageRejected(f"message kind {_told(kind)} is unknown")
    try:
        return _HEADERS[kind].validate_python(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MessageRejected(f"{kind}: {where[:MAX_TOLD]}: {first['msg'][:MAX_TOLD]}") from None


def encode(message: Message) -> list[Part]:
    """The parts to send; array bytes are not copied. Arrays must be C-contiguous."""
    if isinstance(message, Frame):
        return [dump_map(to_tree(message.header)), _bytes_of(message.images)]
    if isinstance(message, Result):
        layers = [
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "xxh3": checksum(array)}
            for name, array in message.layers.items()
        ]
        header = dump_map({**to_tree(message.header), "layers": layers})
        return [header, *(_bytes_of(array) for array in message.layers.values())]
    return [dump_map(to_tree(message))]


def decode(parts: Sequence[Part]) -> Message:
    """The message that `parts` hold; its arrays are read-only views into them.

    Raises `MessageRejected` when anything does not match: header size, schema, fields, payload size, checksum.
    """
    if not parts:
        raise MessageRejected("an empty message")
    tree = load_map(parts[0])
    layers = tree.pop("layers", None)
    header = from_tree(tree)
    if isinstance(header, FrameHeader):
        return _decode_frame(header, parts[1:])
    if isinstance(header, ResultHeader):
        return _decode_result(header, layers, parts[1:])
    if len(parts) != 1:
        raise MessageRejected(f"{tree['kind']} came with {len(parts) - 1} payloads; it has none")
    message: Message = header
    return message


def check_size(run: RunStarted) -> None:
    """Raise `BadInput` for a run whose start would be above the limit of a header: every consumer would reject it."""
    size = len(encode(run)[0])
    if size > MAX_HEADER_BYTES:
        raise BadInput(
            f"the start of run {run.run_id} takes {size} bytes with its notes of {len(run.notes)} characters and the "
            f"instrument file; the limit is {MAX_HEADER_BYTES}: shorten the notes, or the tables of the instrument file"
        )


def dump_map(tree: Mapping[str, Any]) -> bytes:
    """A map as a CBOR part, with its checksum."""
    sealed = cbor2.dumps({**tree, CHECK: bytes(_CHECK_BYTES)})[:-_CHECK_BYTES]
    return sealed + xxhash.xxh3_64_digest(sealed)


def load_map(part: Part) -> dict[str, Any]:
    """The map that a CBOR part holds: text, numbers up to 64 bits, true, false, none, and lists and maps of these.

    Raises `MessageRejected` when it is too large, damaged, no such map, or more than one.
    """
    if len(part) > MAX_HEADER_BYTES:
        raise MessageRejected(f"header of {len(part)} bytes is above the limit of {MAX_HEADER_BYTES}")
    sealed, found = bytes(part[:-_CHECK_BYTES]), bytes(part[-_CHECK_BYTES:])
    if not sealed.endswith(_CHECK_MARK):
        raise MessageRejected(f"header of {len(part)} bytes does not end in a checksum")
    if found != xxhash.xxh3_64_digest(sealed):
        raise MessageRejected(f"header of {len(part)} bytes does not match its checksum")
    stream = BytesIO(sealed + found)
    try:
        tree = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode()
    except Exception as error:  # any exception of the decoder means the same here: these bytes are not a header
        raise MessageRejected(f"header is not CBOR: {type(error).__name__}") from None
    if not isinstance(tree, dict) or tree.pop(CHECK, None) != found or stream.tell() != len(part):
        raise MessageRejected("header is not one map with its checksum")
    if not _is_plain(tree):
        raise MessageRejected("header holds values that are neither text, numbers, lists nor maps")
    return tree


def _refuse_tag(*_: Any) -> Any:
    raise ValueError("a header has no tags")


# What cbor2 would make of tags is none of ours, and some cost much from few bytes: regular expressions, fractions,
# references from a list to itself.
_REFUSED_TAGS = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse_tag
)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _told(value: Any) -> str:
    """Whatever a peer sent, short enough for a message."""
    return repr(value[:MAX_TOLD] if isinstance(value, str) else value)[:MAX_TOLD]


def _decode_frame(header: FrameHeader, payloads: Sequence[Part]) -> Frame:
    if header.dtype != "uint16":
        raise MessageRejected(f"frame dtype {header.dtype!r} is not uint16")
    if len(payloads) != 1:
        raise MessageRejected(f"frame came with {len(payloads)} payloads; it has one")
    images = _array(payloads[0], header.dtype, header.shape, f"frame {header.sequence}")
    found = checksum(images)
    if found != header.xxh3:
        raise MessageRejected(f"frame {header.sequence} has checksum {found}, its header says {header.xxh3}")
    return Frame(header, images)


def _decode_result(header: ResultHeader, layers: Any, payloads: Sequence[Part]) -> Result:
    what = f"result {header.sequence}"
    if not isinstance(layers, list) or len(layers) != len(payloads) or not 1 <= len(layers) <= MAX_LAYERS:
        raise MessageRejected(f"{what}: its layers do not match its {len(payloads)} payloads (1 to {MAX_LAYERS})")
    if len(header.figures) > MAX_FIGURES or any(len(name) > MAX_FIGURE_NAME for name in header.figures):
        limits = f"{MAX_FIGURES} figures with names of {MAX_FIGURE_NAME} characters"
        raise MessageRejected(f"{what}: {len(header.figures)} figures do not keep within the limit of {limits}")
    arrays: dict[str, NDArray[Any]] = {}
    for layer, payload in zip(layers, payloads, strict=True):
        name, dtype = (layer.get(key) if isinstance(layer, dict) else None for key in ("name", "dtype"))
        if not isinstance(name, str) or name in arrays or not isinstance(dtype, str) or dtype not in _LAYER_DTYPES:
            raise MessageRejected(f"{what}: bad layer {_told(layer)}")
        arrays[name] = _array(payload, dtype, layer.get("shape"), f"{what} layer {_told(name)}")
        if checksum(arrays[name]) != layer.get("xxh3"):
            raise MessageRejected(f"{what} layer {_told(name)} does not match its checksum")
    if not all(map(isfinite, (header.pixel_size_m, *header.timing_s.values()))):
        raise MessageRejected(f"{what}: its pixel size or timing is no finite number")
    height = arrays.get("height")
    if next(iter(arrays)) != "height" or height is None or height.ndim != 2 or height.dtype != np.float32:
        raise MessageRejected(f"result {header.sequence}: the first layer must be height, (H, W) float32")
    return Result(header, arrays)


def _array(payload: Part, dtype: str, shape: Any, what: str) -> NDArray[Any]:
    sides = shape if isinstance(shape, list | tuple) and len(shape) <= MAX_DIMENSIONS else ()
    if not sides or not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        raise MessageRejected(f"{what}: bad shape {_told(shape)}")
    expected = reduce(mul, shape, np.dtype(dtype).itemsize)
    if len(payload) != expected:
        raise MessageRejected(f"{what}: {len(payload)} bytes do not fill shape {tuple(shape)} of {dtype} ({expected})")
    array = np.frombuffer(payload, dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
