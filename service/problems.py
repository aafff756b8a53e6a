"""Errors as every route answers them: problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """`value`, `limit` and `setting` where a limit was exceeded, `permitted` where the state forbids the request,
    `changes` where what it was meant for has changed."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    value: float | str | None = None
    limit: float | None = None
    setting: str | None = None
    permitted: list[str] | None = None
    changes: list[str] | None = None


PROBLEMS: dict[int | str, dict[str, Any]] = {
    family: {"description": description, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for family, description in (("4XX", "Refused, with reason and way out."), ("5XX", "A component does not answer."))
}
"""What every route may answer, for the OpenAPI schema."""


def problem(
    status_code: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    """Whatever a request said is repeated as far as it is text."""
    plain = detail.encode("utf-8", "replace").decode()
    body = {"type": "about:blank", "title": title, "status": status_code, "detail": plain, **extra}
    return JSONResponse(body, status_code, dict(headers or {}), media_type=MEDIA_TYPE)
