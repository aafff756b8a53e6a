"""A part of a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """`about` and `body` are HTML."""

    title: str
    about: str
    body: str
