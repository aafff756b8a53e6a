"""A recipe from TOML, JSON or a tree; what is wrong is told with step, key, value and the way out."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from acquisition.errors import BadInput
from acquisition.recipes.steps import AnyStep, Recipe

MOST_PROBLEMS = 10
MOST_TOLD = 80
MOST_CHARACTERS = 40_000
"""A recipe travels as one command, and stands in one event of the journal."""

KINDS: Mapping[str, type[BaseModel]] = {
    get_args(kind.model_fields["do"].annotation)[0]: kind for kind in get_args(get_args(AnyStep)[0])
}


def read_recipe(path: Path) -> Recipe:
    """The recipe of a `.toml` or `.json` file. Raises `BadInput` for what cannot be read or means nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"recipe {path} cannot be read: {error}") from None
    return parse_recipe(text)


def parse_recipe(text: str) -> Recipe:
    """A recipe from TOML, or from JSON where the text begins with a brace. Raises `BadInput`."""
    if len(text) > MOST_CHARACTERS:
        raise BadInput(f"the recipe has {len(text)} characters, the limit is {MOST_CHARACTERS}: make two of it")
    try:
        tree = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the recipe is neither TOML nor JSON: {error}; nothing was done") from None
    return recipe_of(tree)


def recipe_of(tree: Mapping[str, Any]) -> Recipe:
    """A recipe from its tree. Raises `BadInput` with every problem, each with its step."""
    try:
        return Recipe.model_validate(dict(tree))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        told = [_explain(problem) for problem in found[:MOST_PROBLEMS]]
        more = f"; and {len(found) - MOST_PROBLEMS} more" if len(found) > MOST_PROBLEMS else ""
        name = str(tree.get("name", "without a name"))[:MOST_TOLD]
        raise BadInput(f"recipe {name}: {'; '.join(told)}{more}; nothing was done") from None


def _explain(problem: Any) -> str:
    location, kind = problem["loc"], problem["type"]
    step, do, key = _place(location)
    where = f"step {step} ({do})" if do else f"step {step}" if step else "recipe"
    given = repr(problem["input"])[:MOST_TOLD]
    message = problem["msg"].removeprefix("Value error, ")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"{where}: {_hint_of_kind(problem['input'])}"
    if kind == "extra_forbidden":
        known = list((KINDS[do] if do else Recipe).model_fields)
        return f"{where}: {key} = {given} is unknown; {_nearest(key, known)}"
    if kind == "missing":
        return f"{where}: {key} is missing; add it"
    return f"{where}: {key} = {given}: {message}" if key else f"{where}: {message}"


def _place(location: tuple[int | str, ...]) -> tuple[int, str, str]:
    """Number of the step from 1 (0 for none), its kind, and the key."""
    if len(location) < 2 or location[0] != "steps" or not isinstance(location[1], int):
        return 0, "", ".".join(map(str, location))[:MOST_TOLD]
    do = str(location[2]) if len(location) > 2 and location[2] in KINDS else ""
    return location[1] + 1, do, ".".join(map(str, location[3 if do else 2 :]))[:MOST_TOLD]


def _hint_of_kind(step: Any) -> str:
    if not isinstance(step, Mapping) or "do" not in step:
        return f'do is missing; begin the step with do = "..." of {", ".join(KINDS)}'
    return f"do = {repr(step['do'])[:MOST_TOLD]} is unknown; {_nearest(str(step['do']), list(KINDS))}"


def _nearest(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
