"""The README's table of all that the REST API can do, made from its OpenAPI description:

python -m service.api_table README.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from acquisition.errors import BadInput
from service.app import create_app
from service.auth import DRIVING, SCHEME
from service.settings import Settings

BEGIN, END = "<!-- api table: python -m service.api_table README.md -->", "<!-- end of the api table -->"
PREFIX = "/api/v1"


def api_table() -> str:
    """A row per operation: method, path, what it does, the scope its key needs; `*` where control is needed too."""
    paths = create_app(Settings(), key="").openapi()["paths"]
    rows = ["| method | path | does | key |", "|---|---|---|---|"]
    for path, operations in sorted(paths.items()):
        for method, operation in sorted(operations.items()):
            cells = (method.upper(), f"`{path.removeprefix(PREFIX)}`", _first_sentence(operation), _needed(operation))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """`text` with the table between its marks. Raises `BadInput` for a text without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"the text has no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{api_table()}\n{END}{after}"


def _first_sentence(operation: dict[str, Any]) -> str:
    told = " ".join(operation.get("description", operation["summary"]).split("\n\n")[0].split())
    return told.replace("|", "\\|")


def _needed(operation: dict[str, Any]) -> str:
    needed = operation["security"]
    scope = needed[0][SCHEME][0] if needed else "none"
    return f"{scope} *" if operation[DRIVING] else str(scope)


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
