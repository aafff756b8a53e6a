"""The line of JSON before the pixels of a pushed frame, checked before any memory is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardware_drivers.push_http import Refusal

MOST_PROBLEMS = 8
MOST_NAMES = 16
PIXEL_BYTES = 2

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Integer = Annotated[int, Field(ge=0, lt=2**63)]


class PushedHeader(BaseModel):
    """`number` counts the sender's scans, `time_ns` is its own clock's, of any
    epoch; what else is None is as configured. Pixels follow as little-endian uint16, row by row, image by image in the
    order of `segments`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    segments: list[str]
    width_px: Integer
    height_px: Integer
    dtype: Literal["uint16"]
    number: Integer
    time_ns: Integer | None = None
    pixel_size_m: Positive | None = None
    dwell_time_s: Positive | None = None
    energy_ev: Positive | None = None
    working_distance_m: Positive | None = None
    current_a: Positive | None = None


def checked_header(line: bytes, length: int, names: Sequence[str], size_px: tuple[int, int]) -> PushedHeader:
    """What the line says, where it fits the segments `names`, the run's (height, width) and the body's `length` in
    bytes. Raises `Refusal`."""
    try:
        header = PushedHeader.model_validate_json(line)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, problem['loc'])) or 'header'}: {problem['msg']}"
            for problem in error.errors(include_url=False)[:MOST_PROBLEMS]
        ]
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"the header is not one: {'; '.join(found)}") from None
    if sorted(header.segments) != sorted(names):
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"segments are {header.segments[:MOST_NAMES]}, the instrument has {list(names)}",
        )
    if (header.height_px, header.width_px) != size_px:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the images are {header.width_px} x {header.height_px} px, the run was started for "
            f"{size_px[1]} x {size_px[0]}: scan so, or start a run of that size",
        )
    promised = len(line) + len(names) * header.width_px * header.height_px * PIXEL_BYTES
    if length != promised:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length > promised else HTTPStatus.BAD_REQUEST
        raise Refusal(status, f"the body has {length} bytes; header and images of uint16 make {promised}")
    return header
