"""The README tells all that the API can do, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from acquisition.errors import BadInput
from service.api_table import api_table, with_table

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_the_readme_is_what_the_api_says_of_itself() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python -m service.api_table README.md"


def test_every_operation_is_in_the_table_with_the_scope_it_needs() -> None:
    rows = api_table().splitlines()
    assert (
        "| POST | `/devices/{name}:off` | Laser off, or gas shut. Always permitted, to whoever may look. | read |"
        in rows
    )
    assert any(
        row.startswith("| POST | `/devices/{name}/setpoints`") and row.endswith("| hardware * |") for row in rows
    )
    assert any(row.startswith("| GET | `/health`") and row.endswith("| none |") for row in rows)
    for row in rows[2:]:
        method, path, does, key = (cell.strip() for cell in row.strip("|").split(" | "))
        assert does, (method, path)
        assert key.removesuffix(" *") in ("none", "read", "operate", "hardware", "admin")


def test_a_text_without_the_marks_is_refused() -> None:
    with pytest.raises(BadInput, match="no marks"):
        with_table("# Another file")
